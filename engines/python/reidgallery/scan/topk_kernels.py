"""The inner loops of a search, compiled; importing this module needs numba.

All kernels release the interpreter lock. Inner loops over whole arrays are functions of their own, without branches:
only such are vectorized.
"""

from functools import partial

import numpy as np
from reidruntime.compiled import compiled

# Sums may be reordered to vectorize: their error bounds hold for every order. Nothing is NaN: features are finite.
_compiled = partial(compiled, fastmath={"reassoc", "contract", "nnan", "nsz"})

_SLACK = np.float32(1e-5)  # far more than rounding in float32 can matter
_LARGEST = np.finfo(np.float32).max
_BISECTIONS = 10  # of the range in which the k-th best score lies
_ROWS_AT_ONCE = 512  # that all queries are compared with before the next ones are read from memory


@_compiled
def select(products, first, scoring, k, lists):  # type: ignore[no-untyped-def]
    """Add the rows of one block that can still be among the k best to the shortlists of some queries.

    Args:
        products: of these queries and rows, (num_query, n), of any type.
        first: the gallery's index of the block's first row.
        scoring: a :class:`reidgallery.scan.scoring.BlockScoring`, as in all of these kernels.
        k: how many rows are wanted.
        lists: :class:`reidgallery.scan.topk_scan.Shortlists`, changed in place, as in all of these kernels.
    """
    block = scoring.g_scales.min(), scoring.g_scales.max(), scoring.g_offsets.max(), scoring.g_bounds.max()
    if block[2] == -np.inf:  # no query may find a row of the block
        return
    hits = np.empty(products.shape[1], np.int32)
    for i in range(products.shape[0]):
        if lists.counts[i] >= 0:
            threshold = _improve_best(i, products[i], scoring, k, lists.best)
            if lists.counts[i] + products.shape[1] > lists.rows.shape[1]:
                _drop_below(threshold, lists.rows[i], lists.highest[i], lists.counts, i)
            least = _least_product(threshold, scoring.q_scales[i], scoring.q_bounds[i], block)
            num_hits = _columns_from(least, products[i], hits)
            _append(i, products[i], hits[:num_hits], first, scoring, threshold, lists)


@_compiled
def _improve_best(i, row, scoring, k, best):  # type: ignore[no-untyped-def]
    """Let a query's products improve the best scores of its groups; return what a candidate must be able to score."""
    q_scale, q_bound, q_key, own = scoring.q_scales[i], scoring.q_bounds[i], scoring.q_keys[i], best[i]
    for start in range(0, row.size, own.size):
        some = slice(start, min(start + own.size, row.size))
        columns = scoring.g_scales[some], scoring.g_offsets[some], scoring.g_bounds[some]
        _keep_best(row[some], q_scale, q_bound, columns, q_key, scoring.g_keys[some], own)
    return _kth_best(own, k) - scoring.margins[i]


@_compiled
def _keep_best(products, q_scale, q_bound, columns, q_key, g_keys, best):  # type: ignore[no-untyped-def]
    g_scales, g_offsets, g_bounds = columns
    for n in range(products.size):
        lowest = np.float32(products[n]) * (q_scale * g_scales[n]) + g_offsets[n] - q_bound * g_bounds[n]
        lowest = np.float32(-np.inf) if q_key == g_keys[n] else lowest
        best[n] = lowest if lowest > best[n] else best[n]


@_compiled
def _append(i, row, hits, first, scoring, threshold, lists):  # type: ignore[no-untyped-def]
    """Add those of the hits that can score as much to a query's shortlist; give it up where there are too many."""
    g_scales, g_offsets, g_bounds = scoring.g_scales, scoring.g_offsets, scoring.g_bounds
    q_scale, q_bound = scoring.q_scales[i], scoring.q_bounds[i]
    q_key, g_keys = scoring.q_keys[i], scoring.g_keys
    rows, scores, count = lists.rows[i], lists.highest[i], lists.counts[i]
    for j in hits:
        highest = np.float32(row[j]) * (q_scale * g_scales[j]) + g_offsets[j] + q_bound * g_bounds[j]
        if highest < threshold or highest == -np.inf or q_key == g_keys[j]:
            continue
        if count == rows.size:
            count = -1
            break
        rows[count], scores[count] = first + j, highest
        count += 1
    lists.counts[i] = count


