"""The compiled twin of :mod:`reidgallery.scan.topk_numpy`; importing it needs numba.

All kernels release the interpreter lock. Inner loops over whole arrays are functions of their own, without branches:
only such are vectorized.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Sums may be reordered to vectorize: their error bounds hold for every order. Nothing is NaN: features are finite.
_ANY_ORDER = {"reassoc", "contract", "nnan", "nsz"}

_SLACK = np.float32(1e-5)  # far more than rounding in float32 can matter
_LARGEST = np.finfo(np.float32).max
_HALVINGS = 10  # of the range in which the k-th best score lies
_ROWS_AT_ONCE = 512  # that all queries are compared with before the next ones are read from memory


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, fastmath=_ANY_ORDER)(function)
    except RuntimeError:  # no folder is writable: neither the install folder nor the user's cache
        return numba.njit(nogil=True, fastmath=_ANY_ORDER)(function)


@_compiled
def select(scores, first, scales, tails, margins, q_keys, g_keys, k, best, kept, counts):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.select`."""
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    block = column_scales.min(), column_scales.max(), column_offsets.max(), column_tails.max()
    if block[2] == -np.inf:  # all columns are left out
        return
    hits = np.empty(scores.shape[1], np.int32)
    for i in range(scores.shape[0]):
        if counts[i] < 0:
            continue
        row, row_scale, row_tail = scores[i], row_scales[i], row_tails[i]
        for start in range(0, row.size, best.shape[1]):
            some = slice(start, min(start + best.shape[1], row.size))
            sure = column_scales[some], column_offsets[some], column_tails[some]
            _keep_best(row[some], row_scale, row_tail, sure, q_keys[i], g_keys[some], best[i])
        threshold = _kth_best(best[i], k) - margins[i]
        if counts[i] + row.size > indices.shape[1]:
            _drop_below(threshold, indices[i], values[i], counts, i)
        num_hits = _columns_from(_least_product(threshold, row_scale, row_tail, block), row, hits)
        for j in hits[:num_hits]:
            highest = (
                np.float32(row[j]) * (row_scale * column_scales[j])
                + column_offsets[j]
                + row_tail * column_tails[j]
            )
            if highest < threshold or highest == -np.inf or q_keys[i] == g_keys[j]:
                continue
            if counts[i] == indices.shape[1]:
                counts[i] = -1
                break
            indices[i, counts[i]] = first + j
            values[i, counts[i]] = highest
            counts[i] += 1


@_compiled
def _keep_best(products, row_scale, row_tail, columns, q_key, g_keys, best):  # type: ignore[no-untyped-def]
    scales, offsets, tails = columns
    for n in range(products.size):
        sure = np.float32(products[n]) * (row_scale * scales[n]) + offsets[n] - row_tail * tails[n]
        sure = np.float32(-np.inf) if q_key == g_keys[n] else sure
        best[n] = sure if sure > best[n] else best[n]


@_compiled
def _kth_best(values, k):  # type: ignore[no-untyped-def]
    """At most the k-th greatest value, and close to it; minus infinity where there are fewer."""
    low, high = _least_finite(values), _greatest(values)
    if _count_from(low, values) < k:
        return np.float32(-np.inf)
    if _count_from(high, values) >= k:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / np.float32(2)
        if _count_from(middle, values) >= k:
            low = middle
        else:
            high = middle
    return low


@_compiled
def _least_finite(values):  # type: ignore[no-untyped-def]
    least = _LARGEST
    for n in range(values.size):
        value = values[n] if values[n] >= -_LARGEST else _LARGEST
        least = value if value < least else least
    return least


@_compiled
def _greatest(values):  # type: ignore[no-untyped-def]
    greatest = np.float32(-np.inf)
    for n in range(values.size):
        greatest = values[n] if values[n] > greatest else greatest
    return greatest


@_compiled
def _count_from(least, values):  # type: ignore[no-untyped-def]
    count = np.int32(0)
    for n in range(values.size):
        count += np.int32(values[n] >= least)
    return count


@_compiled
def _columns_from(least, row, hits):  # type: ignore[no-untyped-def]
    """Find the columns whose product is at least so much; without a branch, which would often be guessed wrongly."""
    found = 0
    for j in range(row.size):
        hits[found] = j
        found += np.float32(row[j]) >= least
    return found


@_compiled
def drop(k, best, margins, kept, counts):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.drop`."""
    indices, values = kept
    for i in range(counts.size):
        if counts[i] > 0:
            _drop_below(_kth_best(best[i], k) - margins[i], indices[i], values[i], counts, i)


@_compiled
def score_again(queries, rows, scales, tails, best, kept, counts):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.score_again`."""
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    done = np.zeros(counts.size, np.int64)
    for tile in range(0, rows.shape[0], _ROWS_AT_ONCE):
        stop = min(tile + _ROWS_AT_ONCE, rows.shape[0])
        for i in range(counts.size):
            while done[i] < counts[i] and indices[i, done[i]] < stop:
                j, n, group = indices[i, done[i]], done[i], done[i] % best.shape[1]
                score = _product(queries[i], rows[j]) * (row_scales[i] * column_scales[j]) + column_offsets[j]
                tail = row_tails[i] * column_tails[j]
                best[i, group] = max(best[i, group], score - tail)
                values[i, n] = score + tail
                done[i] += 1


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
def _drop_below(threshold, indices, values, counts, i):  # type: ignore[no-untyped-def]
    """Keep what can still be among the nearest, in order; without a branch, too."""
    stop = 0
    for n in range(counts[i]):
        value = values[n]
        indices[stop], values[stop] = indices[n], value
        stop += value >= threshold
    counts[i] = stop


@_compiled
def measure(queries, rows, first, starts, stops, indices, is_squared_distance, out):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.measure`."""
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
def _product(query, row):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(query.size):
        total += query[d] * row[d]
    return total


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


@_compiled
def mark_highest(ends, highest, k, marks):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.mark_highest`."""
    for i in range(ends.size - 1):
        own = highest[ends[i] : ends[i + 1]]
        least = _kth_best(own, k)
        for n in range(own.size):
            marks[ends[i] + n] = own[n] >= least


@_compiled
def sort_nearest(ends, indices, distances, nearest, nearest_distances):  # type: ignore[no-untyped-def]
    """See :func:`reidgallery.scan.topk_numpy.sort_nearest`; inserts one after the other, behind its equals."""
    k = nearest.shape[1]
    for i in range(ends.size - 1):
        found, found_distances = nearest[i], nearest_distances[i]
        for n in range(ends[i], ends[i + 1]):
            if distances[n] >= found_distances[k - 1]:
                continue
            place = k - 1
            while place > 0 and found_distances[place - 1] > distances[n]:
                found[place], found_distances[place] = found[place - 1], found_distances[place - 1]
                place -= 1
            found[place], found_distances[place] = indices[n], distances[n]
