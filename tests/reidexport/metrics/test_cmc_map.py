import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reidexport.errors import InputError
from reidexport.metrics.cmc_map import RankMetrics, evaluate_rank, rank_features
from reidexport.metrics.distances import distance_blocks, distmat_from_features, row_norms
from reidexport.metrics.ranking import _slack

Array = npt.NDArray[Any]


def slow_metrics(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
) -> tuple[list[float], float, float, int]:
    """The definition, one gallery image at a time."""
    length = min(max_rank, len(g_pids))
    cmc, precisions, penalties = [0] * length, [], []
    for i in range(len(q_pids)):
        hits = []
        for j in sorted(range(len(g_pids)), key=lambda j: (distmat[i][j], j)):
            if g_pids[j] != -1 and not (g_pids[j] == q_pids[i] and g_camids[j] == q_camids[i]):
                hits.append(g_pids[j] == q_pids[i])
        if not any(hits):
            continue
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        for k in range(ranks[0], length + 1):
            cmc[k - 1] += 1
        precisions.append(sum(found / rank for found, rank in enumerate(ranks, start=1)) / len(ranks))
        penalties.append(len(ranks) / ranks[-1])
    num_valid = len(precisions)
    return (
        [hit / num_valid for hit in cmc],
        sum(precisions) / num_valid,
        sum(penalties) / num_valid,
        num_valid,
    )


def random_labels(
    rng: np.random.Generator, num_query: int, num_gallery: int
) -> tuple[Array, Array, Array, Array]:
    """Queries of pids 1 to 11, of whom 9 and more are not in the gallery; junk (-1) and distractors (0) are."""
    return (
        rng.integers(1, 12, num_query),
        rng.integers(-1, 9, num_gallery),
        rng.integers(0, 4, num_query),
        rng.integers(0, 4, num_gallery),
    )


def assert_same(found: RankMetrics, expected: tuple[list[float], float, float, int]) -> None:
    """Every score is the expected one."""
    cmc, mean_ap, mean_inp, num_valid = expected
    np.testing.assert_allclose(found.cmc, cmc, atol=1e-12)
    assert found.mAP == pytest.approx(mean_ap, abs=1e-12)
    assert found.mINP == pytest.approx(mean_inp, abs=1e-12)
    assert found.num_valid_query == num_valid


@pytest.mark.parametrize("seed", range(25))
def test_distances_with_ties_are_scored_by_the_definition(seed: int) -> None:
    """Few distinct distances, junk, distractors and queries without a match: equal to the definition."""
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 14, int(rng.integers(15, 90)))
    distmat = rng.integers(0, rng.choice([2, 6, 1000]), (14, len(labels[1]))).astype(
        rng.choice(["f4", "f8", "i8"])
    )
    assert_same(evaluate_rank(distmat, *labels), slow_metrics(distmat, *labels))


def test_every_query_has_its_own_scores() -> None:
    """First-match rank and AP of a query are those of an evaluation of it alone; 0 and NaN without a match."""
    rng = np.random.default_rng(7)
    labels = random_labels(rng, 30, 60)
    q_pids, g_pids, q_camids, g_camids = labels
    distmat = rng.integers(0, 9, (30, 60))
    found = evaluate_rank(distmat, *labels)
    for i in range(30):
        part = slice(i, i + 1)
        try:
            cmc, precision, _, _ = slow_metrics(
                distmat[part], q_pids[part], g_pids, q_camids[part], g_camids, max_rank=60
            )
        except ZeroDivisionError:
            assert found.first_match_ranks[i] == 0
            assert np.isnan(found.average_precisions[i])
        else:
            assert found.first_match_ranks[i] == cmc.index(1) + 1
            assert found.average_precisions[i] == pytest.approx(precision, abs=1e-12)
    assert 0 < np.isnan(found.average_precisions).sum() < 30


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(8))
def test_features_are_scored_as_their_distances(metric: Any, seed: int) -> None:
    """rank_features equals the definition on float64 distances computed one pair at a time."""
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 20, 120)
    centers = rng.normal(size=(13, 16))
    q_feats = (centers[labels[0]] + rng.normal(size=(20, 16))).astype(np.float32)
    g_feats = (centers[labels[1]] + rng.normal(size=(120, 16))).astype(np.float32)
    distmat = np.array([[slow_distance(q, g, metric) for g in g_feats] for q in q_feats])
    found = rank_features(q_feats, g_feats, *labels, metric=metric)
    assert_same(found, slow_metrics(distmat, *labels))


