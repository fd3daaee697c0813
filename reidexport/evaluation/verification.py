"""The gate: does a candidate answer as its reference does?

Four questions, each with its own answer in the report: is every image's feature the same (cosine, error); does a row
answer the same alone, duplicated, permuted and in a full batch; are the nearest neighbors the same; and,
with a data set, are rank-1 and mAP the same.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Metric
from reidruntime.images.preprocess import Image, image_pixels
from reidruntime.session import Features, Session

from reidexport.data import Dataset
from reidexport.data.name_labels import labels_from_names
from reidexport.errors import InputError
from reidexport.evaluation.causes import causes_of_failure
from reidexport.evaluation.limits import Limits, limits_of
from reidexport.evaluation.protocol import check_scorable, numbers_of_images
from reidexport.evaluation.scoring import calibration_warnings, camids_where_used, score_features
from reidexport.metrics.agreement import agreement, check_comparable, neighbor_agreement
from reidexport.records.accuracy import Ranks, Verification, VerificationLimits, WorstImage
from reidexport.records.base import here

NUM_WORST = 5
NUM_CONSISTENCY_IMAGES = 8
FULL_BATCH = 32
DRAWN_PEOPLE = "drawn people"
NO_PEOPLE = (
    "drawn people show that the network is the same, not what it loses on photographs: for a verdict about rank-1 pass "
    "a data set (--data), about features real crops (--images)"
)


def verify(
    candidate: Session,
    reference: Session,
    *,
    images: Sequence[Image] = (),
    images_are: str = "images",
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
        images_are: what to call them in the record: where they are from, or ``DRAWN_PEOPLE``, which are no people.
        dataset: its queries and gallery are compared, and rank-1 and mAP of both measured.
        limits: what the candidate may lose, where that is not what its precision may lose.
        metric: for neighbors and ranks; default: the candidate's.
        progress: called with the number of images done, over both sessions.

    Raises:
        InputError: their features differ in kind or number of values, or there are fewer than two images; or a camera
            profile lacks the camera of one.
        DatasetError: the data set cannot be scored.
    """
    if dataset is not None:
        check_scorable(dataset)
    check_comparable("The candidate", candidate.manifest, reference.manifest)
    allowed = limits_of(candidate, limits or Limits())
    metric = metric or candidate.manifest.metric
    queries, gallery = _images(images, dataset)
    paths = [*queries, *gallery]
    camids = _camids(paths, dataset)
    of_candidate, of_reference = (
        camids_where_used(session.manifest, camids) for session in (candidate, reference)
    )
    found = candidate.embed(paths, camids=of_candidate, progress=progress)
    offset = len(paths)
    expected = reference.embed(
        paths, camids=of_reference, progress=progress and (lambda done: progress(offset + done))
    )
    rows = agreement(found, expected)
    itself = None
    if dataset and dataset.same_camera == "keep":  # a query may lie in the gallery
        itself = np.concatenate(numbers_of_images(dataset.query, dataset.scored_gallery))
    top1, top10 = neighbor_agreement(found, expected, len(queries) if dataset else None, metric, itself)
    ranks, expected_ranks = _ranks(found, dataset, metric), _ranks(expected, dataset, metric)
    result = Verification(
        candidate=candidate.description,
        reference=reference.description,
        num_images=len(paths),
        measured_on=f"{len(paths)} {images_are if dataset is None else f'images of {dataset.name}'}",
        min_cosine=float(rows.cosines.min()),
        mean_cosine=float(rows.cosines.mean()),
        max_abs_error=float(rows.max_abs_errors.max()),
        max_relative_l2=float(rows.relative_l2.max()),
        worst=_worst(paths, rows.cosines),
        batch_consistency=batch_consistency(candidate, paths[:NUM_CONSISTENCY_IMAGES], of_candidate),
        top1_agreement=top1,
        top10_agreement=top10,
        metric=metric,
        dataset=dataset.name if dataset else None,
        same_camera=dataset.same_camera if dataset else "drop",
        candidate_ranks=ranks,
        reference_ranks=expected_ranks,
        drops=ranks.drops_from(expected_ranks) if ranks and expected_ranks else {},
        limits=allowed,
        warnings=_warnings(candidate, images_are, paths),
        **here(),
    )
    if not (failures := tuple(_failures(result, allowed))):
        return result
    causes = causes_of_failure(
        result,
        candidate.manifest,
        reference.manifest,
        not_finite=(_not_finite(found, paths), _not_finite(expected, paths)),
        num_queries=len(queries) if dataset else None,
    )
    return result.model_copy(update={"failures": failures, "causes": causes, "passed": False})


