"""A run whose shards are spread over a cluster."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from reidruntime import Manifest, SessionOptions
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.session import DEFAULT_OPTIONS, chosen_batch_size

from reidexport.embed.cluster.cluster import LOCAL, Pool, import_ray, pool_for, ray_cluster
from reidexport.embed.cluster.worker import EmbeddedShard, Job, ShardEmbedder
from reidexport.embed.plan import Plan, Report
from reidexport.embed.run import embed_planned
from reidexport.embed.shards import EmbeddingRunOptions
from reidexport.errors import ClusterError, ImageError, NotInstalledError, ReidExportError
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.embeddings import EmbeddingRun


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


def embed_on_ray(
    artifact: Path,
    sources: Sequence[str],
    output: Path,
    options: EmbeddingRunOptions,
    cluster: ClusterRunOptions,
    *,
    manifest: Manifest | None = None,
    progress_bar: ProgressBar = no_progress_bar,
) -> EmbeddingRun:
    """Embed images on a Ray cluster, with :func:`reidexport.embed.run.embed_images`' outputs.

    Args:
        artifact: an ONNX file or a TensorRT engine, under the same path on every node.
        sources: as :func:`reidexport.embed.sources.shards_of` takes them, readable on every node.
        output: in a folder that every node can write to.
        options: of the run.
        cluster: where, and with how many sessions.
        manifest: the facts about an ONNX file that carries none.
        progress_bar: shows how far it is.

    Raises:
        InputError: a source, the output or an option is unfit, or a node does not see the same files.
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        NotInstalledError: Ray, or what opens a URL, is missing.
        ClusterError: the cluster cannot be reached, or fails.
    """
    if find_spec("ray") is None:
        raise NotInstalledError('ray is not installed: pip install "reidexport[ray]"')
    known = manifest or artifact_manifest(artifact)
    options = replace(options, batch_size=chosen_batch_size(known, options.batch_size))
    ready: dict[str, float] = {}

    def embed(plan: Plan, numbers: list[int]) -> Iterator[Report]:
        job = Job(
            plan=replace(plan, folder=plan.folder.resolve()),
            folder=Path.cwd(),
            artifact=artifact.resolve(),
            manifest=manifest,
            manifest_sha256=known.sha256,
            session=cluster.session,
            options=options,
        )
        with ray_cluster(cluster.address):
            pool = pool_for(cluster.actors, cluster.session)
            yield Report()
            for shard in _embedded_shards(job, numbers, pool):
                ready.setdefault(shard.session, shard.ready)
                yield shard.report

    run = embed_planned(embed, sources, output, known, options, progress_bar)
    seconds = time.time() - min(ready.values(), default=time.time())
    return run.model_copy(update={"sessions": tuple(sorted(ready)), "seconds": seconds})


def _embedded_shards(job: Job, numbers: list[int], pool: Pool) -> Iterator[EmbeddedShard]:
    """Hand one shard after the other to the actors; Ray starts those that die again, with the shard they had."""
    ray = import_ray()
    from ray.util import ActorPool

    embedder = ray.remote(ShardEmbedder).options(
        num_cpus=pool.threads, num_gpus=pool.gpus, max_restarts=-1, max_task_retries=-1
    )
    num_actors = min(pool.num_actors, len(numbers))
    actors = ActorPool([embedder.remote(job, pool.threads) for _ in range(num_actors)])
    try:
        yield from actors.map_unordered(lambda actor, number: actor.embed.remote(number), numbers)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ImageError) or not isinstance(cause, ReidExportError):
            raise cause from error
        raise type(cause)(f"{cause} What is finished is kept: continue with --resume.") from error
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"Ray failed: {error} What is finished is kept: continue with --resume."
        ) from error
