"""A section for each question of the benchmarks: our figures beside the peers', and throughput beside its limit."""

import re
from collections.abc import Iterator, Sequence

from reidexport.report.blocks import (
    NONE,
    Plot,
    ReportTable,
    Section,
    busy,
    duration,
    interval,
    lines,
    machines,
    marked,
    mib,
    share,
    speed,
    times,
)
from reidexport.report.marks import NUM_SERIES, SHAPES, Mark
from reidexport.report.plots import Line, throughput_against_batch
from reidexport.report.results import BenchmarkResult, BenchmarkRow, Result, Spread
from reidexport.report.strips import axis_heading, axis_of, strip

_TITLES = {
    "throughput": "Throughput",
    "latency": "Latency of one image",
    "end_to_end": "From files to features",
    "preprocessing": "Reading and preparing images",
    "cold_start": "From start to first answer",
    "memory": "Memory",
    "ranking": "Ranking and re-ranking",
    "gallery": "Gallery search",
}
_OURS, _LIMIT = "reidexport", "limit"

Row = tuple[BenchmarkResult, BenchmarkRow]


def throughput(results: Sequence[Result]) -> Section | None:
    """Images per second against the batch size beside the measured limits, and against the peers."""
    sections = [section for question, section in _sections(results) if question == "throughput"]
    return sections[0] if sections else None


def other_questions(results: Sequence[Result]) -> list[Section]:
    """Everything that was compared with peers, but throughput."""
    return [section for question, section in _sections(results) if question != "throughput"]


def _sections(results: Sequence[Result]) -> Iterator[tuple[str, Section]]:
    """One for each question, in the order of ``_TITLES``, of all files and machines."""
    found = [result for result in results if isinstance(result, BenchmarkResult) and result.rows]
    for question in sorted({result.question for result in found}, key=_order):
        of_question = [result for result in found if result.question == question]
        plots: list[Plot] = []
        tables: list[ReportTable] = []
        for machine in dict.fromkeys(result.machine for result in of_question):
            rows = [(each, row) for each in of_question if each.machine == machine for row in each.rows]
            if question == "throughput":
                plot = _throughput(f"throughput-{len(plots)}", rows, results)
                plots += [plot] if plot else []
            tables.append(_comparison(rows, results))
        yield (
            question,
            Section(
                _TITLES.get(question, question.replace("_", " ").capitalize()),
                " ".join(_lead(question, [row for result in of_question for row in result.rows])),
                tuple(note for result in of_question for note in _notes(result)),
                tuple(plots),
                tuple(tables),
            ),
        )


def _order(question: str) -> tuple[int, str]:
    known = list(_TITLES)
    return (known.index(question) if question in known else len(known), question)


