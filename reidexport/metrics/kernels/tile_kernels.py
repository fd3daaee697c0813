"""Ranking features by tiles of their products, compiled; importing it needs numba."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reidruntime.compiled import compiled

from reidexport.metrics.kernels.ranking_kernels import num_below, num_up_to

_CHUNK = 32  # columns that are passed over at once where all of them are beyond a query's farthest match
_LANES = 32  # partial sums in a fixed order: vector instructions, and the same bits wherever it is inlined


class Features(NamedTuple):
    """(num_query, dim) and (num_gallery, dim) floats, and how to compare them."""

    query: npt.NDArray[np.floating[Any]]
    gallery: npt.NDArray[np.floating[Any]]
    is_cosine: bool


@compiled
def exact_distance(q, g, is_cosine):  # type: ignore[no-untyped-def]
    """The distance by which one query ranks, in float64: equal features get equal bits, wherever they are.

    Returns:
        The squared Euclidean distance; for cosine the similarity times the query's norm, negated.
    """
    if not is_cosine:
        return squared_distance(q, g)
    square = _product(g, g)
    return -_product(q, g) / np.sqrt(square) if square > 0 else 0.0


@compiled
def squared_distance(left, right):  # type: ignore[no-untyped-def]
    """Of two features, summed in float64."""
    return _summed(left, right, True)


@compiled
def _product(left, right):  # type: ignore[no-untyped-def]
    return _summed(left, right, False)


@compiled
def _summed(left, right, differences):  # type: ignore[no-untyped-def]
    """The squared differences, or else the products."""
    lanes = np.zeros(_LANES)
    whole = left.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += _term(left[start + lane], right[start + lane], differences)
    for k in range(whole, left.size):
        lanes[k - whole] += _term(left[k], right[k], differences)
    return lanes.sum()


@compiled
def _term(left, right, difference):  # type: ignore[no-untyped-def]
    a, b = np.float64(left), np.float64(right)
    return (a - b) ** 2 if difference else a * b


@compiled
def measure_pairs(features, pairs, values, begin, end):  # type: ignore[no-untyped-def]
    """Queries [begin, end): the exact distance of each of their pairs, into ``values``, float64."""
    for query in range(begin, end):
        for pair in range(pairs.starts[query], pairs.starts[query + 1]):
            image = features.gallery[pairs.kept[pairs.columns[pair]]]
            values[pair] = exact_distance(features.query[query], image, features.is_cosine)


@compiled
def prepare_tile(features, images, center, right, norms, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end): write what the products are taken of to ``right``, and its norms, float64.

    Row i is made of the gallery's ``images[i]``: ``center`` is subtracted, or for cosine it is scaled to unit length.
    """
    for i in range(begin, end):
        image, row = features.gallery[images[i]], right[i]
        if features.is_cosine:
            norms[i] = np.sqrt(_product(image, image))
            scale = right.dtype.type(norms[i] if norms[i] > 0 else 1)
            for k in range(row.size):
                row[k] = image[k] / scale
            norms[i] = 1
        else:
            for k in range(row.size):
                row[k] = image[k] - center[k]
            norms[i] = np.sqrt(_product(row, row))


@compiled
def count_in_tile(tile, terms, corner, bounds, ranking, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of a tile: add the images that are before each of their matches to ``counts.before``.

    An image nearer than a match's lowest bound is before it, and one beyond its highest is not: those are
    as far from its distance as rounding can take the product. What is between is measured exactly.

    ``tile``, (rows, width), holds products of features; ``terms``, (width,), is to be added to each row; ``bounds``,
    (2, num_pairs), is the lowest and the highest of each match: all of one dtype. ``corner`` is the query of the first
    row, and the position in ``pairs.kept`` of the first column. ``ranking`` is a :class:`Features`, the pairs, and the
    counts, whose values are the exact distances.
    """
    features, pairs, counts = ranking
    width = terms.size
    row, exact, near = np.empty(width, terms.dtype), np.empty(width), np.empty(width, np.int64)
    for i in range(begin, end):
        query = corner[0] + i
        first, last = pairs.starts[query], pairs.starts[query + 1]
        farthest = bounds.dtype.type(-np.inf)
        for pair in range(first, last):
            if pairs.is_match[pair]:
                farthest = max(farthest, bounds[1, pair])
        for j in range(width):
            row[j] = tile[i, j] + terms[j]
        size = _move_near_to_front(row, farthest, near)
        exact[:size] = np.nan
        for pair in range(first, last):
            if not pairs.is_match[pair]:
                continue
            low, high, value = bounds[0, pair], bounds[1, pair], counts.values[pair]
            before = num_below(row[:size], low)
            counts.before[pair] += before
            if num_up_to(row[:size], high) == before:
                continue
            for j in range(size):
                if low <= row[j] <= high:
                    column = corner[1] + near[j]
                    if np.isnan(exact[j]):
                        image = features.gallery[pairs.kept[column]]
                        exact[j] = exact_distance(features.query[query], image, features.is_cosine)
                    is_tie = exact[j] == value and column < pairs.columns[pair]
                    counts.before[pair] += exact[j] < value or is_tie


@compiled
def _move_near_to_front(row, farthest, near):  # type: ignore[no-untyped-def]
    """Put what is at ``farthest`` or nearer at the front of ``row``, where it was into ``near``; how many they are."""
    size = 0
    for start in range(0, row.size, _CHUNK):
        stop = min(start + _CHUNK, row.size)
        if num_up_to(row[start:stop], farthest) == 0:
            continue
        for j in range(start, stop):
            if row[j] <= farthest:
                row[size], near[size] = row[j], j
                size += 1
    return size
