"""Candidates and their order where numba is not installed: slower than the kernels, with the same answer."""

from itertools import pairwise

import numpy as np

from reidgallery.rows import Floats64, Ints, Question
from reidgallery.scan.candidates import Candidates, Neighbors, no_neighbors, unscored_candidates
from reidgallery.scan.scoring import distances_from_sums, float32_scoring

_SCORES_AT_ONCE = 2**22
_PAIRS_AT_ONCE = 256


def float32_candidates(question: Question) -> Candidates:
    """The rows that can be among the k nearest of each query, by a float32 matrix product."""
    scoring, rows = float32_scoring(question), list[Ints]()
    offsets = np.where(question.allowed, scoring.g_offsets, -np.inf)
    at_once = max(1, _SCORES_AT_ONCE // len(offsets))
    for start in range(0, len(question.queries), at_once):
        some = slice(start, start + at_once)
        products = [question.queries[some] @ block.T for block in question.gallery.blocks()]
        scores = np.concatenate(products, axis=1) * scoring.q_scales[some, None] * scoring.g_scales + offsets
        scores[question.q_keys[some, None] == question.g_keys] = -np.inf
        lowest = np.partition(scores, -question.k, axis=1)[:, -question.k] - 2 * scoring.errors[some]
        rows += map(np.flatnonzero, (scores >= lowest[:, None]) & (scores > -np.inf))
    return unscored_candidates(rows)


def ranked(question: Question, candidates: Candidates) -> Neighbors:
    """The k nearest candidates of each query, by distances in float64."""
    found = no_neighbors(len(question.queries), question.k)
    for query, ends in enumerate(pairwise(candidates.ends)):
        rows = candidates.rows[slice(*ends)]
        distances = distances_from_sums(
            question, np.full(len(rows), query), rows, _sums(question, query, rows)
        )
        order = np.argsort(distances, kind="stable")[: question.k]
        found.indices[query, : len(order)] = rows[order]
        found.distances[query, : len(order)] = distances[order]
    return found


def _sums(question: Question, query: int, rows: Ints) -> Floats64:
    """Inner products, or squared Euclidean distances, of a query and some rows in order."""
    sums, left = [np.empty(0)], question.queries[query].astype(np.float64)
    for part, (first, stop) in zip(question.gallery.parts, question.gallery.part_bounds(), strict=True):
        own = rows[slice(*np.searchsorted(rows, [first, stop]))] - first
        for start in range(0, len(own), _PAIRS_AT_ONCE):
            right = part[own[start : start + _PAIRS_AT_ONCE]].astype(np.float64)
            differences = left - right
            # A sum of its own for each row: BLAS would add up copies of a row in different orders.
            if question.metric == "euclidean":
                sums.append(np.einsum("nd,nd->n", differences, differences))
            else:
                sums.append(np.einsum("nd,nd->n", np.broadcast_to(left, right.shape), right))
    return np.concatenate(sums)
