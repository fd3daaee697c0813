"""The section about GPU checks: what passed, what failed and why, and how fast each path was."""

from collections import Counter

from reidexport.records.checks import GpuCheck, GpuCheckRecord
from reidexport.report.blocks import ReportTable, Section, source
from reidexport.report.results import Result, Results, of_type
from reidexport.report.units import count, digits, percent


def gpu_checks(results: Results) -> Section:
    """The outcomes of ``make gpu-check``."""
    found = of_type(results, GpuCheckRecord)
    failures = tuple(f"{result.file}: {why}" for result in found for why in result.record.failures)
    failed = tuple(
        f"{result.file}: {each.group}: {each.check} failed: {each.reason}"
        for result in found
        for each in result.record.checks
        if each.outcome == "failed"
    )
    quick = tuple(
        f"{result.file}: of --quick: its speeds say nothing." for result in found if result.record.quick
    )
    tables = [table for result in found for table in _tables(result)]
    lead = "Every path on a GPU, checked and measured. What is not installed there is skipped."
    return Section("GPU check", lead, (*failures, *failed, *quick), tables=tuple(tables))


def _tables(result: Result[GpuCheckRecord]) -> list[ReportTable]:
    outcomes = ("passed", "failed", "skipped")
    counts = {each.group: Counter[str]() for each in result.record.checks}
    for each in result.record.checks:
        counts[each.group][each.outcome] += 1
    rows = [(group, *(count(found[outcome]) for outcome in outcomes)) for group, found in counts.items()]
    checks = ReportTable("Checks", source(result), ("what", *outcomes), rows)
    speeds = [_speed(each) for each in result.record.checks if "caller_images_per_s" in each.measured]
    columns = (
        *("what", "batch", "p50\nms", "images/s\nof a caller", "images/s\nstreamed"),
        *("images/s\nfrom files", "images/s\non the GPU", "of the limit, %"),
    )
    caption = "Speed: arrays in and out, overlapped, from files, and on the GPU"
    return [checks, ReportTable(caption, "", columns, speeds)]


def _speed(check: GpuCheck) -> tuple[str, ...]:
    found = check.measured
    return (
        f"{check.group} {found.get('precision', '')}",
        str(found.get("batch_size", "")),
        digits(found.get("caller_p50_ms")),
        *(digits(found.get(f"{name}_images_per_s")) for name in ("caller", "streamed", "files", "device")),
        percent(found.get("device_share_of_limit")),
    )