@_compiled
def _kth_best(values, k):  # type: ignore[no-untyped-def]
    """At most the k-th greatest value, and close to it; minus infinity where there are fewer."""
    low, high = _least_finite(values), _greatest(values)
    if _count_from(low, values) < k:
        return np.float32(-np.inf)
    if _count_from(high, values) >= k:
        return high
    for _ in range(_BISECTIONS):
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
def drop(margins, k, lists):  # type: ignore[no-untyped-def]
    """Drop the candidates that cannot be among the k best any more; ``margins`` are those of the scoring."""
    for i in range(lists.counts.size):
        if lists.counts[i] > 0:
            threshold = _kth_best(lists.best[i], k) - margins[i]
            _drop_below(threshold, lists.rows[i], lists.highest[i], lists.counts, i)


@_compiled
def rescore(queries, rows, scoring, lists):  # type: ignore[no-untyped-def]
    """Score candidates by float32 products, one by one.

    Args:
        queries: (num_query, R).
        rows: (num_gallery, R).
        scoring: of all rows, and of these products.
        lists: with ``best`` of minus infinity, which is written to; ``highest`` is replaced.
    """
    done = np.zeros(lists.counts.size, np.int64)
    for tile in range(0, rows.shape[0], _ROWS_AT_ONCE):
        stop = min(tile + _ROWS_AT_ONCE, rows.shape[0])
        for i in range(lists.counts.size):
            while done[i] < lists.counts[i] and lists.rows[i, done[i]] < stop:
                j, n, group = lists.rows[i, done[i]], done[i], done[i] % lists.best.shape[1]
                scale = scoring.q_scales[i] * scoring.g_scales[j]
                score = _product(queries[i], rows[j]) * scale + scoring.g_offsets[j]
                bound = scoring.q_bounds[i] * scoring.g_bounds[j]
                lists.best[i, group] = max(lists.best[i, group], score - bound)
                lists.highest[i, n] = score + bound
                done[i] += 1


@_compiled
def _least_product(threshold, q_scale, q_bound, block):  # type: ignore[no-untyped-def]
    """No smaller product can be a candidate, whatever its row of the block."""
    smallest_scale, largest_scale, largest_offset, largest_bound = block
    missing = threshold - q_bound * largest_bound - largest_offset
    scale = q_scale * (largest_scale if missing > 0 else smallest_scale)
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
    """Mark the k candidates of each query that can score most, or a few more where some can score the same.

    Args:
        ends: (num_query + 1,): the candidates of query i are from ``ends[i]`` to ``ends[i + 1]``.
        highest: the most that each can score.
        k: how many.
        marks: as many as candidates; written to.
    """
    for i in range(ends.size - 1):
        own = highest[ends[i] : ends[i + 1]]
        least = _kth_best(own, k)
        for n in range(own.size):
            marks[ends[i] + n] = own[n] >= least


@_compiled
def sort_nearest(ends, indices, distances, nearest, nearest_distances):  # type: ignore[no-untyped-def]
    """Write the nearest rows of each query, equal distances in the order of the rows.

    Args:
        ends: (num_query + 1,): the candidates of query i are from ``ends[i]`` to ``ends[i + 1]`` in
        indices: gallery rows, ascending for each query, and
        distances: to them; infinite where a row is not near enough to have been measured.
        nearest: (num_query, k) of -1; written to, and
        nearest_distances: (num_query, k) of infinity, likewise.
    """
    # Each is inserted behind its equals.
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
