"""What the functions of :mod:`reidgallery.scan.topk_kernels` do, plainly, a query at a time; they take the same."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidgallery.rows import Features, Floats64, Ints
from reidgallery.scan.scoring import BlockScoring
from reidgallery.scan.topk_scan import Shortlists


def select(products: NDArray[Any], first: int, scoring: BlockScoring, k: int, lists: Shortlists) -> None:
    """Add the rows of one block that can still be among the k best to the shortlists of some queries."""
    for i in np.flatnonzero(lists.counts >= 0):
        scores = products[i].astype(np.float32) * scoring.q_scales[i] * scoring.g_scales + scoring.g_offsets
        scores[scoring.g_keys == scoring.q_keys[i]] = -np.inf
        bounds = scoring.q_bounds[i] * scoring.g_bounds
        _keep_best(lists.best[i], scores - bounds)
        threshold = _kth_best(lists.best[i], k) - scoring.margins[i]
        scores += bounds
        hits = np.flatnonzero((scores >= threshold) & (scores > -np.inf))
        old = np.flatnonzero(lists.highest[i, : lists.counts[i]] >= threshold)
        rows = np.concatenate([lists.rows[i, old], first + hits])
        if len(rows) > lists.rows.shape[1]:
            lists.counts[i] = -1
            continue
        lists.highest[i, : len(rows)] = np.concatenate([lists.highest[i, old], scores[hits]])
        lists.rows[i, : len(rows)], lists.counts[i] = rows, len(rows)


def drop(margins: Features, k: int, lists: Shortlists) -> None:
    """Drop the candidates that cannot be among the k best any more."""
    for i in np.flatnonzero(lists.counts > 0):
        threshold = _kth_best(lists.best[i], k) - margins[i]
        left = np.flatnonzero(lists.highest[i, : lists.counts[i]] >= threshold)
        lists.counts[i] = len(left)
        for values in (lists.rows[i], lists.highest[i]):
            values[: len(left)] = values[left]


def rescore(queries: Features, rows: Features, scoring: BlockScoring, lists: Shortlists) -> None:
    """Score candidates by float32 products, one by one."""
    for i in np.flatnonzero(lists.counts > 0):
        own = lists.rows[i, : lists.counts[i]]
        products = rows[own] @ queries[i]
        scores = products * scoring.q_scales[i] * scoring.g_scales[own] + scoring.g_offsets[own]
        bounds = scoring.q_bounds[i] * scoring.g_bounds[own]
        _keep_best(lists.best[i], scores - bounds)
        lists.highest[i, : len(own)] = scores + bounds


def _keep_best(best: Features, scores: Features) -> None:
    """The best score of each group."""
    for start in range(0, len(scores), len(best)):
        some = scores[start : start + len(best)]
        np.maximum(best[: len(some)], some, out=best[: len(some)])


def _kth_best(values: Features, k: int) -> np.float32:
    best: np.float32 = np.partition(values, -k)[-k]
    return best


def mark_highest(ends: Ints, highest: Features, k: int, marks: NDArray[np.bool_]) -> None:
    """Mark the k candidates of each query that can score most."""
    for start, stop in pairwise(ends):
        own = highest[start:stop]
        marks[start:stop] = own >= _kth_best(own, k) if len(own) > k else True


def measure(
    queries: Features,
    rows: Features,
    first: int,
    starts: Ints,
    stops: Ints,
    indices: Ints,
    is_squared_distance: bool,
    out: Floats64,
) -> None:
    """Inner products, or squared Euclidean distances, of queries with some rows of a gallery, summed in float64."""
    for i, (start, stop) in enumerate(zip(starts.copy(), stops, strict=True)):
        starts[i] = start + np.searchsorted(indices[start:stop], first + len(rows))
        own = slice(start, starts[i])
        right, query = rows[indices[own] - first].astype(np.float64), queries[i].astype(np.float64)
        out[own] = ((query - right) ** 2).sum(axis=1) if is_squared_distance else (query * right).sum(axis=1)


def sort_nearest(
    ends: Ints, indices: Ints, distances: Features, nearest: Ints, nearest_distances: Features
) -> None:
    """Write the nearest rows of each query, equal distances in the order of the rows."""
    for i, (start, stop) in enumerate(pairwise(ends)):
        order = np.argsort(distances[start:stop], kind="stable")[: nearest.shape[1]]
        order = start + order[distances[start:stop][order] < np.inf]
        nearest[i, : len(order)], nearest_distances[i, : len(order)] = indices[order], distances[order]
