"""What an actor does with a shard: it opens a session, and embeds."""

import os
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from reidruntime import Manifest, Session, SessionOptions, open_session
from reidruntime.artifact.manifest import file_sha256

from reidexport.embed.cluster.cluster import import_ray
from reidexport.embed.plan import PLAN_NAME, Plan, Report
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.errors import ImageError, InputError


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every actor of a run must know.

    Attributes:
        plan: in an absolute folder.
        folder: where relative paths of sources start.
        artifact: the ONNX file or engine, absolute.
        manifest: of an ONNX file that carries none.
        manifest_sha256: that the artifact must have.
        session: what runs the network, on as many threads as the actor has.
        options: of the run.
    """

    plan: Plan
    folder: Path
    artifact: Path
    manifest: Manifest | None
    manifest_sha256: str
    session: SessionOptions
    options: EmbeddingRunOptions


class EmbeddedShard(NamedTuple):
    """What came of a shard, what runs the network, behind the address of its node, and since when."""

    report: Report
    session: str
    ready: float


class ShardEmbedder:
    """An actor of the pool: one open session, one shard at a time."""

    def __init__(self, job: Job, threads: int) -> None:
        self._job = job
        self._threads = threads

    def embed(self, number: int) -> EmbeddedShard:
        """Embed a shard, unless a worker did that died before it could say so."""
        job = self._job
        session, description, ready = self._opened
        for _ in embed_shards(
            session, job.plan, [number], job.options, folder=job.folder, check_image=_check_readable
        ):
            pass
        return EmbeddedShard(job.plan.report(number), description, ready)

    @cached_property
    def _opened(self) -> tuple[Session, str, float]:
        """The session, what it is and where, and when it was ready."""
        job = self._job
        plan = job.plan.folder / PLAN_NAME
        if not plan.is_file() or file_sha256(plan) != job.plan.sha256:
            raise InputError(
                f"{job.plan.folder}: a node cannot read the plan there. Use a folder that every node can read."
            )
        options = replace(job.session, threads=self._threads)
        session = open_session(job.artifact, options, manifest=job.manifest)
        if session.manifest.sha256 != job.manifest_sha256:
            raise InputError(
                f"{job.artifact}: a node has another file there. Use one that is the same on all nodes."
            )
        node = import_ray().util.get_node_ip_address()
        return session, f"{node}: {session.description}", time.time()


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