def slow_distance(q: Array, g: Array, metric: str) -> float:
    """The distance of one pair, in float64."""
    q, g = q.astype(np.float64), g.astype(np.float64)
    if metric == "euclidean":
        return float(np.linalg.norm(q - g))
    lengths = np.linalg.norm(q) * np.linalg.norm(g)
    return float(1 - q @ g / lengths) if lengths > 0 else 1.0


def test_ties_between_features_go_by_gallery_order() -> None:
    """With small integers every distance is exact, so that features tie as their distances do."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 30, 200)
    labels[1][labels[1] == -1] = 0  # their mean is subtracted, and must be exact too
    q_feats, half = rng.integers(-2, 3, (30, 4)).astype(np.float32), rng.integers(-2, 3, (100, 4))
    g_feats = np.concatenate([half, -half]).astype(np.float32)
    distmat = ((q_feats[:, None] - g_feats[None]) ** 2).sum(axis=2)
    found = rank_features(q_feats, g_feats, *labels, metric="euclidean")
    assert_same(found, slow_metrics(distmat, *labels))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("seed", range(4))
def test_copies_in_the_gallery_tie_in_every_tile(
    metric: Any, dtype: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of gallery images, matches and zeros among them, rank as in float64 however the tiles are cut."""
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 20, 150)
    q_feats = rng.normal(size=(20, 33)).astype(dtype)
    g_feats = rng.normal(size=(30, 33)).astype(dtype)[rng.integers(0, 30, 150)]
    q_feats[3], g_feats[::9] = 0, 0
    distmat = np.array([[slow_distance(q, g, metric) for g in g_feats] for q in q_feats])
    expected = slow_metrics(distmat, *labels)
    assert_same(rank_features(q_feats, g_feats, *labels, metric=metric), expected)
    monkeypatch.setattr("reidexport.metrics.ranking._ROWS", int(rng.integers(1, 20)))
    monkeypatch.setattr("reidexport.metrics.ranking._COLUMNS", int(rng.integers(1, 60)))
    assert_same(rank_features(q_feats, g_feats, *labels, metric=metric), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_that_differ_by_less_than_a_product_rounds(metric: Any) -> None:
    """A gallery closer together than float32 products can resolve ranks as in float64."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 10, 300)
    q_feats = rng.normal(size=(10, 512)).astype(np.float32)
    g_feats = (3 + 1e-6 * rng.normal(size=(300, 512))).astype(np.float32)
    distmat = np.array([[slow_distance(q, g, metric) for g in g_feats] for q in q_feats])
    assert_same(rank_features(q_feats, g_feats, *labels, metric=metric), slow_metrics(distmat, *labels))


@pytest.mark.parametrize("dim", [1, 40, 2048])
@pytest.mark.parametrize("kind", ["normal", "positive", "equal"])
def test_rounding_stays_within_its_bound(dim: int, kind: str) -> None:
    """float32 products are as near to float64's as ranking takes them to be, even of sums that only grow."""
    feats = np.random.default_rng(0).normal(size=(400, dim)).astype(np.float32)
    feats = {"normal": feats, "positive": np.abs(feats), "equal": np.full_like(feats, 0.1)}[kind]
    left, right = feats[:200], feats[200:]
    error = np.abs(left @ right.T - left.astype(np.float64) @ right.astype(np.float64).T)
    assert (error.max(axis=1) < _slack(left, row_norms(left), float(row_norms(right).max()))).all()


def test_rounding_of_the_worst_sum_stays_within_its_bound() -> None:
    """A product whose every addition rounds the same way is within the bound, too: it is no matter of probability."""
    dim, unit = 2048, 2.0**-24
    row = np.full(
        dim, np.sqrt(1.0001 * unit), np.float32
    )  # its square is just more than half the last digit of 1
    row[0] = 1
    found = np.cumsum(row * row, dtype=np.float32)[-1]  # one by one
    error = abs(float(found) - float(np.square(row, dtype=np.float64).sum()))
    norms = row_norms(row[None])
    assert 0.9 * dim * unit < error < _slack(row[None], norms, norms[0])[0]


@pytest.mark.parametrize("score", ["distances", "features"])
def test_gallery_of_one_image(score: str) -> None:
    """One match is rank 1 of one."""
    if score == "distances":
        metrics = evaluate_rank([[0.3]], [1], [1], [0], [1])
    else:
        metrics = rank_features(np.ones((1, 4)), np.ones((1, 4)), [1], [1], [0], [1])
    assert (metrics.cmc.tolist(), metrics.mAP, metrics.mINP) == ([1.0], 1.0, 1.0)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u8"])
def test_any_layout_and_dtype_of_a_matrix(dtype: str) -> None:
    """Transposed, strided and read-only matrices score as a plain one, and neighbors of 2^63 stay apart."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 14, 60)
    distmat = rng.integers(0, 100, (14, 60)).astype(dtype)
    if dtype == "u8":
        distmat += 2**63
    wide = np.repeat(distmat, 2, axis=1)
    read_only = distmat.copy()
    read_only.setflags(write=False)
    for view in (distmat, np.asfortranarray(distmat), wide[:, ::2], read_only):
        assert_same(evaluate_rank(view, *labels), slow_metrics(distmat, *labels))


def test_metrics_need_no_torch() -> None:
    """Scoring arrays does not wait for torch to be imported."""
    code = (
        "import sys, reidexport.metrics.cmc_map, reidexport.metrics.rerank; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_identical_gallery_images_tie() -> None:
    """Copies of one feature are at one distance, so the first of them ranks first."""
    g_feats = np.repeat(np.random.default_rng(0).normal(size=(1, 64)), 40, axis=0)
    g_pids = np.full(40, 5)
    g_pids[3] = 1
    found = rank_features(g_feats[:1] + 0.5, g_feats, [1], g_pids, [0], np.ones(40, int), max_rank=5)
    assert found.cmc.tolist() == [0, 0, 0, 1, 1]


def test_junk_is_not_ranked_and_distractors_are() -> None:
    """Before the match stand junk of pid -1, the query's own camera and a distractor: only the last one counts."""
    metrics = evaluate_rank([[0.1, 0.2, 0.3, 0.4]], [7], [-1, 7, 0, 7], [2], [0, 2, 0, 1])
    assert metrics.cmc.tolist() == [0, 1, 1, 1]
    assert metrics.as_dict() == {"rank1": 0.0, "rank5": 1.0, "rank10": 1.0, "mAP": 0.5, "mINP": 0.5}


def test_queries_without_a_match_are_left_out() -> None:
    """A person who is not in the gallery, or only under the query's own camera, does not lower any score."""
    metrics = evaluate_rank(np.zeros((3, 2)), [1, 2, 3], [1, 2], [0, 0, 0], [1, 0])
    assert (metrics.num_valid_query, metrics.rank1, metrics.mAP) == (1, 1.0, 1.0)


def test_no_valid_query_is_an_error() -> None:
    """Scores of nothing are not zero; there are none."""
    for g_pids in ([2, 3], [-1, -1]):
        with pytest.raises(InputError, match=r"None of the 1 queries has a match in the gallery"):
            evaluate_rank(np.zeros((1, 2)), [1], g_pids, [0], [1, 1])
        with pytest.raises(InputError, match=r"None of the 1 queries has a match in the gallery"):
            rank_features(np.ones((1, 4)), np.ones((2, 4)), [1], g_pids, [0], [1, 1])


def test_max_rank_is_cut_to_the_gallery() -> None:
    """A curve is no longer than the gallery, and rank-10 of three images is that of the third."""
    metrics = evaluate_rank([[0.3, 0.2, 0.1]], [1], [1, 2, 3], [0], [1, 1, 1], max_rank=50)
    assert metrics.cmc.tolist() == [0, 0, 1]
    assert metrics.rank10 == 1.0
    assert len(evaluate_rank([[0.3, 0.2, 0.1]], [1], [1, 2, 3], [0], [1, 1, 1], max_rank=2).cmc) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"distmat": np.zeros(3)},
            r"distmat must be a \(num_query, num_gallery\) array of numbers, got float64",
        ),
        ({"distmat": np.zeros((1, 3), bool)}, r"distmat must be .* got bool of shape \(1, 3\)"),
        ({"distmat": [[0.0, np.nan, 1.0]]}, r"Distances are NaN, first for query 0"),
        ({"q_pids": [1, 2]}, r"q_pids must be 1 integers, got int64 of shape \(2,\)"),
        ({"g_pids": [1.0, 2.0, 3.0]}, r"g_pids must be 3 integers, got float64"),
        ({"g_camids": [[1, 1, 1]]}, r"g_camids must be 3 integers, got int64 of shape \(1, 3\)"),
        ({"max_rank": 0}, r"max_rank must be at least 1, got 0"),
    ],
)
def test_unfit_arguments_are_named(change: dict[str, Any], message: str) -> None:
    """Each argument that does not fit is named with what it is and what it should be."""
    arguments: dict[str, Any] = {
        "distmat": np.zeros((1, 3)),
        "q_pids": [1],
        "g_pids": [1, 2, 3],
        "q_camids": [0],
        "g_camids": [1, 1, 1],
    }
    with pytest.raises(InputError, match=message):
        evaluate_rank(**{**arguments, **change})


