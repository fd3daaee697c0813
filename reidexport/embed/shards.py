"""Shards into parts: their images go through a session as one stream, which does not wait between shards."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from reidgallery.rows import Metric, fault_of_row
from reidruntime import Session
from reidruntime.images.preprocess import Image
from reidruntime.session import Features

from reidexport.data.label_file import LabelFile
from reidexport.data.name_labels import labels_from_names
from reidexport.embed.opening import is_url
from reidexport.embed.plan import DEFAULT_COLUMNS, Columns, Done, Plan, write_bad_images
from reidexport.embed.reading import read_shard
from reidexport.embed.table import embeddings_writer
from reidexport.errors import ImageError, InputError
from reidexport.files import replaced_when_whole

_ROWS_PER_BLOCK = 1024
_PAUSES_S = (2.0, 4.0)

ImageCheck = Callable[[Path, ImageError], None]


@dataclass(frozen=True, kw_only=True)
class EmbeddingRunOptions:
    """How a run embeds, on one machine or on a cluster.

    Attributes:
        on_error: ``"stop"`` at a bad image, or ``"skip"`` it and report it.
        resume: continue the interrupted run of the output; without one, start.
        batch_size: images per run of the network.
        shard_size: images per shard, rounded up to whole batches: what a killed process loses at most.
        columns: of Parquet sources.
        labels: a table that tells the cameras of images, where their names do not: for a camera profile.

    Raises:
        InputError: ``on_error`` has another value.
    """

    on_error: Literal["stop", "skip"] = "stop"
    resume: bool = False
    batch_size: int | None = None
    shard_size: int = 1024
    columns: Columns = DEFAULT_COLUMNS
    labels: LabelFile | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("stop", "skip"):
            raise InputError(f"on_error must be 'stop' or 'skip', got {self.on_error!r}.")


def embed_shards(
    session: Session,
    plan: Plan,
    numbers: Sequence[int],
    options: EmbeddingRunOptions,
    *,
    folder: Path = Path(),
    check_image: ImageCheck | None = None,
) -> Iterator[Done]:
    """Write the parts of shards, and their tables of bad images; shards that have a part are left out.

    When reading fails it tries again: a server may be back in a moment.

    Args:
        session: the opened artifact.
        plan: of the run.
        numbers: of the shards, in order.
        options: of the run.
        folder: where relative paths of sources start.
        check_image: raises an error for a bad image that is not the image's fault.

    Raises:
        ImageError: an image cannot be read, or what the network makes of it is not an embedding, and
            ``options.on_error`` is ``"stop"``.
        InputError: reading or writing fails, or a source is missing; or a camera profile lacks the camera of an image.
    """
    if session.camids:
        _check_cameras(session, plan, numbers, options.labels, folder)
    for pause_s in (*_PAUSES_S, None):
        unfinished = [number for number in numbers if not plan.part_path(number).exists()]
        try:
            stream = _Stream(plan, unfinished, options, folder, check_image, session.manifest.metric)
            yield from _write_parts(session, stream)
            return
        except OSError as error:
            if pause_s is None:
                raise InputError(f"{error}.") from error
            time.sleep(pause_s)


@dataclass
class _Part:
    """What came of the images of a shard, as far as it is not written."""

    is_read: bool = False
    num_waiting: int = 0
    names: list[str] = field(default_factory=list)
    rows: list[Features] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Stream:
    """The images of many shards as one stream, and the parts that their answers belong to."""

    plan: Plan
    numbers: list[int]
    options: EmbeddingRunOptions
    folder: Path
    check_image: ImageCheck | None
    metric: Metric
    parts: defaultdict[int, _Part] = field(default_factory=lambda: defaultdict(_Part))
    waiting: dict[int, tuple[_Part, str]] = field(default_factory=dict)

    def images(self) -> Iterator[Image]:
        positions = count()
        for number in self.numbers:
            part = self.parts[number]
            for name, image in read_shard(self.plan.shard(number), self.folder, self.options.columns):
                if isinstance(image, ImageError):
                    self._add_bad(part, name, image)
                else:
                    self.waiting[next(positions)] = part, name
                    part.num_waiting += 1
                    yield image
            part.is_read = True

    def camid(self, position: int) -> int:
        """The camera of an image, from 0, by the table or by its name."""
        return _camid(self.waiting[position][1], self.options.labels, self.folder)

    def answer(self, position: int, answer: Features | ImageError) -> None:
        part, name = self.waiting.pop(position)
        part.num_waiting -= 1
        if isinstance(answer, ImageError):
            if self.check_image:
                self.check_image(self.folder / name, answer)
            self._add_bad(part, name, answer)
        elif fault := fault_of_row(answer, self.metric):
            self._add_bad(part, name, ImageError(f"{name}: {fault}."))
        else:
            part.names.append(name)
            part.rows.append(answer)

    def _add_bad(self, part: _Part, name: str, error: ImageError) -> None:
        if self.options.on_error == "stop":
            raise error
        part.bad.append((name, str(error)))


def _camid(name: str, table: LabelFile | None, folder: Path) -> int:
    names = [name if is_url(name) else str(folder / name)]
    labels = labels_from_names(names) if table is None else table.labels_of(names)
    return int(labels[1, 0])


def _check_cameras(
    session: Session, plan: Plan, numbers: Sequence[int], table: LabelFile | None, folder: Path
) -> None:
    """Refuse image files of cameras that the profile in use does not have, before any is embedded."""
    for shard in map(plan.shard, numbers):
        for path in shard.paths if shard.kind == "images" else ():
            session.check_camera(_camid(path, table, folder), path)


def _write_parts(session: Session, stream: _Stream) -> Iterator[Done]:
    ready = time.time()
    num_images = 0

    def camid_of(position: int) -> int:
        camid = stream.camid(position)
        session.check_camera(camid, stream.waiting[position][1])
        return camid

    answers = session.embed_batches(
        stream.images(),
        camid_of=camid_of if session.camids else None,
        batch_size=stream.options.batch_size,
        on_bad_image=stream.answer,
    )
    with closing(answers) as batches:  # a bad answer ends it here, and not in a thread of its own
        for number in stream.numbers:
            part = stream.parts[number]
            with (
                replaced_when_whole(stream.plan.part_path(number)) as temporary,
                embeddings_writer(temporary, session.manifest) as write,
            ):
                while part.num_waiting or not part.is_read:
                    if num_images:
                        yield Done(num_images, 0, session.description, ready)
                    positions, rows = next(batches, ((), ()))
                    for position, row in zip(positions, rows, strict=True):
                        stream.answer(position, row)
                    num_images = len(positions)
                    if len(part.rows) >= _ROWS_PER_BLOCK:
                        write(part.names, np.stack(part.rows))
                        part.names, part.rows = [], []
                if part.rows:
                    write(part.names, np.stack(part.rows))
                if part.bad:  # before the part gets its name: then the shard is finished
                    write_bad_images(stream.plan.errors_path(number), part.bad)
                else:  # of a process that was killed before the part had its name
                    stream.plan.errors_path(number).unlink(missing_ok=True)
            yield Done(num_images + len(part.bad), 1, session.description, ready)
            num_images = 0
            del stream.parts[number]
