"""Gallery rows that can be among the k nearest of each query, and those that are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidgallery.rows import Features, Ints, Question


class Candidates(NamedTuple):
    """The gallery rows that can be among the k nearest of each query.

    Attributes:
        ends: int64, (num_query + 1,): those of query i are from ``ends[i]`` to ``ends[i + 1]`` in
        rows: int64: gallery rows, in order for each query, and
        highest: float32: the most that each can score.
        is_whole: bool, (num_query,): where it is False there are too many of them for this to be a short cut, and none
            are here.
    """

    ends: Ints
    rows: Ints
    highest: Features
    is_whole: NDArray[np.bool_]

    def queries(self) -> Ints:
        """The query of each row."""
        return np.repeat(np.arange(len(self.is_whole)), np.diff(self.ends))

    def only(self, some: NDArray[np.bool_]) -> "Candidates":
        """Some of the rows."""
        ends = np.append(0, np.cumsum(some))[self.ends]
        return Candidates(ends, self.rows[some], self.highest[some], self.is_whole)

    def of(self, queries: slice) -> "Candidates":
        """Those of some of the queries, one after the other."""
        ends = self.ends[queries.start : queries.stop + 1]
        own = slice(ends[0], ends[-1])
        return Candidates(ends - ends[0], self.rows[own], self.highest[own], self.is_whole[queries])


class Neighbors(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64, (num_query, k): gallery rows; -1 where a query has fewer than k.
        distances: float32, (num_query, k): 1 - cosine similarity, or the squared Euclidean distance; infinite there.
    """

    indices: Ints
    distances: Features


def no_neighbors(num_query: int, k: int) -> Neighbors:
    """Neighbors to be filled in."""
    return Neighbors(np.full((num_query, k), -1, np.int64), np.full((num_query, k), np.inf, np.float32))


def candidate_capacity(k: int) -> int:
    """How many candidates a query may have before looking at all rows is as good."""
    return 4096 + 4 * k


def all_candidates(question: Question) -> Candidates:
    """Every row that a query may find."""
    return unscored_candidates([question.rows_for(i) for i in range(len(question.queries))])


def unscored_candidates(rows: Sequence[Ints]) -> Candidates:
    """These rows of each query, with no limit to what they can score."""
    return Candidates(
        np.cumsum([0, *map(len, rows)]),
        np.concatenate([np.empty(0, np.int64), *rows]),
        np.full(sum(map(len, rows)), np.inf, np.float32),
        np.ones(len(rows), np.bool_),
    )
