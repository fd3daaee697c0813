"""The fast half of a search: which gallery rows can be among a query's k nearest?

Every scan gives scores (greater is nearer) and a bound on how far a score can be from the truth. With s the k-th best
score less its bound, at least k rows are truly at s or better; so a row whose score with its bound is below s is not
among the k nearest.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime.compiled import kernel_module

from reidgallery.rows import CodedGallery, Features, Floats64, GalleryRows, Ints, Metric, Question
from reidgallery.scan import topk_numpy
from reidgallery.scan.blas_threads import single_threaded_blas
from reidgallery.scan.int8_scan import QUERY_LIMIT, code_rows, multiply
from reidgallery.scan.projection_scan import ProjectedRows, project

_UNIT_ROUNDOFF = 2.0**-24  # of float32
_QUERIES_AT_ONCE = 512  # enough for a fast product, few enough for a core's caches
_FEWEST_QUERIES = 16  # in a thread: a product with fewer is slow
_FEWEST_GROUPS, _GROUPS_OF_K = 256, 4  # so many that the k best are in almost as many


class Terms(NamedTuple):
    """score[i, j] = product[i, j] * row_scales[i] * column_scales[j] + column_offsets[j].

    It is within errors[i] + row_tails[i] * column_tails[j] of the truth. All are float64, of a length for each query or
    gallery row.
    """

    row_scales: Floats64
    column_scales: Floats64
    column_offsets: Floats64
    errors: Floats64
    row_tails: Floats64
    column_tails: Floats64

    def in_float32(self, queries: slice, columns: slice = slice(None)) -> tuple[Any, ...]:
        """Scales, tails, rounded up, and twice the errors, of some queries and columns, as the kernels take them."""
        scales = self.row_scales[queries], self.column_scales[columns], self.column_offsets[columns]
        tails = self.row_tails[queries], self.column_tails[columns]
        return (
            tuple(scale.astype(np.float32) for scale in scales),
            tuple((tail * (1 + 4 * _UNIT_ROUNDOFF)).astype(np.float32) for tail in tails),
            (2 * self.errors[queries]).astype(np.float32),
        )


class _Products(NamedTuple):
    """Products of queries with blocks of the gallery, which have these sizes.

    ``of`` gives those of some queries with one of the blocks, in memory that it is handed or its own.
    """

    blocks: Sequence[Any]
    sizes: Sequence[int]
    of: Callable[[slice, Any, Features], NDArray[Any]]


class _Again(NamedTuple):
    """Queries and gallery rows whose float32 products score better than those of a scan: for its candidates only."""

    queries: Features
    rows: Features
    terms: Terms


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


def float32_terms(question: Question) -> Terms:
    """Those of products in float32."""
    row_scales, column_scales, column_offsets, _ = _metric_terms(question)
    return Terms(
        row_scales,
        column_scales,
        column_offsets,
        errors=float32_errors(question),
        row_tails=np.zeros(len(row_scales)),
        column_tails=np.zeros(len(column_scales)),
    )


def float32_errors(question: Question) -> Floats64:
    """An inner product of D terms, however summed, is within ``D * 2**-24`` of the truth, times both norms."""
    row_scales, longest = query_terms(question)
    q_norms = question.q_norms * row_scales
    summing: Floats64 = _UNIT_ROUNDOFF * question.queries.shape[1] * q_norms * longest
    return summing + _rounding(q_norms, longest)


def float32_candidates(question: Question, threads: int) -> Candidates:
    """The rows that can be among the k nearest of each query, by blocks of a float32 matrix product."""
    products = _float32_products(question.queries, question.gallery)
    return _candidates(question, products, float32_terms(question), threads)


def projected_candidates(question: Question, projected: ProjectedRows, threads: int) -> Candidates:
    """As :func:`float32_candidates`, by products of ``gallery.projected()``.

    The bound is that of :mod:`reidgallery.scan.projection_scan`.
    """
    queries = project(question.queries, question.q_norms, projected.basis, threads)
    products = _float32_products(queries.rows, GalleryRows([projected.rows], question.gallery.norms))
    return _candidates(question, products, _projected_terms(question, queries, projected), threads)


def int8_candidates(question: Question, coded: CodedGallery, threads: int) -> Candidates:
    """As :func:`float32_candidates`, by integer products of ``gallery.coded()``.

    The bound is that of :mod:`reidgallery.scan.int8_scan`. Candidates by codes of projected rows are scored again by
    float32 products of these.
    """
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    again, queries = None, question.queries
    if coded.projected:
        projected = project(queries, question.q_norms, coded.projected.basis, threads)
        queries = projected.rows
        again = _Again(queries, coded.projected.rows, _projected_terms(question, projected, coded.projected))
    codes, scales, residuals = code_rows(queries, QUERY_LIMIT)
    q_norms, q_residuals = question.q_norms * row_scales, residuals * row_scales
    g_residuals = np.concatenate([block.residuals for block in coded.blocks]) * column_scales
    scores = Terms(
        row_scales * scales,
        column_scales * np.concatenate([block.scales for block in coded.blocks]),
        column_offsets,
        errors=q_residuals * longest + _rounding(q_norms, longest),
        row_tails=q_norms + q_residuals,
        column_tails=g_residuals,
    )
    if again:
        scores = _with_both_bounds(scores, again.terms)
    products = _Products(
        coded.blocks,
        [len(block.scales) for block in coded.blocks],
        lambda some, block, _: multiply(codes[some], block.columns, 1),
    )
    return _candidates(question, products, scores, threads, again)


def all_candidates(question: Question) -> Candidates:
    """Every row that a query may find."""
    rows = [question.rows_for(i) for i in range(len(question.queries))]
    return Candidates(
        np.cumsum([0, *map(len, rows)]),
        np.concatenate([np.empty(0, np.int64), *rows]),
        np.full(sum(map(len, rows)), np.inf, np.float32),
        np.ones(len(rows), np.bool_),
    )


def lowest_scores(question: Question, distances: Floats64) -> Floats64:
    """What the score of a row is at least that is at this float32 distance, or nearer, of each query."""
    row_scales, longest = query_terms(question)
    q_norms = question.q_norms
    scores = 1 - distances if question.metric == "cosine" else (q_norms**2 - distances) / 2
    return scores - _rounding(q_norms * row_scales, longest)


def _projected_terms(question: Question, queries: ProjectedRows, projected: ProjectedRows) -> Terms:
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    q_norms, rank = question.q_norms * row_scales, projected.rows.shape[1]
    return Terms(
        row_scales,
        column_scales,
        column_offsets,
        errors=_UNIT_ROUNDOFF * (rank + 4) * q_norms * longest + _rounding(q_norms, longest),
        row_tails=queries.residuals * row_scales,
        column_tails=projected.residuals * column_scales,
    )


def _with_both_bounds(scores: Terms, others: Terms) -> Terms:
    """Scores that are off by as much as both say; for any s > 0, ``ab + cd <= |(sa, c)| * |(b/s, d)|``."""
    means = [
        tails.mean() + np.finfo(np.float64).tiny
        for tails in (scores.row_tails, scores.column_tails, others.row_tails, others.column_tails)
    ]
    s = np.sqrt(means[1] * means[2] / (means[0] * means[3]))  # the least, where all tails are alike
    return scores._replace(
        errors=scores.errors + others.errors,
        row_tails=np.hypot(s * scores.row_tails, others.row_tails),
        column_tails=np.hypot(scores.column_tails / s, others.column_tails),
    )


def _float32_products(queries: Features, gallery: GalleryRows) -> _Products:
    """In the same memory again and again: fresh pages would cost a tenth of the product's time."""

    def products(some: slice, block: Features, memory: Features) -> Features:
        out = memory[: (some.stop - some.start) * len(block)].reshape(-1, len(block))
        return np.matmul(queries[some], block.T, out=out)

    blocks = list(gallery.blocks())
    return _Products(blocks, list(map(len, blocks)), products)


