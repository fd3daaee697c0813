"""Shards into parts: their images go through a session as one stream, which does not wait between shards."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from reidruntime import Session
from reidruntime.images.preprocess import Image
from reidruntime.session import Features

from reidexport.embed.plan import DEFAULT_COLUMNS, Columns, Plan, Report, write_bad_images
from reidexport.embed.reading import read_shard
from reidexport.embed.table import embeddings_writer
from reidexport.errors import ImageError, InputError
from reidexport.files import replaced_when_whole

_ROWS_PER_BLOCK = 1024
_PAUSES_S = (2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class EmbeddingRunOptions:
    """How a run embeds, on one machine or on a cluster.

    Attributes:
        on_error: ``"stop"`` at a bad image, or ``"skip"`` it and report it.
        resume: continue the interrupted run of the output; without one, start.
        batch_size: images per run of the network.
        shard_size: images per shard, rounded up to whole batches: what a killed process loses at most.
        columns: of Parquet sources.

    Raises:
        InputError: ``on_error`` has another value.
    """

    on_error: Literal["stop", "skip"] = "stop"
    resume: bool = False
    batch_size: int | None = None
    shard_size: int = 1024
    columns: Columns = DEFAULT_COLUMNS

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
    check_image: Callable[[Path, ImageError], None] | None = None,
) -> Iterator[Report]:
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
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        InputError: reading or writing fails, or a source is missing.
    """
    for pause_s in (*_PAUSES_S, None):
        unfinished = [number for number in numbers if not plan.part_path(number).exists()]
        stream = _Stream(plan, unfinished, options, folder, check_image)
        try:
            yield from _write_parts(session, stream)
            return
        except OSError as error:
            if pause_s is None:
                raise InputError(f"{error}.") from error
            time.sleep(pause_s)


class _Part:
    """What came of the images of a shard, as far as it is not written."""

    def __init__(self) -> None:
        self.is_read = False
        self.num_waiting = 0
        self.num_embedded = 0
        self.bad: list[tuple[str, str]] = []
        self._names: list[str] = []
        self._rows: list[Features] = []

    @property
    def is_answered(self) -> bool:
        return self.is_read and not self.num_waiting

    def add(self, name: str, row: Features) -> None:
        self.num_waiting -= 1
        self.num_embedded += 1
        self._names.append(name)
        self._rows.append(row)

    def write_rows(self, write: Callable[..., None], at_least: int) -> None:
        if len(self._rows) >= at_least:
            write(self._names, np.stack(self._rows))
            self._names, self._rows = [], []


class _Stream:
    """The images of many shards as one stream, and the parts that their answers belong to."""

    def __init__(
        self,
        plan: Plan,
        numbers: Sequence[int],
        options: EmbeddingRunOptions,
        folder: Path,
        check_image: Callable[[Path, ImageError], None] | None,
    ) -> None:
        self.plan, self.numbers, self.options = plan, numbers, options
        self.parts: defaultdict[int, _Part] = defaultdict(_Part)
        self._folder, self._check_image = folder, check_image
        self._waiting: dict[int, tuple[_Part, str]] = {}

    def images(self) -> Iterator[Image]:
        positions = count()
        for number in self.numbers:
            part = self.parts[number]
            for name, image in read_shard(self.plan.shard(number), self._folder, self.options.columns):
                if isinstance(image, ImageError):
                    self._add_bad(part, name, image)
                else:
                    self._waiting[next(positions)] = part, name
                    part.num_waiting += 1
                    yield image
            part.is_read = True

    def add(self, positions: Sequence[int], rows: Features | tuple[()]) -> None:
        for position, row in zip(positions, rows, strict=True):
            part, name = self._waiting.pop(position)
            part.add(name, row)

    def add_bad(self, position: int, error: ImageError) -> None:
        part, name = self._waiting.pop(position)
        part.num_waiting -= 1
        if self._check_image:
            self._check_image(self._folder / name, error)
        self._add_bad(part, name, error)

    def _add_bad(self, part: _Part, name: str, error: ImageError) -> None:
        if self.options.on_error == "stop":
            raise error
        part.bad.append((name, str(error)))


def _write_parts(session: Session, stream: _Stream) -> Iterator[Report]:
    num_images = 0
    answers = session.embed_batches(
        stream.images(), batch_size=stream.options.batch_size, on_bad_image=stream.add_bad
    )
    for number in stream.numbers:
        part = stream.parts[number]
        with (
            replaced_when_whole(stream.plan.part_path(number)) as temporary,
            embeddings_writer(temporary, session.manifest) as write,
        ):
            while not part.is_answered:
                positions, rows = next(answers, ((), ()))
                stream.add(positions, rows)
                num_images += len(positions)
                part.write_rows(write, _ROWS_PER_BLOCK)
                if not part.is_answered:
                    yield Report(num_images)
                    num_images = 0
            part.write_rows(write, 1)
            if part.bad:  # before the part gets its name: then the shard is finished
                write_bad_images(stream.plan.errors_path(number), part.bad)
        yield Report(num_images + len(part.bad), 1, part.num_embedded, len(part.bad))
        num_images = 0
        del stream.parts[number]
