"""Sections about time that need no peers: the precisions beside torch, and what the commands measured."""

from collections.abc import Sequence

from reidexport.records.speed import (
    BenchReport,
    OverheadRecord,
    PrecisionSpeed,
    PrecisionsRecord,
    ServingRecord,
)
from reidexport.report.blocks import ReportTable, Section, lines, marked, source
from reidexport.report.marks import SHAPES, Mark
from reidexport.report.results import Result, Results, of_type
from reidexport.report.strips import axis_heading, axis_of, strip
from reidexport.report.units import NONE, count, digits, interval, points, share, times


def precision_speeds(results: Results) -> Section:
    """Precisions and runtimes beside torch eager."""
    found = of_type(results, PrecisionsRecord)
    notes = tuple(
        f"{result.file}: batch {batch_size} is left out: {reason}"
        for result in found
        for batch_size, reason in result.record.disturbed.items()
    )
    lead = (
        "How many times as fast as torch eager, which takes turns with the others in one run; below it the lowest and "
        "highest ratio, the median latency of a batch, and images/s."
    )
    tables = tuple(_precision_speeds(result) for result in found)
    return Section("Speed of the precisions", lead, notes, tables=tables)


def _precision_speeds(result: Result[PrecisionsRecord]) -> ReportTable:
    batches = sorted({each.batch_size for each in result.record.speed})
    marks = {batch: Mark(i, SHAPES[i % len(SHAPES)]) for i, batch in enumerate(batches)}
    by_name: dict[str, dict[int, PrecisionSpeed]] = {}
    for each in result.record.speed:
        by_name.setdefault(lines(each.precision, each.runtime), {})[each.batch_size] = each
    axis = axis_of(each.times_torch for each in result.record.speed)
    rows = [
        (
            name,
            strip(
                axis, [(f"batch {batch}", marks[batch], each.times_torch) for batch, each in speeds.items()]
            ),
            *(_speed_cell(speeds.get(batch)) for batch in batches),
        )
        for name, speeds in by_name.items()
    ]
    heads = (marked(marks[batch], f"batch {batch}") for batch in batches)
    columns = ("precision", axis_heading(axis), *heads)
    return ReportTable(result.record.architecture, source(result), columns, rows)


def _speed_cell(each: PrecisionSpeed | None) -> str:
    if each is None:
        return NONE
    figures = (f"{digits(each.p50_ms)} ms", f"{digits(each.images_per_s)} images/s")
    return lines(times(each.times_torch.median), interval(each.times_torch), *figures)


def command_speeds(results: Results) -> Section:
    """What ``reidexport bench``, ``reid_overhead`` and ``benchmarks.serving`` measured."""
    benches = of_type(results, BenchReport)
    tables = (
        _network_alone(benches),
        _files_to_features(benches),
        _overheads(of_type(results, OverheadRecord)),
        _servings(of_type(results, ServingRecord)),
    )
    notes = tuple(f"{result.file}: {warning}" for result in benches for warning in result.record.warnings)
    lead = "p50, p90 and p99: so many of 100 runs took at most this long."
    return Section("Speed of each artifact", lead, notes, tables=tables)


def _network_alone(benches: Sequence[Result[BenchReport]]) -> ReportTable:
    rows = [
        (
            lines(result.record.artifact, source(result)),
            str(batch.batch_size),
            *(digits(value) for value in (batch.p50_ms, batch.p90_ms, batch.p99_ms)),
            digits(batch.images_per_s),
        )
        for result in benches
        for batch in result.record.batches
    ]
    columns = ("artifact", "batch", "p50\nms", "p90\nms", "p99\nms", "images/s")
    return ReportTable("The network alone", "", columns, rows)


def _files_to_features(benches: Sequence[Result[BenchReport]]) -> ReportTable:
    rows = [
        (
            lines(result.record.artifact, source(result)),
            str(end.batch_size),
            digits(end.images_per_s),
            share(end.share_of_net),
        )
        for result in benches
        if (end := result.record.end_to_end) is not None
    ]
    columns = ("artifact", "batch", "images/s", "of the network alone")
    return ReportTable("From image files to features", "", columns, rows)


def _overheads(overheads: Sequence[Result[OverheadRecord]]) -> ReportTable:
    rows = [
        (
            lines(of.artifact, source(result)),
            str(of.batch_size),
            digits(of.bare_p50_ms),
            digits(of.reid_embed_p50_ms),
            f"{points(100 * of.overhead)} %",
            " to ".join(points(100 * pick(of.overhead_of_rounds)) for pick in (min, max)),
        )
        for result in overheads
        for of in [result.record]
    ]
    columns = ("artifact", "batch", "without it\nms", "with it\nms", "overhead", "lowest to highest\n%")
    caption = "What the C++ runtime adds to the median latency of the bare network"
    return ReportTable(caption, "", columns, rows)


def _servings(servings: Sequence[Result[ServingRecord]]) -> ReportTable:
    rows = [
        (
            lines(of.artifact, source(result)),
            f"{of.num_clients} × {of.batch_size}",
            digits(of.served.images_per_s.median),
            share(of.share_of_direct.median),
            digits(of.served.p50_ms),
            digits(of.served.p99_ms),
            f"{count(of.answers.num_answered)} of {count(of.answers.num_requests)}",
            count(of.answers.num_bit_equal),
        )
        for result in servings
        for of in [result.record]
    ]
    columns = (
        *("artifact", "clients × batch", "images/s", "of the session", "p50\nms", "p99\nms"),
        *("requests\nanswered", "answers\nequal to the bit"),
    )
    return ReportTable("A server under load, beside the session without it", "", columns, rows)
