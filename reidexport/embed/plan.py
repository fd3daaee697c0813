"""The plan of a run, and what is finished of it.

The folder of a run holds::

    _plan.jsonl             a line about the run, then a line for every shard
    part-00000000.parquet   the embeddings of shard 0, as reidexport.embed.files writes them
    _errors/                of shards with bad images: the columns path and reason, under the same names

A part appears whole: what exists is done, and nothing else needs to be remembered. Programs that read a folder of
Parquet files leave out names that begin with ``_``.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from reidruntime.artifact.manifest import file_sha256

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


class Done(NamedTuple):
    """What is new since the last one: images answered or found bad, and shards whose parts are written.

    ``session`` is what ran the network, on a cluster behind the address of its node, and ``ready`` when it could.
    """

    num_images: int = 0
    num_shards: int = 0
    session: str = ""
    ready: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan in the folder of a run.

    Attributes:
        folder: of the run.
        sha256: of the plan's file.
        offsets: where in that file the line of each shard begins, in bytes.
    """

    folder: Path
    sha256: str
    offsets: tuple[int, ...]

    def shard(self, number: int) -> Shard:
        """A shard, from its line in the plan."""
        with (self.folder / PLAN_NAME).open("rb") as file:
            file.seek(self.offsets[number])
            line = json.loads(file.readline())
        return Shard(line["kind"], line["paths"], line["row_groups"])

    def part_path(self, number: int) -> Path:
        """The file of a shard's embeddings."""
        return self.folder / f"part-{number:08d}.parquet"

    def errors_path(self, number: int) -> Path:
        """The file that lists the bad images of a shard, if it has any."""
        return self.folder / ERRORS_NAME / f"part-{number:08d}.parquet"

    def unfinished(self) -> list[int]:
        """Numbers of the shards that have no part yet."""
        return [number for number in range(len(self.offsets)) if not self.part_path(number).exists()]

    def counts(self) -> tuple[int, int]:
        """The numbers of embeddings and of bad images of the finished shards."""
        finished = sorted(set(range(len(self.offsets))).difference(self.unfinished()))
        with ThreadPoolExecutor() as readers:  # the disk of a server answers late, but many at once
            parts = readers.map(_num_rows, map(self.part_path, finished))
            errors = readers.map(_num_rows, map(self.errors_path, finished))
            return sum(parts), sum(errors)

    def bad_images(self) -> Iterator[tuple[str, str]]:
        """The path and the reason of every bad image."""
        for path in sorted((self.folder / ERRORS_NAME).glob("part-*.parquet")):
            table = pq.read_table(path)
            yield from zip(texts_of(table["path"]), texts_of(table["reason"]), strict=True)

    def remove_left_overs(self) -> None:
        """Delete what workers that were killed had begun to write."""
        for folder in (self.folder, self.folder / ERRORS_NAME):
            for path in folder.glob(".part-*.parquet"):
                path.unlink(missing_ok=True)


def make_plan(
    folder: Path,
    shards: Iterable[Shard],
    *,
    manifest_sha256: str,
    cameras_sha256: str | None = None,
    columns: Columns,
    shard_size: int,
    resume: bool,
) -> Plan:
    """Write the plan of a new run, or check that an interrupted one had the same.

    Args:
        folder: of the run.
        shards: what is to be embedded.
        manifest_sha256: of the artifact, with its camera profile.
        cameras_sha256: of the table that tells the cameras of images, where features depend on these.
        columns: of Parquet files.
        shard_size: images per shard.
        resume: continue the run in the folder.

    Raises:
        InputError: the folder holds a run and ``resume`` is false, or it was of another artifact or of other
            images; or the folder cannot be made.
    """
    path = folder / PLAN_NAME
    if path.exists() and not resume:
        raise InputError(f"{folder}: holds a run already. Continue it with --resume, or delete the folder.")
    if folder.exists() and not path.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not a folder of embeddings. Choose another path.")
    try:
        folder.mkdir(exist_ok=True)
        (folder / ERRORS_NAME).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror}). Choose another path.") from error
    header = {
        "format": _FORMAT,
        "manifest_sha256": manifest_sha256,
        "columns": columns,
        "shard_size": shard_size,
        **({"cameras_sha256": cameras_sha256} if cameras_sha256 else {}),
    }
    with replaced_when_whole(path) as temporary:
        with temporary.open("w") as file:
            file.write(json.dumps(header) + "\n")
            for number, shard in enumerate(shards):
                file.write(json.dumps({"shard": number, **shard._asdict()}) + "\n")
        if path.exists():
            _check_same(path, temporary)
    return _read_plan(folder)


def planned_shard_size(folder: Path) -> int | None:
    """The images per shard of the run in a folder, which a resumed run keeps; None where there is none."""
    path = folder / PLAN_NAME
    if not path.is_file():
        return None
    try:
        with path.open() as lines:
            return int(json.loads(lines.readline())["shard_size"])
    except (ValueError, KeyError, TypeError):
        return None  # not a plan of this version, which make_plan refuses


def write_bad_images(path: Path, errors: Sequence[tuple[str, str]]) -> None:
    """Write a table of bad images: their paths, and the reasons."""
    paths, reasons = zip(*errors, strict=True)
    with replaced_when_whole(path) as temporary:
        pq.write_table(pa.table({"path": text_array(paths), "reason": text_array(reasons)}), temporary)


def check_finished(folder: Path) -> None:
    """Raise InputError if the run in this folder is not finished."""
    if (folder / PLAN_NAME).is_file():
        plan = _read_plan(folder)
        if missing := len(plan.unfinished()):
            raise InputError(
                f"{folder}: {missing} of {len(plan.offsets)} shards are not embedded yet. Finish the run with --resume."
            )


def text_array(texts: Iterable[str]) -> pa.Array:
    """A column of text; names of files that are not UTF-8 keep their bytes."""
    return pa.array([os.fsencode(text) for text in texts], pa.binary()).view(pa.string())


def texts_of(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """The texts of a column that :func:`text_array` made, or of any other."""
    return [os.fsdecode(text) for text in column.cast(pa.binary()).to_pylist()]


def _num_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows if path.exists() else 0
    except pa.ArrowException as error:
        raise InputError(f"{path}: damaged ({error}). Delete it, and continue with --resume.") from error


def _read_plan(folder: Path) -> Plan:
    path = folder / PLAN_NAME
    with path.open("rb") as lines:
        starts = list(accumulate(map(len, lines), initial=0))
    return Plan(folder, file_sha256(path), tuple(starts[1:-1]))


def _check_same(plan: Path, replanned: Path) -> None:
    with plan.open("rb") as old, replanned.open("rb") as new:
        old_header, new_header = old.readline(), new.readline()
        if old_header != new_header:
            raise InputError(
                f"{plan.parent}: the run there used another artifact, camera profile or table of cameras, or other "
                "columns. Use those, or delete the folder."
            )
        if any(before != now for before, now in zip_longest(old, new)):
            raise InputError(
                f"{plan.parent}: the run there was of other images ({_num_files(plan)} files, now "
                f"{_num_files(replanned)}). Pass the same, or delete the folder."
            )


def _num_files(plan: Path) -> int:
    with plan.open() as lines:
        return sum(len(json.loads(line)["paths"]) for line in islice(lines, 1, None))
