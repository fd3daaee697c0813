"""The gate: does a candidate answer as its reference does?

Four questions, each with its own answer in the report: is every image's feature the same (cosine, error); does a row
answer the same alone, duplicated, permuted and in a full batch; are the nearest neighbors the same; and,
with a data set, are rank-1 and mAP the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Metric, Precision
from reidruntime.images.preprocess import Image, image_pixels
from reidruntime.session import Features, Session

from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.evaluation.scoring import score_features
from reidexport.machine import machine_info, package_versions
from reidexport.metrics.agreement import agreement, check_comparable, neighbor_agreement

NUM_WORST = 5
NUM_CONSISTENCY_IMAGES = 8
FULL_BATCH = 32
# Relative L2 by which a row may differ between batches: kernels differ by batch size in their rounding.
CONSISTENCY_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may lose; drops are in percentage points."""

    min_cosine: float = 0.999
    max_rank1_drop: float = 0.1
    max_map_drop: float = 0.1


@dataclass(frozen=True)
class WorstImage:
    """An image and the cosine between its two features."""

    image: str
    cosine: float


@dataclass(frozen=True)
class Verification:
    """What was compared and found; ``failures`` is empty when the candidate passes.

    Attributes:
        batch_consistency: largest relative L2 difference of a row between being alone and being
            ``duplicated``, ``permuted`` and in a ``full_batch``.
        top1_agreement: share of queries whose nearest neighbor is the same.
        top10_agreement: mean overlap of the ten nearest neighbors.
        candidate_ranks: rank1, rank5, rank10, mAP, mINP of the candidate; None without a data set.
        reference_ranks: the same of the reference.
    """

    candidate: str
    reference: str
    num_images: int
    min_cosine: float
    mean_cosine: float
    max_abs_error: float
    max_relative_l2: float
    worst: tuple[WorstImage, ...]
    batch_consistency: dict[str, float]
    top1_agreement: float
    top10_agreement: float
    metric: Metric
    dataset: str | None = None
    candidate_ranks: dict[str, float] | None = None
    reference_ranks: dict[str, float] | None = None
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the candidate is within every limit."""
        return not self.failures

    @property
    def drops(self) -> dict[str, float]:
        """Reference minus candidate, in percentage points, for every accuracy."""
        if self.candidate_ranks is None or self.reference_ranks is None:
            return {}
        return {key: 100 * (self.reference_ranks[key] - value) for key, value in self.candidate_ranks.items()}

    def as_json(self) -> dict[str, Any]:
        """One plain dict, with the machine and the versions."""
        return {
            **asdict(self),
            "passed": self.passed,
            "drops": self.drops,
            "machine": machine_info(),
            "versions": package_versions(),
        }


def verify(
    candidate: Session,
    reference: Session,
    *,
    images: Sequence[Image] = (),
    dataset: Dataset | None = None,
    limits: Limits | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare two sessions that must answer alike.

    Args:
        candidate: the artifact under test.
        reference: what it was made from, or a version known to be right.
        images: compared when no ``dataset`` is given; at least two.
        dataset: its queries and gallery are compared, and rank-1 and mAP of both measured.
        limits: what the candidate may lose.
        metric: for neighbors and ranks; default: the candidate's.
        progress: called with the number of images done, over both sessions.

    Raises:
        InputError: their features differ in kind or number of values, or there are fewer than two images.
    """
    check_comparable("The candidate", candidate.manifest, reference.manifest)
    limits = limits or Limits()
    metric = metric or candidate.manifest.metric
    queries, gallery = _images(images, dataset)
    paths = [*queries, *gallery]
    found = candidate.embed(paths, progress=progress)
    offset = len(paths)
    expected = reference.embed(paths, progress=progress and (lambda done: progress(offset + done)))
    rows = agreement(found, expected)
    top1, top10 = neighbor_agreement(found, expected, len(queries) if dataset else None, metric)
    result = Verification(
        candidate=candidate.description,
        reference=reference.description,
        num_images=len(paths),
        min_cosine=float(rows.cosines.min()),
        mean_cosine=float(rows.cosines.mean()),
        max_abs_error=float(rows.max_abs_errors.max()),
        max_relative_l2=float(rows.relative_l2.max()),
        worst=_worst(paths, rows.cosines),
        batch_consistency=batch_consistency(candidate, paths[:NUM_CONSISTENCY_IMAGES]),
        top1_agreement=top1,
        top10_agreement=top10,
        metric=metric,
        dataset=dataset.name if dataset else None,
        candidate_ranks=_ranks(found, dataset, metric),
        reference_ranks=_ranks(expected, dataset, metric),
    )
    return _judged(result, limits, CONSISTENCY_TOLERANCE[candidate.manifest.precision])


