"""Sections about the measurements themselves: machines, versions, commands, and what was timed."""

from collections import Counter

from reidexport.report.blocks import ReportTable, Section, machines
from reidexport.report.results import Results
from reidexport.report.units import NONE


def machine_line(results: Results) -> str:
    """The machines in one line, for the head of the page; numbered as elsewhere where there are several."""
    known = machines(results)
    return "; ".join(
        (f"machine {number}: " if len(known) > 1 else "")
        + f"{machine.cpu}, {machine.cores} cores, {', '.join(machine.gpus) or 'no GPU'}"
        for number, machine in enumerate(known, 1)
    )


def machines_and_versions(results: Results) -> Section:
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


def _versions(results: Results) -> tuple[tuple[str, str], ...]:
    """Each package with its version; where the results have several, in how many files each is."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for package, version in result.record.versions.items():
            found.setdefault(package, Counter())[version] += 1
    return tuple(
        (
            package,
            ", ".join(v if len(versions) == 1 else f"{v} ({n} files)" for v, n in versions.most_common()),
        )
        for package, versions in found.items()
    )


def how_measured(results: Results) -> Section:
    """What wrote each file, and what was inside the timed region."""
    commands: dict[str, list[str]] = {}
    timed: dict[str, list[str]] = {}
    for result in results:
        commands.setdefault(result.record.command, []).append(result.file)
        for what in result.record.timed_regions:
            timed.setdefault(what, []).append(result.file)
    tables = (
        _files_of("What wrote the files", "command", commands),
        _files_of("What is inside the timed region", "timed", timed),
    )
    return Section("How each number was measured", "", tables=tables)


def _files_of(caption: str, column: str, found: dict[str, list[str]]) -> ReportTable:
    rows = [(", ".join(files), what) for what, files in found.items()]
    return ReportTable(caption, "", ("files", column), rows, (column,))
