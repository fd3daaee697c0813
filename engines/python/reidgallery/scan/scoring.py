"""Scores of gallery rows (greater is nearer) from inner products, and how far a score can be from the truth.

The score is the cosine, or ``q·g - |g|²/2``, which falls as the Euclidean distance grows.
"""

from typing import NamedTuple

import numpy as np

from reidgallery.rows import CodedGallery, Features, Floats64, Ints, Metric, Question
from reidgallery.scan.int8_scan import CodedRows
from reidgallery.scan.projection_scan import ProjectedRows

_UNIT_ROUNDOFF = 2.0**-24  # of float32


class Scoring(NamedTuple):
    """score[i, j] = product[i, j] * q_scales[i] * g_scales[j] + g_offsets[j].

    It is within ``errors[i] + q_bounds[i] * g_bounds[j]`` of the truth. All are float64, one number for each query i or
    gallery row j.
    """

    q_scales: Floats64
    g_scales: Floats64
    g_offsets: Floats64
    errors: Floats64
    q_bounds: Floats64
    g_bounds: Floats64

    def block(self, question: Question, queries: slice, rows: slice) -> "BlockScoring":
        """That of some queries and some rows, in float32."""
        up = 1 + 4 * _UNIT_ROUNDOFF
        return BlockScoring(
            q_scales=self.q_scales[queries].astype(np.float32),
            g_scales=self.g_scales[rows].astype(np.float32),
            g_offsets=self.g_offsets[rows].astype(np.float32),
            q_bounds=(self.q_bounds[queries] * up).astype(np.float32),
            g_bounds=(self.g_bounds[rows] * up).astype(np.float32),
            margins=(2 * self.errors[queries]).astype(np.float32),
            q_keys=question.q_keys[queries],
            g_keys=question.g_keys[rows],
        )


class BlockScoring(NamedTuple):
    """The scoring of some queries and a block of rows, in float32, with bounds rounded up: what the kernels take.

    An offset is minus infinity for rows that no query may find, and keys, int64, are equal where a query may not find
    a row. Margins are twice the errors, as two scores are compared.
    """

    q_scales: Features
    g_scales: Features
    g_offsets: Features
    q_bounds: Features
    g_bounds: Features
    margins: Features
    q_keys: Ints
    g_keys: Ints


def float32_scoring(question: Question) -> Scoring:
    """Of products in float32."""
    scoring, _ = _exact_scoring(question)
    return scoring._replace(errors=float32_errors(question))


def float32_errors(question: Question) -> Floats64:
    """An inner product of D terms, however summed, is within ``D * 2**-24`` of the truth, times both norms."""
    q_scales, largest = query_scales(question)
    q_norms = question.q_norms * q_scales
    summing: Floats64 = _UNIT_ROUNDOFF * question.queries.shape[1] * q_norms * largest
    return summing + _rounding(q_norms, largest)


def projected_scoring(question: Question, queries: ProjectedRows, gallery: ProjectedRows) -> Scoring:
    """Of products in float32 along a basis; the bound is that of :mod:`reidgallery.scan.projection_scan`."""
    scoring, largest = _exact_scoring(question)
    q_norms, rank = question.q_norms * scoring.q_scales, gallery.rows.shape[1]
    return scoring._replace(
        errors=_UNIT_ROUNDOFF * (rank + 4) * q_norms * largest + _rounding(q_norms, largest),
        q_bounds=queries.residuals * scoring.q_scales,
        g_bounds=gallery.residuals * scoring.g_scales,
    )


def int8_scoring(question: Question, queries: CodedRows, gallery: CodedGallery) -> Scoring:
    """Of products of codes; the bound is that of :mod:`reidgallery.scan.int8_scan`."""
    scoring, largest = _exact_scoring(question)
    q_norms, q_residuals = question.q_norms * scoring.q_scales, queries.residuals * scoring.q_scales
    return scoring._replace(
        q_scales=scoring.q_scales * queries.scales,
        g_scales=scoring.g_scales * np.concatenate([block.scales for block in gallery.blocks]),
        errors=q_residuals * largest + _rounding(q_norms, largest),
        q_bounds=q_norms + q_residuals,
        g_bounds=np.concatenate([block.residuals for block in gallery.blocks]) * scoring.g_scales,
    )


def with_both_bounds(scoring: Scoring, other: Scoring) -> Scoring:
    """Scores that are off by as much as both together; for any s > 0, ``ab + cd <= |(sa, c)| * |(b/s, d)|``."""
    means = [
        bounds.mean() + np.finfo(np.float64).tiny
        for bounds in (scoring.q_bounds, scoring.g_bounds, other.q_bounds, other.g_bounds)
    ]
    s = np.sqrt(means[1] * means[2] / (means[0] * means[3]))  # the least, where all bounds are alike
    return scoring._replace(
        errors=scoring.errors + other.errors,
        q_bounds=np.hypot(s * scoring.q_bounds, other.q_bounds),
        g_bounds=np.hypot(scoring.g_bounds / s, other.g_bounds),
    )


def query_scales(question: Question) -> tuple[Floats64, float]:
    """The scale of each query, and the greatest norm of a gallery row times its scale."""
    if question.metric == "cosine":
        return _inverse(question.q_norms), 1.0
    return np.ones(len(question.queries)), float(question.gallery.norms.max())


def row_scales(norms: Floats64, metric: Metric) -> tuple[Floats64, Floats64]:
    """The scale and the offset of gallery rows of these norms."""
    if metric == "cosine":
        return _inverse(norms), np.zeros(len(norms))
    return np.ones(len(norms)), -(norms**2) / 2


def lowest_scores(question: Question, distances: Floats64) -> Floats64:
    """The least score of a row that is at this float32 distance, or nearer, of each query."""
    q_scales, largest = query_scales(question)
    q_norms = question.q_norms
    scores = 1 - distances if question.metric == "cosine" else (q_norms**2 - distances) / 2
    return scores - _rounding(q_norms * q_scales, largest)


def distances_from_sums(question: Question, queries: Ints, rows: Ints, sums: Floats64) -> Features:
    """Distances of pairs from their inner products or, for the Euclidean metric, from their squared distances."""
    if question.metric == "euclidean":
        return sums.astype(np.float32)
    norms = question.q_norms[queries] * question.gallery.norms[rows]
    cosines = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    distances: Features = np.float32(1) - cosines.astype(np.float32)
    return distances


def _exact_scoring(question: Question) -> tuple[Scoring, float]:
    """That of exact inner products, and the greatest norm of a gallery row times its scale."""
    q_scales, largest = query_scales(question)
    g_scales, g_offsets = row_scales(question.gallery.norms, question.metric)
    q_zeros, g_zeros = np.zeros(len(q_scales)), np.zeros(len(g_scales))
    return Scoring(q_scales, g_scales, g_offsets, errors=q_zeros, q_bounds=q_zeros, g_bounds=g_zeros), largest


def _rounding(q_norms: Floats64, largest: float) -> Floats64:
    """What scaling the product, adding the offset and rounding the final distance can add to an error."""
    return 16 * _UNIT_ROUNDOFF * (q_norms + largest) ** 2


def _inverse(norms: Floats64) -> Floats64:
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
