"""Sections about the measurements themselves: machines, versions, commands, and what was timed."""

from collections.abc import Sequence

from reidexport.report.blocks import NONE, Section, Table, machines, source
from reidexport.report.results import (
    BenchmarkResult,
    BenchResult,
    EvalResult,
    OverheadResult,
    ParityResult,
    PrecisionsResult,
    Result,
    ServingResult,
    VerifyResult,
)

_COMMANDS: dict[type[Result], str] = {
    ParityResult: "reidexport parity REFERENCE ARTIFACT… --data ROOT --json FILE",
    BenchmarkResult: "pytest benchmarks --artifact FILE --data ROOT --results DIR",
    EvalResult: "reidexport eval ARTIFACT --data ROOT --json FILE",
    VerifyResult: "reidexport verify ARTIFACT --reference CHECKPOINT --data ROOT --json FILE",
    BenchResult: "reidexport bench ARTIFACT --images DIR --json FILE",
    PrecisionsResult: "python -m benchmarks.precisions CHECKPOINT --calibration DIR --data ROOT --json FILE",
    OverheadResult: "reid_overhead ARTIFACT --onnxruntime LIB --json FILE",
    ServingResult: "python -m benchmarks.serving ARTIFACT --json FILE",
}
_TIMED: dict[type[Result], str] = {
    ParityResult: "p50: the network alone at batch 1; images/s: from files to features, during the evaluation",
    BenchResult: "the network alone: from pixels in memory to features; end to end: from image files to features",
    OverheadResult: "the same prepared input through the bare network and through the C++ runtime, in turns",
}


def machines_and_versions(results: Sequence[Result]) -> Section | None:
    """Every machine, and the versions of what ran on it."""
    known = machines(results)
    if not known:
        return None
    rows = [
        (
            str(number),
            machine.cpu,
            str(machine.cores),
            NONE if machine.memory_mib is None else f"{machine.memory_mib / 1024:.1f}",
            ", ".join(machine.gpus) or "none",
            machine.system,
        )
        for number, machine in enumerate(known, 1)
    ]
    columns = ("machine", "processor", "cores", "memory, GiB", "GPUs", "system")
    tables = [Table("Machines", "", columns, rows, ("processor", "GPUs", "system"))]
    versions = _versions(results)
    if versions:
        tables.append(Table("Versions", "", ("package", "version"), versions, ("version",)))
    return Section("Machines and versions", "", tables=tuple(tables))


def _versions(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Each package with the versions that the results name, as a rule one."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for package, version in result.versions.items():
            found.setdefault(package, {})[version] = None
    return [(package, ", ".join(versions)) for package, versions in found.items()]


def how_measured(results: Sequence[Result]) -> Section | None:
    """What wrote each file, and what lay inside the timed region."""
    if not results:
        return None
    rows = [
        (source(result, results), _COMMANDS[type(result)], timed)
        for result in results
        for timed in _timed(result)
    ]
    columns = ("file", "written by", "timed")
    table = Table("Files of this report", "", columns, rows, ("written by", "timed"))
    return Section("How each number was measured", "", tables=(table,))


def _timed(result: Result) -> list[str]:
    if isinstance(result, BenchmarkResult):
        return list(dict.fromkeys(row.timed for row in result.rows)) or [NONE]
    if isinstance(result, PrecisionsResult | ServingResult):
        return [result.timed]
    return [_TIMED.get(type(result), NONE)]
