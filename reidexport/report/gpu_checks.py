"""The section about GPU checks: what passed, what failed and why, and how fast each path was."""

from collections import Counter
from collections.abc import Sequence

from reidexport.report.blocks import Section, Table, count, milliseconds, percent, source, speed
from reidexport.report.results import GpuCheck, GpuCheckResult, Result


def gpu_checks(results: Sequence[Result]) -> Section | None:
    """The outcomes of ``make gpu-check``."""
    found = [result for result in results if isinstance(result, GpuCheckResult)]
    if not found:
        return None
    failures = tuple(
        f"{result.file}: {each.subject}: {each.step} failed: {each.reason}"
        for result in found
        for each in result.checks
        if each.status == "failed"
    )
    quick = tuple(f"{result.file}: of --quick: its speeds say nothing." for result in found if result.quick)
    tables = [table for result in found for table in _tables(result, results)]
    lead = "Every path on a GPU, checked and measured. What could not run there is skipped."
    return Section("GPU check", lead, (*failures, *quick), tables=tuple(tables))


def _tables(result: GpuCheckResult, results: Sequence[Result]) -> list[Table]:
    statuses = ("passed", "failed", "skipped")
    counts = {each.subject: Counter[str]() for each in result.checks}
    for each in result.checks:
        counts[each.subject][each.status] += 1
    rows = [(subject, *(count(found[status]) for status in statuses)) for subject, found in counts.items()]
    tables = [Table("Checks", source(result, results), ("what", *statuses), rows)]
    speeds = [_speed(each) for each in result.measurements if "caller" in each.values]
    if speeds:
        columns = (
            *("what", "batch", "p50\nms", "images/s\nof a caller", "images/s\nstreamed"),
            *("images/s\non the GPU", "of the matrix peak, %"),
        )
        tables.append(
            Table("Speed: arrays in and out, overlapped, and on the GPU alone", "", columns, speeds)
        )
    return tables


def _speed(measured: GpuCheck) -> tuple[str, ...]:
    caller, streamed, device = (measured.values.get(key, {}) for key in ("caller", "streamed", "device"))
    return (
        measured.subject,
        str(measured.values.get("batch_size", "")),
        milliseconds(caller.get("p50_ms")),
        speed(caller.get("images_per_s")),
        speed(streamed.get("images_per_s")),
        speed(device.get("images_per_s")),
        percent(device.get("share_of_matrix_peak")),
    )
