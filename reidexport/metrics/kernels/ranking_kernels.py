"""The compiled half of :mod:`reidexport.metrics.ranking`; importing it needs numba.

The rank of a match is the number of images before it. Counting them is a comparison, which a processor does
for many images at once; sorting goes one by one.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reidruntime.compiled import compiled


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
                counts.before[pair] = num_up_to(row[:column], value) + num_below(row[column + 1 :], value)


@compiled
def num_below(values, limit):  # type: ignore[no-untyped-def]
    """How many are less."""
    number = np.int32(0)  # twice as fast as numba's default of 64 bits
    for j in range(values.size):
        number = np.int32(number + (values[j] < limit))
    return number


@compiled
def num_up_to(values, limit):  # type: ignore[no-untyped-def]
    """How many are less or equal."""
    number = np.int32(0)
    for j in range(values.size):
        number = np.int32(number + (values[j] <= limit))
    return number


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
