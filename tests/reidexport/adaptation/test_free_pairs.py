"""Pairs that need no label: which boxes are one person's, which two persons', and what they say of features."""

import numpy as np
import pytest

from reidexport.adaptation.crops import SiteCrops
from reidexport.adaptation.free_pairs import FreePairs, free_pairs, separation, suggested_threshold


def site(*boxes: tuple[int, int, int]) -> SiteCrops:
    """Crops of (camid, track, time)."""
    camids, tracks, times = np.array(boxes, np.int64).T
    return SiteCrops([f"{place}.jpg" for place in range(len(boxes))], camids, tracks, times, {})


def test_boxes_of_a_track_are_one_person_and_tracks_at_one_time_are_two() -> None:
    """Across cameras, across a long gap, and of no track or no time nothing is known."""
    crops = site(
        (0, 1, 0), (0, 1, 10), (0, 1, 20), (0, 1, 5000),  # a track, and another passage of the same number
        (0, 2, 15), (0, 2, 25),  # seen at the time of the first
        (0, 3, 100), (0, 3, 110),  # later
        (1, 1, 0), (1, 1, 10),  # another camera's track 1
        (1, 0, 5), (1, 4, -2),  # no track; no time
    )  # fmt: skip
    pairs = free_pairs(crops)
    assert sorted(map(tuple, pairs.genuine[:, :2].tolist())) == [(0, 1), (1, 2), (4, 5), (6, 7), (8, 9)]
    assert {frozenset(crops.tracks[pair]) for pair in pairs.impostor[:, :2]} == {frozenset((1, 2))}
    assert (crops.camids[pairs.impostor[:, :2]] == 0).all()
    assert not pairs.are_enough


def test_some_pairs_are_counted_anew_among_their_crops() -> None:
    """So many of each kind are left; places are those among the crops that they are of."""
    crops = site(*((0, track, time) for track in range(1, 9) for time in range(3)))
    pairs = free_pairs(crops)
    some = pairs.some(5)
    assert (len(some.genuine), len(some.impostor)) == (5, 5)
    assert {tuple(pair) for pair in some.genuine} <= {tuple(pair) for pair in pairs.genuine}
    renumbered = some.among(some.places)
    assert np.array_equal(some.places[renumbered.impostor[:, :2]], some.impostor[:, :2])
    assert np.array_equal(pairs.some(10_000).genuine, pairs.genuine)


def test_separation_is_the_distance_of_means_over_the_mean_deviation() -> None:
    """D' as it is defined, from cosine distances one by one."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    pairs = FreePairs(
        np.array([(i, i + 1, i) for i in range(0, 20, 2)]), np.array([(i, i + 7, i) for i in range(20, 33)])
    )

    def distances(rows: np.ndarray) -> np.ndarray:
        found = []
        for one, other, _ in rows:
            a, b = features[one].astype(float), features[other].astype(float)
            found.append(1 - a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))
        return np.array(found)

    genuine, impostor = distances(pairs.genuine), distances(pairs.impostor)
    expected = (impostor.mean() - genuine.mean()) / np.sqrt((impostor.var() + genuine.var()) / 2)
    assert separation(features, pairs) == pytest.approx(expected, rel=1e-5)


def test_one_impostor_in_a_hundred_passes_the_threshold() -> None:
    """The threshold is that quantile, and lies in its interval, which more tracks make narrower."""
    widths = []
    for num_tracks in (20, 500):
        rng = np.random.default_rng(1)
        tracks = np.arange(num_tracks).repeat(2)
        people = rng.normal(size=(num_tracks, 32))
        features = (people[tracks] + 0.3 * rng.normal(size=(len(tracks), 32))).astype(np.float32)
        genuine = np.array([(2 * track, 2 * track + 1, track) for track in range(num_tracks)])
        impostor = np.array(
            [(2 * t, 2 * rng.integers(num_tracks), t) for t in range(num_tracks) for _ in range(20)]
        )
        impostor = impostor[impostor[:, 0] != impostor[:, 1]]
        found = suggested_threshold(features, FreePairs(genuine, impostor))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        distances = 1 - (unit[impostor[:, 0]] * unit[impostor[:, 1]]).sum(1)
        assert (
            (distances < found.threshold - 1e-6).mean()
            <= 0.01
            <= (distances <= found.threshold + 1e-6).mean()
        )
        assert found.low <= found.threshold <= found.high
        assert found.tpr > 0.9
        widths.append(found.high - found.low)
    assert widths[1] < widths[0]
