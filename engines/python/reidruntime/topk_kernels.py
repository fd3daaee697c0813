"""The compiled half of :mod:`reidruntime.topk`; importing it needs numba. All kernels release the interpreter lock."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Sums may be reordered to vectorise: their error bounds hold for every order. Nothing is NaN: features are finite.
_ANY_ORDER = {"reassoc", "contract", "nnan", "nsz"}

_WIDTH = 32  # columns, two vectors of the widest CPUs
_SLACK = np.float32(1e-5)  # far more than rounding in float32 can matter
_ROWS_AT_ONCE = 512  # that all queries are measured to before the next ones are read from memory


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, fastmath=_ANY_ORDER)(function)
    except RuntimeError:  # no folder is writable: neither the install folder nor the user's cache
        return numba.njit(nogil=True, fastmath=_ANY_ORDER)(function)


@_compiled
def select(scores, first, scales, tails, margins, q_keys, g_keys, best, kept, counts):  # type: ignore[no-untyped-def]
    """One block of scores; see :func:`reidruntime.topk_scan.select_with_numpy`, which does the same."""
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    block = column_scales.min(), column_scales.max(), column_offsets.max(), column_tails.max()
    if block[2] == -np.inf:  # all columns are left out
        return
    for i in range(scores.shape[0]):
        if counts[i] < 0:
            continue
        row, heap = scores[i], best[i]
        threshold = heap[0] - margins[i]
        row_scale, row_tail = row_scales[i], row_tails[i]
        least = _least_product(threshold, row_scale, row_tail, block)
        for start in range(0, row.size, _WIDTH):
            highest = row[start]
            for product in row[start : start + _WIDTH]:  # vectorised; few of these hold a candidate
                highest = product if product > highest else highest
            if highest < least:
                continue
            for j in range(start, min(start + _WIDTH, row.size)):
                if row[j] < least:
                    continue
                score = np.float32(row[j]) * (row_scale * column_scales[j]) + column_offsets[j]
                tail = row_tail * column_tails[j]
                if score + tail < threshold or score == -np.inf or q_keys[i] == g_keys[j]:
                    continue
                if score - tail > heap[0]:
                    _replace_smallest(heap, score - tail)
                    threshold = heap[0] - margins[i]
                    least = _least_product(threshold, row_scale, row_tail, block)
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
def _least_product(threshold, row_scale, row_tail, block):  # type: ignore[no-untyped-def]
    """No smaller product can be a candidate, whatever its column of the block."""
    smallest_scale, largest_scale, largest_offset, largest_tail = block
    missing = threshold - row_tail * largest_tail - largest_offset
    scale = row_scale * (largest_scale if missing > 0 else smallest_scale)
    if scale > 0:
        return np.float32(missing / scale - abs(missing / scale) * _SLACK)
    return np.float32(np.inf if missing > 0 else -np.inf)


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
def measure(queries, rows, first, starts, stops, indices, is_squared_distance, out):  # type: ignore[no-untyped-def]
    """Queries and their candidates; see :func:`reidruntime.topk.measure_with_numpy`, which does the same."""
    for tile in range(0, rows.shape[0], _ROWS_AT_ONCE):
        stop = first + min(tile + _ROWS_AT_ONCE, rows.shape[0])
        for i in range(queries.shape[0]):
            while starts[i] < stops[i] and indices[starts[i]] < stop:
                row = rows[indices[starts[i]] - first]
                if is_squared_distance:
                    out[starts[i]] = _squared_distance(queries[i], row)
                else:
                    out[starts[i]] = _dot(queries[i], row)
                starts[i] += 1


@_compiled
def _dot(query, row):  # type: ignore[no-untyped-def]
    total = 0.0
    for d in range(query.size):
        total += np.float64(query[d]) * np.float64(row[d])
    return total


@_compiled
def _squared_distance(query, row):  # type: ignore[no-untyped-def]
    total = 0.0
    for d in range(query.size):
        difference = np.float64(query[d]) - np.float64(row[d])
        total += difference * difference
    return total
