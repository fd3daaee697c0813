"""The plan of a run, and what is finished of it.

The output folder holds::

    _plan.jsonl             a line about the run, then a line for every shard
    part-00000000.parquet   the embeddings of shard 0, as reidexport.embed.files writes them
    _errors/                of shards with bad images: the columns path and reason, under the same names

Programs that read a folder of Parquet files leave out names that begin with ``_``.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from reidexport.errors import InputError
from reidexport.files import replaced_when_whole

PLAN_NAME = "_plan.jsonl"
ERRORS_NAME = "_errors"
_FORMAT = 1

Kind = Literal["images", "tar", "parquet"]


class Columns(NamedTuple):
    """Where a Parquet file has the bytes of its images and their names; dots lead into structs: ``image.bytes``."""

    image: str = "image"
    name: str = "path"


DEFAULT_COLUMNS = Columns()


class Shard(NamedTuple):
    """A piece of work, the same on every run over the same sources.

    ``paths`` are image files or URLs, or the one tar or Parquet file, of which ``row_groups`` are meant.
    """

    kind: Kind
    paths: Sequence[str]
    row_groups: Sequence[int] = ()


@dataclass(frozen=True)
class Plan:
    """The plan in an output folder.

    Attributes:
        output: the folder.
        sha256: of the plan's file.
        offsets: where in that file the line of each shard begins, in bytes.
    """

    output: Path
    sha256: str
    offsets: tuple[int, ...]

    def unfinished(self) -> list[int]:
        """Numbers of the shards that have no part yet."""
        return [number for number in range(len(self.offsets)) if not part_path(self.output, number).exists()]


def make_plan(
    output: Path, shards: Iterable[Shard], *, manifest_sha256: str, columns: Columns, resume: bool
) -> Plan:
    """Write the plan of a new run, or check that an interrupted one had the same.

    Raises:
        InputError: the folder holds a run and ``resume`` is false, or it was of another artifact or of other
            images; or the folder cannot be written to.
    """
    path = output / PLAN_NAME
    if path.exists() and not resume:
        raise InputError(f"{output}: holds a run already. Continue it with --resume, or delete the folder.")
    if output.exists() and not path.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output}: exists and is not a folder of embeddings. Choose another path.")
    (output / ERRORS_NAME).mkdir(parents=True, exist_ok=True)
    header = {"format": _FORMAT, "manifest_sha256": manifest_sha256, "columns": columns}
    with replaced_when_whole(path) as temporary:
        with temporary.open("w") as file:
            file.write(json.dumps(header) + "\n")
            for number, shard in enumerate(shards):
                file.write(json.dumps({"shard": number, **shard._asdict()}) + "\n")
        if path.exists():
            _check_same(path, temporary)
    return _read_plan(output)


def read_shard_line(plan: Path, offset: int) -> tuple[int, Shard]:
    """The number of a shard, and the shard, from its line in the plan."""
    with plan.open("rb") as file:
        file.seek(offset)
        line = json.loads(file.readline())
    return line.pop("shard"), Shard(**line)


def part_path(output: Path, number: int) -> Path:
    """The file of a shard's embeddings."""
    return output / f"part-{number:08d}.parquet"


def errors_path(output: Path, number: int) -> Path:
    """The file that lists the bad images of a shard, if it has any."""
    return output / ERRORS_NAME / f"part-{number:08d}.parquet"


def write_errors(path: Path, errors: list[tuple[str, str]]) -> None:
    """Write a table of bad images: their paths, and the reasons."""
    paths, reasons = zip(*errors, strict=True)
    with replaced_when_whole(path) as temporary:
        pq.write_table(pa.table({"path": pa.array(paths), "reason": pa.array(reasons)}), temporary)


def check_finished(output: Path) -> None:
    """Raise InputError if the run in this folder is not finished."""
    if (output / PLAN_NAME).is_file():
        plan = _read_plan(output)
        if missing := len(plan.unfinished()):
            raise InputError(
                f"{output}: {missing} of {len(plan.offsets)} shards are not embedded yet. Finish the run with --resume."
            )


def finished_counts(output: Path, number: int) -> tuple[int, int]:
    """The numbers of embeddings and of bad images of a finished shard."""
    errors = errors_path(output, number)
    num_bad = pq.read_metadata(errors).num_rows if errors.exists() else 0
    return pq.read_metadata(part_path(output, number)).num_rows, num_bad


def read_errors(output: Path) -> Iterator[tuple[str, str]]:
    """The path and the reason of every bad image."""
    for path in sorted((output / ERRORS_NAME).glob("part-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            yield row["path"], row["reason"]


def remove_left_overs(output: Path) -> None:
    """Delete what workers that were killed had begun to write."""
    for folder in (output, output / ERRORS_NAME):
        for path in folder.glob(".part-*.parquet"):
            path.unlink(missing_ok=True)


def _read_plan(output: Path) -> Plan:
    offsets: list[int] = []
    digest = hashlib.sha256()
    position = 0
    with (output / PLAN_NAME).open("rb") as file:
        for line in file:
            offsets.append(position)
            position += len(line)
            digest.update(line)
    return Plan(output, digest.hexdigest(), tuple(offsets[1:]))


def _check_same(plan: Path, replanned: Path) -> None:
    with plan.open("rb") as old, replanned.open("rb") as new:
        old_header, new_header = old.readline(), new.readline()
        if old_header != new_header:
            raise InputError(
                f"{plan.parent}: the run there used another artifact or other columns. Use those, or delete the "
                "folder."
            )
        if any(before != now for before, now in zip_longest(old, new)):
            raise InputError(
                f"{plan.parent}: the run there was of other images or of another --shard-size. Pass the same, or "
                "delete the folder."
            )