def batch_consistency(
    session: Session, images: Sequence[Image], camids: Sequence[int] | None = None
) -> dict[str, float]:
    """How much a row's answer depends on the batch around it.

    Args:
        session: to ask.
        images: a few.
        camids: of the images, or of more, for a session with a camera profile.

    Returns:
        The largest relative L2 difference from the row alone, for rows ``duplicated`` through a batch, ``permuted``,
        and in a ``full_batch``.
    """
    preprocess = session.manifest.preprocess
    read = partial(image_pixels, preprocess=preprocess, depth=session.depth)
    pixels = np.stack([read(image, f"image {i}") for i, image in enumerate(images)])
    profile = session.manifest.batch_profile
    whole = np.arange(profile.static or profile.optimum or FULL_BATCH) % len(pixels)

    def answers(some: NDArray[np.int64]) -> Features:
        return session.run(pixels[some], None if camids is None else [camids[i] for i in some.tolist()])

    every = np.arange(len(pixels))
    alone = np.concatenate([answers(some) for some in np.split(every, len(every))])
    order = np.random.default_rng(0).permutation(len(pixels))
    permuted = np.empty_like(alone)
    permuted[order] = answers(order)
    duplicated = np.concatenate([answers(np.repeat(some, 3)) for some in np.split(every, len(every))])
    return {
        name: float(agreement(found, expected).relative_l2.max())
        for name, found, expected in (
            ("full_batch", answers(whole), alone[whole]),
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


def _camids(images: Sequence[Image], dataset: Dataset | None) -> list[int]:
    """The camera of each image, from 0; of pixels none is known."""
    if dataset is not None:
        return [record.camid for record in (*dataset.query, *dataset.scored_gallery)]
    names = [str(image) if isinstance(image, str | Path) else "" for image in images]
    camids: list[int] = labels_from_names(names)[1].tolist()
    return camids


def _worst(images: Sequence[Image], cosines: NDArray[np.float64]) -> tuple[WorstImage, ...]:
    order = np.argsort(cosines, kind="stable")[:NUM_WORST]
    return tuple(WorstImage(image=_name(images, i), cosine=float(cosines[i])) for i in order)


def _name(images: Sequence[Image], i: int) -> str:
    return str(images[i]) if isinstance(images[i], str | Path) else f"image {i}"


def _ranks(features: Features, dataset: Dataset | None, metric: Metric) -> Ranks | None:
    if dataset is None:
        return None
    q_feats, g_feats = np.split(np.nan_to_num(features), [len(dataset.query)])
    records, same_camera = (dataset.query, dataset.scored_gallery), dataset.same_camera
    return score_features(q_feats, g_feats, *records, metric=metric, same_camera=same_camera).ranks


def _warnings(candidate: Session, images_are: str, images: Sequence[Image]) -> tuple[str, ...]:
    paths = [Path(image) for image in images if isinstance(image, str | Path)]
    if images_are == DRAWN_PEOPLE and not paths:
        return (NO_PEOPLE,)
    return calibration_warnings(candidate.manifest, paths)


def _not_finite(features: Features, images: Sequence[Image]) -> tuple[str, ...]:
    """The images whose features are not finite."""
    return tuple(_name(images, int(i)) for i in np.flatnonzero(~np.isfinite(features).all(axis=1)))


def _failures(result: Verification, limits: VerificationLimits) -> Iterator[str]:
    if not result.min_cosine >= limits.min_cosine:
        worst = result.worst[0]
        yield f"cosine {worst.cosine:.6f} of {worst.image} is below {limits.min_cosine}"
    if not result.mean_cosine >= limits.min_mean_cosine:
        yield f"mean cosine {result.mean_cosine:.6f} is below {limits.min_mean_cosine}"
    for what, difference in result.batch_consistency.items():
        if not difference <= limits.max_batch_change:
            yield f"a row answers differently {what.replace('_', ' ')}: relative L2 {difference:.1e}"
    for key, allowed in (("rank1", limits.max_rank1_drop), ("mAP", limits.max_map_drop)):
        drop = result.drops.get(key, 0.0)
        if not drop <= allowed:
            yield f"{key} dropped by {drop:.2f} points, allowed {allowed}"
