"""What an actor does with a shard: it opens a session, and embeds."""

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reidruntime import Manifest, Session, SessionOptions, open_session
from reidruntime.artifact.manifest import file_sha256

from reidexport.embed.cluster.cluster import import_ray
from reidexport.embed.plan import PLAN_NAME, Done, Plan
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.errors import ImageError, InputError


@dataclass(kw_only=True)
class ShardEmbedder:
    """An actor of the pool: one open session, one shard at a time.

    Attributes:
        plan: in an absolute folder.
        folder: where relative paths of sources start.
        artifact: the ONNX file or engine, absolute.
        manifest: of an ONNX file that carries none.
        manifest_sha256: that the artifact must have.
        options: of the run.
        session_options: what runs the network, and where.
    """

    plan: Plan
    folder: Path
    artifact: Path
    manifest: Manifest | None
    manifest_sha256: str
    options: EmbeddingRunOptions
    session_options: SessionOptions

    def embed(self, number: int) -> Done:
        """Embed a shard, unless a worker did that died before it could say so."""
        session, node, ready = self._opened
        steps = embed_shards(
            session, self.plan, [number], self.options, folder=self.folder, check_image=_check_readable
        )
        num_images = sum(done.num_images for done in steps)
        return Done(num_images, 1, f"{node}: {session.description}", ready)

    @cached_property
    def _opened(self) -> tuple[Session, str, float]:
        """The session, the address of the node, and when it was ready."""
        plan = self.plan.folder / PLAN_NAME
        if not plan.is_file() or file_sha256(plan) != self.plan.sha256:
            raise InputError(
                f"{plan.parent}: a node cannot read the plan there. Use a folder that every node can read."
            )
        session = open_session(self.artifact, self.session_options, manifest=self.manifest)
        if session.manifest.sha256 != self.manifest_sha256:
            raise InputError(
                f"{self.artifact}: a node has another file there. Use one that is the same on all nodes."
            )
        return session, import_ray().util.get_node_ip_address(), time.time()


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
