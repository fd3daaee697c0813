"""Bulk embedding on a Ray cluster: the shards of a plan are handed to a pool of actors, one after the other.

The cluster is a quiet one: started on this machine for this run only, or an existing one.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from reidruntime import Manifest, Session, SessionOptions, open_session
from reidruntime.artifact.camera_profile import manifest_with_profile, read_camera_profile
from reidruntime.artifact.manifest import file_sha256
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.backends import BACKENDS
from reidruntime.session import DEFAULT_OPTIONS, chosen_batch_size
from reidruntime.threads import default_threads

from reidexport.embed.plan import PLAN_NAME, Done, Plan
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.errors import ClusterError, ImageError, InputError, NotInstalledError, ReidExportError

LOCAL = "local"
_OBJECT_STORE_MIB = 128  # only shard numbers and counts go through it


@dataclass(frozen=True)
class ClusterRunOptions:
    """What a cluster embeds with.

    Attributes:
        address: of the cluster; see ``ray_cluster``.
        actors: how many sessions; default: what the cluster has room for; see ``pool_for``.
        session: of each; its threads, if left out, are those of ``pool_for``.
        cameras: a camera profile of the artifact, which every node must be able to read.
    """

    address: str = LOCAL
    actors: int | None = None
    session: SessionOptions = DEFAULT_OPTIONS
    cameras: Path | None = None


class Pool(NamedTuple):
    """A pool of actors, each with so many threads (and CPUs) and GPUs."""

    num_actors: int
    threads: int
    gpus: int


def embed_shards_on_ray(
    artifact: Path,
    manifest: Manifest | None,
    cluster: ClusterRunOptions,
    plan: Plan,
    numbers: list[int],
    options: EmbeddingRunOptions,
) -> Iterator[Done]:
    """Hand one shard after the other to a pool of actors; Ray starts those that die again, with the shard they had.

    Args:
        artifact: an ONNX file or a TensorRT engine; every node must be able to read it, the sources and the plan.
        manifest: the facts about an ONNX file that carries none.
        cluster: where, and with how many sessions.
        plan: of the run.
        numbers: of the shards.
        options: of the run.

    Raises:
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        InputError: a node does not see the same files, or reading or writing fails.
        NotInstalledError: a node lacks what opens a URL or the artifact.
        ClusterError: the cluster cannot be reached, or fails.
    """
    known, cameras = manifest or artifact_manifest(artifact), cluster.cameras
    if cameras is not None:
        known = manifest_with_profile(known, read_camera_profile(cameras, artifact, known))
    with ray_cluster(cluster.address):
        yield Done()
        ray = import_ray()
        from ray.util import ActorPool

        pool = pool_for(cluster.actors, cluster.session)
        actor = ray.remote(ShardEmbedder).options(
            num_cpus=pool.threads, num_gpus=pool.gpus, max_restarts=-1, max_task_retries=-1
        )
        embedders = [
            actor.remote(
                plan=replace(plan, folder=plan.folder.resolve()),
                folder=Path.cwd(),
                artifact=artifact.resolve(),
                manifest=manifest,
                cameras=cameras and cameras.resolve(),
                manifest_sha256=known.sha256,
                options=replace(options, batch_size=chosen_batch_size(known, options.batch_size)),
                session_options=replace(cluster.session, threads=pool.threads),
            )
            for _ in range(min(pool.num_actors, len(numbers)))
        ]
        try:
            yield from ActorPool(embedders).map_unordered(
                lambda embedder, number: embedder.embed.remote(number), numbers
            )
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # of an actor that raised an error
            if isinstance(cause, ImageError):
                raise cause from error
            kept = "What is finished is kept: continue with --resume."
            if isinstance(cause, ReidExportError):
                raise type(cause)(f"{cause} {kept}") from error
            raise ClusterError(f"Ray failed: {error} {kept}") from error


@dataclass(kw_only=True)
class ShardEmbedder:
    """An actor of the pool: one open session, one shard at a time.

    Attributes:
        plan: in an absolute folder.
        folder: where relative paths of sources start.
        artifact: the ONNX file or engine, absolute.
        manifest: of an ONNX file that carries none.
        cameras: a camera profile, absolute.
        manifest_sha256: that the artifact must have, with its camera profile.
        options: of the run.
        session_options: what runs the network, and where.
    """

    plan: Plan
    folder: Path
    artifact: Path
    manifest: Manifest | None
    cameras: Path | None
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
        session = open_session(
            self.artifact, self.session_options, manifest=self.manifest, cameras=self.cameras
        )
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


@contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine; leave or stop it at the end.

    Args:
        address: ``"local"`` to start one; ``"auto"`` or ``HOST:PORT`` for the one that this machine belongs to.

    Raises:
        ClusterError: no cluster is running, or this machine does not belong to it.
    """
    if address.startswith("ray://"):
        raise InputError(f"--ray {address}: run the command on a machine of the cluster, with --ray auto.")
    ray = import_ray()
    options: dict[str, Any] = {}
    if address == LOCAL:
        memory = _OBJECT_STORE_MIB << 20
        options = {"num_cpus": default_threads(), "object_store_memory": memory, "include_dashboard": False}
    with _native_messages_dropped():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"--ray {address}: {error} Run the command on a machine of the cluster; ray start makes one."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def import_ray() -> Any:
    """Ray, with its usage reports switched off; raises NotInstalledError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of a future version
    try:
        import ray
    except ModuleNotFoundError as error:
        raise NotInstalledError('ray is not installed: pip install "reidexport[ray]"') from error
    return ray


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """Keep the terminal for Python: what Ray's C++ writes to it is in Ray's log files too."""
    sys.stderr.flush()
    stderr, terminal = sys.stderr, os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    if stderr is sys.__stderr__:
        sys.stderr = os.fdopen(terminal, "w", buffering=1, closefd=False)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        sys.stderr = stderr
        os.close(terminal)


def pool_for(actors: int | None, session: SessionOptions) -> Pool:
    """Decide on a pool: an actor for every GPU of the cluster, or, without GPUs, one for every core group.

    Args:
        actors: how many; default: as many as the cluster has room for.
        session: of each. Its threads are how many CPUs it reserves; default: with GPUs, a node's CPUs divided by its
            GPUs, on the node that has the fewest for one; without, 1, which is fastest.

    Raises:
        ClusterError: the cluster has no room for one actor.
    """
    found: list[dict[str, Any]] = import_ray().nodes()
    nodes = [node["Resources"] for node in found if node["Alive"]]
    can_use_gpus = session.backend == "auto" or "cuda" in BACKENDS[session.backend].devices
    on_gpus = session.device == "cuda" or (
        session.device == "auto" and can_use_gpus and any(node.get("GPU") for node in nodes)
    )
    threads = session.threads
    if threads is None:
        cpus_per_gpu = [
            int(node.get("CPU", 0) // node["GPU"]) for node in nodes if on_gpus and node.get("GPU")
        ]
        threads = max(1, min(cpus_per_gpu, default=1))
    room = sum(
        int(min(node.get("CPU", 0) // threads, node.get("GPU", 0) if on_gpus else math.inf)) for node in nodes
    )
    if room < 1:
        raise ClusterError(
            f"No node of the cluster has {'a GPU and ' if on_gpus else ''}{threads} CPUs for an actor. "
            f"Pass fewer --threads{' or --device cpu' if on_gpus else ''}."
        )
    return Pool(min(actors or room, room), threads, int(on_gpus))
