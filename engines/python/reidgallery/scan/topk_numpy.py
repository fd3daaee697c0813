"""What a search does for each query, plainly; serves where numba is not installed, and says what the kernels do.

:mod:`reidgallery.scan.topk_kernels` has the same functions, compiled.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidgallery.rows import Features, Floats64, Ints

_PAIRS_AT_ONCE = 256


def select(
    scores: NDArray[Any],
    first: int,
    scales: tuple[Features, Features, Features],
    tails: tuple[Features, Features],
    margins: Features,
    q_keys: Ints,
    g_keys: Ints,
    k: int,
    best: Features,
    kept: tuple[Ints, Features],
    counts: Ints,
) -> None:
    """Keep the columns of one block that can still be among the k best of their row.

    Columns are grouped. Where the best of k groups are truly at a score or better, so is the k-th best of all.

    Args:
        scores: products of a block, (rows, columns).
        first: gallery index of the block's first column.
        scales: row scales, column scales and column offsets, which make scores of them; an offset of minus infinity
            leaves a column out.
        tails: row and column tails, whose product is how far each score can be from the truth.
        margins: (rows,): how far below the k-th best a candidate may be on top of that.
        q_keys: (rows,), and
        g_keys: (columns,): equal keys leave a column out.
        k: how many are wanted.
        best: (rows, groups): the best scores so far, less their tails, of at least k groups; changed in place.
        kept: indices and scores, with their tails, of the candidates so far, (rows, capacity); changed in place.
        counts: (rows,): how many they are; becomes -1 where they are too many. Changed in place.
    """
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    for i in np.flatnonzero(counts >= 0):
        row = scores[i].astype(np.float32) * row_scales[i] * column_scales + column_offsets
        row[g_keys == q_keys[i]] = -np.inf
        tail = row_tails[i] * column_tails
        _keep_best(best[i], row - tail)
        threshold = _kth_best(best[i], k) - margins[i]
        row += tail
        hits = np.flatnonzero((row >= threshold) & (row > -np.inf))
        old = np.flatnonzero(values[i, : counts[i]] >= threshold)
        total = len(old) + len(hits)
        if total > indices.shape[1]:
            counts[i] = -1
            continue
        indices[i, :total] = np.concatenate([indices[i, old], first + hits])
        values[i, :total] = np.concatenate([values[i, old], row[hits]])
        counts[i] = total


def drop(k: int, best: Features, margins: Features, kept: tuple[Ints, Features], counts: Ints) -> None:
    """Drop the candidates that are no longer among the k best; arguments as those of :func:`select`."""
    indices, values = kept
    for i in np.flatnonzero(counts > 0):
        left = np.flatnonzero(values[i, : counts[i]] >= _kth_best(best[i], k) - margins[i])
        counts[i] = len(left)
        indices[i, : len(left)], values[i, : len(left)] = indices[i, left], values[i, left]


def score_again(
    queries: Features,
    rows: Features,
    scales: tuple[Features, Features, Features],
    tails: tuple[Features, Features],
    best: Features,
    kept: tuple[Ints, Features],
    counts: Ints,
) -> None:
    """Score candidates by float32 products, one by one; arguments as those of :func:`select`, of all columns.

    Args:
        queries: (rows, R).
        rows: (num_gallery, R).
        scales: as they make scores of the products.
        tails: how far these can be from the truth.
        best: (rows, groups): of minus infinity; changed in place.
        kept: the scores, with their tails, are replaced.
        counts: how many candidates there are.
    """
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    for i in np.flatnonzero(counts > 0):
        own = indices[i, : counts[i]]
        scores = (rows[own] @ queries[i]) * row_scales[i] * column_scales[own] + column_offsets[own]
        tail = row_tails[i] * column_tails[own]
        _keep_best(best[i], scores - tail)
        values[i, : counts[i]] = scores + tail


def _keep_best(best: Features, scores: Features) -> None:
    """Take the best of each group."""
    for start in range(0, len(scores), len(best)):
        some = scores[start : start + len(best)]
        np.maximum(best[: len(some)], some, out=best[: len(some)])


def _kth_best(values: Features, k: int) -> np.float32:
    best: np.float32 = np.partition(values, -k)[-k]
    return best


def mark_highest(ends: Ints, highest: Features, k: int, marks: NDArray[np.bool_]) -> None:
    """Mark the k candidates of each query that can score most, or a few more where some can score the same.

    Args:
        ends: (num_query + 1,): the candidates of query i are from ``ends[i]`` to ``ends[i + 1]``.
        highest: the most that each can score.
        k: how many.
        marks: as many as candidates; written to.
    """
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
    """Inner products, or squared Euclidean distances, of queries with some rows of a gallery, summed in float64.

    Args:
        queries: (num_query, D).
        rows: (n, D), some of the gallery.
        first: the gallery's index of the first of them.
        starts: (num_query,), where those indices begin that a query has not been measured to; moved behind the
            last one of these rows.
        stops: (num_query,), where they end.
        indices: of gallery rows, in order for each query.
        is_squared_distance: which of the two.
        out: as many; written to where the indices are of these rows.
    """
    for i, (start, stop) in enumerate(zip(starts.copy(), stops, strict=True)):
        starts[i] = start + np.searchsorted(indices[start:stop], first + len(rows))
        query = queries[i].astype(np.float64)
        for begin in range(start, starts[i], _PAIRS_AT_ONCE):
            pairs = slice(begin, min(begin + _PAIRS_AT_ONCE, starts[i]))
            some = rows[indices[pairs] - first].astype(np.float64)
            left, right = (
                (query - some,) * 2 if is_squared_distance else (np.broadcast_to(query, some.shape), some)
            )
            # A sum of its own for each row: BLAS would add up copies of a row in different orders.
            out[pairs] = np.einsum("nd,nd->n", left, right)


def sort_nearest(
    ends: Ints, indices: Ints, distances: Features, nearest: Ints, nearest_distances: Features
) -> None:
    """Write the nearest rows of each query, equal distances in the order of the rows.

    Args:
        ends: (num_query + 1,): the candidates of query i are from ``ends[i]`` to ``ends[i + 1]`` in
        indices: gallery rows, ascending for each query, and
        distances: to them; infinite where a row is not near enough to have been measured.
        nearest: (num_query, k) of -1; written to, and
        nearest_distances: (num_query, k) of infinity, likewise.
    """
    for i, (start, stop) in enumerate(pairwise(ends)):
        order = np.argsort(distances[start:stop], kind="stable")[: nearest.shape[1]]
        order = start + order[distances[start:stop][order] < np.inf]
        nearest[i, : len(order)], nearest_distances[i, : len(order)] = indices[order], distances[order]
