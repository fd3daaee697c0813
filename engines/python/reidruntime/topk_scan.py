"""The fast half of a search: which gallery rows can be among a query's k nearest?

Every scan gives scores (greater is nearer) and a bound on how far a score can be from the truth. With s the k-th best
score less its bound, at least k rows are truly at s or better; so a row whose score with its bound is below s is not
among the k nearest.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, repeat
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidruntime.blas_threads import single_threaded_blas
from reidruntime.compiled import kernel_module
from reidruntime.gallery_rows import (
    CodedBlock,
    Features,
    Floats64,
    GalleryRows,
    Ints,
    Question,
)
from reidruntime.int8_scan import QUERY_LIMIT, code_rows, multiply
from reidruntime.projection_scan import ProjectedRows, project

_UNIT_ROUNDOFF = 2.0**-24  # of float32
_QUERIES_AT_ONCE = 512  # enough for a fast product, few enough for a core's caches
_FEWEST_QUERIES = 16  # in a thread: a product with fewer is slow


class _Scores(NamedTuple):
    """score[i, j] = product[i, j] * row_scales[i] * column_scales[j] + column_offsets[j].

    It is within errors[i] + row_tails[i] * column_tails[j] of the truth. ``products`` gives those of some queries with
    one of the blocks, which have these sizes, in memory that it is handed or its own.
    """

    blocks: Sequence[Any]
    sizes: Sequence[int]
    products: Callable[[slice, Any, Features], NDArray[Any]]
    row_scales: Floats64
    column_scales: Floats64
    column_offsets: Floats64
    errors: Floats64
    row_tails: Floats64
    column_tails: Floats64


class Float32Terms(NamedTuple):
    """What makes scores of float32 inner products: as in :class:`_Scores`."""

    row_scales: Floats64
    column_scales: Floats64
    column_offsets: Floats64
    errors: Floats64


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


def float32_terms(question: Question) -> Float32Terms:
    """An inner product of D terms, however summed, is within ``D * 2**-24`` of the truth, times both lengths."""
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    q_lengths = question.q_lengths * row_scales
    errors = _UNIT_ROUNDOFF * question.queries.shape[1] * q_lengths * longest + _rounding(q_lengths, longest)
    return Float32Terms(row_scales, column_scales, column_offsets, errors)


def float32_candidates(question: Question, threads: int) -> Candidates:
    """The rows that can be among the k nearest of each query, by blocks of a float32 matrix product."""
    queries, gallery = question.queries, question.gallery
    blocks = list(gallery.blocks())
    scores = _Scores(
        blocks,
        list(map(len, blocks)),
        partial(_float32_products, queries),
        *float32_terms(question),
        row_tails=np.zeros(len(queries)),
        column_tails=np.zeros(len(gallery.lengths)),
    )
    return _candidates(question, scores, threads)


def projected_candidates(question: Question, projected: ProjectedRows, threads: int) -> Candidates:
    """As :func:`float32_candidates`, by products of ``gallery.projected()``.

    The bound is that of :mod:`reidruntime.projection_scan`.
    """
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    queries = project(question.queries, projected.basis)
    q_lengths, rank = question.q_lengths * row_scales, projected.rows.shape[1]
    blocks = list(GalleryRows([projected.rows], question.gallery.lengths).blocks())
    scores = _Scores(
        blocks=blocks,
        sizes=list(map(len, blocks)),
        products=partial(_float32_products, queries.rows),
        row_scales=row_scales,
        column_scales=column_scales,
        column_offsets=column_offsets,
        errors=_UNIT_ROUNDOFF * (rank + 4) * q_lengths * longest + _rounding(q_lengths, longest),
        row_tails=queries.rests * row_scales,
        column_tails=projected.rests * column_scales,
    )
    return _candidates(question, scores, threads)


def int8_candidates(question: Question, coded: Sequence[CodedBlock], threads: int) -> Candidates:
    """As :func:`float32_candidates`, by integer products of ``gallery.coded_blocks()``.

    The bound is that of :mod:`reidruntime.int8_scan`.
    """
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    codes, steps, rests = code_rows(question.queries, QUERY_LIMIT)
    q_lengths, q_rests = question.q_lengths * row_scales, rests * row_scales
    scores = _Scores(
        blocks=coded,
        sizes=[len(block.steps) for block in coded],
        products=lambda queries, block, _: multiply(codes[queries], block.columns, 1),
        row_scales=row_scales * steps,
        column_scales=column_scales * np.concatenate([block.steps for block in coded]),
        column_offsets=column_offsets,
        errors=q_rests * longest + _rounding(q_lengths, longest),
        row_tails=q_lengths + q_rests,
        column_tails=np.concatenate([block.rests for block in coded]) * column_scales,
    )
    return _candidates(question, scores, threads)


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
    row_scales, _, _, longest = _metric_terms(question)
    q_lengths = question.q_lengths
    scores = 1 - distances if question.metric == "cosine" else (q_lengths**2 - distances) / 2
    return scores - _rounding(q_lengths * row_scales, longest)


def _float32_products(queries: Features, some: slice, block: Features, memory: Features) -> Features:
    """In the same memory again and again: fresh pages would cost a tenth of the product's time."""
    products = memory[: (some.stop - some.start) * len(block)].reshape(-1, len(block))
    return np.matmul(queries[some], block.T, out=products)


