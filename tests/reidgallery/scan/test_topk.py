"""The nearest rows, by every scan, with numba and without: those of a sort of the whole matrix."""

import subprocess
import sys

import numpy as np
import pytest
from reidgallery import Gallery, SearchFilter
from reidgallery.gallery import Scan
from reidgallery.rows import GalleryRows, row_norms
from reidgallery.scan import topk
from reidruntime.artifact.manifest import Metric

from tests.standins.galleries import (
    METRICS,
    SCANS,
    assert_same,
    gallery_of,
    people,
    people_with_copies,
    sorted_in_full,
)


@pytest.fixture(params=["numba", "numpy"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels, and as where numba is not installed."""
    if request.param == "numpy":
        monkeypatch.setattr(topk, "has_kernels", lambda: False)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_rows", "dim", "k"), [(5000, 48, 50), (2049, 33, 1), (3, 5, 10)])
def test_search_is_a_sort_of_the_whole_matrix(
    kernels: None, num_rows: int, dim: int, k: int, metric: Metric, scan: Scan
) -> None:
    """Indices equal those of a stable sort of all distances, with copies, zero rows and both scans."""
    rows, queries = people_with_copies(num_rows, dim, every=7)
    found = gallery_of(rows, metric).search(queries, k, scan=scan)
    assert_same(found, sorted_in_full(queries, rows, k, metric))


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("metric", METRICS)
def test_rows_nearer_to_each_other_than_rounding_are_told_apart(
    kernels: None, metric: Metric, scan: Scan
) -> None:
    """Rows that float32 products cannot order come in the order of their distances in float64, ties by index."""
    rng = np.random.default_rng(0)
    base = rng.integers(-3, 4, 64).astype(np.float32)
    rows = np.tile(base, (4000, 1))
    rows[np.arange(4000), rng.integers(0, 64, 4000)] += rng.integers(0, 5, 4000).astype(np.float32) / 4096
    queries = np.stack([base, base + 1, -base])
    assert_same(
        gallery_of(rows, metric).search(queries, 30, scan=scan), sorted_in_full(queries, rows, 30, metric)
    )


@pytest.mark.parametrize("scan", SCANS)
def test_a_gallery_of_copies_is_answered_in_order(kernels: None, scan: Scan) -> None:
    """More equal rows than candidates are kept: the first ones come back, whatever the scan."""
    rows = np.ones((6000, 8), np.float32)
    found = gallery_of(rows).search(rows[:2], 5, scan=scan)
    assert found.indices.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert found.distances.tolist() == [[0.0] * 5] * 2


def test_a_shared_offset_does_not_spoil_euclidean_distances(kernels: None) -> None:
    """|q|² + |g|² - 2qg would cancel to nothing here; the answer is still that of the differences."""
    rng = np.random.default_rng(1)
    rows = (1000 + 0.1 * rng.standard_normal((3000, 16))).astype(np.float32)
    assert_same(
        gallery_of(rows, "euclidean").search(rows[:9], 12), sorted_in_full(rows[:9], rows, 12, "euclidean")
    )


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_cosines_do_not_depend_on_norms(factor: float) -> None:
    """Rows of very large and very small norms are compared by their direction only."""
    rng = np.random.default_rng(2)
    rows, queries = people(rng, 2500, 24), people(rng, 5, 24)
    scaled = (rows * np.where(np.arange(2500) % 2, factor, 1)[:, None]).astype(np.float32)
    for scan in SCANS:
        assert_same(
            gallery_of(scaled).search(queries, 20, scan=scan), sorted_in_full(queries, scaled, 20, "cosine")
        )


def test_threads_parts_and_query_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread or five, one part or many, all queries at once or two at a time: the same bits."""
    rng = np.random.default_rng(3)
    rows, queries = people(rng, 3000, 20), people(rng, 11, 20)
    expected = gallery_of(rows, threads=1).search(queries, 15)
    pieces = Gallery(20, threads=5)
    for size in (1, 1, 1, 2, 700, 3, 2292):
        pieces.add(rows[len(pieces) : len(pieces) + size])
    monkeypatch.setattr(topk, "_MAX_QUERIES_AT_ONCE", 2)
    found = pieces.search(queries, 15)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.distances.tobytes() == expected.distances.tobytes()


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("filters", ["other cameras", "junk", "cameras 1 and 2", "all"])
def test_filters_leave_out_what_they_say(kernels: None, filters: str, scan: Scan) -> None:
    """Each filter, and all together, equal a sort with the forbidden pairs at infinity; few rows left are padded."""
    rng = np.random.default_rng(4)
    rows, queries = people(rng, 400, 12), people(rng, 9, 12)
    pids, camids = rng.integers(-1, 5, 400), rng.integers(0, 4, 400)
    q_pids, q_camids = rng.integers(0, 5, 9), rng.integers(0, 4, 9)
    gallery = Gallery(12)
    gallery.add(rows, pids=pids, camids=camids)
    same_camera = q_camids[:, None] == camids
    junk = (same_camera & (q_pids[:, None] == pids)) | (pids == -1)
    elsewhere = np.broadcast_to(~np.isin(camids, [1, 2]), same_camera.shape)
    everything = filters == "all"
    forbidden = np.zeros_like(same_camera)
    for name, part in (("other cameras", same_camera), ("junk", junk), ("cameras 1 and 2", elsewhere)):
        forbidden |= part if everything or filters == name else False
    found = gallery.search(
        queries,
        250,
        filter=SearchFilter(
            other_cameras=everything or filters == "other cameras",
            exclude_junk=everything or filters == "junk",
            among_camids={1, 2} if everything or filters == "cameras 1 and 2" else None,
        ),
        pids=q_pids,
        camids=q_camids,
        scan=scan,
    )
    assert_same(found, sorted_in_full(queries, rows, 250, "cosine", forbidden))
    assert not everything or (found.indices == -1).any()


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_a_search_through_projected_rows_is_a_sort_of_the_whole_matrix(
    kernels: None, metric: Metric, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that lie almost entirely along few directions are searched so, with the same answer; so are later ones.

    By codes of their projection, or by the projection itself where ONNX Runtime is not installed.
    """
    monkeypatch.setattr("reidgallery.gallery.can_multiply", lambda: multiplies)
    rng = np.random.default_rng(6)
    mix = rng.standard_normal((192, 192)) * np.geomspace(1, 0.001, 192)[:, None]
    rows, queries = (rng.standard_normal((n, 192)) @ mix for n in (5000, 520))
    rows, queries = rows.astype(np.float32), queries.astype(np.float32)
    rows[2500:2600] = rows[:100]
    gallery = gallery_of(rows[:4500], metric)
    rank = GalleryRows(gallery.parts, row_norms(rows[:4500], "rows")).projected(2)
    assert rank is not None
    assert rank.rows.shape == (4500, 64)
    assert_same(gallery.search(queries, 20), sorted_in_full(queries, rows[:4500], 20, metric))
    gallery.add(rows[4500:])
    assert_same(gallery.search(queries, 20), sorted_in_full(queries, rows, 20, metric))


def test_a_gallery_is_searched_without_numba() -> None:
    """An application that has only NumPy finds the same rows, by any scan that needs no other package."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from reidgallery import Gallery\n"
        "gallery = Gallery(16); gallery.add(np.eye(16, dtype='f4'))\n"
        "for scan in ('auto', 'float32'):\n"
        "    print(gallery.search(np.eye(16, dtype='f4')[:3], 2, scan=scan).indices.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[[0, 1], [1, 0], [2, 0]]"] * 2