def batch_consistency(session: Session, images: Sequence[Image]) -> dict[str, float]:
    """How much a row's answer depends on the batch around it.

    Returns:
        The largest relative L2 difference from the row alone, for rows ``duplicated`` through a batch, ``permuted``,
        and in a ``full_batch``.
    """
    preprocess = session.manifest.preprocess
    pixels = np.stack([image_pixels(image, f"image {i}", preprocess) for i, image in enumerate(images)])
    profile = session.manifest.batch_profile
    whole = np.arange(profile.static or profile.optimum or FULL_BATCH) % len(pixels)
    alone = np.concatenate([session.run(row[None]) for row in pixels])
    order = np.random.default_rng(0).permutation(len(pixels))
    permuted = np.empty_like(alone)
    permuted[order] = session.run(pixels[order])
    duplicated = np.concatenate([session.run(np.repeat(row[None], 3, axis=0)) for row in pixels])
    return {
        name: float(agreement(found, expected).relative_l2.max())
        for name, found, expected in (
            ("full_batch", session.run(pixels[whole]), alone[whole]),
            ("permuted", permuted, alone),
            ("duplicated", duplicated, np.repeat(alone, 3, axis=0)),
        )
    }


def _images(images: Sequence[Image], dataset: Dataset | None) -> tuple[list[Image], list[Image]]:
    if dataset is not None:
        return [record.path for record in dataset.query], [record.path for record in dataset.scored_gallery]
    if len(images) < 2:
        raise InputError(f"verify needs at least two images to compare, got {len(images)}")
    return list(images), []


def _worst(images: Sequence[Image], cosines: NDArray[np.float64]) -> tuple[WorstImage, ...]:
    order = np.argsort(cosines, kind="stable")[:NUM_WORST]
    return tuple(
        WorstImage(str(images[i]) if isinstance(images[i], str | Path) else f"image {i}", float(cosines[i]))
        for i in order
    )


def _ranks(features: Features, dataset: Dataset | None, metric: Metric) -> dict[str, float] | None:
    if dataset is None:
        return None
    q_feats, g_feats = np.split(np.nan_to_num(features), [len(dataset.query)])
    return score_features(q_feats, g_feats, dataset.query, dataset.scored_gallery, metric=metric).as_dict()


def _judged(result: Verification, limits: Limits, consistency_tolerance: float) -> Verification:
    failures = []
    if not result.min_cosine >= limits.min_cosine:
        worst = result.worst[0]
        failures.append(f"cosine {worst.cosine:.6f} of {worst.image} is below {limits.min_cosine}")
    for what, difference in result.batch_consistency.items():
        if not difference <= consistency_tolerance:
            failures.append(
                f"a row answers differently {what.replace('_', ' ')}: relative L2 {difference:.1e}"
            )
    for key, allowed in (("rank1", limits.max_rank1_drop), ("mAP", limits.max_map_drop)):
        drop = result.drops.get(key, 0.0)
        if not drop <= allowed:
            failures.append(f"{key} dropped by {drop:.2f} points, allowed {allowed}")
    return replace(result, failures=tuple(failures))
