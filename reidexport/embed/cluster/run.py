"""Shards embedded by a cluster."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reidruntime import Manifest
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.session import chosen_batch_size

from reidexport.embed.cluster.cluster import ClusterRunOptions, import_ray, pool_for, ray_cluster
from reidexport.embed.cluster.worker import ShardEmbedder
from reidexport.embed.plan import Done, Plan
from reidexport.embed.shards import EmbeddingRunOptions
from reidexport.errors import ClusterError, ImageError, ReidExportError


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
    known = manifest or artifact_manifest(artifact)
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
