"""Sections about the measurements themselves: machines, versions, commands, and what was timed."""

from collections import Counter

from reidexport.report.blocks import ReportTable, Section
from reidexport.report.results import Results, machines
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
        {
            "machine": str(number),
            "processor": machine.cpu,
            "cores": str(machine.cores),
            "memory\nGiB": NONE if machine.memory_mib is None else f"{machine.memory_mib / 1024:.1f}",
            "GPUs": ", ".join(machine.gpus) or "none",
            "system": machine.system,
        }
        for number, machine in enumerate(machines(results), 1)
    ]
    table = ReportTable("Machines", rows, text_columns=("processor", "GPUs", "system"))
    return Section("Machines and versions", "", tables=[table], pairs=_versions(results))


def _versions(results: Results) -> dict[str, str]:
    """Each package with its version; where the results have several, in how many files each is."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for package, version in result.record.versions.items():
            found.setdefault(package, Counter())[version] += 1
    return {
        package: ", ".join(v if len(versions) == 1 else f"{v} ({n} files)" for v, n in versions.most_common())
        for package, versions in found.items()
    }


def how_measured(results: Results) -> Section:
    """What wrote each file, and what was inside the timed region."""
    commands: dict[str, list[str]] = {}
    timed: dict[str, list[str]] = {}
    for result in results:
        commands.setdefault(result.record.command, []).append(result.file)
        for what in result.record.timed_regions:
            timed.setdefault(what, []).append(result.file)
    tables = [
        ReportTable(
            caption,
            [{"files": ", ".join(files), column: what} for what, files in found.items()],
            text_columns=(column,),
        )
        for caption, column, found in (
            ("What wrote the files", "command", commands),
            ("What is inside the timed region", "timed", timed),
        )
    ]
    return Section("How each number was measured", "", tables=tables)
