from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reidexport.errors import InputError
from reidexport.metrics.rerank import k_reciprocal

Matrix = npt.NDArray[np.float64]


def slow_k_reciprocal(q_feats: Matrix, g_feats: Matrix, k1: int, k2: int, lambda_value: float) -> Matrix:
    """The paper, dense and one image at a time."""
    feats = np.concatenate([q_feats, g_feats]).astype(np.float64)
    num_images, num_query = len(feats), len(q_feats)
    distance = np.array([[((a - b) ** 2).sum() for b in feats] for a in feats])
    distance /= distance.max(axis=1, keepdims=True)
    rank = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in rank[i, : k + 1] if i in rank[j, : k + 1]}

    encoding = np.zeros((num_images, num_images))
    for i in range(num_images):
        members = reciprocal(i, k1)
        expanded = set(members)
        for j in members:
            theirs = reciprocal(j, round(k1 / 2))
            if 3 * len(theirs & members) > 2 * len(theirs):
                expanded |= theirs
        for j in expanded:
            encoding[i, j] = np.exp(-distance[i, j])
        encoding[i] /= encoding[i].sum()
    encoding = np.array([encoding[rank[i, :k2]].mean(axis=0) for i in range(num_images)])
    final = np.zeros((num_query, len(g_feats)))
    for i in range(num_query):
        for j in range(len(g_feats)):
            a, b = encoding[i], encoding[num_query + j]
            jaccard = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()
            final[i, j] = (1 - lambda_value) * jaccard + lambda_value * distance[i, num_query + j]
    return final


def clustered(rng: np.random.Generator, count: int, dim: int = 12) -> Matrix:
    """Features of ten people."""
    centers = rng.normal(size=(10, dim))
    return (centers[rng.integers(0, 10, count)] + 0.7 * rng.normal(size=(count, dim))).astype(np.float32)


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"),
    [(20, 6, 0.3), (7, 3, 0.3), (5, 1, 0.5), (6, 6, 0.0), (3, 2, 1.0), (1, 1, 0.2)],
)
def test_sparse_equals_dense(k1: int, k2: int, lambda_value: float) -> None:
    """Sparse and by blocks, or dense by the paper: the same distances."""
    rng = np.random.default_rng(k1)
    feats = clustered(rng, 110)
    found = k_reciprocal(feats[:25], feats[25:], k1=k1, k2=k2, lambda_value=lambda_value)
    expected = slow_k_reciprocal(feats[:25], feats[25:], k1, k2, lambda_value)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time give what all rows at once give."""
    feats = clustered(np.random.default_rng(0), 90)
    expected = k_reciprocal(feats[:20], feats[20:])
    monkeypatch.setattr("reidexport.metrics.rerank._ROWS", 7)
    monkeypatch.setattr("reidexport.metrics.rerank._COLUMNS", 13)
    np.testing.assert_allclose(k_reciprocal(feats[:20], feats[20:]), expected, atol=1e-6)


def test_fewer_images_than_k1() -> None:
    """A gallery smaller than the neighborhood is re-ranked by all of it."""
    feats = clustered(np.random.default_rng(1), 9)
    found = k_reciprocal(feats[:3], feats[3:])
    np.testing.assert_allclose(found, slow_k_reciprocal(feats[:3], feats[3:], 20, 6, 0.3), atol=2e-6)


def test_many_identical_images_stay_finite() -> None:
    """More exact copies than k1 leave an image out of its own neighborhood; it still counts itself."""
    feats = np.concatenate([np.ones((40, 8), np.float32), clustered(np.random.default_rng(2), 20, 8)])
    assert np.isfinite(k_reciprocal(feats[::2], feats[1::2], k1=5, k2=2)).all()
    assert np.isfinite(k_reciprocal(np.ones((3, 8)), np.ones((30, 8)))).all()


@pytest.mark.parametrize("options", [{"k1": 0}, {"k2": 0}, {"k1": 5, "k2": 6}, {"lambda_value": 1.5}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    """Options that mean nothing are refused with the range that means something."""
    with pytest.raises(InputError, match=r"needs 1 <= k2 <= k1 and 0 <= lambda_value <= 1, got k1="):
        k_reciprocal(np.ones((2, 4)), np.ones((3, 4)), **options)


def test_broken_features() -> None:
    """NaN features are refused before anything is computed."""
    with pytest.raises(InputError, match=r"g_feats hold NaN or infinity, first in row 2"):
        k_reciprocal(np.ones((2, 4)), np.array([[1.0] * 4, [1.0] * 4, [np.inf] * 4]))


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_precisions(dtype: str) -> None:
    """float16 and float64 features give float32 distances, those of the paper."""
    feats = clustered(np.random.default_rng(3), 80).astype(dtype)
    found = k_reciprocal(feats[:20], feats[20:])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_k_reciprocal(feats[:20], feats[20:], 20, 6, 0.3), atol=2e-6)


def test_gallery_of_one_image() -> None:
    """One query and one image are each other's neighbors, whatever their distance."""
    assert np.isfinite(k_reciprocal(np.zeros((1, 4)), np.ones((1, 4)))).all()
    assert k_reciprocal(np.ones((1, 4)), np.ones((1, 4))).tolist() == [[0.0]]


def test_a_large_common_offset_does_not_matter() -> None:
    """float32 features far from the origin are re-ranked as they are near it."""
    feats = clustered(np.random.default_rng(4), 80)
    found = k_reciprocal(feats[:20] + 512, feats[20:] + 512)
    moved = (feats + 512).astype(np.float64) - 512
    np.testing.assert_allclose(found, slow_k_reciprocal(moved[:20], moved[20:], 20, 6, 0.3), atol=2e-6)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_overflow_is_refused() -> None:
    """Features whose squared distances float32 cannot hold are an error, never a ranking."""
    with pytest.raises(InputError, match=r"overflow float32, first for row 0 of q_feats"):
        k_reciprocal(np.full((1, 4), 3e38, "f4"), np.full((2, 4), -3e38, "f4"))
