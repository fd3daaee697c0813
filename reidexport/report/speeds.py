"""Sections about time: throughput, comparisons with peers, and what the commands measured."""

from collections.abc import Callable, Sequence

from reidexport.report.blocks import (
    NONE,
    Plot,
    Section,
    Table,
    duration,
    milliseconds,
    percent,
    points,
    source,
    speed,
    times,
)
from reidexport.report.plots import Bar, ratio_bars, throughput_against_batch
from reidexport.report.results import (
    BenchmarkResult,
    BenchmarkRow,
    BenchResult,
    OverheadResult,
    PrecisionsResult,
    Result,
    ServingResult,
    Spread,
)

_TITLES = {
    "latency": "Latency",
    "throughput": "Throughput against peers",
    "cold_start": "From start to first answer",
    "preprocessing": "Reading and preparing images",
    "end_to_end": "From files to features",
    "memory": "Memory",
    "ranking": "Ranking and re-ranking",
    "gallery": "Gallery search",
}
_OURS = "reidexport"


def throughput(results: Sequence[Result]) -> Section | None:
    """Images per second against the batch size, with the limits that were measured."""
    plots: list[Plot] = []
    tables: list[Table] = []
    notes: list[str] = []
    for result in results:
        if not isinstance(result, BenchmarkResult) or result.question != "throughput":
            continue
        notes += _busy(result)
        speeds: dict[str, list[tuple[int, float]]] = {}
        limits: dict[str, list[tuple[int, float]]] = {}
        rows = []
        for row in result.rows:
            if row.batch_size is None or row.images_per_s is None:
                continue
            name = _series(row)
            speeds.setdefault(name, []).append((row.batch_size, row.images_per_s))
            if row.limit_images_per_s is not None:
                limits.setdefault(name, []).append((row.batch_size, row.limit_images_per_s))
            figures = (speed(row.images_per_s), speed(row.limit_images_per_s), percent(row.share_of_limit))
            rows.append((name, str(row.batch_size), *figures))
        if rows:
            svg = throughput_against_batch(f"throughput-{len(plots)}", speeds, limits)
            plots.append(
                Plot(svg, f"{source(result, results)}. Dashed: the measured limit of the same series.")
            )
            columns = ("artifact", "batch", "images/s", "limit, images/s", "share of limit, %")
            tables.append(Table("The figures", source(result, results), columns, rows))
    if not plots:
        return None
    lead = "The network alone. The limit is what this machine's multiply-adds allow in that precision, measured too."
    return Section("Throughput", lead, tuple(notes), tuple(plots), tuple(tables))


def _series(row: BenchmarkRow) -> str:
    return " · ".join(part for part in (row.artifact, row.precision, row.backend) if part) or row.name


def comparisons(results: Sequence[Result]) -> list[Section]:
    """A section for each question of the benchmarks: figures beside the peers', and ratios with their spread."""
    found = [result for result in results if isinstance(result, BenchmarkResult) and result.rows]
    return [_comparison(result, results, number) for number, result in enumerate(found)]


def _comparison(result: BenchmarkResult, results: Sequence[Result], number: int) -> Section:
    rows: list[tuple[str, ...]] = []
    bars: list[Bar] = []
    for row in result.rows:
        figures = row.seconds or row.peak_mib
        write = duration if row.seconds else _mib
        ratios = {} if isinstance(row.ratios, str) else row.ratios
        ours = _median(figures.get(_OURS), write)
        peers = [side for side in figures if side != _OURS]
        for peer in peers or [NONE]:
            ratio = ratios.get(peer)
            rows.append((row.name, ours, peer, _median(figures.get(peer), write), *_ratio(ratio)))
            if ratio is not None:
                bars.append(Bar(f"{row.name}, {peer}" if len(result.rows) > 1 else peer, ratio))
    reasons = [f"{row.name}: ratios {row.ratios}" for row in result.rows if isinstance(row.ratios, str)]
    columns = ("what", _OURS, "peer", "of the peer", "ratio", "lowest to highest")
    table = Table("Medians, and the ratio to each peer", source(result, results), columns, rows, ("peer",))
    caption = "Ratios: the median, from the lowest to the highest."
    is_memory = any(row.peak_mib for row in result.rows)
    meaning = "the peer's memory over ours" if is_memory else "times as fast as the peer"
    plots = (Plot(ratio_bars(f"ratios-{number}", bars, meaning), caption),) if bars else ()
    title = _TITLES.get(result.question, result.question.replace("_", " ").capitalize())
    lead = (
        "Sides take turns in one run. A ratio is the peer's figure over ours: above 1, reidexport needs less."
    )
    return Section(title, lead, (*_busy(result), *reasons), plots, (table,))


def _median(spread: Spread | None, write: Callable[[float], str]) -> str:
    return NONE if spread is None else write(spread.median)


def _mib(value: float) -> str:
    return f"{value:.0f} MiB"


