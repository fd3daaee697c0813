"""From a session and a data set to rank-1, mAP and mINP."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from reidgallery import Gallery, Neighbors, SearchFilter
from reidruntime.artifact.manifest import Manifest, Metric

from reidexport.data.records import DISTRACTOR_PID, Dataset, ImageRecord, SameCamera
from reidexport.data.same_images import content_digits
from reidexport.errors import InputError
from reidexport.evaluation.protocol import check_scorable, copy_warnings, numbers_of_images
from reidexport.metrics.cmc_map import RankMetrics, evaluate_rank, rank_features
from reidexport.metrics.distances import unit_rows
from reidexport.metrics.rerank import k_reciprocal
from reidexport.metrics.thresholds import VerificationRoc, verification_roc
from reidexport.records.accuracy import EvaluationRecord
from reidexport.records.base import here

Features = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def calibration_warnings(manifest: Manifest, images: Sequence[Path]) -> tuple[str, ...]:
    """Say so, where an INT8 artifact was calibrated on some of the images that it is scored on."""
    made = manifest.quantization
    if made is None or not made.image_digits:
        return ()
    known = set(made.image_digits)
    num_known = sum(digits in known for digits in content_digits(images))
    if not num_known:
        return ()
    return (
        f"the INT8 artifact was calibrated on {num_known} of these {len(images)} images, so it is "
        "better on them than on others. Export it again with other --calibration images",
    )


def camids_where_used(manifest: Manifest, camids: Sequence[int]) -> Sequence[int] | None:
    """The cameras of images for a session with that manifest: None unless a camera profile is in use."""
    return camids if manifest.cameras_sha256 else None


class Embedder(Protocol):
    """What an evaluation needs of a session; :class:`reidruntime.Session` is one."""

    manifest: Manifest
    description: str

    def embed(
        self,
        images: Sequence[Path],
        /,
        *,
        camids: Sequence[int] | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Features:
        """As :meth:`reidruntime.Session.embed`: paths to one float32 row of features per image."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one artifact on one data set, and the features they were computed from.

    Row i of ``q_feats`` belongs to ``query[i]``, row i of ``g_feats`` to ``gallery[i]``; both are without the
    junk of pid -1, which is not even embedded. ``embedding_seconds`` is the time from files to features, ``warnings``
    are what makes the scores doubtful, in words.
    """

    dataset: str
    metric: Metric
    rerank: bool
    same_camera: SameCamera
    metrics: RankMetrics
    manifest: Manifest
    runtime: str
    num_junk: int
    embedding_seconds: float
    warnings: tuple[str, ...]
    query: tuple[ImageRecord, ...] = field(repr=False)
    gallery: tuple[ImageRecord, ...] = field(repr=False)
    q_feats: Features = field(repr=False)
    g_feats: Features = field(repr=False)

    @property
    def feats(self) -> Features:
        """The features of the queries, then those of the gallery."""
        return np.concatenate([self.q_feats, self.g_feats])

    def nearest(self, queries: Sequence[int], k: int) -> Neighbors:
        """The k nearest gallery images of some queries, by number, without what the protocol leaves out.

        Raises:
            InputError: the norm of a feature is not one that a gallery takes: 0, or 1e-12 to 1e12.
        """
        gallery = Gallery(self.g_feats.shape[1], metric=self.metric)
        q_pids, g_pids, q_camids, g_camids = _labels(self.query, self.gallery, self.same_camera)
        gallery.add(self.g_feats, pids=g_pids, camids=g_camids)
        chosen = list(queries)
        return gallery.search(
            self.q_feats[chosen],
            k,
            filter=SearchFilter(exclude_junk=True),
            pids=q_pids[chosen],
            camids=q_camids[chosen],
        )

    def roc(self) -> VerificationRoc:
        """The thresholds and what passes them; of the distances themselves, re-ranked or not."""
        labels = _labels(self.query, self.gallery, self.same_camera)
        return verification_roc(self.q_feats, self.g_feats, *labels, metric=self.metric)

    def record(self, artifact: str, roc: VerificationRoc | None = None) -> EvaluationRecord:
        """The scores, for a JSON file.

        Args:
            artifact: what to call the artifact, usually its path.
            roc: the thresholds to add.
        """
        found: dict[str, Any] = {**self.metrics.as_dict(), **(roc.as_json() if roc else {}), **here()}
        found["warnings"] = (*self.warnings, *(roc.warnings if roc else ()))
        return EvaluationRecord(
            artifact=artifact,
            manifest_sha256=self.manifest.sha256,
            precision=self.manifest.precision,
            feature=self.manifest.feature,
            runtime=self.runtime,
            dataset=self.dataset,
            metric=self.metric,
            rerank=self.rerank,
            same_camera=self.same_camera,
            num_query=len(self.query),
            num_query_without_match=len(self.query) - self.metrics.num_valid_query,
            num_gallery=len(self.gallery),
            num_distractor=sum(image.pid == DISTRACTOR_PID for image in self.gallery),
            num_junk=self.num_junk,
            **found,
        )


def evaluate(
    session: Embedder,
    dataset: Dataset,
    *,
    metric: Metric | None = None,
    rerank: bool = False,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Embed the queries and the gallery of a data set, and score the ranking.

    Args:
        session: an opened artifact, or anything else that embeds images and has a manifest.
        dataset: as :func:`reidexport.data.load_dataset` reads it.
        metric: ``cosine`` or ``euclidean``; default: the one the manifest names.
        rerank: re-rank with :func:`reidexport.metrics.rerank.k_reciprocal`, on unit-length features for cosine.
        batch_size: images per run of the network; default: the session's choice.
        progress: called with the number of images done, of the queries and ``dataset.scored_gallery``.

    Raises:
        ImageError: an image cannot be read.
        DatasetError: before anything is embedded: no query has a match, or cameras are needed and not known.
        InputError: the session answers with features that are not finite, or for cosine of zeros only; or its camera
            profile lacks a camera.
    """
    check_scorable(dataset)
    gallery = dataset.scored_gallery
    records = (*dataset.query, *gallery)
    paths = [record.path for record in records]
    began = time.perf_counter()
    camids = camids_where_used(session.manifest, [record.camid for record in records])
    feats = session.embed(paths, camids=camids, batch_size=batch_size, progress=progress)
    embedding_seconds = time.perf_counter() - began
    metric = metric or session.manifest.metric
    _refuse_broken(feats, records, metric)
    q_feats, g_feats = feats[: len(dataset.query)], feats[len(dataset.query) :]
    return Evaluation(
        dataset=dataset.name,
        metric=metric,
        rerank=rerank,
        same_camera=dataset.same_camera,
        metrics=score_features(
            q_feats,
            g_feats,
            dataset.query,
            gallery,
            metric=metric,
            rerank=rerank,
            same_camera=dataset.same_camera,
        ),
        manifest=session.manifest,
        runtime=session.description,
        num_junk=len(dataset.gallery) - len(gallery),
        embedding_seconds=embedding_seconds,
        warnings=(*copy_warnings(dataset), *calibration_warnings(session.manifest, paths)),
        query=dataset.query,
        gallery=gallery,
        q_feats=q_feats,
        g_feats=g_feats,
    )


