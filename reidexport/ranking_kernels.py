"""The compiled half of :mod:`reidexport.ranking`; importing it needs numba.

The rank of a match is the number of images before it. Counting them is a comparison, which a processor does
for many images at once; sorting goes one by one.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reidexport.compiled import compiled

_CHUNK = 256  # columns that stay in the first-level cache while all matches of a query are compared with them
_LANES = 32  # partial sums in a fixed order: vector instructions, and the same bits wherever it is inlined


class Pairs(NamedTuple):
    """Each query with every gallery image of its person: its matches, and the junk of its own camera.

    Attributes:
        kept: the gallery images whose pid is not -1, which are all that is ranked.
        starts: (num_query + 1,); the pairs of query i are ``starts[i]:starts[i + 1]``.
        columns: (num_pairs,) positions in ``kept``, increasing for each query.
        is_match: (num_pairs,) bool.
    """

    kept: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    is_match: npt.NDArray[np.bool_]


class Counts(NamedTuple):
    """What ranks the pairs.

    Attributes:
        values: (num_pairs,) distances.
        before: (num_pairs,) int64, for a match the kept images that are before it, else 0.
    """

    values: npt.NDArray[Any]
    before: npt.NDArray[np.int64]


class Features(NamedTuple):
    """(num_query, dim) and (num_gallery, dim) floats, and how to compare them."""

    query: npt.NDArray[np.floating[Any]]
    gallery: npt.NDArray[np.floating[Any]]
    is_cosine: bool


@compiled
def count_in_rows(distances, pairs, counts, has_nan, begin, end):  # type: ignore[no-untyped-def]
    """Queries [begin, end) of a distance matrix: write ``counts``, and who has NaN to ``has_nan``."""
    for query in range(begin, end):
        row = distances[query]
        num_nan = np.int32(0)
        for j in range(row.size):
            num_nan = np.int32(num_nan + (row[j] != row[j]))
        has_nan[query] = num_nan > 0
        if pairs.kept.size < row.size:
            row = row[pairs.kept]
        for pair in range(pairs.starts[query], pairs.starts[query + 1]):
            column = pairs.columns[pair]
            value = row[column]
            counts.values[pair] = value
            if pairs.is_match[pair]:
                counts.before[pair] = _num_up_to(row[:column], value) + _num_below(row[column + 1 :], value)


@compiled
def _num_below(values, limit):  # type: ignore[no-untyped-def]
    number = np.int32(0)  # twice as fast as numba's default of 64 bits
    for j in range(values.size):
        number = np.int32(number + (values[j] < limit))
    return number


@compiled
def _num_up_to(values, limit):  # type: ignore[no-untyped-def]
    number = np.int32(0)
    for j in range(values.size):
        number = np.int32(number + (values[j] <= limit))
    return number


@compiled
def exact_distance(q, g, is_cosine):  # type: ignore[no-untyped-def]
    """The distance by which one query ranks, in float64: equal features get equal bits, wherever they are.

    Returns:
        The squared Euclidean distance; for cosine the similarity times the query's length, negated.
    """
    if not is_cosine:
        return squared_distance(q, g)
    square = _product(g, g)
    return -_product(q, g) / np.sqrt(square) if square > 0 else 0.0


@compiled
def _product(left, right):  # type: ignore[no-untyped-def]
    lanes = np.zeros(_LANES)
    whole = left.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += np.float64(left[start + lane]) * np.float64(right[start + lane])
    for k in range(whole, left.size):
        lanes[k - whole] += np.float64(left[k]) * np.float64(right[k])
    return lanes.sum()


@compiled
def squared_distance(left, right):  # type: ignore[no-untyped-def]
    """Of two features, summed in float64."""
    lanes = np.zeros(_LANES)
    whole = left.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += (np.float64(left[start + lane]) - np.float64(right[start + lane])) ** 2
    for k in range(whole, left.size):
        lanes[k - whole] += (np.float64(left[k]) - np.float64(right[k])) ** 2
    return lanes.sum()


@compiled
def measure_pairs(features, pairs, values, begin, end):  # type: ignore[no-untyped-def]
    """Queries [begin, end): the exact distance of each of their pairs, into ``values``, float64."""
    for query in range(begin, end):
        for pair in range(pairs.starts[query], pairs.starts[query + 1]):
            image = features.gallery[pairs.kept[pairs.columns[pair]]]
            values[pair] = exact_distance(features.query[query], image, features.is_cosine)


@compiled
def prepare_tile(features, images, centre, right, lengths, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end): write what the products are taken of, and its lengths.

    Args:
        features: as they were given.
        images: the gallery images that the rows are to be made of.
        centre: (dim,), is subtracted; for cosine rows are scaled to unit length instead.
        right: (len(images), dim), written.
        lengths: (len(images),) float64, written.
        begin: the first row.
        end: one past the last.
    """
    for i in range(begin, end):
        image, row = features.gallery[images[i]], right[i]
        if features.is_cosine:
            lengths[i] = np.sqrt(_product(image, image))
            scale = right.dtype.type(lengths[i] if lengths[i] > 0 else 1)
            for k in range(row.size):
                row[k] = image[k] / scale
            lengths[i] = 1
        else:
            for k in range(row.size):
                row[k] = image[k] - centre[k]
            lengths[i] = np.sqrt(_product(row, row))