def _ratio(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return (NONE, NONE)
    return times(spread.median), _range(spread.lowest, spread.highest)


def _range(lowest: float, highest: float) -> str:
    return f"{times(lowest).removesuffix(' ×')} to {times(highest)}"


def precision_speeds(results: Sequence[Result]) -> Section | None:
    """Precisions and runtimes beside torch eager."""
    plots, tables = [], []
    for number, result in enumerate(each for each in results if isinstance(each, PrecisionsResult)):
        rows = [
            (
                f"{each.precision} · {each.runtime}",
                str(each.batch_size),
                milliseconds(each.p50_ms),
                speed(each.images_per_s),
                times(each.times_torch),
                _range(*each.times_torch_range),
            )
            for each in result.speed
        ]
        columns = (
            "precision and runtime",
            "batch",
            "p50 ms",
            "images/s",
            "× torch eager",
            "lowest to highest",
        )
        tables.append(Table(result.architecture, source(result, results), columns, rows))
        for batch in sorted({each.batch_size for each in result.speed}):
            bars = [
                Bar(
                    f"{each.precision} · {each.runtime}",
                    Spread(median=each.times_torch, lowest=low, highest=high),
                )
                for each in result.speed
                for low, high in [each.times_torch_range]
                if each.batch_size == batch and each.runtime != "torch eager"
            ]
            if bars:
                svg = ratio_bars(f"precisions-{number}-{batch}", bars)
                plots.append(Plot(svg, f"{result.checkpoint}, batch {batch}, against torch eager."))
    if not tables:
        return None
    lead = "Sides take turns in one run; a ratio is torch eager's time over ours."
    return Section("Speed of the precisions", lead, plots=tuple(plots), tables=tuple(tables))


def command_speeds(results: Sequence[Result]) -> Section | None:
    """What ``reidexport bench``, ``reid_overhead`` and ``benchmarks.serving`` measured."""
    benches = [result for result in results if isinstance(result, BenchResult)]
    overheads = [result for result in results if isinstance(result, OverheadResult)]
    tables = []
    rows = [
        (
            result.artifact,
            str(batch.batch_size),
            *(milliseconds(value) for value in (batch.p50_ms, batch.p90_ms, batch.p99_ms)),
            speed(batch.images_per_s),
            source(result, results),
        )
        for result in benches
        for batch in result.batches
    ]
    if rows:
        heads = ("artifact", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "file")
        tables.append(Table("The network alone", "", heads, rows, ("file",)))
    whole = [
        (
            result.artifact,
            str(end.batch_size),
            speed(end.images_per_s),
            percent(end.share_of_net),
            source(result, results),
        )
        for result in benches
        if (end := result.end_to_end) is not None
    ]
    if whole:
        whole_heads = ("artifact", "batch", "images/s", "of the network alone, %", "file")
        tables.append(Table("From image files to features", "", whole_heads, whole, ("file",)))
    cpp = [
        (
            result.artifact,
            str(result.batch_size),
            milliseconds(result.bare_p50_ms),
            milliseconds(result.reid_embed_p50_ms),
            points(100 * result.overhead),
            " to ".join(points(100 * pick(result.overhead_of_rounds)) for pick in (min, max)),
            source(result, results),
        )
        for result in overheads
    ]
    if cpp:
        names = ("bare p50 ms", "with it p50 ms", "overhead, %", "lowest to highest", "file")
        caption = "What the C++ runtime adds to the bare network"
        tables.append(Table(caption, "", ("artifact", "batch", *names), cpp, ("file",)))
    servings = [result for result in results if isinstance(result, ServingResult)]
    if servings:
        tables.append(_servings(servings, results))
    if not tables:
        return None
    notes = tuple(f"{result.file}: {warning}" for result in benches for warning in result.warnings)
    notes += tuple(f"{result.file}: {result.disturbed}" for result in servings if result.disturbed)
    return Section("Speed", "Medians and percentiles over many runs.", notes, tables=tuple(tables))


def _servings(servings: Sequence[ServingResult], results: Sequence[Result]) -> Table:
    rows = [
        (
            result.artifact,
            f"{result.num_clients} × {result.batch_size}",
            speed(result.served.images_per_s.median),
            percent(result.share_of_direct.median),
            milliseconds(result.served.p50_ms),
            milliseconds(result.served.p99_ms),
            f"{result.answers.num_answered} of {result.answers.num_requests}",
            str(result.answers.num_bit_equal),
            source(result, results),
        )
        for result in servings
    ]
    names = ("images/s", "of the session, %", "p50 ms", "p99 ms", "answered", "bit-equal", "file")
    caption = "A server under load, beside the session without it"
    return Table(caption, "", ("artifact", "clients × batch", *names), rows, ("file",))


def _busy(result: BenchmarkResult) -> tuple[str, ...]:
    if not result.is_busy:
        return ()
    return (f"{result.file}: the machine was busy with something else: its figures are doubtful.",)
