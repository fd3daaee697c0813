"""The file of a question: rows by name, all of one machine and the same versions."""

import json
import warnings
from pathlib import Path

from benchmarks.harness.comparison import Row
from reidexport.files import replaced_when_whole
from reidexport.machine import MachineInfo, package_versions

_IDENTITY = ("cpu", "cores", "memory_mib", "gpus")  # of a machine; its clock and its load change


def save_row(path: Path, row: Row, machine: MachineInfo, test: str) -> None:
    """Write the row of a test in the place of the one of its name, or behind the others.

    Rows of another machine or other versions are dropped, with a warning: one file compares like with like.
    """
    known = _known(path, machine)
    known["rows"] = list(({each["name"]: each for each in known["rows"]} | {row["name"]: row}).values())
    left_out = {
        reason: [each for each in tests if each != test] for reason, tests in known["left_out"].items()
    }
    known["left_out"] = {reason: tests for reason, tests in left_out.items() if tests}
    known["is_busy"] = any(isinstance(each["ratios"], str) for each in known["rows"])
    _write(path, known)


def save_left_out(path: Path, test: str, reason: str, machine: MachineInfo) -> None:
    """Write why a test has no row, in the list of the tests that were skipped for the same reason."""
    known = _known(path, machine)
    known["left_out"][reason] = list(dict.fromkeys([*known["left_out"].get(reason, []), test]))
    _write(path, known)


def _known(path: Path, machine: MachineInfo) -> Row:
    """What the file holds of this machine and these versions."""
    about = {"machine": machine, "versions": package_versions()}
    known = json.loads(path.read_text()) if path.exists() else {**about, "rows": []}
    if not _is_alike(known, about):
        warnings.warn(f"{path}: dropped the rows of another machine or other versions.", stacklevel=3)
        known = {"rows": []}
    return {
        "kind": "benchmark",
        "question": path.stem,
        **about,
        "is_busy": known.get("is_busy", False),
        "left_out": known.get("left_out", {}),
        "rows": known["rows"],
    }


def _write(path: Path, result: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def _is_alike(known: Row, about: Row) -> bool:
    same_machine = all(known["machine"].get(key) == about["machine"][key] for key in _IDENTITY)
    return same_machine and known["versions"] == about["versions"]