def score_features(
    q_feats: npt.ArrayLike,
    g_feats: npt.ArrayLike,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    *,
    metric: Metric,
    rerank: bool = False,
    same_camera: SameCamera = "drop",
) -> RankMetrics:
    """Score the features of records: (num_query, dim) and (num_gallery, dim) floats, row i of record i.

    Options are those of :func:`evaluate`; ``same_camera`` is as in :class:`reidexport.data.Dataset`.

    Raises:
        InputError: features do not fit each other or the records, or no query has a match.
        ImageError: a file cannot be read.
    """
    labels = _labels(query, gallery, same_camera)
    if not rerank:
        return rank_features(q_feats, g_feats, *labels, metric=metric)
    feats = [np.asarray(q_feats), np.asarray(g_feats)]
    if metric == "cosine":
        feats = [unit_rows(rows) for rows in feats]
    return evaluate_rank(k_reciprocal(*feats), *labels)


def _labels(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord], same_camera: SameCamera
) -> tuple[Ints, Ints, Ints, Ints]:
    """q_pids, g_pids, q_camids, g_camids.

    Where the same camera is kept, the numbers of the images stand for cameras: what a ranking then leaves out is the
    query image itself.
    """
    q_pids, q_camids = np.array([(record.pid, record.camid) for record in query], np.int64).reshape(-1, 2).T
    g_pids, g_camids = np.array([(record.pid, record.camid) for record in gallery], np.int64).reshape(-1, 2).T
    if same_camera == "keep":
        q_camids, g_camids = numbers_of_images(query, gallery)
    return q_pids, g_pids, q_camids, g_camids


def _refuse_broken(feats: Features, records: Sequence[ImageRecord], metric: Metric) -> None:
    broken = np.flatnonzero(~np.isfinite(feats).all(axis=1))
    if len(broken):
        raise InputError(
            f"The features of {len(broken)} of {len(records)} images are NaN or infinite, "
            f"first those of {records[broken[0]].path}. Run `reidexport verify` on the artifact."
        )
    zeros = np.flatnonzero(~feats.any(axis=1))
    if len(zeros) and metric == "cosine":
        raise InputError(
            f"The features of {len(zeros)} of {len(records)} images are zeros only, which cosine cannot compare, "
            f"first those of {records[zeros[0]].path}. Run `reidexport verify` on the artifact, or score it with "
            "--metric euclidean."
        )
