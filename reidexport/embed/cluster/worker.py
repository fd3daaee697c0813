"""What an actor does with a shard: read, embed, write its part."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime import Manifest, Session, open_session
from reidruntime.artifact.manifest import file_sha256
from reidruntime.backends import BackendName, DeviceName
from reidruntime.images.preprocess import Image
from reidruntime.session import Features

from reidexport.embed.cluster.cluster import import_ray
from reidexport.embed.cluster.reading import read_shard
from reidexport.embed.files import write_embeddings
from reidexport.embed.plan import (
    PLAN_NAME,
    Columns,
    Shard,
    errors_path,
    finished_counts,
    part_path,
    read_shard_line,
    write_errors,
)
from reidexport.errors import ImageError, InputError, ReidExportError

_ROWS_PER_BLOCK = 1024
_PAUSES_S = (2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every actor of a run must know.

    Attributes:
        output: the output folder, absolute.
        plan_sha256: of the plan there.
        folder: where relative paths of sources start.
        columns: of Parquet sources.
        artifact: the ONNX file or engine, absolute.
        manifest: of an ONNX file that carries none.
        manifest_sha256: that the artifact must have.
        backend: as for ``open_session``; so is ``device``.
        batch_size: images per run of the network.
    """

    output: Path
    plan_sha256: str
    folder: Path
    columns: Columns
    artifact: Path
    manifest: Manifest | None
    manifest_sha256: str
    backend: BackendName
    device: DeviceName
    batch_size: int | None


class ShardRow(NamedTuple):
    """What an actor reports of a shard: numbers, the node, what runs the network and since when; or an error.

    ``error`` is the name of a class of :mod:`reidexport.errors`, empty where the shard is finished.
    """

    num_embedded: int = 0
    num_bad: int = 0
    node: str = ""
    session: str = ""
    ready: float = 0.0
    error: str = ""
    message: str = ""


class ShardEmbedder:
    """An actor of the pool: one open session, one shard at a time."""

    def __init__(self, job: Job, threads: int) -> None:
        self._job = job
        self._threads = threads

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[Any]]:
        """Embed the shard whose line begins at ``batch["offset"]``; returns the fields of one :class:`ShardRow`."""
        (offset,) = batch["offset"]
        try:
            session, node, ready = self._opened
            counts = _embed_patiently(session, self._job, int(offset))
            row = ShardRow(*counts, node, session.description, ready)
        except ReidExportError as error:
            row = ShardRow(error=type(error).__name__, message=str(error))
        except OSError as error:
            row = ShardRow(error=InputError.__name__, message=f"{error}.")
        return {name: [value] for name, value in row._asdict().items()}

    @cached_property
    def _opened(self) -> tuple[Session, str, float]:
        """The session, the address of the node, and when it was ready."""
        job = self._job
        plan = job.output / PLAN_NAME
        if not plan.is_file() or file_sha256(plan) != job.plan_sha256:
            raise InputError(
                f"{job.output}: a node cannot read the plan there. Use a folder that every node can read."
            )
        session = open_session(
            job.artifact, backend=job.backend, device=job.device, threads=self._threads, manifest=job.manifest
        )
        if session.manifest.sha256 != job.manifest_sha256:
            raise InputError(
                f"{job.artifact}: a node has another file there. Use one that is the same on all nodes."
            )
        return session, import_ray().util.get_node_ip_address(), time.time()


def _embed_patiently(session: Session, job: Job, offset: int) -> tuple[int, int]:
    """Try again when reading fails: a server may be back in a moment."""
    number, shard = read_shard_line(job.output / PLAN_NAME, offset)
    for pause_s in _PAUSES_S:
        try:
            return embed_shard(session, job, number, shard)
        except OSError:
            time.sleep(pause_s)
    return embed_shard(session, job, number, shard)


def embed_shard(session: Session, job: Job, number: int, shard: Shard) -> tuple[int, int]:
    """Write the part of a shard, and its bad images if there are any.

    Returns:
        The numbers of embeddings and of bad images.

    Raises:
        InputError: the sources are not where this node looks for them.
        OSError: reading or writing fails.
    """
    if not part_path(job.output, number).exists():  # a worker may die between writing and reporting it
        good: list[str] = []
        blocks = _embedded(session, job, number, shard, good)
        write_embeddings(part_path(job.output, number), good, blocks, session.manifest)
    return finished_counts(job.output, number)


def _embedded(session: Session, job: Job, number: int, shard: Shard, good: list[str]) -> Iterator[Features]:
    """The embeddings in large blocks, whose images are added to ``good``; then the bad images are written.

    That is before the part gets its name: a shard is finished as soon as its part exists.
    """
    names: list[str] = []
    errors: list[tuple[str, str]] = []

    def images() -> Iterator[Image]:
        for name, image in read_shard(shard, job.folder, job.columns):
            if isinstance(image, ImageError):
                errors.append((name, str(image)))
            else:
                names.append(name)
                yield image

    def add_bad(index: int, error: ImageError) -> None:
        _check_readable(job.folder / names[index], error)
        errors.append((names[index], str(error)))

    rows: list[Features] = []
    num_rows = 0
    for indices, features in session.embed_batches(images(), batch_size=job.batch_size, on_bad_image=add_bad):
        good += [names[index] for index in indices]
        rows.append(features)
        num_rows += len(features)
        if num_rows >= _ROWS_PER_BLOCK:
            yield np.concatenate(rows)
            rows, num_rows = [], 0
    if rows:
        yield np.concatenate(rows)
    if errors:
        write_errors(errors_path(job.output, number), errors)


def _check_readable(path: Path, error: ImageError) -> None:
    """Raise unless the image itself is bad: a disk that fails or is missing on a node is no fault of the images."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno is None:  # Pillow's have no number
        return
    if not isinstance(cause, FileNotFoundError):
        raise OSError(cause.errno, str(error)) from error
    if not path.parent.is_dir():
        raise InputError(
            f"{path.parent}: {os.uname().nodename} finds no such folder. Pass sources that every node of the cluster "
            "can read."
        ) from error