def _lead(question: str, rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    sides = {side for row in rows for side in _figures(row)}
    if question == "throughput" and any(row.limit_images_per_s for row in rows):
        yield (
            "The limit is the processor's measured arithmetic peak in that precision over the network's operations; "
            "a network that needs fewer operations, by Winograd's algorithm, may pass it."
        )
    yield (
        "Sides take turns in one run. A ratio is the peer's figure over ours: above 1, reidexport needs less. "
        "Below it its lowest and highest, and the peer's median."
    )
    if any(side.endswith("bare") for side in sides):
        yield "“Bare” is the vendor's own API on the same file."
    limits = dict.fromkeys(found[1] for row in rows if (found := re.search("limit: ([^;]*)", row.timed)))
    if limits:
        yield f"“Limit” stands for {'; or '.join(limits)}."


def _notes(result: BenchmarkResult) -> Iterator[str]:
    reasons = [f"{row.name}: ratios {row.ratios}" for row in result.rows if isinstance(row.ratios, str)]
    yield from reasons or busy(result)


def _sources(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """The files of some rows of one machine, and the machine where the report has several."""
    files = ", ".join(dict.fromkeys(result.file for result, _ in rows))
    known, machine = machines(results), rows[0][0].machine
    return files if machine is None or len(known) < 2 else f"{files}, machine {known.index(machine) + 1}"


def _comparison(rows: Sequence[Row], results: Sequence[Result]) -> ReportTable:
    """Our figures, and the ratio to each peer, drawn and written."""
    peers = dict.fromkeys(side for _, row in rows for side in _figures(row) if side != _OURS)
    marks = {peer: _mark(peer, i) for i, peer in enumerate(peers)}
    ratios = [{} if isinstance(row.ratios, str) else row.ratios for _, row in rows]
    all_ratios = [ratio for of_row in ratios for ratio in of_row.values()]
    axis = axis_of(all_ratios)
    cells = []
    for label, of_row, (_, row) in zip(_labels(rows), ratios, rows, strict=True):
        drawn = strip(axis, [(peer, mark, of_row[peer]) for peer, mark in marks.items() if peer in of_row])
        figures = [_cell(_median(row, peer), of_row.get(peer)) for peer in peers]
        cells.append((label, *([drawn] if all_ratios else []), _median(row, _OURS), *figures))
    heads = (*([axis_heading(axis)] if all_ratios else []), f"{_OURS}\nmedian")
    is_memory = all(row.peak_mib for _, row in rows)
    caption = (
        "How many times our memory each peer needs" if is_memory else "How many times as fast as each peer"
    )
    columns = ("what", *heads, *(marked(marks[peer], peer) for peer in peers))
    return ReportTable(caption, _sources(rows, results), columns, cells)


def _mark(peer: str, i: int) -> Mark:
    if peer == _LIMIT:
        return Mark(NUM_SERIES - 1, "D", is_hollow=True)
    return Mark(i % (NUM_SERIES - 1), SHAPES[i % len(SHAPES)])


def _figures(row: BenchmarkRow) -> dict[str, Spread]:
    return row.seconds or row.peak_mib


def _median(row: BenchmarkRow, side: str) -> str:
    figure = _figures(row).get(side)
    if figure is None:
        return NONE
    return duration(figure.median) if row.seconds else mib(figure.median)


def _cell(median: str, ratio: Spread | None) -> str:
    if ratio is None:
        return median if median == NONE else lines(NONE, median)
    return lines(times(ratio.median), interval(ratio.lowest, ratio.highest), median)


def _labels(rows: Sequence[Row]) -> list[str]:
    """What each row measured, in short where that tells them apart, and its file where there are several."""
    files = _files(rows)
    labels = [
        lines(_artifact(row, batch=row.batch_size), file) for (_, row), file in zip(rows, files, strict=True)
    ]
    if len(set(labels)) == len(rows):
        return labels
    return [lines(row.name, file) for (_, row), file in zip(rows, files, strict=True)]


def _files(rows: Sequence[Row]) -> list[str | None]:
    """The file of each row, if they are of several."""
    files = [result.file for result, _ in rows]
    return [file if len(set(files)) > 1 else None for file in files]


def _artifact(row: BenchmarkRow, *, batch: int | None) -> str:
    """The artifact and what it computes in, or what the row says of itself."""
    if row.artifact is None:
        return row.name
    first = row.artifact if batch is None else f"{row.artifact}, batch {batch}"
    return lines(first, " · ".join(part for part in (row.precision, row.backend) if part))


def _throughput(name: str, rows: Sequence[Row], results: Sequence[Result]) -> Plot | None:
    """Images/s against the batch size: a color for each artifact and precision, a shape for each series."""
    series: dict[tuple[str, str, str], dict[int, BenchmarkRow]] = {}
    for (_, row), file in zip(rows, _files(rows), strict=True):
        if row.batch_size is not None and row.images_per_s is not None:
            key = (row.precision or "", row.artifact or "", lines(_artifact(row, batch=None), file))
            series.setdefault(key, {})[row.batch_size] = row
    if not series:
        return None
    groups = list(dict.fromkeys(key[:2] for key in series))
    batches = sorted({batch for of_series in series.values() for batch in of_series})
    drawn: list[Line] = []
    cells: list[tuple[str, ...]] = []
    for i, (key, of_series) in enumerate(series.items()):
        mark = Mark(groups.index(key[:2]), SHAPES[i % len(SHAPES)], "-")
        drawn.append(Line(mark, {batch: row.images_per_s or 0.0 for batch, row in of_series.items()}))
        cells.append((marked(mark, key[2]), *(_throughput_cell(of_series.get(batch)) for batch in batches)))
    for i, (precision, artifact) in enumerate(groups):
        limits = _limits([row for key, of in series.items() if key[:2] == groups[i] for row in of.values()])
        if limits:
            mark = Mark(i, line="--")
            drawn.append(Line(mark, limits))
            label = marked(mark, lines(f"limit of {precision}", artifact))
            cells.append((label, *(speed(limits.get(batch)) for batch in batches)))
    table = ReportTable(
        "Images per second, and the share of the limit measured with each",
        _sources(rows, results),
        ("artifact", *(f"batch {batch}\nimages/s" for batch in batches)),
        cells,
    )
    caption = "The network alone. Dashed: the highest limit measured at each batch size."
    return Plot(throughput_against_batch(name, drawn), caption, table)


def _throughput_cell(row: BenchmarkRow | None) -> str:
    if row is None:
        return NONE
    return lines(speed(row.images_per_s), None if row.share_of_limit is None else share(row.share_of_limit))


def _limits(rows: Sequence[BenchmarkRow]) -> dict[int, float]:
    """The highest limit that was measured at each batch size."""
    limits: dict[int, float] = {}
    for row in rows:
        if row.batch_size is not None and row.limit_images_per_s is not None:
            limits[row.batch_size] = max(limits.get(row.batch_size, 0.0), row.limit_images_per_s)
    return limits
