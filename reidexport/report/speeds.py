"""Sections about time that need no peers: the precisions beside torch, and what the commands measured."""

from collections.abc import Sequence

from reidexport.report.blocks import ReportTable, Section, lines, marked, source
from reidexport.report.marks import SHAPES, Mark
from reidexport.report.results import (
    BenchResult,
    OverheadResult,
    PrecisionSpeed,
    PrecisionsResult,
    Result,
    ServingResult,
    Spread,
    of_type,
)
from reidexport.report.strips import axis_heading, axis_of, strip
from reidexport.report.units import NONE, count, digits, interval, points, share, times


def precision_speeds(results: Sequence[Result]) -> Section:
    """Precisions and runtimes beside torch eager."""
    found = of_type(results, PrecisionsResult)
    notes = tuple(
        f"{result.file}: batch {batch_size} is left out: {reason}"
        for result in found
        for batch_size, reason in result.disturbed.items()
    )
    lead = (
        "How many times as fast as torch eager, which takes turns with the others in one run; below it the lowest and "
        "highest ratio, the median latency of a batch, and images/s."
    )
    tables = tuple(_precision_speeds(result) for result in found)
    return Section("Speed of the precisions", lead, notes, tables=tables)


def _precision_speeds(result: PrecisionsResult) -> ReportTable:
    batches = sorted({each.batch_size for each in result.speed})
    marks = {batch: Mark(i, SHAPES[i % len(SHAPES)]) for i, batch in enumerate(batches)}
    by_name: dict[str, dict[int, PrecisionSpeed]] = {}
    for each in result.speed:
        by_name.setdefault(lines(each.precision, each.runtime), {})[each.batch_size] = each
    axis = axis_of(_ratio(each) for each in result.speed)
    rows = [
        (
            name,
            strip(axis, [(f"batch {batch}", marks[batch], _ratio(each)) for batch, each in speeds.items()]),
            *(_speed_cell(speeds.get(batch)) for batch in batches),
        )
        for name, speeds in by_name.items()
    ]
    heads = (marked(marks[batch], f"batch {batch}") for batch in batches)
    columns = ("precision", axis_heading(axis), *heads)
    return ReportTable(result.architecture, source(result), columns, rows)


def _ratio(each: PrecisionSpeed) -> Spread:
    lowest, highest = each.times_torch_range
    return Spread(median=each.times_torch, lowest=lowest, highest=highest)


def _speed_cell(each: PrecisionSpeed | None) -> str:
    if each is None:
        return NONE
    figures = (f"{digits(each.p50_ms)} ms", f"{digits(each.images_per_s)} images/s")
    return lines(times(each.times_torch), interval(*each.times_torch_range), *figures)


def command_speeds(results: Sequence[Result]) -> Section:
    """What ``reidexport bench``, ``reid_overhead`` and ``benchmarks.serving`` measured."""
    benches = of_type(results, BenchResult)
    servings = of_type(results, ServingResult)
    tables = (
        _network_alone(benches),
        _files_to_features(benches),
        _overheads(of_type(results, OverheadResult)),
        _servings(servings),
    )
    notes = tuple(f"{result.file}: {warning}" for result in benches for warning in result.warnings)
    notes += tuple(f"{result.file}: {result.disturbed}" for result in servings if result.disturbed)
    lead = "p50, p90 and p99: so many of 100 runs took at most this long."
    return Section("Speed of each artifact", lead, notes, tables=tables)


def _network_alone(benches: Sequence[BenchResult]) -> ReportTable:
    rows = [
        (
            lines(result.artifact, source(result)),
            str(batch.batch_size),
            *(digits(value) for value in (batch.p50_ms, batch.p90_ms, batch.p99_ms)),
            digits(batch.images_per_s),
        )
        for result in benches
        for batch in result.batches
    ]
    columns = ("artifact", "batch", "p50\nms", "p90\nms", "p99\nms", "images/s")
    return ReportTable("The network alone", "", columns, rows)


def _files_to_features(benches: Sequence[BenchResult]) -> ReportTable:
    rows = [
        (
            lines(result.artifact, source(result)),
            str(end.batch_size),
            digits(end.images_per_s),
            share(end.share_of_net),
        )
        for result in benches
        if (end := result.end_to_end) is not None
    ]
    columns = ("artifact", "batch", "images/s", "of the network alone")
    return ReportTable("From image files to features", "", columns, rows)


def _overheads(overheads: Sequence[OverheadResult]) -> ReportTable:
    rows = [
        (
            lines(result.artifact, source(result)),
            str(result.batch_size),
            digits(result.bare_p50_ms),
            digits(result.reid_embed_p50_ms),
            f"{points(100 * result.overhead)} %",
            " to ".join(points(100 * pick(result.overhead_of_rounds)) for pick in (min, max)),
        )
        for result in overheads
    ]
    columns = ("artifact", "batch", "without it\nms", "with it\nms", "overhead", "lowest to highest\n%")
    caption = "What the C++ runtime adds to the median latency of the bare network"
    return ReportTable(caption, "", columns, rows)


def _servings(servings: Sequence[ServingResult]) -> ReportTable:
    rows = [
        (
            lines(result.artifact, source(result)),
            f"{result.num_clients} × {result.batch_size}",
            digits(result.served.images_per_s.median),
            share(result.share_of_direct.median),
            digits(result.served.p50_ms),
            digits(result.served.p99_ms),
            f"{count(result.answers.num_answered)} of {count(result.answers.num_requests)}",
            count(result.answers.num_bit_equal),
        )
        for result in servings
    ]
    columns = (
        *("artifact", "clients × batch", "images/s", "of the session", "p50\nms", "p99\nms"),
        *("requests\nanswered", "answers\nequal to the bit"),
    )
    return ReportTable("A server under load, beside the session without it", "", columns, rows)
