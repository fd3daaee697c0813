"""The fast part of a search: which gallery rows can be among a query's k nearest?

Every scan gives scores (greater is nearer) and a bound on how far a score can be from the truth. With s the k-th best
score less its bound, at least k rows are truly at s or better; so a row whose score with its bound is below s is not
among the k nearest. The kernels need numba.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidgallery.rows import CodedGallery, Features, Floats64, GalleryRows, Ints, Question
from reidgallery.scan.blas_threads import single_threaded_blas
from reidgallery.scan.candidates import Candidates, candidate_capacity
from reidgallery.scan.int8_scan import QUERY_LIMIT, CodedRows, code_rows, multiply
from reidgallery.scan.projection_scan import ProjectedRows, project
from reidgallery.scan.scoring import (
    Scoring,
    float32_scoring,
    int8_scoring,
    projected_scoring,
    with_both_bounds,
)

_QUERIES_AT_ONCE = 512  # enough for a fast product, few enough for a core's caches
_FEWEST_QUERIES = 16  # in a thread: a product with fewer is slow
_FEWEST_GROUPS, _GROUPS_OF_K = 256, 4  # so many that the k best are in almost as many


class Shortlists(NamedTuple):
    """The candidates of some queries while blocks are scanned; the kernels change them in place.

    Attributes:
        counts: int64, (num_query,): how many candidates; -1 where they are too many.
        rows: int64, (num_query, capacity): in order for each query, and
        highest: float32, (num_query, capacity): the most that each can score, but for the errors.
        best: float32, (num_query, groups): the best scores, less their bounds, of groups of rows. Where the best of k
            groups are truly at a score or better, so is the k-th best of all.
    """

    counts: Ints
    rows: Ints
    highest: Features
    best: Features


class _Block(NamedTuple):
    """So many rows of the gallery, and their products with some queries, in memory that is handed in or their own."""

    size: int
    products: Callable[[slice, Features], NDArray[Any]]


class _Rescoring(NamedTuple):
    """Queries and gallery rows whose float32 products score better than those of a scan: for its candidates only."""

    queries: Features
    rows: Features
    scoring: Scoring


class _Scan(NamedTuple):
    """What to multiply, how products become scores, and how its candidates are scored in the end."""

    question: Question
    blocks: Sequence[_Block]
    scoring: Scoring
    rescoring: _Rescoring | None = None


def float32_candidates(question: Question, threads: int) -> Candidates:
    """The rows that can be among the k nearest of each query, by blocks of a float32 matrix product."""
    blocks = _float32_blocks(question.queries, question.gallery)
    return _candidates(_Scan(question, blocks, float32_scoring(question)), threads)


def projected_candidates(question: Question, projected: ProjectedRows, threads: int) -> Candidates:
    """As :func:`float32_candidates`, by products of ``gallery.projected()``."""
    queries = project(question.queries, question.q_norms, projected.basis, threads)
    blocks = _float32_blocks(queries.rows, GalleryRows([projected.rows], question.gallery.norms))
    return _candidates(_Scan(question, blocks, projected_scoring(question, queries, projected)), threads)


def int8_candidates(question: Question, coded: CodedGallery, threads: int) -> Candidates:
    """As :func:`float32_candidates`, by integer products of ``gallery.coded()``.

    Candidates by codes of projected rows are scored again by float32 products of these.
    """
    rescoring, queries = None, question.queries
    if coded.projected:
        projected = project(queries, question.q_norms, coded.projected.basis, threads)
        queries = projected.rows
        scoring = projected_scoring(question, projected, coded.projected)
        rescoring = _Rescoring(queries, coded.projected.rows, scoring)
    codes = code_rows(queries, QUERY_LIMIT)
    scoring = int8_scoring(question, codes, coded)
    if rescoring:
        scoring = with_both_bounds(scoring, rescoring.scoring)

    def products(block: CodedRows, some: slice, _: Features) -> NDArray[np.int32]:
        return multiply(codes.codes[some], block.codes, 1)

    blocks = [_Block(len(block.scales), partial(products, block)) for block in coded.blocks]
    return _candidates(_Scan(question, blocks, scoring, rescoring), threads)


def _float32_blocks(queries: Features, gallery: GalleryRows) -> list[_Block]:
    """Products in the same memory again and again: fresh pages would cost a tenth of their time."""

    def products(block: Features, some: slice, memory: Features) -> Features:
        out = memory[: (some.stop - some.start) * len(block)].reshape(-1, len(block))
        return np.matmul(queries[some], block.T, out=out)

    return [_Block(len(block), partial(products, block)) for block in gallery.blocks()]


def _candidates(scan: _Scan, threads: int) -> Candidates:
    """Run a scan; each thread takes some queries, and where these are few, some blocks."""
    question = scan.question
    offsets = np.where(question.allowed, scan.scoring.g_offsets, -np.inf)
    scan = scan._replace(scoring=scan.scoring._replace(g_offsets=offsets))
    errors = scan.rescoring.scoring.errors if scan.rescoring else scan.scoring.errors
    parts, shares = _divided(len(question.queries), len(scan.blocks), threads)
    with single_threaded_blas(), ThreadPoolExecutor(threads, "topk") as workers:
        kept = [workers.map(partial(_scan_blocks, scan), parts, repeat(blocks)) for blocks in shares]
        merged = [_merged(own, question.k, errors[part]) for *own, part in zip(*kept, parts, strict=True)]
    counts = np.concatenate([np.diff(own.ends) for own in merged])
    _, rows, highest, is_whole = (np.concatenate(values) for values in zip(*merged, strict=True))
    highest = (highest + np.repeat(errors, counts)).astype(np.float32)
    return Candidates(np.append(0, np.cumsum(counts)), rows, highest, is_whole)


def _divided(num_query: int, num_blocks: int, threads: int) -> tuple[list[slice], list[slice]]:
    """Parts of the queries, and shares of the blocks that every part is compared with, one for each thread."""
    at_once = min(_QUERIES_AT_ONCE, max(_FEWEST_QUERIES, num_query // threads))
    num_parts = max(1, -(-num_query // at_once))
    if num_parts > threads:  # as many for every thread
        num_parts = -(-num_parts // threads) * threads
    num_shares = max(1, min(threads // num_parts, num_blocks))
    return _even_parts(num_query, num_parts), _even_parts(num_blocks, num_shares)


def _even_parts(length: int, num_parts: int) -> list[slice]:
    ends = [length * number // num_parts for number in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _scan_blocks(scan: _Scan, queries: slice, blocks: slice) -> tuple[Candidates, Features]:
    """The candidates of some queries among the rows of some blocks, but for the errors, and the best of groups."""
    from reidgallery.scan import topk_kernels

    question, num_query = scan.question, queries.stop - queries.start
    shape = num_query, candidate_capacity(question.k)
    lists = Shortlists(
        np.zeros(num_query, np.int64),
        np.empty(shape, np.int64),
        np.empty(shape, np.float32),
        np.full((num_query, max(_FEWEST_GROUPS, _GROUPS_OF_K * question.k)), -np.inf, np.float32),
    )
    memory = np.empty(num_query * max(block.size for block in scan.blocks), np.float32)
    first = sum(block.size for block in scan.blocks[: blocks.start])
    for size, products in scan.blocks[blocks]:
        scoring = scan.scoring.block(question, queries, slice(first, first + size))
        topk_kernels.select(products(queries, memory), first, scoring, question.k, lists)
        first += size
    topk_kernels.drop(scoring.margins, question.k, lists)
    if scan.rescoring:
        scoring = scan.rescoring.scoring.block(question, queries, slice(None))
        lists.best.fill(-np.inf)
        topk_kernels.rescore(scan.rescoring.queries[queries], scan.rescoring.rows, scoring, lists)
        topk_kernels.drop(scoring.margins, question.k, lists)
    is_kept = np.arange(max(0, lists.counts.max(initial=0))) < lists.counts[:, None]
    some = slice(is_kept.shape[1])
    ends = np.append(0, np.cumsum(np.maximum(lists.counts, 0)))
    rows, highest = lists.rows[:, some][is_kept], lists.highest[:, some][is_kept]
    return Candidates(ends, rows, highest, lists.counts >= 0), lists.best


def _merged(shares: Sequence[tuple[Candidates, Features]], k: int, errors: Floats64) -> Candidates:
    """The candidates of shares of the gallery, in order; what is no longer among the best is dropped."""
    if len(shares) == 1:
        return shares[0][0]
    found, best = zip(*shares, strict=True)
    is_whole = np.logical_and.reduce([own.is_whole for own in found])
    queries = np.concatenate([own.queries() for own in found])
    _, rows, highest, _ = (np.concatenate(values) for values in zip(*found, strict=True))
    order = np.argsort(queries, kind="stable")
    thresholds = np.partition(np.hstack(best), -k, axis=1)[:, -k] - (2 * errors).astype(np.float32)
    order = order[is_whole[queries[order]] & (highest[order] >= thresholds[queries[order]])]
    counts = np.bincount(queries[order], minlength=len(is_whole))
    return Candidates(np.append(0, np.cumsum(counts)), rows[order], highest[order], is_whole)
