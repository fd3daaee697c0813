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

from reidgallery.rows import CodedGallery, Features, Floats64, Ints, Question
from reidgallery.scan.candidates import (
    Candidates,
    Neighbors,
    all_candidates,
    candidate_capacity,
    no_neighbors,
    unscored_candidates,
)
from reidgallery.scan.device_rows import DeviceRows
from reidgallery.scan.projection_scan import ProjectedRows
from reidgallery.scan.scoring import distances_from_sums, float32_scoring, lowest_scores
from reidgallery.scan.topk_scan import float32_candidates, int8_candidates, projected_candidates
from reidgallery.scan.topk_torch import bfloat16_candidates, wide_candidates

Prepared = ProjectedRows | DeviceRows | CodedGallery

_MAX_QUERIES_AT_ONCE = 4096
_CANDIDATES_BYTES = 2**28
_SHARE_QUERIES = 1024  # that the caches hold beside some of the rows that these are measured to
_NUMPY_SCORES, _NUMPY_PAIRS = 2**22, 256  # at once, where numba is not installed


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
    rank = partial(_ranked, threads=threads) if has_kernels() else _ranked_by_numpy
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
        return [*scans, _numpy_candidates]
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
    for part, place in question.gallery.placed_parts():
        topk_kernels.measure(
            question.queries, part, place.start, starts, stops, candidates.rows, is_squared, sums
        )
    return distances_from_sums(question, candidates.queries(), candidates.rows, sums)


def _numpy_candidates(question: Question) -> Candidates:
    """The rows that can be among the k nearest of each query, by a float32 matrix product, without numba."""
    scoring, rows = float32_scoring(question), list[Ints]()
    offsets = np.where(question.allowed, scoring.g_offsets, -np.inf)
    at_once = max(1, _NUMPY_SCORES // len(offsets))
    for start in range(0, len(question.queries), at_once):
        some = slice(start, start + at_once)
        products = [question.queries[some] @ block.T for block in question.gallery.blocks()]
        scores = np.concatenate(products, axis=1) * scoring.q_scales[some, None] * scoring.g_scales + offsets
        scores[question.q_keys[some, None] == question.g_keys] = -np.inf
        lowest = np.partition(scores, -question.k, axis=1)[:, -question.k] - 2 * scoring.errors[some]
        rows += map(np.flatnonzero, (scores >= lowest[:, None]) & (scores > -np.inf))
    return unscored_candidates(rows)


def _ranked_by_numpy(question: Question, candidates: Candidates) -> Neighbors:
    """As :func:`_ranked`, without numba: slower, with the same answer."""
    found = no_neighbors(len(question.queries), question.k)
    for query, ends in enumerate(pairwise(candidates.ends)):
        rows = candidates.rows[slice(*ends)]
        distances = distances_from_sums(
            question, np.full(len(rows), query), rows, _numpy_sums(question, query, rows)
        )
        order = np.argsort(distances, kind="stable")[: question.k]
        found.indices[query, : len(order)] = rows[order]
        found.distances[query, : len(order)] = distances[order]
    return found


def _numpy_sums(question: Question, query: int, rows: Ints) -> Floats64:
    """Inner products, or squared Euclidean distances, of a query and some rows."""
    sums, left = [np.empty(0)], question.queries[query].astype(np.float64)
    for start in range(0, len(rows), _NUMPY_PAIRS):
        right = question.gallery.take(rows[start : start + _NUMPY_PAIRS]).astype(np.float64)
        factors = np.broadcast_to(left, right.shape), right
        if question.metric == "euclidean":
            factors = left - right, left - right
        # A sum of its own for each row: BLAS would add up copies of a row in different orders.
        sums.append(np.einsum("nd,nd->n", *factors))
    return np.concatenate(sums)
