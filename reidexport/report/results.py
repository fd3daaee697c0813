"""The records that the commands wrote, as the report shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Generic, NamedTuple, TypeVar, cast

from reidexport.errors import InputError
from reidexport.records.base import Measurement
from reidexport.records.reading import read_record

MeasurementT = TypeVar("MeasurementT", bound=Measurement, covariant=True)


class Machine(NamedTuple):
    """A machine, less its load at the time and its kernel's version: that is updated, the machine stays the same."""

    cpu: str
    cores: int
    memory_mib: int | None
    gpus: tuple[str, ...]
    system: str


@dataclass(frozen=True)
class Result(Generic[MeasurementT]):
    """A record, and what the report calls its file; ``machine_number`` counts from 1 where a report has several."""

    record: MeasurementT
    file: str
    machine_number: int | None = None

    @property
    def machine(self) -> Machine:
        """Where it was measured."""
        found = self.record.machine
        system = found["system"].split()  # as in "Linux 6.1.0 x86_64"
        shown = " ".join(dict.fromkeys((*system[:1], *system[-1:])))
        return Machine(found["cpu"], found["cores"], found["memory_mib"], tuple(found["gpus"]), shown)


Results = Sequence[Result[Measurement]]


def read_results(paths: Sequence[Path]) -> list[Result[Measurement]]:
    """Read result files; of a folder, every ``*.json`` in it and below it. Their machines are numbered.

    Raises:
        InputError: a file cannot be read, is not of a kind that the report shows, or a folder holds none.
    """
    results: list[Result[Measurement]] = []
    for file, name in (named for path in paths for named in _named_files(path)):
        record = read_record(file, _without_folders)
        if not isinstance(record, Measurement):
            raise InputError(
                f"{file}: a record of the kind {record.kind} is not shown in a report: leave it out."
            )
        results.append(Result(record, name))
    known = machines(results)
    if len(known) > 1:
        results = [replace(result, machine_number=known.index(result.machine) + 1) for result in results]
    return results


def machines(results: Results) -> list[Machine]:
    """The different machines, in the order in which the results name them."""
    return list(dict.fromkeys(result.machine for result in results))


def of_type(results: Results, model: type[MeasurementT]) -> list[Result[MeasurementT]]:
    """Those of the results that are of one kind."""
    return [cast("Result[MeasurementT]", each) for each in results if isinstance(each.record, model)]


def records_of(results: Results, model: type[MeasurementT]) -> list[MeasurementT]:
    """The records that are of one kind."""
    return [result.record for result in results if isinstance(result.record, model)]


def _named_files(path: Path) -> list[tuple[Path, str]]:
    """Files, each with the name that the report gives it: relative to the folder, if ``path`` is one."""
    if not path.is_dir():
        return [(path, path.name)]
    found = sorted(path.rglob("*.json"))
    if not found:
        raise InputError(f"{path}: the folder holds no *.json. Choose one with files that --json FILE wrote.")
    return [(file, file.relative_to(path).as_posix()) for file in found]


def _without_folders(part: dict[str, Any]) -> dict[str, Any]:
    """An object whose files have no folders of the machine that wrote them: those are nobody's business."""
    for key in ("artifact", "checkpoint", "image"):
        path = part.get(key)
        # Images in a data set keep the folders below it.
        if isinstance(path, str) and (key != "image" or PurePath(path).is_absolute()):
            part[key] = PurePath(path).name
    return part