def _metric_terms(question: Question) -> tuple[Floats64, Floats64, Floats64, float]:
    """Scales and offset that turn inner products into scores, and the greatest length of a scaled gallery row."""
    row_scales, longest = query_terms(question)
    return row_scales, *column_terms(question.gallery.norms, question.metric), longest


def query_terms(question: Question) -> tuple[Floats64, float]:
    """The scale of each query, and the greatest length of a gallery row times its scale."""
    if question.metric == "cosine":
        return _inverse(question.q_norms), 1.0
    return np.ones(len(question.queries)), float(question.gallery.norms.max())


def column_terms(norms: Floats64, metric: Metric) -> tuple[Floats64, Floats64]:
    """The scale and the offset of gallery rows of these norms.

    The score is the cosine, or ``q·g - |g|²/2``, which falls as the Euclidean distance grows.
    """
    if metric == "cosine":
        return _inverse(norms), np.zeros(len(norms))
    return np.ones(len(norms)), -(norms**2) / 2


def _rounding(q_norms: Floats64, longest: float) -> Floats64:
    """What scaling the product, adding the offset and rounding the final distance can add to an error."""
    return 16 * _UNIT_ROUNDOFF * (q_norms + longest) ** 2


def _inverse(norms: Floats64) -> Floats64:
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


