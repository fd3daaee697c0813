"""What ranking is compared with, in the style of the published training code."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def plain_evaluator(
    distmat: Array, q_pids: Array, g_pids: Array, q_camids: Array, g_camids: Array
) -> tuple[Array, float]:
    """CMC of 50 ranks and mAP as reid-strong-baseline computes them: the gallery sorted, the AP a Python list."""
    order = np.argsort(distmat, axis=1, kind="stable")
    matches = (g_pids[order] == q_pids[:, None]).astype(np.int32)
    curves, precisions = [], []
    for query in range(len(q_pids)):
        is_junk = (g_pids[order[query]] == q_pids[query]) & (g_camids[order[query]] == q_camids[query])
        hits = matches[query][~is_junk]
        if not hits.any():
            continue
        found = hits.cumsum()
        curves.append(np.minimum(found, 1)[:50])
        at_rank = [number / (rank + 1.0) for rank, number in enumerate(found)]
        precisions.append((np.asarray(at_rank) * hits).sum() / hits.sum())
    return np.mean(np.asarray(curves, np.float64), axis=0), float(np.mean(precisions))


def original_re_ranking(
    q_feats: Array, g_feats: Array, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> Array:
    """Zhong et al. (CVPR 2017) as their code has it: dense, the weights and overlaps in float16."""
    feats = np.concatenate([q_feats, g_feats])
    num_query, num_images = len(q_feats), len(feats)
    squares = (feats**2).sum(axis=1)
    distance = squares[:, None] + squares[None, :]
    distance -= 2 * feats @ feats.T
    distance = np.transpose(distance / distance.max(axis=0))
    weights = np.zeros(distance.shape, np.float16)
    order = np.argsort(distance).astype(np.int32)

    def reciprocal(image: int, k: int) -> Array:
        forward = order[image, : k + 1]
        return forward[np.where(order[forward, : k + 1] == image)[0]]

    for image in range(num_images):
        core = expanded = reciprocal(image, k1)
        for candidate in core:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(theirs, core)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weight = np.exp(-distance[image, expanded])
        weights[image, expanded] = weight / weight.sum()
    distance = distance[:num_query]
    mean = np.zeros_like(weights)
    for image in range(num_images):
        mean[image] = weights[order[image, :k2]].mean(axis=0)
    weights = mean
    holders = [np.where(weights[:, image] != 0)[0] for image in range(num_images)]
    jaccard = np.zeros_like(distance)
    for query in range(num_query):
        overlap = np.zeros((1, num_images), np.float16)
        for image in np.where(weights[query] != 0)[0]:
            least = np.minimum(weights[query, image], weights[holders[image], image])
            overlap[0, holders[image]] += least
        jaccard[query] = 1 - overlap / (2.0 - overlap)
    final: Array = jaccard * (1 - lambda_value) + distance * lambda_value
    return final[:, num_query:]