def _metric_terms(question: Question) -> tuple[Floats64, Floats64, Floats64, float]:
    """Scales and offset that turn inner products into scores, and the greatest length of a scaled gallery row.

    The score is the cosine, or ``q·g - |g|²/2``, which falls as the Euclidean distance grows.
    """
    lengths = question.gallery.lengths
    if question.metric == "cosine":
        return _inverse(question.q_lengths), _inverse(lengths), np.zeros(len(lengths)), 1.0
    return np.ones(len(question.queries)), np.ones(len(lengths)), -(lengths**2) / 2, float(lengths.max())


def _rounding(q_lengths: Floats64, longest: float) -> Floats64:
    """What scaling the product, adding the offset and rounding the final distance can add to an error."""
    return 16 * _UNIT_ROUNDOFF * (q_lengths + longest) ** 2


def _inverse(lengths: Floats64) -> Floats64:
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)


class _Kept(NamedTuple):
    """What a scan of some blocks keeps for some queries.

    Attributes:
        counts: int64, (num_query,): how many rows; -1, and none of them here, where they are too many.
        rows: int64, in order for each query, and
        highest: float32: the most that each can score, but for ``errors``.
        best: float32, (num_query, k): the best scores, less their tails.
    """

    counts: Ints
    rows: Ints
    highest: Features
    best: Features


