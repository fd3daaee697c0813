"""The compiled kernels do what the plain ones do."""

from itertools import pairwise

import numpy as np
import pytest
from reidgallery.scan import topk_kernels
from reidgallery.scan.scoring import BlockScoring
from reidgallery.scan.topk_scan import Shortlists

from tests.standins import plain_kernels
from tests.standins.galleries import Floats


def scoring_of(rng: np.random.Generator, num_query: int, num_rows: int) -> BlockScoring:
    """Scales, offsets, bounds and keys of all kinds; some rows may not be found by some queries, some by none."""

    def some(length: int, size: float) -> Floats:
        return (size * rng.random(length)).astype(np.float32)

    offsets = np.where(rng.random(num_rows) < 0.1, -np.inf, some(num_rows, 0.1)).astype(np.float32)
    return BlockScoring(
        q_scales=1 + some(num_query, 1),
        g_scales=1 + some(num_rows, 1),
        g_offsets=offsets,
        q_bounds=some(num_query, 0.1),
        g_bounds=some(num_rows, 0.1),
        margins=some(num_query, 0.01),
        q_keys=rng.integers(0, 5, num_query),
        g_keys=rng.integers(0, 5, num_rows),
    )


def empty_lists(num_query: int, capacity: int, groups: int = 64) -> Shortlists:
    """No candidates yet."""
    return Shortlists(
        np.zeros(num_query, np.int64),
        np.zeros((num_query, capacity), np.int64),
        np.zeros((num_query, capacity), np.float32),
        np.full((num_query, groups), -np.inf, np.float32),
    )


def assert_keep_the_same(found: Shortlists, expected: Shortlists) -> None:
    """The same best scores; the compiled list holds the plain one, in order and with its scores, and few others."""
    np.testing.assert_allclose(found.best, expected.best, rtol=1e-5, atol=1e-6)
    assert (found.counts >= expected.counts).all()
    assert (found.counts <= expected.counts + 5).all()
    for i, count in enumerate(expected.counts):
        own = found.rows[i, : found.counts[i]]
        assert (np.diff(own) > 0).all()
        is_shared = np.isin(own, expected.rows[i, :count])
        assert own[is_shared].tolist() == expected.rows[i, :count].tolist()
        scores = found.highest[i, : len(own)][is_shared]
        np.testing.assert_allclose(scores, expected.highest[i, :count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_shortlists_are_the_plain_ones(dtype: type[np.generic], k: int) -> None:
    """After two blocks of products, float or integer, after dropping, and after scoring again."""
    rng = np.random.default_rng(k)
    queries, rows = (rng.integers(-9, 10, (n, 8)).astype(np.float32) for n in (6, 1400))
    scoring = scoring_of(rng, 6, 1400)
    lists = [empty_lists(6, 1000), empty_lists(6, 1000)]
    for kernels, own in zip((topk_kernels, plain_kernels), lists, strict=True):
        for block in (slice(0, 700), slice(700, 1400)):
            part = scoring._replace(
                g_scales=scoring.g_scales[block],
                g_offsets=scoring.g_offsets[block],
                g_bounds=scoring.g_bounds[block],
                g_keys=scoring.g_keys[block],
            )
            kernels.select((queries @ rows[block].T).astype(dtype), block.start, part, k, own)
        kernels.drop(scoring.margins, k, own)
    assert_keep_the_same(*lists)
    assert (lists[1].counts > 0).all()
    for kernels, own in zip((topk_kernels, plain_kernels), lists, strict=True):
        own.best.fill(-np.inf)
        kernels.rescore(queries, rows, scoring, own)
        kernels.drop(scoring.margins, k, own)
    assert (lists[0].counts >= lists[1].counts).all()
    assert all(set(lists[1].rows[i, : lists[1].counts[i]]) <= set(lists[0].rows[i]) for i in range(6))


def test_too_many_candidates_are_given_up() -> None:
    """More equal rows than there is room for: the count is -1, and stays so."""
    scoring = scoring_of(np.random.default_rng(0), 2, 50)._replace(
        g_offsets=np.zeros(50, np.float32), g_keys=np.full(50, 9)
    )
    for kernels in (topk_kernels, plain_kernels):
        lists = empty_lists(2, 40)
        equal = scoring._replace(g_scales=np.ones(50, np.float32), g_bounds=np.ones(50, np.float32))
        for _ in range(2):
            kernels.select(np.ones((2, 50), np.float32), 0, equal, 3, lists)
            assert lists.counts.tolist() == [-1, -1]
        kernels.drop(scoring.margins, 3, lists)
        assert lists.counts.tolist() == [-1, -1]


@pytest.mark.parametrize("is_squared_distance", [False, True])
def test_sums_and_their_order_are_the_plain_ones(is_squared_distance: bool) -> None:
    """Measured in two parts of a gallery, then sorted with equal and infinite distances among them."""
    rng = np.random.default_rng(1)
    queries, rows = (rng.standard_normal((n, 33)).astype(np.float32) for n in (4, 1300))
    indices = [np.sort(rng.choice(1300, count, replace=False)) for count in (700, 0, 5, 1300)]
    ends, found = np.cumsum([0, *map(len, indices)]), []
    for kernels in (topk_kernels, plain_kernels):
        starts, sums = ends[:-1].copy(), np.empty(ends[-1])
        for first, part in ((0, rows[:900]), (900, rows[900:])):
            kernels.measure(
                queries, part, first, starts, ends[1:], np.concatenate(indices), is_squared_distance, sums
            )
        assert starts.tolist() == ends[1:].tolist()
        distances = np.round(sums, 1).astype(np.float32)
        distances[::5] = np.inf
        nearest = np.full((4, 20), -1), np.full((4, 20), np.inf, np.float32)
        kernels.sort_nearest(ends, np.concatenate(indices), distances, *nearest)
        found.append((sums, *nearest))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    assert found[0][1].tolist() == found[1][1].tolist()
    assert found[0][2].tolist() == found[1][2].tolist()


@pytest.mark.parametrize("num_values", [0, 3, 200])
def test_the_highest_candidates_are_marked_with_few_others(num_values: int) -> None:
    """All of the k highest, and no more than a few beside them; equal ones together; all where they are fewer."""
    rng = np.random.default_rng(9)
    highest = np.concatenate([rng.standard_normal(num_values), np.full(7, 2.5), [-np.inf, np.inf]]).astype(
        "f4"
    )
    ends = np.array([0, num_values, len(highest)])
    for kernels in (topk_kernels, plain_kernels):
        marks = np.zeros(len(highest), np.bool_)
        kernels.mark_highest(ends, highest, 5, marks)
        for start, stop in pairwise(ends):
            order = start + np.argsort(-highest[start:stop], kind="stable")
            assert marks[order[:5]].all()
            assert np.count_nonzero(marks[start:stop]) <= min(stop - start, 9)
