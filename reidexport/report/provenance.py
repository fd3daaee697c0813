"""Sections about the measurements themselves: machines, versions, commands, and what was timed."""

from collections import Counter
from collections.abc import Sequence

from reidexport.report.blocks import ReportTable, Section, machines
from reidexport.report.results import (
    BenchmarkResult,
    BenchResult,
    EvalResult,
    GpuCheckResult,
    OverheadResult,
    ParityResult,
    PrecisionsResult,
    Result,
    ServingResult,
    VerifyResult,
)
from reidexport.report.units import NONE

_COMMANDS: dict[type[Result], str] = {
    ParityResult: "reidexport parity REFERENCE ARTIFACT… --data ROOT --json FILE",
    BenchmarkResult: "pytest benchmarks --artifact FILE --data ROOT --results DIR",
    EvalResult: "reidexport eval ARTIFACT --data ROOT --json FILE",
    VerifyResult: "reidexport verify ARTIFACT --reference CHECKPOINT --data ROOT --json FILE",
    BenchResult: "reidexport bench ARTIFACT --images DIR --json FILE",
    PrecisionsResult: "python -m benchmarks.precisions CHECKPOINT --calibration DIR --data ROOT --json FILE",
    OverheadResult: "reid_overhead ARTIFACT --onnxruntime LIB --json FILE",
    ServingResult: "python -m benchmarks.serving ARTIFACT --json FILE",
    GpuCheckResult: "python -m tests.gpu --json FILE",
}
_TIMED: dict[type[Result], str] = {
    ParityResult: "latency: the network alone at batch 1; images/s: from files to features, during the evaluation",
    BenchResult: "the network alone: from pixels in memory to features; end to end: from image files to features",
    GpuCheckResult: (
        "of a caller: from an array to an array; streamed, from files: batch after batch, with reading, copies and "
        "network overlapped; on the GPU: the network alone, by CUDA's events"
    ),
    OverheadResult: "the same prepared input through the bare network and through the C++ runtime, in turns",
}


def machine_line(results: Sequence[Result]) -> str:
    """The machines in one line, for the head of the page; numbered as elsewhere where there are several."""
    known = machines(results)
    return "; ".join(
        (f"machine {number}: " if len(known) > 1 else "")
        + f"{machine.cpu}, {machine.cores} cores, {', '.join(machine.gpus) or 'no GPU'}"
        for number, machine in enumerate(known, 1)
    )


def machines_and_versions(results: Sequence[Result]) -> Section:
    """Every machine, and the versions of what ran on it."""
    rows = [
        (
            str(number),
            machine.cpu,
            str(machine.cores),
            NONE if machine.memory_mib is None else f"{machine.memory_mib / 1024:.1f}",
            ", ".join(machine.gpus) or "none",
            machine.system,
        )
        for number, machine in enumerate(machines(results), 1)
    ]
    columns = ("machine", "processor", "cores", "memory\nGiB", "GPUs", "system")
    table = ReportTable("Machines", "", columns, rows, ("processor", "GPUs", "system"))
    return Section("Machines and versions", "", tables=(table,), pairs=_versions(results))


def _versions(results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    """Each package with its version; where the results have several, in how many files each is."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for package, version in result.versions.items():
            found.setdefault(package, Counter())[version] += 1
    return tuple(
        (
            package,
            ", ".join(v if len(versions) == 1 else f"{v} ({n} files)" for v, n in versions.most_common()),
        )
        for package, versions in found.items()
    )


def how_measured(results: Sequence[Result]) -> Section:
    """What wrote each file, and what was inside the timed region."""
    commands: dict[str, list[str]] = {}
    timed: dict[str, list[str]] = {}
    for result in results:
        commands.setdefault(_COMMANDS[type(result)], []).append(result.file)
        for what in _timed(result):
            timed.setdefault(what, []).append(result.file)
    tables = (
        _files_of("What wrote the files", "command", commands),
        _files_of("What is inside the timed region", "timed", timed),
    )
    return Section("How each number was measured", "", tables=tables)


def _files_of(caption: str, column: str, found: dict[str, list[str]]) -> ReportTable:
    rows = [(", ".join(files), what) for what, files in found.items()]
    return ReportTable(caption, "", ("files", column), rows, (column,))


def _timed(result: Result) -> list[str]:
    if isinstance(result, BenchmarkResult):
        return list(dict.fromkeys(row.timed for row in result.rows))
    if isinstance(result, PrecisionsResult | ServingResult):
        return [result.timed]
    return [_TIMED[type(result)]] if type(result) in _TIMED else []
