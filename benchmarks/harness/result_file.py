"""The file of a question: rows by name, all of one machine and the same versions."""

import warnings
from pathlib import Path
from typing import Any

from reidexport.errors import InputError
from reidexport.machine import MachineInfo, package_versions
from reidexport.records.base import Measurement
from reidexport.records.reading import read_record, write_record
from reidexport.records.speed import Benchmark, BenchmarkRow


def save_row(path: Path, row: BenchmarkRow, machine: MachineInfo, test: str) -> None:
    """Write the row of a test in the place of the one of its name, or behind the others.

    Rows of another machine or other versions are dropped, with a warning: one file compares like with like.
    """
    known = _known(path, machine)
    rows = tuple(({each.name: each for each in known.rows} | {row.name: row}).values())
    left_out = {
        reason: others
        for reason, tests in known.left_out.items()
        if (others := tuple(each for each in tests if each != test))
    }
    is_busy = any(isinstance(each.ratios, str) for each in rows)
    _write(path, known, rows=rows, left_out=left_out, is_busy=is_busy)


def save_left_out(path: Path, test: str, reason: str, machine: MachineInfo) -> None:
    """Write why a test has no row, in the list of the tests that were skipped for the same reason."""
    known = _known(path, machine)
    tests = tuple(dict.fromkeys((*known.left_out.get(reason, ()), test)))
    _write(path, known, left_out=known.left_out | {reason: tests})


def _known(path: Path, machine: MachineInfo) -> Benchmark:
    """What the file holds of this machine and these versions."""
    nothing = Benchmark(question=path.stem, machine=machine, versions=package_versions())
    if not path.exists():
        return nothing
    try:
        known = read_record(path)
        if isinstance(known, Benchmark) and place_of(known) == place_of(nothing):
            return known.model_copy(update={"machine": machine})
    except InputError as error:  # a measurement is not lost to a file that is no use
        warnings.warn(f"{error} Its rows are dropped.", stacklevel=3)
        return nothing
    warnings.warn(f"{path}: dropped the rows of another machine or other versions.", stacklevel=3)
    return nothing


def place_of(result: Measurement) -> tuple[object, ...]:
    """What two measurements must have in common to be compared: the machine and the versions."""
    machine = result.machine  # whose clock and load change
    return machine["cpu"], machine["cores"], machine["memory_mib"], machine["gpus"], result.versions


def _write(path: Path, known: Benchmark, **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, known.model_copy(update=changes))