def _candidates(question: Question, scores: _Scores, threads: int) -> Candidates:
    """Threads share the queries; where these are few, several take the same ones and share the gallery."""
    num_query = len(question.queries)
    at_once = min(_QUERIES_AT_ONCE, max(_FEWEST_QUERIES, num_query // threads))
    num_parts = max(1, -(-num_query // at_once))
    num_shares = max(1, min(threads // num_parts, len(scores.blocks)))
    # Bounds are rounded up.
    tails = [
        (tail * (1 + 4 * _UNIT_ROUNDOFF)).astype(np.float32)
        for tail in (scores.row_tails, scores.column_tails)
    ]
    margins = (2 * scores.errors).astype(np.float32)
    row_scales, column_scales = scores.row_scales.astype(np.float32), scores.column_scales.astype(np.float32)
    offsets = np.where(question.allowed, scores.column_offsets, -np.inf).astype(np.float32)
    firsts = np.cumsum([0, *scores.sizes])
    kernels = compiled_kernels()
    select = kernels.select if kernels else select_with_numpy
    capacity = candidate_capacity(question.k)

    def scan(rows: slice, blocks: slice) -> _Kept:
        size = rows.stop - rows.start
        memory = np.empty(size * max(scores.sizes), np.float32)
        indices, values = np.empty((size, capacity), np.int64), np.empty((size, capacity), np.float32)
        counts, best = np.zeros(size, np.int64), np.full((size, question.k), -np.inf, np.float32)
        for number in range(blocks.start, blocks.stop):
            columns = slice(firsts[number], firsts[number + 1])
            select(
                scores.products(rows, scores.blocks[number], memory),
                columns.start,
                (row_scales[rows], column_scales[columns], offsets[columns]),
                (tails[0][rows], tails[1][columns]),
                margins[rows],
                question.q_keys[rows],
                question.g_keys[columns],
                best,
                (indices, values),
                counts,
            )
        is_kept = np.arange(max(0, counts.max(initial=0))) < counts[:, None]
        width = is_kept.shape[1]
        return _Kept(counts, indices[:, :width][is_kept], values[:, :width][is_kept], best)

    parts, shares = _even_parts(num_query, num_parts), _even_parts(len(scores.blocks), num_shares)
    with single_threaded_blas(), ThreadPoolExecutor(threads, "topk") as workers:
        done = [workers.map(scan, parts, repeat(blocks)) for blocks in shares]
        merged = [_merged(kept) for kept in zip(*done, strict=True)]
    kept = _Kept(*(np.concatenate(values) for values in zip(*merged, strict=True)))
    ends = np.append(0, np.cumsum(np.maximum(kept.counts, 0)))
    every = Candidates(ends, kept.rows, kept.highest, kept.counts >= 0)
    found = every.only(every.highest >= (kept.best.min(axis=1) - margins)[every.queries()])
    highest = found.highest + scores.errors[found.queries()]
    return found._replace(highest=highest.astype(np.float32))


def _merged(shares: Sequence[_Kept]) -> _Kept:
    """What shares of the gallery, in order, keep for the same queries."""
    if len(shares) == 1:
        return shares[0]
    counts = np.stack([share.counts for share in shares])
    is_whole = np.atleast_1d(np.all(counts >= 0, axis=0))
    numbers = np.arange(len(is_whole))
    queries = np.concatenate([np.repeat(numbers, np.maximum(own, 0)) for own in counts])
    order = np.argsort(queries, kind="stable")
    order = order[is_whole[queries[order]]]
    best = np.concatenate([share.best for share in shares], axis=1)
    k = shares[0].best.shape[1]
    return _Kept(
        np.where(is_whole, counts.sum(axis=0), -1),
        np.concatenate([share.rows for share in shares])[order],
        np.concatenate([share.highest for share in shares])[order],
        np.partition(best, -k, axis=1)[:, -k:],
    )


def _even_parts(length: int, num_parts: int) -> list[slice]:
    ends = [length * number // num_parts for number in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def candidate_capacity(k: int) -> int:
    """How many candidates a query may have before looking at all rows is as good."""
    return 2048 + 4 * k


def select_with_numpy(
    scores: NDArray[Any],
    first: int,
    scales: tuple[Features, Features, Features],
    tails: tuple[Features, Features],
    margins: Features,
    q_keys: Ints,
    g_keys: Ints,
    best: Features,
    kept: tuple[Ints, Features],
    counts: Ints,
) -> None:
    """Keep the columns of one block that can still be among the k best of their row.

    Args:
        scores: products of a block, (rows, columns).
        first: gallery index of the block's first column.
        scales: row scales, column scales and column offsets, which make scores of them; an offset of minus infinity
            leaves a column out.
        tails: row and column tails, whose product is how far each score can be from the truth.
        margins: (rows,): how far below the k-th best a candidate may be on top of that.
        q_keys: (rows,), and
        g_keys: (columns,): equal keys leave a column out.
        best: (rows, k): the best scores so far, less their tails, the smallest of them first; changed in place.
        kept: indices and scores, with their tails, of the candidates so far, (rows, capacity); changed in place.
        counts: (rows,): how many they are; becomes -1 where they are too many. Changed in place.
    """
    row_scales, column_scales, column_offsets = scales
    row_tails, column_tails = tails
    indices, values = kept
    for i in np.flatnonzero(counts >= 0):
        row = scores[i].astype(np.float32) * row_scales[i] * column_scales + column_offsets
        row[g_keys == q_keys[i]] = -np.inf
        tail = row_tails[i] * column_tails
        candidates = np.concatenate([best[i], row - tail])
        best[i] = np.partition(candidates, len(row))[len(row) :]
        threshold = best[i, 0] - margins[i]
        row += tail
        hits = np.flatnonzero((row >= threshold) & (row > -np.inf))
        old = np.flatnonzero(values[i, : counts[i]] >= threshold)
        total = len(old) + len(hits)
        if total > indices.shape[1]:
            counts[i] = -1
            continue
        indices[i, :total] = np.concatenate([indices[i, old], first + hits])
        values[i, :total] = np.concatenate([values[i, old], row[hits]])
        counts[i] = total


def compiled_kernels() -> ModuleType | None:
    """The numba kernels, or None where numba is not installed."""
    return kernel_module("topk_kernels")
