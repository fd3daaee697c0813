"""What cameras do to features: the share of the variance, and the numbers of a profile."""

import numpy as np
import pytest
from reidgallery.input import UNLABELED
from reidruntime.artifact.camera_profile import HashedFile

from reidexport.adaptation.camera_statistics import camera_share, profile_of_features

FILE = HashedFile(name="site.onnx", sha256="0" * 64)


def test_the_share_is_that_of_the_means_without_chance() -> None:
    """Cameras that do nothing have none of it, few crops or many; cameras that move features have what they add."""
    rng = np.random.default_rng(0)
    for count in (32, 1000):
        camids = np.arange(5).repeat(count)
        people, nobody = (
            rng.normal(size=(len(camids), 64)).astype(np.float32),
            np.zeros(len(camids), np.int64),
        )
        assert camera_share(people, camids, nobody) < 0.01
        moved = people + 0.5 * rng.normal(size=(5, 64))[camids].astype(np.float32)
        assert camera_share(moved, camids, nobody) == pytest.approx(0.25 / 1.25, abs=0.04)
    assert camera_share(people, nobody, nobody) == 0


def test_crops_of_one_track_are_one_person() -> None:
    """Four people, often seen, differ from four others as people do, not as cameras do."""
    rng = np.random.default_rng(0)
    camids, tracks = np.arange(2).repeat(400), np.arange(8).repeat(100) + 1
    people = rng.normal(size=(8, 64))[tracks - 1] + 0.1 * rng.normal(size=(800, 64))
    features = people.astype(np.float32)
    assert camera_share(features, camids, tracks) < 0.1 < camera_share(features, camids, 0 * tracks)


def test_a_profile_is_the_shrunken_mean_and_deviation_of_each_camera() -> None:
    """Means count all cameras' for 32 crops, variances half of the mean over elements; numbers are float32's."""
    rng = np.random.default_rng(0)
    camids = np.array([4] * 50 + [1] * 150)
    features = rng.normal(2, rng.uniform(0.5, 3, 7), (200, 7)).astype(np.float32)
    profile = profile_of_features(features, camids, FILE, standardizes=True, networks={4: FILE})
    assert [(camera.camid, camera.num_crops, camera.network) for camera in profile.cameras] == [
        (1, 150, None),
        (4, 50, FILE),
    ]
    own = features[:50].astype(float)
    mean = (own.sum(0) + 32 * features.astype(float).mean(0)) / 82
    deviation = np.sqrt(0.5 * own.var(0) + 0.5 * own.var(0).mean())
    assert np.allclose(profile.cameras[1].mean, mean, rtol=1e-6)
    assert np.allclose(profile.cameras[1].deviation, deviation, rtol=1e-6)
    assert np.allclose(profile.all_crops.mean, features.mean(0), rtol=1e-6)
    values = profile.cameras[1].mean
    assert all(float(str(np.float32(value))) == value for value in values)


def test_crops_of_no_camera_make_a_profile_of_all() -> None:
    """There is no camera in it; and elements that never differ do not divide by zero."""
    features = np.ones((40, 3), np.float32)
    profile = profile_of_features(features, np.full(40, UNLABELED), FILE, standardizes=False, networks={})
    assert profile.cameras == ()
    assert min(profile.all_crops.deviation) > 0
