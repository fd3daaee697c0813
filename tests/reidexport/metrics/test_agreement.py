"""The arithmetic by which networks are compared, row by row."""

import numpy as np
import pytest

from reidexport.metrics.agreement import agreement, neighbor_agreement
from tests.standins.checkpoints import relative_l2


def test_rows_are_compared_as_the_formulas_say() -> None:
    """Cosine, largest error and relative L2 of more rows than one block are those of a loop over rows."""
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((2500, 7), np.float32)
    found = expected + np.float32(0.1) * rng.standard_normal(expected.shape, np.float32)
    rows = agreement(found, expected)
    for i, (a, b) in enumerate(zip(found.astype("f8"), expected.astype("f8"), strict=True)):
        assert rows.cosines[i] == pytest.approx(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b), abs=1e-15)
        assert rows.max_abs_errors[i] == max(abs(a - b))
        assert rows.relative_l2[i] == pytest.approx(relative_l2(a[None], b[None]), rel=1e-14)


@pytest.mark.parametrize(
    ("found", "expected", "wanted"),
    [
        ([0.0, 0.0], [3.0, 4.0], (0.0, 4.0, 1.0)),
        ([3.0, 4.0], [0.0, 0.0], (0.0, 4.0, np.inf)),
        ([0.0, 0.0], [0.0, 0.0], (0.0, 0.0, 0.0)),
        ([np.nan, 1.0], [3.0, 4.0], (-1.0, np.inf, np.inf)),
        ([3.0, 4.0], [np.inf, 4.0], (-1.0, np.inf, np.inf)),
    ],
)
def test_rows_that_are_no_features_agree_with_nothing(
    found: list[float], expected: list[float], wanted: tuple[float, float, float]
) -> None:
    """Rows of zeros have cosine 0, and rows that are not finite -1 and infinite errors, without a warning."""
    rows = agreement(np.array([found], np.float32), np.array([expected], np.float32))
    assert (rows.cosines[0], rows.max_abs_errors[0], rows.relative_l2[0]) == wanted


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("num_queries", [None, 9])
def test_neighbors_are_those_of_sorted_distances(metric: str, num_queries: int | None) -> None:
    """Top-1 and top-10 agreement are those of distances in float64, sorted; no row is its own neighbor."""
    rng = np.random.default_rng(1)
    expected = rng.standard_normal((60, 8), np.float32)
    found = expected + np.float32(0.3) * rng.standard_normal(expected.shape, np.float32)

    def nearest(features: np.ndarray) -> np.ndarray:
        rows = features.astype("f8")
        if metric == "cosine":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        queries, gallery = (rows, rows) if num_queries is None else (rows[:num_queries], rows[num_queries:])
        distances = ((queries[:, None] - gallery) ** 2).sum(2)
        if num_queries is None:
            np.fill_diagonal(distances, np.inf)
        return distances.argsort(axis=1)[:, :10]

    a, b = nearest(found), nearest(expected)
    overlap = np.mean([len(set(row_a) & set(row_b)) / 10 for row_a, row_b in zip(a, b, strict=True)])
    assert neighbor_agreement(found, expected, num_queries, metric) == (
        (a[:, 0] == b[:, 0]).mean(),
        pytest.approx(overlap),
    )
    assert 0.1 < overlap < 0.95


def test_neighbors_of_broken_features_are_compared_too() -> None:
    """NaN and rows far too large count as zeros instead of ending the comparison."""
    expected = np.random.default_rng(2).standard_normal((20, 8), np.float32)
    found = expected.copy()
    found[3], found[5] = np.nan, 1e30
    top1, top10 = neighbor_agreement(found, expected, None, "euclidean")
    assert 0 < top1 < 1
    assert 0 < top10 < 1


def test_a_query_in_the_gallery_is_not_its_own_neighbor() -> None:
    """Where queries and gallery are the same images, their neighbors are those among all other images."""
    expected = np.random.default_rng(3).standard_normal((30, 8), np.float32)
    found = expected + np.float32(0.5) * np.random.default_rng(4).standard_normal(expected.shape, np.float32)
    both, numbers = (np.concatenate((features, features)) for features in (found, expected)), np.arange(30)
    among_others = neighbor_agreement(found, expected, None, "cosine")
    assert neighbor_agreement(*both, 30, "cosine", np.concatenate((numbers, numbers))) == among_others
    assert among_others[0] < 1