@compiled
def count_in_tile(tile, terms, corner, lowest, highest, features, pairs, counts, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of a tile: add the images that are before each of their matches to ``counts.before``.

    An image nearer than a match's ``lowest`` is before it, and one beyond its ``highest`` is not: those are
    as far from its distance as rounding can take the product. What is between is measured exactly.

    Args:
        tile: (rows, width) products of features.
        terms: (width,) of the dtype of ``tile``, to be added to each row.
        corner: the query of the tile's first row, and the position in ``pairs.kept`` of its first column.
        lowest: (num_pairs,) of the dtype of ``tile``.
        highest: (num_pairs,), likewise.
        features: as they were given.
        pairs: of which matches are counted for.
        counts: with the exact distances as values.
        begin: the first row.
        end: one past the last.
    """
    row, exact = np.empty(_CHUNK, tile.dtype), np.empty(_CHUNK)
    for i in range(begin, end):
        query = corner[0] + i
        for start in range(0, tile.shape[1], _CHUNK):
            size = min(_CHUNK, tile.shape[1] - start)
            for j in range(size):
                row[j] = tile[i, start + j] + terms[start + j]
            exact[:] = np.nan
            for pair in range(pairs.starts[query], pairs.starts[query + 1]):
                if not pairs.is_match[pair]:
                    continue
                low, high, value = lowest[pair], highest[pair], counts.values[pair]
                before = _num_below(row[:size], low)
                counts.before[pair] += before
                if _num_up_to(row[:size], high) == before:
                    continue
                for j in range(size):
                    if low <= row[j] <= high:
                        column = corner[1] + start + j
                        if np.isnan(exact[j]):
                            image = features.gallery[pairs.kept[column]]
                            exact[j] = exact_distance(features.query[query], image, features.is_cosine)
                        is_tie = exact[j] == value and column < pairs.columns[pair]
                        counts.before[pair] += exact[j] < value or is_tie


@compiled
def score_queries(pairs, counts, first_ranks, precisions, penalties):  # type: ignore[no-untyped-def]
    """Write each query's first rank (0-based, -1 without a match), its AP and its INP, both 0 without one.

    The query's own junk, which is in ``counts.before``, is taken out of the ranks.
    """
    for query in range(pairs.starts.size - 1):
        begin, end = pairs.starts[query], pairs.starts[query + 1]
        ranks = np.empty(end - begin, np.int64)
        num_matches = 0
        for match in range(begin, end):
            if pairs.is_match[match]:
                ranks[num_matches] = counts.before[match] - _num_junk_before(match, begin, end, pairs, counts)
                num_matches += 1
        first_ranks[query], precisions[query], penalties[query] = -1, 0, 0
        if num_matches > 0:
            ranks = np.sort(ranks[:num_matches])
            first_ranks[query] = ranks[0]
            precisions[query] = np.mean(np.arange(1, num_matches + 1) / (ranks + 1))
            penalties[query] = num_matches / (ranks[-1] + 1)


@compiled
def _num_junk_before(match, begin, end, pairs, counts):  # type: ignore[no-untyped-def]
    num_junk = 0
    for other in range(begin, end):
        if not pairs.is_match[other]:
            is_tie = counts.values[other] == counts.values[match] and other < match
            num_junk += counts.values[other] < counts.values[match] or is_tie
    return num_junk
