"""Operating points: which threshold says "the same person", and what it costs.

A pair is a query with a gallery image that an evaluation does not ignore (see :mod:`reidexport.metrics.cmc_map`):
*genuine* when both show the same person, else an *impostor*, distractors included. A pair passes a threshold
when its distance is at most that: 1 - cosine, or the squared Euclidean distance. FPR is the share of impostors
that pass, TPR that of genuine pairs.

Distances are products in the dtype of the features, usually float32. ``reidexport search`` sums the same ones in
float64: a pair that is no further from a threshold than float32 rounds can pass there and not here, or here and not
there.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from reidruntime.artifact.manifest import Metric

from reidexport.errors import InputError
from reidexport.metrics.cmc_map import checked_pairs
from reidexport.metrics.distances import (
    Floats,
    checked_features,
    distance_blocks,
    refuse_overflow,
    row_norms,
)
from reidexport.metrics.kernels.ranking_kernels import Pairs
from reidexport.records.accuracy import OperatingPoint

FPRS = (1e-2, 1e-3, 1e-4)

_MIN_FALSE = 10  # a count of 10 has a standard deviation of 3: the FPR itself is known to a third
# The rule of 30 (Doddington et al., Speech Communication 2000): 30 independent trials for a rate to within 30 %.
# Pairs of one person are not independent of each other; persons are.
_MIN_PERSONS = 30
_CURVE_POINTS = 200
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class VerificationRoc:
    """How well a threshold separates genuine pairs from impostors.

    Attributes:
        metric: what the thresholds are distances of.
        num_genuine: pairs of the same person.
        num_impostor: pairs of different persons.
        operating_points: at an FPR of 1e-2, 1e-3 and 1e-4.
        fpr: (num_points,) increasing, about 200 from one impostor to 1e-2 in equal steps of their logarithm.
        tpr: (num_points,) the TPR at each.
        warnings: operating points that the data are too few for, in words.
    """

    metric: Metric
    num_genuine: int
    num_impostor: int
    operating_points: tuple[OperatingPoint, ...]
    fpr: npt.NDArray[np.float64]
    tpr: npt.NDArray[np.float64]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The operating points, the curve and the warnings, for a JSON file."""
        return {
            "operating_points": [point.model_dump() for point in self.operating_points],
            "roc": {"fpr": self.fpr.tolist(), "tpr": self.tpr.tolist()},
            "warnings": list(self.warnings),
        }


def verification_roc(
    q_feats: npt.ArrayLike,
    g_feats: npt.ArrayLike,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
) -> VerificationRoc:
    """Find the thresholds at fixed FPRs and the TPR at each, over all pairs.

    Distances are computed in the dtype of the features, a block at a time. Kept are those of the genuine
    pairs and of the nearest hundredth of the impostors.

    Args:
        q_feats: (num_query, dim) floats; float64 features are compared in float64, others in float32.
        g_feats: (num_gallery, dim) floats.
        q_pids: (num_query,) integers.
        g_pids: (num_gallery,) integers; -1 is junk, 0 a distractor.
        q_camids: (num_query,) integers.
        g_camids: (num_gallery,) integers.
        metric: ``cosine`` or ``euclidean``.

    Raises:
        InputError: shapes or dtypes do not fit, a feature is not finite, the metric is unknown, distances
            overflow, or there are no genuine pairs or no impostors.
    """
    query, gallery = checked_features(q_feats, g_feats)
    pairs = checked_pairs((len(query), len(gallery)), q_pids, g_pids, q_camids, g_camids)
    num_genuine = int(pairs.is_match.sum())
    num_impostor = len(query) * len(pairs.kept) - len(pairs.columns)
    if num_genuine == 0 or num_impostor == 0:
        raise InputError(
            f"Thresholds need pairs of the same person and of different persons, got {num_genuine} and "
            f"{num_impostor}. Check that pids and camids are those of these images, in this order."
        )
    if metric == "euclidean":
        refuse_overflow(row_norms(query), float(row_norms(gallery).max()), query.dtype, "q_feats")
    num_kept = _num_allowed(max(FPRS), num_impostor) + 1
    genuine, impostors = _near_pairs(query, gallery[pairs.kept], pairs, metric, num_kept)
    points = tuple(
        _point(fpr, _num_allowed(fpr, num_impostor), genuine, impostors) for fpr in sorted(FPRS, reverse=True)
    )
    curve = [_point(num / num_impostor, num, genuine, impostors) for num in _curve_counts(len(impostors) - 1)]
    persons = np.unique(np.repeat(np.asarray(q_pids), np.diff(pairs.starts))[pairs.is_match])
    return VerificationRoc(
        metric=metric,
        num_genuine=num_genuine,
        num_impostor=num_impostor,
        operating_points=points,
        fpr=np.array([point.num_false / num_impostor for point in curve]),
        tpr=np.array([point.tpr for point in curve]),
        warnings=_warnings(num_impostor, len(persons)),
    )


def _near_pairs(
    query: Floats, gallery: Floats, pairs: Pairs, metric: Metric, num_kept: int
) -> tuple[Floats, Floats]:
    """The sorted distances of the genuine pairs, and of the ``num_kept`` nearest impostors."""
    owner = np.repeat(np.arange(len(query)), np.diff(pairs.starts))
    same_person = np.empty(len(owner), query.dtype)
    nearest = np.empty(0, query.dtype)
    farthest = np.inf
    for rows, block in distance_blocks(query, gallery, metric=metric, block_bytes=_BLOCK_BYTES):
        own = slice(pairs.starts[rows.start], pairs.starts[rows.stop])
        places = owner[own] - rows.start, pairs.columns[own]
        same_person[own] = block[places]
        block[places] = np.inf
        nearest = np.concatenate([nearest, block[block < farthest]])
        if len(nearest) > num_kept:
            nearest = np.partition(nearest, num_kept - 1)[:num_kept]
            farthest = nearest[-1]
    return np.sort(same_person[pairs.is_match]), np.sort(nearest)


def _point(fpr: float, num_allowed: int, genuine: Floats, impostors: Floats) -> OperatingPoint:
    """The threshold just below the nearest impostor that must not pass; both distances are sorted."""
    refused = impostors[num_allowed]
    return OperatingPoint(
        fpr=fpr,
        tpr=float(np.searchsorted(genuine, refused, "left") / len(genuine)),
        threshold=float(np.nextafter(refused, -np.inf, dtype=impostors.dtype)),
        num_false=int(np.searchsorted(impostors, refused, "left")),
    )


def _num_allowed(fpr: float, num_impostor: int) -> int:
    return math.floor(fpr * num_impostor + 1e-6)  # 0.001 * 9000 must not become 8


def _curve_counts(largest: int) -> list[int]:
    """Numbers of impostors from 1 to ``largest`` in equal steps of their logarithm; 0 where ``largest`` is."""
    return sorted({round(num) for num in np.geomspace(1, max(largest, 1), _CURVE_POINTS)} if largest else {0})


def _warnings(num_impostor: int, num_persons: int) -> tuple[str, ...]:
    warnings = [
        f"FPR {fpr:g} is only {num} of {num_impostor} impostor pairs: its threshold is a guess. "
        f"Use {math.ceil(_MIN_FALSE / fpr)} or more."
        for fpr in FPRS
        if (num := _num_allowed(fpr, num_impostor)) < _MIN_FALSE
    ]
    if num_persons < _MIN_PERSONS:
        warnings.append(
            f"The genuine pairs are of {num_persons} persons: another {num_persons} would give other "
            f"thresholds. Use {_MIN_PERSONS} or more."
        )
    return tuple(warnings)
