"""A run: planned, spread over a cluster, and continued after an interruption."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reidruntime import Manifest
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.backends import BackendName, DeviceName
from reidruntime.session import chosen_batch_size

from reidexport import errors
from reidexport.embed.cluster.cluster import LOCAL, Pool, import_ray, pool_for, ray_cluster
from reidexport.embed.cluster.sources import shards_of
from reidexport.embed.cluster.worker import Job, ShardEmbedder, ShardRow
from reidexport.embed.files import SUFFIXES
from reidexport.embed.plan import (
    DEFAULT_COLUMNS,
    Columns,
    Plan,
    finished_counts,
    make_plan,
    remove_left_overs,
)
from reidexport.errors import ClusterError, InputError, NotInstalledError, ReidExportError
from reidexport.progress import ProgressBar, no_progress_bar


@dataclass(frozen=True)
class ClusterRun:
    """What :func:`embed_on_ray` did.

    Attributes:
        output: the folder.
        num_shards: all of them.
        num_resumed_shards: those of them that an earlier run had finished.
        num_embedded: embeddings in the folder.
        num_new: those of them that this run made.
        num_bad: images that could not be read; ``read_errors`` lists them.
        sessions: what ran the network, each behind the address of its node.
        seconds: from when the first session was open to the last embedding.
        total_seconds: with planning, starting Ray, and opening the sessions.
    """

    output: Path
    num_shards: int
    num_resumed_shards: int
    num_embedded: int
    num_new: int
    num_bad: int
    sessions: tuple[str, ...]
    seconds: float
    total_seconds: float


@dataclass(frozen=True, kw_only=True)
class ClusterRunOptions:
    """How a cluster embeds.

    Attributes:
        address: of the cluster; see ``ray_cluster``.
        actors: how many sessions; default: what the cluster has room for; see ``pool_for``.
        threads: of each session.
        backend: as for ``open_session``.
        device: as for ``open_session``.
        batch_size: images per run of the network.
        shard_size: images per shard, rounded up to whole batches: what a killed worker loses at most.
        columns: of Parquet sources.
    """

    address: str = LOCAL
    actors: int | None = None
    threads: int | None = None
    backend: BackendName = "auto"
    device: DeviceName = "auto"
    batch_size: int | None = None
    shard_size: int = 1024
    columns: Columns = DEFAULT_COLUMNS


def embed_on_ray(
    artifact: Path,
    sources: Sequence[str],
    output: Path,
    options: ClusterRunOptions | None = None,
    *,
    manifest: Manifest | None = None,
    resume: bool = False,
    progress_bar: ProgressBar = no_progress_bar,
) -> ClusterRun:
    """Embed images into a folder of Parquet files, on all machines of a Ray cluster.

    Every shard becomes one file as :func:`reidexport.embed.files.write_embeddings` writes it, whole or not at all,
    so a run that was stopped in any way can be continued. An image that cannot be read becomes a row of the errors
    table. The rows are, bit for bit, those of ``embed_to_file`` with the same backend.

    Args:
        artifact: the ONNX file or engine; every node opens it from this path.
        sources: files, folders, patterns and URLs of images, tars and Parquet files; see ``shards_of``.
        output: the folder, which every node writes to.
        options: how the cluster embeds.
        manifest: of an ONNX file that carries none.
        resume: continue the run in the folder; without one, start.
        progress_bar: shows the shards that are done.

    Raises:
        InputError: an argument is invalid, a source is missing, or the run cannot be continued.
        ArtifactError: the artifact cannot be opened.
        NotInstalledError: Ray, a backend, a device or a package for URLs is missing.
        ClusterError: the cluster cannot be reached, or fails.
    """
    if find_spec("ray") is None:
        raise NotInstalledError('ray is not installed: pip install "reidexport[ray]"')
    began = time.time()
    options = options or ClusterRunOptions()
    if output.suffix in SUFFIXES:
        raise InputError(f"{output}: a run on Ray writes a folder. Pass a name without {output.suffix}.")
    known = manifest or artifact_manifest(artifact)
    batch = chosen_batch_size(known, options.batch_size)
    shards = shards_of(sources, math.ceil(options.shard_size / batch) * batch, options.columns)
    plan = make_plan(output, shards, manifest_sha256=known.sha256, columns=options.columns, resume=resume)
    unfinished = plan.unfinished()
    job = Job(
        output=output.resolve(),
        plan_sha256=plan.sha256,
        folder=Path.cwd(),
        columns=options.columns,
        artifact=artifact.resolve(),
        manifest=manifest,
        manifest_sha256=known.sha256,
        backend=options.backend,
        device=options.device,
        batch_size=batch,
    )
    rows = _embed_shards(job, plan, unfinished, options, progress_bar) if unfinished else []
    remove_left_overs(output)
    return _summary(plan, unfinished, rows, began)


def _embed_shards(
    job: Job, plan: Plan, unfinished: list[int], options: ClusterRunOptions, progress_bar: ProgressBar
) -> list[ShardRow]:
    """Let the cluster embed the unfinished shards of a plan."""
    rows: list[ShardRow] = []
    with ray_cluster(options.address), progress_bar("embedding shards", len(plan.offsets)) as progress:
        pool = pool_for(options.actors, options.threads, options.backend, options.device)
        for row in _embedded_shards(job, [plan.offsets[number] for number in unfinished], pool):
            rows.append(row)
            if progress:
                progress(len(plan.offsets) - len(unfinished) + len(rows))
    return rows


def _embedded_shards(job: Job, offsets: list[int], pool: Pool) -> Iterator[ShardRow]:
    """Let Ray Data hand one shard after the other to the actors; it restarts those that die."""
    ray = import_ray()
    shards = ray.data.from_items([{"offset": offset} for offset in offsets], override_num_blocks=len(offsets))
    done = shards.map_batches(
        ShardEmbedder,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool.num_actors, len(offsets))),
        fn_constructor_args=(job, pool.threads),
        num_cpus=pool.threads,
        num_gpus=pool.gpus,
    )
    try:
        for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
            for values in zip(*(batch[field].tolist() for field in ShardRow._fields), strict=True):
                row = ShardRow(*values)
                if row.error:
                    kind: type[ReidExportError] = getattr(errors, row.error)
                    raise kind(f"{row.message} What is finished is kept: continue with --resume.")
                yield row
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"Ray failed: {error} What is finished is kept: continue with --resume."
        ) from error


def _summary(plan: Plan, unfinished: list[int], rows: list[ShardRow], began: float) -> ClusterRun:
    now = time.time()
    resumed = set(range(len(plan.offsets))).difference(unfinished)
    counts = [finished_counts(plan.output, number) for number in resumed]
    num_new = sum(row.num_embedded for row in rows)
    return ClusterRun(
        output=plan.output,
        num_shards=len(plan.offsets),
        num_resumed_shards=len(resumed),
        num_embedded=sum(num for num, _ in counts) + num_new,
        num_new=num_new,
        num_bad=sum(num for _, num in counts) + sum(row.num_bad for row in rows),
        sessions=tuple(sorted({f"{row.node}: {row.session}" for row in rows})),
        seconds=now - min((row.ready for row in rows), default=now),
        total_seconds=now - began,
    )
