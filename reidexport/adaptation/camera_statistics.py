"""What cameras do to the features of a site: how much of their variance that is, and the profile that takes it off."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import UNLABELED
from reidruntime.artifact.camera_profile import (
    CameraProfile,
    CameraStatistics,
    FeatureStatistics,
    HashedFile,
)
from reidruntime.artifact.manifest import Producer

from reidexport.adaptation.crops import Ints
from reidexport.metrics.distances import unit_rows
from reidexport.version import __version__

# Crops that the mean of all cameras counts for in the mean of one: 32 crops show a mean badly.
_MEAN_PRIOR = 32
# Share of the mean variance of all elements in the variance of each: dividing by the whole deviation costs accuracy.
_VARIANCE_PRIOR = 0.5
_SMALLEST_VARIANCE = 1e-12

Features = NDArray[np.float32]


def camera_share(features: Features, camids: Ints, tracks: Ints) -> float:
    """The share of the variance of unit-length features that lies between cameras: 0 where they do nothing, up to 1.

    What chance alone puts between the means of a few people is taken off (one-way analysis of variance).

    Args:
        features: float32 (N, D).
        camids: int64 (N,).
        tracks: int64 (N,); crops of one track are one person's, those of no track (0 or less) of different people.
    """
    rows, within, by_chance, means = unit_rows(features).astype(np.float64), [], [], []
    for camid in np.unique(camids):
        group, own = rows[camids == camid], tracks[camids == camid]
        people = np.unique(np.where(own > 0, own, -np.arange(len(own))), return_inverse=True)[1]
        counts = np.bincount(people)
        of_people = np.zeros((len(counts), group.shape[1]))
        np.add.at(of_people, people, group)
        within.append(group.var(axis=0).sum())
        by_chance.append((of_people / counts[:, None]).var(axis=0).sum() / len(counts))
        means.append(group.mean(axis=0))
    if len(means) < 2:
        return 0.0
    between = max(float(np.var(means, axis=0, ddof=1).sum() - np.mean(by_chance)), 0.0)
    return between / max(between + float(np.mean(within)), np.finfo(np.float64).tiny)


def profile_of_features(
    features: Features,
    camids: Ints,
    artifact: HashedFile,
    *,
    standardizes: bool,
    networks: Mapping[int, HashedFile],
) -> CameraProfile:
    """The profile of a site.

    Args:
        features: float32 (N, D), as the artifact answers the crops, or the network of a camera its own.
        camids: int64 (N,), ``UNLABELED`` for all where crops tell no camera.
        artifact: the ONNX file.
        standardizes: whether the profile is to be applied.
        networks: of the cameras that have one of their own, by camid.
    """
    exact = features.astype(np.float64)
    everybody = exact.mean(axis=0)
    cameras = []
    for camid in np.unique(camids[camids != UNLABELED]).tolist():
        own = exact[camids == camid]
        mean = (own.sum(axis=0) + _MEAN_PRIOR * everybody) / (len(own) + _MEAN_PRIOR)
        statistics = _statistics(len(own), mean, own.var(axis=0))
        cameras.append(CameraStatistics(camid=camid, network=networks.get(camid), **dict(statistics)))
    return CameraProfile(
        producer=Producer(name="reidexport", version=__version__),
        artifact=artifact,
        standardizes=standardizes,
        all_crops=_statistics(len(exact), everybody, exact.var(axis=0)),
        cameras=tuple(cameras),
    )


def _statistics(
    num_crops: int, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> FeatureStatistics:
    shrunk = (1 - _VARIANCE_PRIOR) * variance + _VARIANCE_PRIOR * variance.mean()
    return FeatureStatistics(
        num_crops=num_crops,
        mean=_short(mean),
        deviation=_short(np.sqrt(np.maximum(shrunk, _SMALLEST_VARIANCE))),
    )


def _short(values: NDArray[np.float64]) -> tuple[float, ...]:
    """As float32 in the fewest digits, which every runtime reads back as the same numbers."""
    return tuple(float(str(value)) for value in values.astype(np.float32))
