"""The fast half of a search: which gallery rows can be among a query's k nearest?

Every scan gives scores (greater is nearer) and a bound on how far a score can be from the truth. With s the k-th best
score less its bound, at least k rows are truly at s or better; so a row whose score with its bound is below s is not
among the k nearest.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidruntime.compiled import kernel_module
from reidruntime.gallery_rows import (
    BLOCK_ROWS,
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


class _Scores(NamedTuple):
    """score[i, j] = product[i, j] * row_scales[i] * column_scales[j] + column_offsets[j].

    It is within errors[i] + row_tails[i] * column_tails[j] of the truth.
    """

    products: Iterator[NDArray[Any]]
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
    """The gallery rows that can be among the k nearest of a query.

    Attributes:
        rows: their indices, in order.
        highest: the most that each can score.
    """

    rows: Ints
    highest: Features


def float32_terms(question: Question) -> Float32Terms:
    """An inner product of D terms, however summed, is within ``D * 2**-24`` of the truth, times both lengths."""
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    q_lengths = question.q_lengths * row_scales
    errors = _UNIT_ROUNDOFF * question.queries.shape[1] * q_lengths * longest + _rounding(q_lengths, longest)
    return Float32Terms(row_scales, column_scales, column_offsets, errors)


def float32_candidates(question: Question, threads: int) -> list[Candidates | None]:
    """The rows that can be among the k nearest of each query, by blocks of a float32 matrix product.

    Returns:
        For each query its rows, in order; None for one that has too many of them for this to be a short cut.
    """
    queries, gallery = question.queries, question.gallery
    scores = _Scores(
        _float32_products(queries, gallery),
        *float32_terms(question),
        row_tails=np.zeros(len(queries)),
        column_tails=np.zeros(len(gallery.lengths)),
    )
    return _candidates(question, scores, threads)


def projected_candidates(
    question: Question, projected: ProjectedRows, threads: int
) -> list[Candidates | None]:
    """As :func:`float32_candidates`, by products of ``gallery.projected()``.

    The bound is that of :mod:`reidruntime.projection_scan`.
    """
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    queries = project(question.queries, projected.basis)
    q_lengths, rank = question.q_lengths * row_scales, projected.rows.shape[1]
    scores = _Scores(
        products=_float32_products(queries.rows, GalleryRows([projected.rows], question.gallery.lengths)),
        row_scales=row_scales,
        column_scales=column_scales,
        column_offsets=column_offsets,
        errors=_UNIT_ROUNDOFF * (rank + 4) * q_lengths * longest + _rounding(q_lengths, longest),
        row_tails=queries.rests * row_scales,
        column_tails=projected.rests * column_scales,
    )
    return _candidates(question, scores, threads)


def int8_candidates(question: Question, coded: Sequence[CodedBlock], threads: int) -> list[Candidates | None]:
    """As :func:`float32_candidates`, by integer products of ``gallery.coded_blocks()``.

    The bound is that of :mod:`reidruntime.int8_scan`.
    """
    row_scales, column_scales, column_offsets, longest = _metric_terms(question)
    codes, steps, rests = code_rows(question.queries, QUERY_LIMIT)
    q_lengths, q_rests = question.q_lengths * row_scales, rests * row_scales
    scores = _Scores(
        products=(multiply(codes, block.columns, threads) for block in coded),
        row_scales=row_scales * steps,
        column_scales=column_scales * np.concatenate([block.steps for block in coded]),
        column_offsets=column_offsets,
        errors=q_rests * longest + _rounding(q_lengths, longest),
        row_tails=q_lengths + q_rests,
        column_tails=np.concatenate([block.rests for block in coded]) * column_scales,
    )
    return _candidates(question, scores, threads)


def lowest_scores(question: Question, distances: Floats64) -> Floats64:
    """What the score of a row is at least that is at this float32 distance, or nearer, of each query."""
    row_scales, _, _, longest = _metric_terms(question)
    q_lengths = question.q_lengths
    scores = 1 - distances if question.metric == "cosine" else (q_lengths**2 - distances) / 2
    return scores - _rounding(q_lengths * row_scales, longest)


def _float32_products(queries: Features, gallery: GalleryRows) -> Iterator[Features]:
    """One block after the other in the same memory: fresh pages would cost a tenth of the product's time."""
    memory = np.empty(len(queries) * BLOCK_ROWS, np.float32)
    for block in gallery.blocks():
        products = memory[: len(queries) * len(block)].reshape(len(queries), len(block))
        yield np.matmul(queries, block.T, out=products)


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


def _candidates(question: Question, scores: _Scores, threads: int) -> list[Candidates | None]:
    num_query, k = len(question.queries), question.k
    kernels = compiled_kernels()
    select = kernels.select if kernels else select_with_numpy
    capacity = candidate_capacity(k)
    indices, values = np.empty((num_query, capacity), np.int64), np.empty((num_query, capacity), np.float32)
    counts = np.zeros(num_query, np.int64)
    best = np.full((num_query, k), -np.inf, np.float32)
    margins = (2 * scores.errors).astype(np.float32)
    row_scales, column_scales = scores.row_scales.astype(np.float32), scores.column_scales.astype(np.float32)
    # Bounds are rounded up.
    row_tails = (scores.row_tails * (1 + 4 * _UNIT_ROUNDOFF)).astype(np.float32)
    column_tails = (scores.column_tails * (1 + 4 * _UNIT_ROUNDOFF)).astype(np.float32)
    offsets = np.where(question.allowed, scores.column_offsets, -np.inf).astype(np.float32)
    ends = [num_query * n // threads for n in range(threads + 1)]
    shares = [slice(start, stop) for start, stop in pairwise(ends)]

    def select_share(rows: slice, block: NDArray[Any], first: int) -> None:
        columns = slice(first, first + block.shape[1])
        select(
            block[rows],
            first,
            (row_scales[rows], column_scales[columns], offsets[columns]),
            (row_tails[rows], column_tails[columns]),
            margins[rows],
            question.q_keys[rows],
            question.g_keys[columns],
            best[rows],
            (indices[rows], values[rows]),
            counts[rows],
        )

    first = 0
    with ThreadPoolExecutor(threads, "topk") as workers:
        for block in scores.products:
            list(workers.map(select_share, shares, repeat(block), repeat(first)))
            first += block.shape[1]
    thresholds = best[:, 0] - margins
    found: list[Candidates | None] = []
    for i, count in enumerate(counts):
        near = np.flatnonzero(values[i, : max(count, 0)] >= thresholds[i])
        found.append(Candidates(indices[i, near], values[i, near]) if count >= 0 else None)
    return found


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
