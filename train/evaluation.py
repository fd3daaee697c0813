"""The trained network scored on the test split, as ``reidexport eval`` scores its checkpoint."""

from collections.abc import Callable
from typing import Any

import torch
from reidruntime.manifest import Feature, Metric

from reidexport.checkpoint import Checkpoint, imagenet_preprocess
from reidexport.datasets import Dataset
from reidexport.evaluation import Evaluation, evaluate
from reidexport.families import REIDEXPORT, rename_keys
from reidexport.graph import GraphOptions
from reidexport.models import Baseline
from reidexport.torch_session import session_from_checkpoint


def checkpoint_in_memory(model: Baseline, height_px: int, width_px: int) -> Checkpoint:
    """What :func:`reidexport.load_checkpoint` would give for this network, without a file."""
    state_dict = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    return Checkpoint(
        name="network in training",
        sha256="",
        family=REIDEXPORT.name,
        layout="in memory",
        architecture=model.architecture,
        preprocess=imagenet_preprocess(height_px, width_px),
        state_dict=rename_keys(state_dict, REIDEXPORT),
        assumed=(),
    )


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    metric: Metric,
    feature: Feature | None = None,
    rerank: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Embed the test split in float32 and score it.

    Args:
        checkpoint: from a file or from :func:`checkpoint_in_memory`.
        dataset: with queries and gallery.
        metric: cosine or euclidean.
        feature: f_i or f_t; None: f_i where there is a neck.
        rerank: k-reciprocal re-ranking (paper, table 4).
        progress: called with the number of images done.
    """
    options = GraphOptions(feature=feature)
    with session_from_checkpoint(checkpoint, options, threads=torch.get_num_threads()) as session:
        return evaluate(session, dataset, metric=metric, rerank=rerank, progress=progress)


def scores(evaluation: Evaluation) -> dict[str, Any]:
    """rank1, rank5, rank10, mAP and mINP as fractions, and what they were computed with."""
    return {
        "dataset": evaluation.dataset,
        "feature": evaluation.manifest.feature,
        "metric": evaluation.metric,
        "rerank": evaluation.rerank,
        **evaluation.metrics.as_dict(),
    }
