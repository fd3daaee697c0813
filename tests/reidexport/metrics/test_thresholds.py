"""Operating points, against the definition pair by pair."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from reidexport.errors import InputError
from reidexport.metrics.distances import distmat_from_features
from reidexport.metrics.thresholds import FPRS, VerificationRoc, verification_roc

Array = npt.NDArray[Any]
Metric = Literal["cosine", "euclidean"]


def labels(rng: np.random.Generator, num_query: int, num_gallery: int, num_pids: int) -> list[Array]:
    """q_pids, g_pids, q_camids and g_camids, with junk (-1) and distractors (0)."""
    pids = [rng.integers(1, num_pids + 1, num_query), rng.integers(-1, num_pids + 1, num_gallery)]
    return pids + [rng.integers(0, 3, size) for size in (num_query, num_gallery)]


def slow_pairs(distmat: Array, of: list[Array]) -> tuple[list[float], list[float]]:
    """Distances of genuine pairs and of impostors, one pair at a time."""
    q_pids, g_pids, q_camids, g_camids = of
    genuine, impostors = [], []
    for i in range(len(q_pids)):
        for j in range(len(g_pids)):
            if g_pids[j] == -1 or (g_pids[j] == q_pids[i] and g_camids[j] == q_camids[i]):
                continue
            (genuine if g_pids[j] == q_pids[i] else impostors).append(float(distmat[i, j]))
    return genuine, impostors


def assert_best(roc: VerificationRoc, genuine: list[float], impostors: list[float]) -> None:
    """Each point counts right, keeps within its FPR, and no distance that occurs could be let in as well."""
    assert (roc.num_genuine, roc.num_impostor) == (len(genuine), len(impostors))
    for point in roc.operating_points:
        passing = [distance for distance in impostors if distance <= point.threshold]
        assert point.num_false == len(passing) <= point.fpr * len(impostors)
        assert point.tpr == sum(distance <= point.threshold for distance in genuine) / len(genuine)
        larger = min(distance for distance in impostors if distance > point.threshold)
        assert sum(distance <= larger for distance in impostors) > point.fpr * len(impostors)
        assert not any(point.threshold < distance < larger for distance in genuine)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(4))
def test_points_are_the_best_that_keep_within_their_fpr(metric: Metric, seed: int) -> None:
    """Drawn features in several blocks: counts, TPR and threshold are those of the definition."""
    rng = np.random.default_rng(seed)
    of = labels(rng, 60, 400, 12)
    centers = rng.normal(size=(13, 16))
    q_feats, g_feats = (centers[pids] + rng.normal(size=(len(pids), 16)) for pids in of[:2])
    roc = verification_roc(q_feats, g_feats, *of, metric=metric)
    distmat = distmat_from_features(q_feats, g_feats[of[1] != -1], metric=metric)
    kept = [of[0], of[1][of[1] != -1], of[2], of[3][of[1] != -1]]
    assert_best(roc, *slow_pairs(distmat, kept))
    assert 0 < roc.operating_points[-1].tpr < roc.operating_points[0].tpr < 1


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("seed", range(4))
def test_equal_distances_pass_together(metric: Metric, dtype: str, seed: int) -> None:
    """Features along axes, whose distances are few and exact: no point lets a part of a tie pass."""
    rng = np.random.default_rng(seed)
    of = labels(rng, 40, 64, 5)
    axes = np.concatenate([np.eye(4), -np.eye(4)]).astype(dtype)
    q_feats = axes[rng.integers(0, 8, 40)]
    g_feats = np.tile(axes, (8, 1))  # whose mean, the center of euclidean, is 0
    of[1] = np.maximum(of[1], 0)
    roc = verification_roc(q_feats, g_feats, *of, metric=metric)
    genuine, impostors = slow_pairs(distmat_from_features(q_feats, g_feats, metric=metric), of)
    assert len(set(impostors)) == 3
    assert_best(roc, genuine, impostors)
    assert [point.num_false for point in roc.operating_points] == [0, 0, 0]  # every eighth has distance 0
    assert all(point.threshold < 0 for point in roc.operating_points)


@pytest.mark.parametrize(
    ("nearest", "num_false", "threshold"),
    [([1, 2, 3, 3], 2, 9.0), ([1, 3, 3, 4], 1, 9.0), ([3, 3, 3, 4], 0, 9.0)],
)
def test_a_tie_at_the_threshold_is_refused_whole(
    nearest: list[float], num_false: int, threshold: float
) -> None:
    """Two of 200 impostors may pass; where the second ties with the third, both are refused."""
    balance = -(sum(nearest) + 0.5) / 2  # the mean of the gallery is 0, so that distances are exact
    numbers = np.array([0.5, *nearest, balance, balance, *[100, -100] * 97])
    g_feats = np.stack([numbers, np.zeros(201)], axis=1)
    pids, camids = np.arange(1, 202), np.ones(201, int)
    roc = verification_roc(np.zeros((1, 2)), g_feats, [1], pids, [0], camids, metric="euclidean")
    point = roc.operating_points[0]
    assert (roc.num_impostor, point.fpr, point.num_false, point.tpr) == (200, 0.01, num_false, 1.0)
    assert point.threshold == np.nextafter(threshold, 0)


def test_the_curve_passes_through_the_operating_points() -> None:
    """FPR and TPR rise from one false match to 1e-2, in some 200 steps of the logarithm."""
    rng = np.random.default_rng(0)
    of = labels(rng, 200, 2000, 40)
    centers = rng.normal(size=(41, 8))
    feats = [(centers[pids] + rng.normal(size=(len(pids), 8))).astype("f4") for pids in of[:2]]
    roc = verification_roc(*feats, *of)
    assert 100 < len(roc.fpr) == len(roc.tpr) <= 200
    assert (np.diff(roc.fpr) > 0).all() and (np.diff(roc.tpr) >= 0).all()
    assert roc.fpr[0] == 1 / roc.num_impostor
    last, strict = roc.operating_points[0], roc.operating_points[-1]
    assert (roc.fpr[-1], roc.tpr[-1]) == (last.num_false / roc.num_impostor, last.tpr)
    assert roc.tpr[roc.fpr <= strict.fpr].max() <= strict.tpr <= roc.tpr[roc.fpr > strict.fpr].min()
    assert [point.fpr for point in roc.operating_points] == list(FPRS)
    assert roc.warnings == ()
    assert roc.as_json()["operating_points"][0]["num_false"] == last.num_false


def test_too_few_data_are_said_to_be() -> None:
    """Fewer than 10 impostors at an FPR, and fewer than 30 persons, are warnings that say how many it takes."""
    rng = np.random.default_rng(0)
    of = labels(rng, 50, 60, 5)
    roc = verification_roc(rng.normal(size=(50, 4)), rng.normal(size=(60, 4)), *of)
    num = roc.num_impostor
    assert 2000 < num < 3000
    assert roc.warnings == (
        f"FPR 0.001 is only 2 of {num} impostor pairs: its threshold is a guess. Use 10000 or more.",
        f"FPR 0.0001 is only 0 of {num} impostor pairs: its threshold is a guess. Use 100000 or more.",
        "The genuine pairs are of 5 persons: another 5 would give other thresholds. Use 30 or more.",
    )
    assert roc.operating_points[-1].num_false == 0


def test_one_impostor_is_enough_for_an_answer() -> None:
    """With a single impostor no point lets it pass, and the curve is the one point without a false match."""
    roc = verification_roc([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [1], [1, 2], [0], [1, 1])
    assert all(
        (point.tpr, point.num_false) == (1.0, 0) and point.threshold < 1 for point in roc.operating_points
    )
    assert (roc.fpr.tolist(), roc.tpr.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("g_pids", "counts"),
    [([2, 3], "0 and 2"), ([1, 1], "2 and 0"), ([-1, 1], "1 and 0"), ([-1, -1], "0 and 0")],
)
def test_pairs_of_one_kind_are_refused(g_pids: list[int], counts: str) -> None:
    """Without genuine pairs or without impostors there is no threshold; the error counts both."""
    with pytest.raises(InputError, match=f"same person and of different persons, got {counts}"):
        verification_roc([[1.0, 0.0]], np.eye(2), [1], g_pids, [0], [1, 1])


def test_damaged_features_are_refused() -> None:
    """Features whose squared distances overflow, or that are not numbers, get no threshold."""
    arguments: Any = ([1], [1, 2], [0], [1, 1])
    with pytest.raises(InputError, match="Distances overflow float32, first for row 0 of q_feats"):
        verification_roc(np.float32([[1e20, 0]]), np.eye(2, dtype="f4"), *arguments, metric="euclidean")
    with pytest.raises(InputError, match="g_feats hold NaN or infinity, first in row 1"):
        verification_roc([[1.0, 0.0]], [[1.0, 0.0], [np.nan, 1.0]], *arguments)
