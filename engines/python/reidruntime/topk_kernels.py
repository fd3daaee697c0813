"""The compiled half of :mod:`reidruntime.topk`; importing it needs numba. All kernels release the interpreter lock."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Sums may be reordered to vectorise: their error bounds hold for every order. Nothing is NaN: features are finite.
_ANY_ORDER = {"reassoc", "contract", "nnan", "nsz"}

_WIDTH = 16  # columns, a vector of the widest CPUs


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, fastmath=_ANY_ORDER)(function)
    except RuntimeError:  # no folder is writable: neither the install folder nor the user's cache
        return numba.njit(nogil=True, fastmath=_ANY_ORDER)(function)


@_compiled
def select(scores, first, scales, tails, margins, q_keys, g_keys, best, kept, counts):  # type: ignore[no-untyped-def]
    """One block of scores; see :func:`reidruntime.topk.select_with_numpy`, which does the same."""
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    for i in range(scores.shape[0]):
        if counts[i] < 0:
            continue
        heap = best[i]
        threshold = heap[0] - margins[i]
        row_scale, row_tail = row_scales[i], row_tails[i]
        for start in range(0, scores.shape[1], _WIDTH):
            stop = min(start + _WIDTH, scores.shape[1])
            highest = np.float32(-np.inf)
            for j in range(start, stop):  # vectorised; few of these hold a candidate
                score = np.float32(scores[i, j]) * (row_scale * column_scales[j]) + column_offsets[j]
                highest = max(highest, score + row_tail * column_tails[j])
            if highest < threshold:
                continue
            for j in range(start, stop):
                score = np.float32(scores[i, j]) * (row_scale * column_scales[j]) + column_offsets[j]
                tail = row_tail * column_tails[j]
                if score + tail < threshold or score == -np.inf or q_keys[i] == g_keys[j]:
                    continue
                if score - tail > heap[0]:
                    _replace_smallest(heap, score - tail)
                    threshold = heap[0] - margins[i]
                if counts[i] == indices.shape[1]:
                    _drop_below(threshold, indices[i], values[i], counts, i)
                    if counts[i] > indices.shape[1] // 2:
                        counts[i] = -1
                        break
                indices[i, counts[i]] = first + j
                values[i, counts[i]] = score + tail
                counts[i] += 1
            if counts[i] < 0:
                break


@_compiled
def _replace_smallest(heap, score):  # type: ignore[no-untyped-def]
    """Put a score where the smallest of a min-heap was."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = score


@_compiled
def _drop_below(threshold, indices, values, counts, i):  # type: ignore[no-untyped-def]
    """Keep what can still be among the nearest, in order."""
    stop = 0
    for n in range(counts[i]):
        if values[n] >= threshold:
            indices[stop] = indices[n]
            values[stop] = values[n]
            stop += 1
    counts[i] = stop


@_compiled
def dots(queries, rows, q_indices, g_indices, out):  # type: ignore[no-untyped-def]
    """Inner products of ``queries[q_indices]`` with ``rows[g_indices]``, pair by pair, summed in float64."""
    for n in range(out.size):
        query, row = queries[q_indices[n]], rows[g_indices[n]]
        total = 0.0
        for d in range(query.size):
            total += np.float64(query[d]) * np.float64(row[d])
        out[n] = total


@_compiled
def squared_distances(queries, rows, q_indices, g_indices, out):  # type: ignore[no-untyped-def]
    """Squared Euclidean distances of ``queries[q_indices]`` to ``rows[g_indices]``, likewise."""
    for n in range(out.size):
        query, row = queries[q_indices[n]], rows[g_indices[n]]
        total = 0.0
        for d in range(query.size):
            difference = np.float64(query[d]) - np.float64(row[d])
            total += difference * difference
        out[n] = total
