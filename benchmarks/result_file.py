"""The file of a question: rows by name, all of one machine and the same versions."""

import json
import warnings
from pathlib import Path

from benchmarks.comparison import Row
from reidexport.files import replaced_when_whole
from reidexport.machine import MachineInfo, package_versions

_IDENTITY = ("cpu", "cores", "memory_mib", "gpus")  # of a machine; its clock and its load change


def save_row(path: Path, row: Row, machine: MachineInfo) -> None:
    """Write a row in the place of the one of its name, or behind the others.

    Rows of another machine or other versions are dropped, with a warning: one file compares like with like.
    """
    about = {"machine": machine, "versions": package_versions()}
    known = json.loads(path.read_text()) if path.exists() else {**about, "rows": []}
    if not _is_alike(known, about):
        warnings.warn(f"{path}: dropped the rows of another machine or other versions.", stacklevel=2)
        known["rows"] = []
    rows = list(({each["name"]: each for each in known["rows"]} | {row["name"]: row}).values())
    result = {
        "kind": "benchmark",
        "question": path.stem,
        **about,
        "is_busy": any(isinstance(each["ratios"], str) for each in rows),
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def _is_alike(known: Row, about: Row) -> bool:
    same_machine = all(known["machine"].get(key) == about["machine"][key] for key in _IDENTITY)
    return same_machine and known["versions"] == about["versions"]
