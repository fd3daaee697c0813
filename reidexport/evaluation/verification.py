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
from reidexport.evaluation.opening import check_comparable
from reidexport.evaluation.scoring import score_features
from reidexport.metrics.distances import unit_rows
from reidexport.records.accuracy import Ranks, Verification, WorstImage
from reidexport.records.base import here

TOP_K = 10
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
    cosines, abs_errors, relative = _differences(found, expected)
    top1, top10 = _neighbor_agreement(found, expected, len(queries) if dataset else None, metric)
    ranks, expected_ranks = _ranks(found, dataset, metric), _ranks(expected, dataset, metric)
    result = Verification(
        candidate=candidate.description,
        reference=reference.description,
        num_images=len(paths),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        max_abs_error=float(abs_errors.max()),
        max_relative_l2=float(relative.max()),
        worst=_worst(paths, cosines),
        batch_consistency=batch_consistency(candidate, paths[:NUM_CONSISTENCY_IMAGES]),
        top1_agreement=top1,
        top10_agreement=top10,
        metric=metric,
        dataset=dataset.name if dataset else None,
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
        "full_batch": float(_differences(session.run(pixels[whole]), alone[whole])[2].max()),
        "permuted": float(_differences(permuted, alone)[2].max()),
        "duplicated": float(_differences(duplicated, np.repeat(alone, 3, axis=0))[2].max()),
    }


def _images(images: Sequence[Image], dataset: Dataset | None) -> tuple[list[Image], list[Image]]:
    if dataset is not None:
        return [record.path for record in dataset.query], [record.path for record in dataset.scored_gallery]
    if len(images) < 2:
        raise InputError(f"verify needs at least two images to compare, got {len(images)}")
    return list(images), []


def _differences(
    found: Features, expected: Features
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per row: cosine, largest absolute error, relative L2 error. A row that is not finite has cosine -1."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    tiny = np.finfo(np.float64).tiny
    cosines = (a * b).sum(1) / np.maximum(norm_a * norm_b, tiny)
    difference = a - b
    relative = np.linalg.norm(difference, axis=1) / np.maximum(norm_b, tiny)
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    return (
        np.where(finite, cosines, -1.0),
        np.where(finite, np.abs(difference).max(1), np.inf),
        np.where(finite, relative, np.inf),
    )


def _worst(images: Sequence[Image], cosines: NDArray[np.float64]) -> tuple[WorstImage, ...]:
    order = np.argsort(cosines, kind="stable")[:NUM_WORST]
    return tuple(
        WorstImage(
            image=str(images[i]) if isinstance(images[i], str | Path) else f"image {i}",
            cosine=float(cosines[i]),
        )
        for i in order
    )


def _neighbor_agreement(
    found: Features, expected: Features, num_queries: int | None, metric: Metric
) -> tuple[float, float]:
    """Top-1 and top-10 agreement; without a split every image is a query among the others."""
    a, b = _neighbors(found, num_queries, metric), _neighbors(expected, num_queries, metric)
    overlap = [len(set(row_a) & set(row_b)) / len(row_a) for row_a, row_b in zip(a, b, strict=True)]
    return float((a[:, 0] == b[:, 0]).mean()), float(np.mean(overlap))


def _neighbors(features: Features, num_queries: int | None, metric: Metric) -> NDArray[np.intp]:
    features = np.nan_to_num(features)
    if metric == "cosine":
        features = unit_rows(features)
    queries = features if num_queries is None else features[:num_queries]
    gallery = features if num_queries is None else features[num_queries:]
    k = min(TOP_K, len(gallery) - (num_queries is None))
    half_squares = np.square(gallery).sum(1) / 2
    rows = []
    for start in range(0, len(queries), 256):
        closeness = queries[start : start + 256] @ gallery.T - half_squares
        if num_queries is None:
            closeness[np.arange(len(closeness)), np.arange(start, start + len(closeness))] = -np.inf
        top = np.argpartition(-closeness, k - 1, axis=1)[:, :k]
        rows.append(
            np.take_along_axis(top, np.argsort(-np.take_along_axis(closeness, top, 1), kind="stable"), 1)
        )
    return np.concatenate(rows)


def _ranks(features: Features, dataset: Dataset | None, metric: Metric) -> Ranks | None:
    if dataset is None:
        return None
    q_feats, g_feats = np.split(np.nan_to_num(features), [len(dataset.query)])
    scores = score_features(q_feats, g_feats, dataset.query, dataset.scored_gallery, metric=metric)
    return Ranks(**scores.as_dict())


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
