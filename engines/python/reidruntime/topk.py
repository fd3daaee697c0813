"""The nearest gallery rows of each query, exactly, without ever holding the distance matrix.

A fast scan (:mod:`reidruntime.topk_scan`) leaves few rows that can be among the k nearest, and measuring the k most
promising of them leaves fewer; their distances are then summed in float64. The answer so depends on neither the scan,
nor the BLAS, nor the threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np

from reidruntime.gallery_rows import CodedBlock, Features, Floats64, Ints, Question
from reidruntime.projection_scan import ProjectedRows
from reidruntime.topk_scan import (
    Candidates,
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
        threads: of everything but the float32 product, which has those of NumPy's BLAS.
        prepared: ``gallery.projected()``, ``gallery.coded_blocks()`` or the rows on a device, to scan these first; None
            to scan the rows themselves.
    """
    num_query, width = len(question.queries), min(question.k, len(question.gallery.lengths))
    indices = np.full((num_query, question.k), -1, np.int64)
    distances = np.full((num_query, question.k), np.inf, np.float32)
    at_once = max(1, min(_MAX_QUERIES_AT_ONCE, _CANDIDATES_BYTES // (12 * candidate_capacity(width))))
    for start in range(0, num_query if width else 0, at_once):
        part = question._replace(k=width).of(slice(start, start + at_once))
        for i, measured in enumerate(_measured_candidates(part, threads, prepared), start):
            order = np.lexsort((measured.rows, measured.distances))[:width]
            indices[i, : len(order)] = measured.rows[order]
            distances[i, : len(order)] = measured.distances[order]
    return Neighbours(indices, distances)


class _Measured(NamedTuple):
    """Gallery rows, in any order, and their distances to a query."""

    rows: Ints
    distances: Features


def _measured_candidates(question: Question, threads: int, prepared: Prepared | None) -> list[_Measured]:
    """The nearest rows, and others: by the prepared scan, where that leaves too many by the float32 one, else all."""
    scans: list[Callable[[Question], list[Candidates | None]]] = [
        partial(float32_candidates, threads=threads)
    ]
    if isinstance(prepared, ProjectedRows):
        scans.insert(0, partial(projected_candidates, projected=prepared, threads=threads))
    elif isinstance(prepared, DeviceRows):
        scans.insert(0, prepared.candidates)
    elif prepared is not None:
        scans.insert(0, partial(int8_candidates, coded=prepared, threads=threads))
    found: list[_Measured | None] = [None] * len(question.queries)
    for scan in scans:
        missing = np.array([i for i, measured in enumerate(found) if measured is None], np.int64)
        if len(missing):
            some = question.of(missing)
            for i, measured in zip(missing, _measured(some, scan(some), threads), strict=True):
                found[i] = measured
    missing = np.array([i for i, measured in enumerate(found) if measured is None], np.int64)
    rest = iter(_measure(question.of(missing), [question.rows_for(i) for i in missing], threads))
    return [next(rest) if measured is None else measured for measured in found]


def _measured(question: Question, found: Sequence[Candidates | None], threads: int) -> list[_Measured | None]:
    """Of many candidates the k most promising ones, then those that can be as near as the farthest of these."""
    none = np.empty(0, np.int64)
    promising = [none if candidates is None else _promising(candidates, question.k) for candidates in found]
    first = _measure(
        question, [c.rows[some] if c else none for c, some in zip(found, promising, strict=True)], threads
    )
    farthest = np.array([measured.distances.max(initial=-np.inf) for measured in first])
    others = []
    for candidates, some, threshold in zip(found, promising, lowest_scores(question, farthest), strict=True):
        if candidates is None:
            others.append(none)
            continue
        can_be_as_near = candidates.highest >= threshold
        can_be_as_near[some] = False
        others.append(candidates.rows[can_be_as_near])
    second = _measure(question, others, threads)
    return [
        candidates and _Measured(np.append(a.rows, b.rows), np.append(a.distances, b.distances))
        for candidates, a, b in zip(found, first, second, strict=True)
    ]


def _promising(candidates: Candidates, k: int) -> Ints:
    """Positions of the k candidates that can score most; of all where they are few."""
    num = len(candidates.rows)
    return np.arange(num) if num <= 2 * k else np.argpartition(candidates.highest, -k)[-k:]


def _measure(question: Question, rows: Sequence[Ints], threads: int) -> list[_Measured]:
    """The distances of some rows to each query."""
    if not rows:
        return []
    ends = np.cumsum([len(some) for some in rows])
    distances = np.split(_exact_distances(question, rows, threads), ends[:-1])
    return [_Measured(*pair) for pair in zip(rows, distances, strict=True)]


def _exact_distances(question: Question, candidates: Sequence[Ints], threads: int) -> Features:
    """The distance of every query to each of its candidates, all in one row."""
    gallery, kernels = question.gallery, compiled_kernels()
    if question.metric == "cosine":
        measure = kernels.dots if kernels else _dots
    else:
        measure = kernels.squared_distances if kernels else _squared_distances
    q_indices = np.repeat(np.arange(len(candidates)), [len(rows) for rows in candidates])
    g_indices = np.concatenate(candidates)
    by_row = np.argsort(g_indices, kind="stable")  # a row is then read once for all of its queries
    sums = np.empty(len(g_indices))

    def measure_pairs(rows: Features, first: int, pairs: Ints) -> None:
        some = np.empty(len(pairs))
        measure(question.queries, rows, q_indices[pairs], g_indices[pairs] - first, some)
        sums[pairs] = some

    with ThreadPoolExecutor(threads, "topk") as workers:
        start = first = 0
        for part in gallery.parts:
            stop = int(np.searchsorted(g_indices, first + len(part), sorter=by_row))
            shares = np.array_split(by_row[start:stop], threads)
            list(workers.map(measure_pairs, repeat(part), repeat(first), shares))
            start, first = stop, first + len(part)
    if question.metric == "euclidean":
        return sums.astype(np.float32)
    lengths = question.q_lengths[q_indices] * gallery.lengths[g_indices]
    cosines = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    distances: Features = np.float32(1) - cosines.astype(np.float32)
    return distances


def _dots(queries: Features, rows: Features, q_indices: Ints, g_indices: Ints, out: Floats64) -> None:
    for start in range(0, len(out), _PAIRS_AT_ONCE):
        pairs = slice(start, start + _PAIRS_AT_ONCE)
        left, right = queries[q_indices[pairs]].astype(np.float64), rows[g_indices[pairs]]
        out[pairs] = np.einsum("nd,nd->n", left, right)


def _squared_distances(
    queries: Features, rows: Features, q_indices: Ints, g_indices: Ints, out: Floats64
) -> None:
    for start in range(0, len(out), _PAIRS_AT_ONCE):
        pairs = slice(start, start + _PAIRS_AT_ONCE)
        differences = queries[q_indices[pairs]].astype(np.float64) - rows[g_indices[pairs]]
        out[pairs] = np.einsum("nd,nd->n", differences, differences)
