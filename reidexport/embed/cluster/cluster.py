"""A quiet Ray cluster: one started on this machine for this run only, or an existing one."""

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from reidruntime import SessionOptions
from reidruntime.backends import BACKENDS
from reidruntime.session import DEFAULT_OPTIONS
from reidruntime.threads import default_threads

from reidexport.errors import ClusterError, InputError, NotInstalledError

LOCAL = "local"
_OBJECT_STORE_MIB = 128  # only shard numbers and counts go through it


@dataclass(frozen=True)
class ClusterRunOptions:
    """What a cluster embeds with.

    Attributes:
        address: of the cluster; see ``ray_cluster``.
        actors: how many sessions; default: what the cluster has room for; see ``pool_for``.
        session: of each; its threads, if left out, are those of ``pool_for``.
    """

    address: str = LOCAL
    actors: int | None = None
    session: SessionOptions = DEFAULT_OPTIONS


class Pool(NamedTuple):
    """A pool of actors, each with so many threads (and CPUs) and GPUs."""

    num_actors: int
    threads: int
    gpus: int


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
    with _native_messages_dropped():
        _connect(address)
        try:
            yield
        finally:
            ray.shutdown()


def import_ray() -> ModuleType:
    """Ray, with its usage reports switched off.

    Raises:
        NotInstalledError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of a future version
    try:
        import ray
    except ModuleNotFoundError as error:
        raise NotInstalledError('ray is not installed: pip install "reidexport[ray]"') from error
    module: ModuleType = ray
    return module


def _connect(address: str) -> None:
    ray = import_ray()
    is_local = address == LOCAL
    try:
        ray.init(
            address=address,
            num_cpus=default_threads() if is_local else None,
            object_store_memory=_OBJECT_STORE_MIB << 20 if is_local else None,
            include_dashboard=False if is_local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"--ray {address}: {error} Run the command on a machine of the cluster; ray start makes one."
        ) from error


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
