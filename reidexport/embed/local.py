"""Bulk embedding: many images into one file, in flat memory, and continued after an interruption."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from reidruntime import Session
from reidruntime.session import Features

from reidexport.embed.files import check_names, check_suffix, write_embeddings
from reidexport.embed.shards import FinishedShard, read_shards, remove_shards, start_run, write_shard
from reidexport.errors import ImageError, InputError


@dataclass(frozen=True)
class EmbeddingRun:
    """What :func:`embed_to_file` did.

    Attributes:
        output: the file.
        num_embedded: embeddings in it.
        num_new: those of them that this run made; the others are of the interrupted run.
        num_resumed: images, bad ones included, that the interrupted run had finished.
        skipped: path and reason of every bad image.
        seconds: this run's time.
    """

    output: Path
    num_embedded: int
    num_new: int
    num_resumed: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float


def embed_to_file(
    session: Session,
    paths: Sequence[str],
    output: Path,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    resume: bool = False,
    batch_size: int | None = None,
    shard_size: int = 1024,
    progress: Callable[[int], None] | None = None,
) -> EmbeddingRun:
    """Embed image files into a ``.npz``, Parquet or gallery file (see :func:`write_embeddings`).

    Finished images are kept in ``NAME.partial/`` beside the output, ``shard_size`` at a time and once more
    when the run stops early. The output appears whole, at the end; then the folder goes.

    Args:
        session: the opened artifact.
        paths: the images, each once.
        output: ``*.npz``, ``*.parquet`` or ``*.gallery``.
        on_error: ``"stop"`` at a bad image, or ``"skip"`` it and report it.
        resume: continue the interrupted run beside the output; without one, start.
        batch_size: images per run of the network.
        shard_size: images per shard: what a killed run loses at most.
        progress: called with the number of images done.

    Raises:
        ImageError: an image is bad and ``on_error`` is ``"stop"``.
        InputError: the output cannot be written or cannot hold a name, or a run cannot be continued.
        KeyboardInterrupt: passed on after what is finished has been saved.
    """
    check_suffix(output)
    check_names(output, paths)
    if on_error not in ("stop", "skip"):
        raise InputError(f"on_error must be 'stop' or 'skip', got {on_error!r}.")
    began = time.perf_counter()
    num_resumed = start_run(output, paths, session.manifest.sha256, resume)
    filling = _Filling(output, num_resumed)
    on_bad_image = filling.add_bad if on_error == "skip" else None
    try:
        remaining = (paths[i] for i in range(num_resumed, len(paths)))
        for indices, rows in session.embed_batches(
            remaining, batch_size=batch_size, on_bad_image=on_bad_image
        ):
            filling.add(indices, rows)
            if filling.num_images >= shard_size:
                filling.save()
            if progress:
                progress(filling.stop)
        filling.stop = len(paths)
    except ImageError as error:
        raise ImageError(
            f"{error} Fix the image, then run the same command with --resume, or skip bad images with "
            f"--resume --on-error skip; {filling.stop} of {len(paths)} images are done."
        ) from error
    finally:
        filling.save()
        if filling.stop == 0 < len(paths):
            remove_shards(output)
    return _finish(session, paths, output, num_resumed, began)


class _Filling:
    """The shard being filled; positions that come in count from ``offset``, the start of this run."""

    def __init__(self, output: Path, offset: int) -> None:
        self.stop = offset
        self._output, self._offset, self._start = output, offset, offset
        self._positions: list[int] = []
        self._rows: list[Features] = []
        self._bad: list[tuple[int, str]] = []

    @property
    def num_images(self) -> int:
        return self.stop - self._start

    def add(self, indices: list[int], rows: Features) -> None:
        self._positions += [self._offset + index for index in indices]
        self._rows.append(rows)
        self.stop = self._positions[-1] + 1

    def add_bad(self, index: int, error: ImageError) -> None:
        self._bad.append((self._offset + index, str(error)))

    def save(self) -> None:
        """Write all up to ``stop``; a bad image beyond it stays for the next shard."""
        if not self.num_images:
            return
        bad = [entry for entry in self._bad if entry[0] < self.stop]
        shard = FinishedShard(
            start=self._start,
            stop=self.stop,
            positions=np.array(self._positions, np.int64),
            embeddings=np.concatenate(self._rows) if self._rows else np.empty((0, 0), np.float32),
            bad_positions=np.array([position for position, _ in bad], np.int64),
            reasons=np.array([reason for _, reason in bad], str),
        )
        write_shard(self._output, shard)
        self._start = self.stop
        self._positions, self._rows, self._bad = [], [], self._bad[len(bad) :]


def _finish(
    session: Session, paths: Sequence[str], output: Path, num_resumed: int, began: float
) -> EmbeddingRun:
    """Join the shards into the output."""
    num_new = 0
    good: list[str] = []
    skipped: list[tuple[str, str]] = []
    for shard in read_shards(output):
        good += [paths[position] for position in shard.positions]
        num_new += len(shard.positions) if shard.start >= num_resumed else 0
        skipped += [(paths[p], str(why)) for p, why in zip(shard.bad_positions, shard.reasons, strict=True)]
    blocks = (shard.embeddings for shard in read_shards(output) if len(shard.positions))
    write_embeddings(output, good, blocks, session.manifest)
    remove_shards(output)
    return EmbeddingRun(output, len(good), num_new, num_resumed, tuple(skipped), time.perf_counter() - began)
