"""The nearest gallery rows of each query, exactly, without ever holding the distance matrix.

A fast scan (:mod:`reidruntime.topk_scan`) leaves, as a rule, hardly more than k rows that can be among the k nearest;
their distances are then summed in float64. The answer so depends on neither the scan, nor the BLAS, nor the threads.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from reidruntime.gallery_rows import CodedBlock, Features, Floats64, GalleryRows, Ints, Question
from reidruntime.manifest import Metric
from reidruntime.topk_scan import candidate_capacity, compiled_kernels, float32_candidates, int8_candidates

_MAX_QUERIES_AT_ONCE = 4096
_CANDIDATES_BYTES = 2**26
_ROWS_AT_ONCE = 1024  # of the version without compiled kernels


class Neighbours(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64, (num_query, k): gallery rows; -1 where a query has fewer than k.
        distances: float32, (num_query, k): 1 - cosine similarity, or the squared Euclidean distance; infinite there.
    """

    indices: Ints
    distances: Features


def nearest(question: Question, threads: int, coded: Sequence[CodedBlock] | None = None) -> Neighbours:
    """The k nearest rows of each query that it may find; equal distances in the order of the rows.

    The distance is 1 - cosine similarity, or the squared Euclidean distance. The cosine and the squared distance are
    summed in float64 and rounded to float32, and ordered by that.

    Args:
        question: queries, gallery, k, metric and filters.
        threads: of everything but the float32 product, which has those of NumPy's BLAS.
        coded: ``gallery.coded_blocks()``, to scan these in integers; None to scan the rows themselves.
    """
    num_query, width = len(question.queries), min(question.k, len(question.gallery.lengths))
    indices = np.full((num_query, question.k), -1, np.int64)
    distances = np.full((num_query, question.k), np.inf, np.float32)
    at_once = max(1, min(_MAX_QUERIES_AT_ONCE, _CANDIDATES_BYTES // (12 * candidate_capacity(width))))
    with ThreadPoolExecutor(threads, "topk") as workers:
        for start in range(0, num_query if width else 0, at_once):
            part = question._replace(k=width).of(slice(start, start + at_once))
            answers = workers.map(
                partial(_ordered, part), range(len(part.queries)), _candidates(part, threads, coded)
            )
            for i, (found, values) in enumerate(answers, start):
                indices[i, : len(found)] = found
                distances[i, : len(found)] = values
    return Neighbours(indices, distances)


def _candidates(question: Question, threads: int, coded: Sequence[CodedBlock] | None) -> list[Ints]:
    """The rows to look at closely: by the int8 scan, where that leaves too many by the float32 one, else all."""
    found: list[Ints | None] = [None] * len(question.queries)
    scans = [partial(float32_candidates, threads=threads)]
    if coded is not None:
        scans.insert(0, partial(int8_candidates, coded=coded, threads=threads))
    for scan in scans:
        missing = np.array([i for i, rows in enumerate(found) if rows is None], np.int64)
        if len(missing):
            for i, rows in zip(missing, scan(question.of(missing)), strict=True):
                found[i] = rows
    return [question.rows_for(i) if rows is None else rows for i, rows in enumerate(found)]


def _ordered(question: Question, i: int, candidates: Ints) -> tuple[Ints, Features]:
    """The k nearest of a query's candidates, which come in the order of the rows."""
    distances = _exact_distances(question.queries[i], question.gallery, candidates, question.metric)
    order = np.argsort(distances, kind="stable")[: question.k]
    return candidates[order], distances[order]


def _exact_distances(query: Features, gallery: GalleryRows, indices: Ints, metric: Metric) -> Features:
    kernels = compiled_kernels()
    dots, squared_distances = (
        (kernels.dots, kernels.squared_distances) if kernels else (_dots, _squared_distances)
    )
    sums = np.empty(len(indices))
    start = first = 0
    for part in gallery.parts:
        stop = int(np.searchsorted(indices, first + len(part)))
        of_part = query, part, indices[start:stop] - first, sums[start:stop]
        if metric == "cosine":
            dots(*of_part)
        else:
            squared_distances(*of_part)
        start, first = stop, first + len(part)
    if metric == "euclidean":
        return sums.astype(np.float32)
    lengths = np.linalg.norm(query.astype(np.float64)) * gallery.lengths[indices]
    cosines = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    return np.float32(1) - cosines.astype(np.float32)


def _dots(query: Features, rows: Features, indices: Ints, out: Floats64) -> None:
    for start in range(0, len(indices), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        out[some] = rows[indices[some]].astype(np.float64) @ query.astype(np.float64)


def _squared_distances(query: Features, rows: Features, indices: Ints, out: Floats64) -> None:
    for start in range(0, len(indices), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        differences = rows[indices[some]] - query.astype(np.float64)
        out[some] = np.einsum("nd,nd->n", differences, differences)
