"""Sections about time that need no peers: the precisions beside torch, what the commands measured, GPU checks."""

from collections import Counter
from collections.abc import Iterator

from reidexport.records.checks import GpuCheckRecord, Outcome
from reidexport.records.speed import (
    BenchReport,
    OverheadRecord,
    PrecisionSpeed,
    PrecisionsRecord,
    ServingRecord,
)
from reidexport.report.blocks import ReportTable, Section, by_artifact, lines, marked, source
from reidexport.report.marks import SHAPES, Mark, axis_heading, axis_of, strip
from reidexport.report.results import Result, Results, of_type
from reidexport.report.units import NONE, count, digits, percent, points, ratio, share


def precision_speeds(results: Results) -> Section:
    """Precisions and runtimes beside torch eager."""
    found = of_type(results, PrecisionsRecord)
    notes = [
        f"{result.file}: batch {batch_size} is left out: {reason}"
        for result in found
        for batch_size, reason in result.record.disturbed.items()
    ]
    lead = (
        "How many times as fast as torch eager, which takes turns with the others in one run; below it the lowest and "
        "highest ratio, the median latency of a batch, and images/s."
    )
    tables = [_precision_speeds(result) for result in found]
    return Section("Speed of the precisions", lead, notes, tables=tables)


def _precision_speeds(result: Result[PrecisionsRecord]) -> ReportTable:
    batches = sorted({each.batch_size for each in result.record.speed})
    marks = {batch: Mark(i, SHAPES[i % len(SHAPES)]) for i, batch in enumerate(batches)}
    by_name: dict[str, dict[int, PrecisionSpeed]] = {}
    for each in result.record.speed:
        by_name.setdefault(lines(each.precision, each.runtime), {})[each.batch_size] = each
    axis = axis_of(each.times_torch for each in result.record.speed)
    rows = []
    for name, speeds in by_name.items():
        ratios = [(f"batch {batch}", marks[batch], each.times_torch) for batch, each in speeds.items()]
        row = {"precision": name, axis_heading(axis): strip(axis, ratios)}
        for batch, mark in marks.items():
            row[marked(mark, f"batch {batch}")] = _speed_cell(speeds.get(batch))
        rows.append(row)
    return ReportTable(result.record.architecture, rows, source(result))


def _speed_cell(each: PrecisionSpeed | None) -> str:
    if each is None:
        return NONE
    return lines(
        ratio(each.times_torch), f"{digits(each.p50_ms)} ms", f"{digits(each.images_per_s)} images/s"
    )


def command_speeds(results: Results) -> Section:
    """What ``reidexport bench``, ``reid_overhead`` and ``benchmarks.serving`` measured."""
    benches = of_type(results, BenchReport)
    overheads, servings = of_type(results, OverheadRecord), of_type(results, ServingRecord)
    tables = [
        by_artifact("The network alone", benches, _network_alone),
        by_artifact("From image files to features", benches, _files_to_features),
        by_artifact(
            "What the C++ runtime adds to the median latency of the bare network", overheads, _overhead
        ),
        by_artifact("A server under load, beside the session without it", servings, _serving),
    ]
    notes = [f"{result.file}: {warning}" for result in benches for warning in result.record.warnings]
    lead = "p50, p90 and p99: so many of 100 runs took at most this long."
    return Section("Speed of each artifact", lead, notes, tables=tables)


def _network_alone(bench: BenchReport) -> Iterator[dict[str, str]]:
    for batch in bench.batches:
        yield {
            "batch": str(batch.batch_size),
            "p50\nms": digits(batch.p50_ms),
            "p90\nms": digits(batch.p90_ms),
            "p99\nms": digits(batch.p99_ms),
            "images/s": digits(batch.images_per_s),
        }


def _files_to_features(bench: BenchReport) -> Iterator[dict[str, str]]:
    if end := bench.end_to_end:
        yield {
            "batch": str(end.batch_size),
            "images/s": digits(end.images_per_s),
            "of the network alone": share(end.share_of_net),
        }


def _overhead(of: OverheadRecord) -> Iterator[dict[str, str]]:
    yield {
        "batch": str(of.batch_size),
        "without it\nms": digits(of.bare_p50_ms),
        "with it\nms": digits(of.reid_embed_p50_ms),
        "overhead": f"{points(100 * of.overhead)} %",
        "lowest to highest\n%": " to ".join(points(100 * pick(of.overhead_of_rounds)) for pick in (min, max)),
    }


def _serving(of: ServingRecord) -> Iterator[dict[str, str]]:
    yield {
        "clients × batch": f"{of.num_clients} × {of.batch_size}",
        "images/s": digits(of.served.images_per_s.median),
        "of the session": share(of.share_of_direct.median),
        "p50\nms": digits(of.served.p50_ms),
        "p99\nms": digits(of.served.p99_ms),
        "requests\nanswered": f"{count(of.answers.num_answered)} of {count(of.answers.num_requests)}",
        "answers\nequal to the bit": count(of.answers.num_bit_equal),
    }


def gpu_checks(results: Results) -> Section:
    """The outcomes of ``make gpu-check``: what passed, what failed and why, and how fast each path was."""
    found = of_type(results, GpuCheckRecord)
    notes = [f"{result.file}: {why}" for result in found for why in result.record.failures]
    notes += [
        f"{result.file}: {each.group}: {each.check} failed: {each.reason}"
        for result in found
        for each in result.record.checks
        if each.outcome == "failed"
    ]
    notes += [
        f"{result.file}: of --quick: its speeds say nothing." for result in found if result.record.quick
    ]
    tables = [table for result in found for table in (_check_outcomes(result), _check_speeds(result))]
    lead = "Every path on a GPU, checked and measured. What is not installed there is skipped."
    return Section("GPU check", lead, notes, tables=tables)


def _check_outcomes(result: Result[GpuCheckRecord]) -> ReportTable:
    checks = result.record.checks
    counts = Counter((each.group, each.outcome) for each in checks)
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "skipped")
    rows = [
        {"what": group, **{outcome: count(counts[group, outcome]) for outcome in outcomes}}
        for group in dict.fromkeys(each.group for each in checks)
    ]
    return ReportTable("Checks", rows, source(result))


def _check_speeds(result: Result[GpuCheckRecord]) -> ReportTable:
    rows = [
        {
            "what": f"{each.group} {found.get('precision', '')}",
            "batch": str(found.get("batch_size", "")),
            "p50\nms": digits(found.get("caller_p50_ms")),
            "images/s\nof a caller": digits(found["caller_images_per_s"]),
            "images/s\nstreamed": digits(found.get("streamed_images_per_s")),
            "images/s\nfrom files": digits(found.get("files_images_per_s")),
            "images/s\non the GPU": digits(found.get("device_images_per_s")),
            "of the limit, %": percent(found.get("device_share_of_limit")),
        }
        for each in result.record.checks
        for found in [each.measured]
        if "caller_images_per_s" in found
    ]
    return ReportTable("Speed: arrays in and out, overlapped, from files, and on the GPU", rows)