class _Kept(NamedTuple):
    """What a scan of some blocks keeps for some queries.

    Attributes:
        counts: int64, (num_query,): how many rows; -1, and none of them here, where they are too many.
        rows: int64, in order for each query, and
        highest: float32: the most that each can score, but for ``errors``.
        best: float32, (num_query, groups): the best scores, less their tails, of groups of rows.
    """

    counts: Ints
    rows: Ints
    highest: Features
    best: Features


def _candidates(
    question: Question, products: _Products, scores: Terms, threads: int, again: _Again | None = None
) -> Candidates:
    """Threads share the queries; where these are few, several take the same ones and share the gallery."""
    num_query = len(question.queries)
    at_once = min(_QUERIES_AT_ONCE, max(_FEWEST_QUERIES, num_query // threads))
    num_parts = max(1, -(-num_query // at_once))
    if num_parts > threads:  # as many for every thread
        num_parts = -(-num_parts // threads) * threads
    num_shares = max(1, min(threads // num_parts, len(products.blocks)))
    allowed = scores._replace(column_offsets=np.where(question.allowed, scores.column_offsets, -np.inf))
    firsts = np.cumsum([0, *products.sizes])
    kernels, capacity = compiled_kernels(), candidate_capacity(question.k)
    num_groups = max(_FEWEST_GROUPS, _GROUPS_OF_K * question.k)

    def scan(queries: slice, blocks: slice) -> _Kept:
        size = queries.stop - queries.start
        memory = np.empty(size * max(products.sizes), np.float32)
        kept = np.empty((size, capacity), np.int64), np.empty((size, capacity), np.float32)
        counts, best = np.zeros(size, np.int64), np.full((size, num_groups), -np.inf, np.float32)
        for number in range(blocks.start, blocks.stop):
            columns = slice(firsts[number], firsts[number + 1])
            scales, tails, margins = allowed.in_float32(queries, columns)
            kernels.select(
                products.of(queries, products.blocks[number], memory),
                columns.start,
                scales,
                tails,
                margins,
                question.q_keys[queries],
                question.g_keys[columns],
                question.k,
                best,
                kept,
                counts,
            )
        kernels.drop(question.k, best, margins, kept, counts)
        if again:
            scales, tails, margins = again.terms.in_float32(queries)
            best.fill(-np.inf)
            kernels.score_again(again.queries[queries], again.rows, scales, tails, best, kept, counts)
            kernels.drop(question.k, best, margins, kept, counts)
        is_kept = np.arange(max(0, counts.max(initial=0))) < counts[:, None]
        rows, highest = (values[:, : is_kept.shape[1]][is_kept] for values in kept)
        return _Kept(counts, rows, highest, best)

    errors = again.terms.errors if again else scores.errors
    parts, shares = _even_parts(num_query, num_parts), _even_parts(len(products.blocks), num_shares)
    with single_threaded_blas(), ThreadPoolExecutor(threads, "topk") as workers:
        done = [workers.map(scan, parts, repeat(blocks)) for blocks in shares]
        merged = [_merged(kept, question.k, errors[part]) for *kept, part in zip(*done, parts, strict=True)]
    counts, rows, highest, _ = (np.concatenate(values) for values in zip(*merged, strict=True))
    found = Candidates(np.append(0, np.cumsum(np.maximum(counts, 0))), rows, highest, counts >= 0)
    return found._replace(highest=(highest + errors[found.queries()]).astype(np.float32))


def _merged(shares: Sequence[_Kept], k: int, errors: Floats64) -> _Kept:
    """What shares of the gallery, in order, keep for the same queries; what is no longer among the best is dropped."""
    if len(shares) == 1:
        return shares[0]
    best = np.concatenate([share.best for share in shares], axis=1)
    counts = np.stack([share.counts for share in shares])
    is_whole = np.atleast_1d(np.all(counts >= 0, axis=0))
    numbers = np.arange(len(is_whole))
    queries = np.concatenate([np.repeat(numbers, np.maximum(own, 0)) for own in counts])
    rows, highest = (np.concatenate(values) for values in zip(*(share[1:3] for share in shares), strict=True))
    order = np.argsort(queries, kind="stable")
    thresholds = np.partition(best, -k, axis=1)[:, -k] - (2 * errors).astype(np.float32)
    order = order[is_whole[queries[order]] & (highest[order] >= thresholds[queries[order]])]
    counts = np.bincount(queries[order], minlength=len(is_whole))
    return _Kept(np.where(is_whole, counts, -1), rows[order], highest[order], best)


def _even_parts(length: int, num_parts: int) -> list[slice]:
    ends = [length * number // num_parts for number in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def candidate_capacity(k: int) -> int:
    """How many candidates a query may have before looking at all rows is as good."""
    return 4096 + 4 * k


def compiled_kernels() -> ModuleType:
    """The numba kernels, or their plain twins where numba is not installed."""
    return kernel_module("reidgallery.scan.topk_kernels") or topk_numpy
