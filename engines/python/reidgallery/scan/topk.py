"""The nearest gallery rows of each query, exactly, without ever holding the distance matrix.

A fast scan (:mod:`reidgallery.scan.topk_scan`) leaves few rows that can be among the k nearest, and measuring the
k most promising of them leaves fewer; their distances are then summed in float64. The answer so depends on neither the
scan, nor the BLAS, nor the threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from reidgallery.rows import CodedGallery, Features, Ints, Question
from reidgallery.scan.device_rows import DeviceRows
from reidgallery.scan.projection_scan import ProjectedRows
from reidgallery.scan.topk_scan import (
    Candidates,
    all_candidates,
    candidate_capacity,
    compiled_kernels,
    float32_candidates,
    int8_candidates,
    lowest_scores,
    projected_candidates,
)
from reidgallery.scan.topk_torch import bfloat16_candidates, wide_candidates

Prepared = ProjectedRows | DeviceRows | CodedGallery

_MAX_QUERIES_AT_ONCE = 4096
_CANDIDATES_BYTES = 2**28
_SHARE_QUERIES = 1024  # that the caches hold beside some of the rows that these are measured to


class Neighbors(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64, (num_query, k): gallery rows; -1 where a query has fewer than k.
        distances: float32, (num_query, k): 1 - cosine similarity, or the squared Euclidean distance; infinite there.
    """

    indices: Ints
    distances: Features


def nearest(question: Question, threads: int, prepared: Prepared | None = None) -> Neighbors:
    """The k nearest rows of each query that it may find; equal distances in the order of the rows.

    The distance is 1 - cosine similarity, or the squared Euclidean distance. The cosine and the squared distance are
    summed in float64 and rounded to float32, and ordered by that.

    Args:
        question: queries, gallery, k, metric and filters.
        threads: of everything; NumPy's own products have one each meanwhile, in the whole process.
        prepared: ``gallery.projected(…)``, ``gallery.coded(…)`` or the rows on a device, to scan these first; None to
            scan the rows themselves.
    """
    num_query, width = len(question.queries), min(question.k, len(question.gallery.norms))
    indices = np.full((num_query, question.k), -1, np.int64)
    distances = np.full((num_query, question.k), np.inf, np.float32)
    at_once = max(1, min(_MAX_QUERIES_AT_ONCE, _CANDIDATES_BYTES // (12 * candidate_capacity(width))))
    scans = _scans(threads, prepared)
    for start in range(0, num_query if width else 0, at_once):
        queries = np.arange(start, min(start + at_once, num_query))
        for scan in scans:  # each answers the queries that the one before could not
            part = question._replace(k=width).of(queries)
            candidates = scan(part)
            found = _ranked(part, candidates, threads)
            answered = queries[candidates.is_whole]
            indices[answered, :width] = found.indices[candidates.is_whole]
            distances[answered, :width] = found.distances[candidates.is_whole]
            queries = queries[~candidates.is_whole]
            if not len(queries):
                break
    return Neighbors(indices, distances)


def _scans(threads: int, prepared: Prepared | None) -> list[Callable[[Question], Candidates]]:
    """What to look for candidates by: first what is prepared, then the rows in float32, at last no scan at all."""
    scans: list[Callable[[Question], Candidates]] = [
        partial(float32_candidates, threads=threads),
        all_candidates,
    ]
    if isinstance(prepared, ProjectedRows):
        scans.insert(0, partial(projected_candidates, projected=prepared, threads=threads))
    elif isinstance(prepared, CodedGallery):
        scans.insert(0, partial(int8_candidates, coded=prepared, threads=threads))
    elif prepared is not None:
        scans[:0] = [partial(bfloat16_candidates, rows=prepared), partial(wide_candidates, rows=prepared)]
    return scans


def _ranked(question: Question, candidates: Candidates, threads: int) -> Neighbors:
    """The nearest candidates of each query; threads take shares of the queries that have as many candidates each."""
    ends = candidates.ends[1:]
    num_shares = threads * -(-len(ends) // (threads * _SHARE_QUERIES))
    bounds = [0, *np.searchsorted(ends, np.linspace(0, ends[-1], num_shares + 1)[1:-1]), len(ends)]
    shares = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]

    def rank(queries: slice) -> Neighbors:
        part, own = question.of(queries), candidates.of(queries)
        distances = _measured(part, own)
        shape = len(part.queries), question.k
        found = Neighbors(np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32))
        compiled_kernels().sort_nearest(own.ends, own.rows, distances, found.indices, found.distances)
        return found

    with ThreadPoolExecutor(threads, "topk") as workers:
        return Neighbors(*map(np.concatenate, zip(*workers.map(rank, shares), strict=True)))


def _measured(question: Question, candidates: Candidates) -> Features:
    """The distance of every query to its candidates; infinite to those that cannot be among its nearest.

    Measured are the k most promising candidates, then those that can be as near as the farthest of these.
    """
    distances = np.full(len(candidates.rows), np.inf, np.float32)
    is_promising = np.empty(len(distances), np.bool_)
    compiled_kernels().mark_highest(candidates.ends, candidates.highest, question.k, is_promising)
    promising = candidates.only(is_promising)
    measured = _exact_distances(question, promising)
    distances[is_promising] = measured
    has_any = np.flatnonzero(np.diff(promising.ends))
    farthest = np.full(len(question.queries), -np.inf)
    if len(has_any):
        farthest[has_any] = np.maximum.reduceat(measured, promising.ends[has_any])
    others = ~is_promising & (candidates.highest >= lowest_scores(question, farthest)[candidates.queries()])
    distances[others] = _exact_distances(question, candidates.only(others))
    return distances


def _exact_distances(question: Question, candidates: Candidates) -> Features:
    """The distance of every query to each of its candidates."""
    gallery, first = question.gallery, 0
    starts, sums = candidates.ends[:-1].copy(), np.empty(len(candidates.rows))
    for part in gallery.parts:
        compiled_kernels().measure(
            question.queries,
            part,
            first,
            starts,
            candidates.ends[1:],
            candidates.rows,
            question.metric == "euclidean",
            sums,
        )
        first += len(part)
    if question.metric == "euclidean":
        return sums.astype(np.float32)
    q_indices = candidates.queries()
    norms = question.q_norms[q_indices] * gallery.norms[candidates.rows]
    cosines = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    distances: Features = np.float32(1) - cosines.astype(np.float32)
    return distances
