"""The gate: does a candidate answer as its reference does?

Four questions, each with its own answer in the report: is every image's feature the same (cosine, error); does a row
answer the same alone, duplicated, permuted and in a full batch; are the nearest neighbors the same; and,
with a data set, are rank-1 and mAP the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Metric, Precision
from reidruntime.images.preprocess import Image, image_pixels
from reidruntime.session import Features, Session

from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.evaluation.protocol import check_scorable
from reidexport.evaluation.scoring import score_features
from reidexport.metrics.agreement import agreement, check_comparable, neighbor_agreement
from reidexport.records.accuracy import Ranks, Verification, WorstImage
from reidexport.records.base import here

NUM_WORST = 5
NUM_CONSISTENCY_IMAGES = 8
FULL_BATCH = 32
# Relative L2 by which a row may differ between batches: kernels differ by batch size in their rounding.
CONSISTENCY_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may lose; drops are in percentage points."""

    min_cosine: float = 0.999
    max_rank1_drop: float = 0.1
    max_map_drop: float = 0.1


def verify(
    candidate: Session,
    reference: Session,
    *,
    images: Sequence[Image] = (),
    dataset: Dataset | None = None,
    limits: Limits | None = None,
    metric: Metric | None = None,
    progress: Callable[[int], None] | None = None,
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
        DatasetError: the data set cannot be scored.
    """
    if dataset is not None:
        check_scorable(dataset)
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
    ranks, expected_ranks = _ranks(found, dataset, metric), _ranks(expected, dataset, metric)
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
        same_camera=dataset.same_camera if dataset else "drop",
        candidate_ranks=ranks,
        reference_ranks=expected_ranks,
        drops=ranks.drops_from(expected_ranks) if ranks and expected_ranks else {},
        **here(),
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
        WorstImage(
            image=str(images[i]) if isinstance(images[i], str | Path) else f"image {i}",
            cosine=float(cosines[i]),
        )
        for i in order
    )


def _ranks(features: Features, dataset: Dataset | None, metric: Metric) -> Ranks | None:
    if dataset is None:
        return None
    q_feats, g_feats = np.split(np.nan_to_num(features), [len(dataset.query)])
    records, same_camera = (dataset.query, dataset.scored_gallery), dataset.same_camera
    return score_features(q_feats, g_feats, *records, metric=metric, same_camera=same_camera).ranks


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
    return result.model_copy(update={"failures": tuple(failures), "passed": not failures})