@pytest.mark.parametrize(
    ("q_feats", "g_feats", "message"),
    [
        (np.ones((1, 4)), np.ones((2, 5)), r"q_feats have 4 dimensions and g_feats 5"),
        (np.ones(4), np.ones((2, 4)), r"q_feats must be a \(number of images, dimension\) array of floats"),
        (np.ones((1, 4)), np.ones((2, 4), int), r"g_feats must be .* got int64 of shape \(2, 4\)"),
        (
            np.ones((1, 4)),
            np.array([[1.0] * 4, [np.nan] * 4]),
            r"g_feats hold NaN or infinity, first in row 1",
        ),
        (
            np.full((1, 4), 3e38, "f4"),
            np.full((2, 4), -3e38, "f4"),
            r"overflow float32, first for row 0 of q_feats",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_unfit_features_are_refused(q_feats: Any, g_feats: Any, message: str) -> None:
    """Features that do not fit each other, are not finite, or overflow, are errors and never scores."""
    with pytest.raises(InputError, match=message):
        rank_features(q_feats, g_feats, [1], [1, 1], [0], [1, 1], metric="euclidean")


def test_unknown_metric() -> None:
    """A metric that does not exist is not taken for one that does."""
    with pytest.raises(InputError, match=r"cosine or euclidean, got 'manhattan'"):
        rank_features(np.ones((1, 4)), np.ones((2, 4)), [1], [1, 1], [0], [1, 1], metric="manhattan")  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_blocks_make_up_the_whole_matrix(metric: Any) -> None:
    """However small the blocks, their rows are those of the whole matrix, in order."""
    rng = np.random.default_rng(0)
    q_feats, g_feats = rng.normal(size=(23, 8)), rng.normal(size=(40, 8))
    blocks = list(distance_blocks(q_feats, g_feats, metric=metric, block_bytes=40 * 8 * 5))
    assert [part.stop - part.start for part, _ in blocks] == [5, 5, 5, 5, 3]
    expected = distmat_from_features(q_feats, g_feats, metric=metric)
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), expected, atol=1e-12)


def test_large_common_offset_does_not_cancel() -> None:
    """float32 features far from the origin keep their Euclidean order."""
    rng = np.random.default_rng(0)
    g_feats = (1000 + rng.normal(size=(300, 32))).astype(np.float32)
    q_feats = (1000 + rng.normal(size=(20, 32))).astype(np.float32)
    exact = ((q_feats[:, None].astype(np.float64) - g_feats[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distmat_from_features(q_feats, g_feats, metric="euclidean"), exact, rtol=1e-4)


def test_zero_features_have_a_cosine_distance() -> None:
    """A row of zeros has no direction: its distance is 1, not NaN."""
    assert distmat_from_features(np.zeros((1, 4)), np.ones((2, 4))).tolist() == [[1.0, 1.0]]


def test_half_precision_features_are_compared_in_single() -> None:
    """float16 features do not overflow their own squares."""
    feats = np.full((2, 2048), 10, np.float16)
    assert distmat_from_features(feats, -feats, metric="euclidean").dtype == np.float32
    assert rank_features(feats, feats, [1, 1], [1, 1], [0, 0], [1, 1]).rank1 == 1.0
