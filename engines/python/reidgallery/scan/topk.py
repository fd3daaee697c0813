"""The nearest gallery rows of each query, exactly, without ever holding the distance matrix.

A fast scan (:mod:`reidgallery.scan.topk_scan`) leaves few rows that can be among the k nearest, and measuring the
k most promising of them leaves fewer; their distances are then summed in float64. The answer so depends on neither the
scan, nor the BLAS, nor the threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from reidruntime.compiled import kernel_module

from reidgallery.rows import CodedGallery, Features, Question
from reidgallery.scan import topk_numpy
from reidgallery.scan.candidates import (
    Candidates,
    Neighbors,
    all_candidates,
    candidate_capacity,
    no_neighbors,
)
from reidgallery.scan.device_rows import DeviceRows
from reidgallery.scan.projection_scan import ProjectedRows
from reidgallery.scan.scoring import distances_from_sums, lowest_scores
from reidgallery.scan.topk_scan import float32_candidates, int8_candidates, projected_candidates
from reidgallery.scan.topk_torch import bfloat16_candidates, wide_candidates

Prepared = ProjectedRows | DeviceRows | CodedGallery

_MAX_QUERIES_AT_ONCE = 4096
_CANDIDATES_BYTES = 2**28
_SHARE_QUERIES = 1024  # that the caches hold beside some of the rows that these are measured to


def nearest_rows(question: Question, threads: int, prepared: Prepared | None = None) -> Neighbors:
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
    nearest = no_neighbors(num_query, question.k)
    at_once = max(1, min(_MAX_QUERIES_AT_ONCE, _CANDIDATES_BYTES // (12 * candidate_capacity(width))))
    scans = _scans(threads, prepared)
    rank = partial(_ranked, threads=threads) if has_kernels() else topk_numpy.ranked
    for start in range(0, num_query if width else 0, at_once):
        queries = np.arange(start, min(start + at_once, num_query))
        for scan in scans:  # each answers the queries that the one before could not
            part = question._replace(k=width).of(queries)
            candidates = scan(part)
            found = rank(part, candidates)
            answered = queries[candidates.is_whole]
            nearest.indices[answered, :width] = found.indices[candidates.is_whole]
            nearest.distances[answered, :width] = found.distances[candidates.is_whole]
            queries = queries[~candidates.is_whole]
            if not len(queries):
                break
    return nearest


def has_kernels() -> bool:
    """Whether numba is installed; without it, only scans on a device are used, and NumPy does everything else."""
    return kernel_module("reidgallery.scan.topk_kernels") is not None


def _scans(threads: int, prepared: Prepared | None) -> list[Callable[[Question], Candidates]]:
    """What finds candidates: first the scan of what is prepared, then of the rows in float32, at last no scan."""
    scans: list[Callable[[Question], Candidates]] = []
    if isinstance(prepared, DeviceRows):
        scans = [partial(bfloat16_candidates, rows=prepared), partial(wide_candidates, rows=prepared)]
    if not has_kernels():
        return [*scans, topk_numpy.float32_candidates]
    if isinstance(prepared, ProjectedRows):
        scans = [partial(projected_candidates, projected=prepared, threads=threads)]
    elif isinstance(prepared, CodedGallery):
        scans = [partial(int8_candidates, coded=prepared, threads=threads)]
    return [*scans, partial(float32_candidates, threads=threads), all_candidates]


def _ranked(question: Question, candidates: Candidates, threads: int) -> Neighbors:
    """The nearest candidates of each query; threads take shares of the queries that have as many candidates each."""
    ends = candidates.ends[1:]
    num_shares = threads * -(-len(ends) // (threads * _SHARE_QUERIES))
    bounds = [0, *np.searchsorted(ends, np.linspace(0, ends[-1], num_shares + 1)[1:-1]), len(ends)]
    shares = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]

    def rank(queries: slice) -> Neighbors:
        return _nearest(question.of(queries), candidates.of(queries))

    with ThreadPoolExecutor(threads, "topk") as workers:
        return Neighbors(*map(np.concatenate, zip(*workers.map(rank, shares), strict=True)))


def _nearest(question: Question, candidates: Candidates) -> Neighbors:
    """The k nearest candidates of each query.

    Measured are the k that can score most, or a few more, then those that can be as near as the farthest of these.
    """
    from reidgallery.scan import topk_kernels

    is_promising = np.empty(len(candidates.rows), np.bool_)
    topk_kernels.mark_highest(candidates.ends, candidates.highest, question.k, is_promising)
    promising = candidates.only(is_promising)
    measured = _exact_distances(question, promising)
    distances = np.full(len(candidates.rows), np.inf, np.float32)
    distances[is_promising] = measured
    has_any = np.flatnonzero(np.diff(promising.ends))
    farthest = np.full(len(question.queries), -np.inf)
    if len(has_any):
        farthest[has_any] = np.maximum.reduceat(measured, promising.ends[has_any])
    others = ~is_promising & (candidates.highest >= lowest_scores(question, farthest)[candidates.queries()])
    distances[others] = _exact_distances(question, candidates.only(others))
    found = no_neighbors(len(question.queries), question.k)
    topk_kernels.sort_nearest(candidates.ends, candidates.rows, distances, found.indices, found.distances)
    return found


def _exact_distances(question: Question, candidates: Candidates) -> Features:
    """The distance of every query to each of its candidates."""
    from reidgallery.scan import topk_kernels

    starts, stops = candidates.ends[:-1].copy(), candidates.ends[1:]
    is_squared, sums = question.metric == "euclidean", np.empty(len(candidates.rows))
    for part, (first, _) in zip(question.gallery.parts, question.gallery.part_bounds(), strict=True):
        topk_kernels.measure(question.queries, part, first, starts, stops, candidates.rows, is_squared, sums)
    return distances_from_sums(question, candidates.queries(), candidates.rows, sums)
