"""The nearest gallery rows of each query, exactly, without ever holding the distance matrix.

A fast scan (:mod:`reidruntime.topk_scan`) leaves few rows that can be among the k nearest, and measuring the k most
promising of them leaves fewer; their distances are then summed in float64. The answer so depends on neither the scan,
nor the BLAS, nor the threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidruntime.gallery_rows import CodedBlock, Features, Floats64, Ints, Question
from reidruntime.projection_scan import ProjectedRows
from reidruntime.topk_scan import (
    Candidates,
    all_candidates,
    candidate_capacity,
    compiled_kernels,
    float32_candidates,
    int8_candidates,
    lowest_scores,
    projected_candidates,
)
from reidruntime.topk_torch import DeviceRows

Prepared = ProjectedRows | DeviceRows | Sequence[CodedBlock]

_MAX_QUERIES_AT_ONCE = 4096
_CANDIDATES_BYTES = 2**27
_PAIRS_AT_ONCE = 256  # of the version without compiled kernels


class Neighbours(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64, (num_query, k): gallery rows; -1 where a query has fewer than k.
        distances: float32, (num_query, k): 1 - cosine similarity, or the squared Euclidean distance; infinite there.
    """

    indices: Ints
    distances: Features


def nearest(question: Question, threads: int, prepared: Prepared | None = None) -> Neighbours:
    """The k nearest rows of each query that it may find; equal distances in the order of the rows.

    The distance is 1 - cosine similarity, or the squared Euclidean distance. The cosine and the squared distance are
    summed in float64 and rounded to float32, and ordered by that.

    Args:
        question: queries, gallery, k, metric and filters.
        threads: of everything; NumPy's own products have one each meanwhile, in the whole process.
        prepared: ``gallery.projected()``, ``gallery.coded_blocks()`` or the rows on a device, to scan these first; None
            to scan the rows themselves.
    """
    num_query, width = len(question.queries), min(question.k, len(question.gallery.lengths))
    indices = np.full((num_query, question.k), -1, np.int64)
    distances = np.full((num_query, question.k), np.inf, np.float32)
    at_once = max(1, min(_MAX_QUERIES_AT_ONCE, _CANDIDATES_BYTES // (12 * candidate_capacity(width))))
    scans = _scans(threads, prepared)
    for start in range(0, num_query if width else 0, at_once):
        queries = np.arange(start, min(start + at_once, num_query))
        for scan in scans:  # each answers the queries that the one before could not
            part = question._replace(k=width).of(queries)
            candidates = scan(part)
            rows, row_distances, ends = _measured(part, candidates, threads)
            for i in np.flatnonzero(candidates.is_whole):
                own = slice(ends[i], ends[i + 1])
                order = np.argsort(row_distances[own], kind="stable")[:width]
                indices[queries[i], : len(order)] = rows[own][order]
                distances[queries[i], : len(order)] = row_distances[own][order]
            queries = queries[~candidates.is_whole]
            if not len(queries):
                break
    return Neighbours(indices, distances)


def _scans(threads: int, prepared: Prepared | None) -> list[Callable[[Question], Candidates]]:
    """What to look for candidates by: first what is prepared, then the rows in float32, at last no scan at all."""
    scans: list[Callable[[Question], Candidates]] = [
        partial(float32_candidates, threads=threads),
        all_candidates,
    ]
    if isinstance(prepared, ProjectedRows):
        scans.insert(0, partial(projected_candidates, projected=prepared, threads=threads))
    elif isinstance(prepared, DeviceRows):
        scans.insert(0, prepared.candidates)
    elif prepared is not None:
        scans.insert(0, partial(int8_candidates, coded=prepared, threads=threads))
    return scans


def _measured(question: Question, candidates: Candidates, threads: int) -> tuple[Ints, Features, Ints]:
    """Rows in order, their distances, and where those of each query begin and end.

    Measured are the k most promising candidates, then those that can be as near as the farthest of these.
    """
    distances = np.full(len(candidates.rows), np.inf, np.float32)
    is_promising = _promising(candidates, question.k)
    distances[is_promising] = _exact_distances(question, candidates.only(is_promising), threads)
    measured = np.where(is_promising, distances, -np.inf)
    is_empty = candidates.ends[:-1] == candidates.ends[1:]
    farthest = np.full(len(is_empty), -np.inf)
    if len(measured):
        farthest[~is_empty] = np.maximum.reduceat(measured, candidates.ends[:-1][~is_empty])
    thresholds = lowest_scores(question, farthest)[candidates.queries()]
    others = ~is_promising & (candidates.highest >= thresholds)
    distances[others] = _exact_distances(question, candidates.only(others), threads)
    return candidates.rows, distances, candidates.ends


def _promising(candidates: Candidates, k: int) -> NDArray[np.bool_]:
    """The k candidates of each query that can score most; all of them where they are few."""
    found = np.ones(len(candidates.rows), np.bool_)
    for start, stop in pairwise(candidates.ends):
        if stop - start > 2 * k:
            found[start + np.argpartition(candidates.highest[start:stop], -k)[:-k]] = False
    return found


def _exact_distances(question: Question, candidates: Candidates, threads: int) -> Features:
    """The distance of every query to each of its candidates."""
    gallery, kernels = question.gallery, compiled_kernels()
    measure = kernels.measure if kernels else measure_with_numpy
    starts, stops = candidates.ends[:-1].copy(), candidates.ends[1:]
    sums = np.empty(len(candidates.rows))

    def measure_to_part(rows: Features, first: int, queries: slice) -> None:
        own = starts[queries], stops[queries]
        measure(
            question.queries[queries],
            rows,
            first,
            *own,
            candidates.rows,
            question.metric == "euclidean",
            sums,
        )

    first = 0
    # Shares of as many candidates.
    ends = np.searchsorted(stops, np.linspace(0, len(sums), threads + 1)[1:-1])
    shares = [slice(*pair) for pair in pairwise([0, *ends, len(stops)])]
    with ThreadPoolExecutor(threads, "topk") as workers:
        for part in gallery.parts:
            list(workers.map(measure_to_part, repeat(part), repeat(first), shares))
            first += len(part)
    if question.metric == "euclidean":
        return sums.astype(np.float32)
    q_indices = candidates.queries()
    lengths = question.q_lengths[q_indices] * gallery.lengths[candidates.rows]
    cosines = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    distances: Features = np.float32(1) - cosines.astype(np.float32)
    return distances


def measure_with_numpy(
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
    for i, pairs in _pairs(len(rows), first, starts, stops, indices):
        query, some = queries[i].astype(np.float64), rows[indices[pairs] - first].astype(np.float64)
        left, right = (
            (query - some,) * 2 if is_squared_distance else (np.broadcast_to(query, some.shape), some)
        )
        # A sum of its own for each row: BLAS would add up copies of a row in different orders.
        out[pairs] = np.einsum("nd,nd->n", left, right)


def _pairs(
    num_rows: int, first: int, starts: Ints, stops: Ints, indices: Ints
) -> Iterator[tuple[int, slice]]:
    """For each query those of its indices that are of these rows, some at a time."""
    for i, (start, stop) in enumerate(zip(starts.copy(), stops, strict=True)):
        starts[i] = start + np.searchsorted(indices[start:stop], first + num_rows)
        for begin in range(start, starts[i], _PAIRS_AT_ONCE):
            yield i, slice(begin, min(begin + _PAIRS_AT_ONCE, starts[i]))
