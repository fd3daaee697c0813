"""A section for each question of the benchmarks: our figures beside the peers', and throughput beside its limit."""

import re
from collections.abc import Iterator, Mapping, Sequence

from reidexport.records.speed import Benchmark, BenchmarkRow, Spread
from reidexport.report.blocks import Plot, ReportTable, Section, busy, lines, marked, source
from reidexport.report.marks import NUM_SERIES, SHAPES, Mark, axis_heading, axis_of, strip
from reidexport.report.plots import throughput_against_batch
from reidexport.report.results import Result, Results, of_type
from reidexport.report.units import NONE, count, digits, duration, ratio, share

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

Row = tuple[Result[Benchmark], BenchmarkRow]


def comparisons(results: Results) -> list[Section]:
    """Everything that was compared with peers, throughput first; questions without a title of their own come last."""
    unknown = {result.record.question for result in of_type(results, Benchmark)} - _TITLES.keys()
    return [_section(question, results) for question in (*_TITLES, *sorted(unknown))]


def _section(question: str, results: Results) -> Section:
    """Of all files and machines, with a table for each machine."""
    found = [
        each for each in of_type(results, Benchmark) if each.record.question == question and each.record.rows
    ]
    notes: list[str] = []
    plots: list[Plot] = []
    tables: list[ReportTable] = []
    for each in found:
        no_ratios = [
            f"{row.name}: ratios {row.ratios}" for row in each.record.rows if isinstance(row.ratios, str)
        ]
        notes += no_ratios or busy([each])
    for machine in dict.fromkeys(result.machine for result in found):
        rows = [(result, row) for result in found if result.machine == machine for row in result.record.rows]
        tables.append(_comparison(rows))
        if question == "throughput" and (plot := _throughput_plot(f"throughput-{len(plots)}", rows)):
            plots.append(plot)
    return Section(
        _TITLES.get(question, question.replace("_", " ").capitalize()),
        " ".join(_lead(question, [row for result in found for row in result.record.rows])),
        notes,
        plots,
        tables,
    )


def _lead(question: str, rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    if question == "throughput" and any(row.limit_images_per_s for row in rows):
        yield (
            "The limit is the processor's measured arithmetic peak in that precision over the network's operations; "
            "a network that needs fewer operations, by Winograd's algorithm, may pass it."
        )
    yield (
        "Sides take turns in one run. A ratio is the peer's figure over ours: above 1, reidexport needs less. "
        "Below it its lowest and highest, and the peer's median."
    )
    if any(side.endswith("bare") for row in rows for side in _figures(row)):
        yield "“Bare” is the vendor's own API on the same file."
    limits = dict.fromkeys(found[1] for row in rows if (found := re.search("limit: ([^;]*)", row.timed)))
    if limits:
        yield f"“Limit” stands for {'; or '.join(limits)}."


def _comparison(rows: Sequence[Row]) -> ReportTable:
    """Our figures, and the ratio to each peer, drawn and written."""
    peers = dict.fromkeys(side for _, row in rows for side in _figures(row) if side != _OURS)
    marks = {peer: _mark(peer, i) for i, peer in enumerate(peers)}
    ratios = [{} if isinstance(row.ratios, str) else row.ratios for _, row in rows]
    axis = axis_of(ratio for of_row in ratios for ratio in of_row.values())
    cells: list[dict[str, str]] = []
    for label, of_row, (_, row) in zip(_labels(rows), ratios, rows, strict=True):
        drawn = strip(axis, [(peer, mark, of_row[peer]) for peer, mark in marks.items() if peer in of_row])
        cells.append({
            "what": label,
            **({axis_heading(axis): drawn} if any(ratios) else {}),
            f"{_OURS}\nmedian": _median(row, _OURS) or NONE,
            **{marked(mark, peer): lines(ratio(of_row.get(peer)), _median(row, peer)) for peer, mark in marks.items()},
        })  # fmt: skip
    is_memory = all(row.peak_mib for _, row in rows)
    caption = (
        "How many times our memory each peer needs" if is_memory else "How many times as fast as each peer"
    )
    return ReportTable(caption, cells, source(*(result for result, _ in rows)))


def _mark(peer: str, i: int) -> Mark:
    if peer == _LIMIT:
        return Mark(NUM_SERIES - 1, "D", is_hollow=True)
    return Mark(i % (NUM_SERIES - 1), SHAPES[i % len(SHAPES)])


def _figures(row: BenchmarkRow) -> dict[str, Spread]:
    return row.seconds or row.peak_mib


def _median(row: BenchmarkRow, side: str) -> str | None:
    if (figure := _figures(row).get(side)) is None:
        return None
    return duration(figure.median) if row.seconds else f"{count(round(figure.median))} MiB"


def _labels(rows: Sequence[Row]) -> list[str]:
    """What each row measured, in short where that tells them apart, and its file where there are several."""
    artifacts = [_artifact(row, batch=row.batch_size) for _, row in rows]
    for names in (artifacts, [row.name for _, row in rows]):
        labels = [lines(name, file) for name, file in zip(names, _files(rows), strict=True)]
        if len(set(labels)) == len(rows):
            break
    return labels


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


def _throughput_plot(name: str, rows: Sequence[Row]) -> Plot | None:
    """Images/s against the batch size: a color for each artifact and precision, a shape for each series."""
    series: dict[tuple[str, str, str], dict[int, BenchmarkRow]] = {}
    limits: dict[tuple[str, str], dict[int, float]] = {}  # the highest at each batch size
    for (_, row), file in zip(rows, _files(rows), strict=True):
        if row.batch_size is None or row.images_per_s is None:
            continue
        group = (row.precision or "", row.artifact or "")
        series.setdefault((*group, lines(_artifact(row, batch=None), file)), {})[row.batch_size] = row
        of_group = limits.setdefault(group, {})
        if row.limit_images_per_s is not None:
            of_group[row.batch_size] = max(of_group.get(row.batch_size, 0.0), row.limit_images_per_s)
    if not series:
        return None
    colors = {group: color for color, group in enumerate(limits)}
    batches = sorted({batch for of_series in series.values() for batch in of_series})
    drawn: list[tuple[Mark, Mapping[int, float]]] = []
    cells: list[dict[str, str]] = []

    def add(mark: Mark, label: str, images_per_s: Mapping[int, float], figures: Mapping[int, str]) -> None:
        drawn.append((mark, images_per_s))
        in_columns = {f"batch {batch}\nimages/s": figures.get(batch, NONE) for batch in batches}
        cells.append({"artifact": marked(mark, label), **in_columns})

    for i, ((precision, artifact, label), of_series) in enumerate(series.items()):
        mark = Mark(colors[precision, artifact], SHAPES[i % len(SHAPES)], "-")
        speeds = {batch: row.images_per_s or 0.0 for batch, row in of_series.items()}
        add(mark, label, speeds, {batch: _throughput_cell(row) for batch, row in of_series.items()})
    for (precision, artifact), of_group in limits.items():
        if of_group:
            mark, label = (
                Mark(colors[precision, artifact], line="--"),
                lines(f"limit of {precision}", artifact),
            )
            add(mark, label, of_group, {batch: digits(limit) for batch, limit in of_group.items()})
    caption = "Images per second, and the share of the limit measured with each"
    table = ReportTable(caption, cells, source(*(result for result, _ in rows)))
    caption = "The network alone. Dashed: the highest limit measured at each batch size."
    return Plot(throughput_against_batch(name, drawn), caption, table)


def _throughput_cell(row: BenchmarkRow) -> str:
    return lines(digits(row.images_per_s), None if row.share_of_limit is None else share(row.share_of_limit))
