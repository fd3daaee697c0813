"""The gallery: exact answers, honest filters, and a file that is whole or refused."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from reidgallery import Gallery, Neighbors, SearchFilter, load_gallery
from reidgallery.file import MAGIC
from reidgallery.gallery import UNLABELED, Scan
from reidgallery.rows import GalleryRows, Question, row_norms
from reidgallery.scan import topk, topk_numpy, topk_scan
from reidgallery.scan.blas_threads import single_threaded_blas
from reidgallery.scan.int8_scan import GALLERY_LIMIT, MATMUL_INTEGER, QUERY_LIMIT, code_rows, multiply
from reidgallery.scan.projection_scan import principal_basis, project
from reidruntime import InputError
from reidruntime.artifact.manifest import Metric
from threadpoolctl import threadpool_info

from reidexport.embed.files import gallery_from_manifest
from tests.standins.runtime_models import small_manifest

Floats = npt.NDArray[np.float32]
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
SCANS: tuple[Scan, ...] = ("float32", "projection", "int8")


def people(rng: np.random.Generator, count: int, dim: int, num_pids: int = 30) -> Floats:
    """Features that lie around the centers of people, as those of images do."""
    centers = np.random.default_rng(7).standard_normal((num_pids, dim))
    return (centers[rng.integers(0, num_pids, count)] + 0.5 * rng.standard_normal((count, dim))).astype(
        np.float32
    )


def sorted_in_full(
    queries: Floats, rows: Floats, k: int, metric: Metric, forbidden: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The slow, obvious version: the whole matrix in float64, rounded to float32, and a stable argsort."""
    left, right = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
        cosines = np.einsum("qd,nd->qn", left, right) / np.where(norms > 0, norms, 1)
        distances = np.float32(1) - cosines.astype(np.float32)
    else:
        distances = np.stack([((row - right) ** 2).sum(axis=1) for row in left]).astype(np.float32)
    if forbidden is not None:
        distances[forbidden] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    nearest = np.take_along_axis(distances, order, axis=1)
    order[np.isinf(nearest)] = -1
    missing = k - order.shape[1]
    return (
        np.pad(order, ((0, 0), (0, max(missing, 0))), constant_values=-1),
        np.pad(nearest, ((0, 0), (0, max(missing, 0))), constant_values=np.inf),
    )


def assert_same(found: Neighbors, expected: tuple[npt.NDArray[np.int64], Floats]) -> None:
    """The same rows in the same order, and distances to the last bits of float32."""
    assert found.indices.tolist() == expected[0].tolist()
    np.testing.assert_allclose(found.distances, expected[1], rtol=2e-7, atol=2e-7)


def gallery_of(rows: Floats, metric: Metric = "cosine", threads: int = 2) -> Gallery:
    """A gallery of unlabeled rows."""
    gallery = Gallery(rows.shape[1], metric=metric, threads=threads)
    gallery.add(rows)
    return gallery


@pytest.fixture(params=["numba", "numpy"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels, and as where numba is not installed."""
    if request.param == "numpy":
        for module in (topk, topk_scan):
            monkeypatch.setattr(module, "compiled_kernels", lambda: topk_numpy)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_rows", "dim", "k"), [(5000, 48, 50), (2049, 33, 1), (3, 5, 10)])
def test_search_is_a_sort_of_the_whole_matrix(
    kernels: None, num_rows: int, dim: int, k: int, metric: Metric, scan: Scan
) -> None:
    """Indices equal those of a stable sort of all distances, with copies, zero rows and both scans."""
    rng = np.random.default_rng(num_rows)
    rows, queries = people(rng, num_rows, dim), people(rng, 21, dim)
    rows[num_rows // 2 :: 7] = rows[0]
    rows[1], queries[3] = 0, 0
    queries[4] = rows[0]
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


def test_an_empty_gallery_and_no_query_are_answered() -> None:
    """Nothing to find is -1 and infinity; nobody asking is an answer of no rows."""
    found = Gallery(4).search(np.ones((2, 4), np.float32), 3)
    assert found.indices.tolist() == [[-1] * 3] * 2
    assert np.isinf(found.distances).all()
    assert gallery_of(np.ones((2, 4), np.float32)).search(np.empty((0, 4), np.float32), 3).indices.shape == (
        0,
        3,
    )
    nobody = gallery_of(np.ones((2, 4), np.float32)).search(np.empty((0, 4), np.float32), 3, scan="int8")
    assert nobody.indices.shape == (0, 3)


@pytest.mark.parametrize("scan", ["auto", "projection"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_search_through_projected_rows_is_a_sort_of_the_whole_matrix(
    kernels: None, metric: Metric, scan: Scan
) -> None:
    """Rows that lie almost entirely along few directions are searched so, with the same answer; so are later ones."""
    rng = np.random.default_rng(6)
    mix = rng.standard_normal((192, 192)) * np.geomspace(1, 0.001, 192)[:, None]
    rows, queries = (rng.standard_normal((n, 192)) @ mix for n in (5000, 520 if scan == "auto" else 20))
    rows, queries = rows.astype(np.float32), queries.astype(np.float32)
    rows[2500:2600] = rows[:100]
    gallery = gallery_of(rows[:4500], metric)
    rank = GalleryRows(gallery.parts, row_norms(rows[:4500], "rows")).projected(2)
    assert rank is not None
    assert rank.rows.shape == (4500, 64)
    assert_same(gallery.search(queries, 20, scan=scan), sorted_in_full(queries, rows[:4500], 20, metric))
    gallery.add(rows[4500:])
    assert_same(gallery.search(queries, 20, scan=scan), sorted_in_full(queries, rows, 20, metric))


def test_what_a_projection_leaves_out_is_bounded() -> None:
    """Inner products along the basis are off by at most the product of the residuals; noise has no basis."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((500, 120)) @ (np.eye(120) * np.geomspace(1, 0.001, 120))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    basis = principal_basis(unit)
    assert basis is not None
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-14)
    projected = project(unit, row_norms(unit, "rows"), basis, 2)
    exact = unit.astype(np.float64)
    residuals = np.linalg.norm(exact - exact @ basis @ basis.T, axis=1)
    np.testing.assert_allclose(projected.residuals, residuals, atol=4e-6)
    assert (projected.residuals >= residuals - 1e-15).all()
    along = projected.rows.astype(np.float64)
    off = np.abs(exact @ exact.T - along @ along.T)
    assert (off <= np.outer(projected.residuals, projected.residuals) + 4 * 2.0**-24).all()
    assert principal_basis(rng.standard_normal((500, 120)).astype(np.float32) / 11) is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_no_candidate_scores_more_than_it_is_said_to(kernels: None, metric: Metric, threads: int) -> None:
    """Of every scan, for many queries and few: the bounds hold, and the nearest rows are there, in order."""
    rng = np.random.default_rng(8)
    mix = rng.standard_normal((96, 96)) * np.geomspace(1, 0.001, 96)[:, None]
    rows = (rng.standard_normal((4300, 96)) @ mix).astype(np.float32)
    gallery = GalleryRows([rows[:2500], rows[2500:]], row_norms(rows, "rows"))
    projected = gallery.projected(threads)
    assert projected is not None
    for num_query in (2, 50):
        queries = rows[:num_query] + rng.standard_normal((num_query, 96)).astype(np.float32) / 10
        unrelated = np.full(num_query, -1), np.zeros(len(rows), np.int64)
        norms = row_norms(queries, "queries")
        everyone = np.ones(len(rows), np.bool_)
        question = Question(queries, norms, gallery, 5, metric, everyone, *unrelated)
        products = queries.astype(np.float64) @ rows.T.astype(np.float64)
        cosines = products / norms[:, None] / gallery.norms
        true = cosines if metric == "cosine" else products - gallery.norms**2 / 2
        for found in (
            topk_scan.float32_candidates(question, threads),
            topk_scan.projected_candidates(question, projected, threads),
            topk_scan.int8_candidates(question, gallery.coded(None), threads),
            topk_scan.int8_candidates(question, gallery.coded(projected), threads),
        ):
            assert found.is_whole.all()
            for own, scores in zip(np.split(np.arange(len(found.rows)), found.ends[1:-1]), true, strict=True):
                assert (np.diff(found.rows[own]) > 0).all()
                assert (found.highest[own] >= scores[found.rows[own]] - 1e-12).all()
                assert set(np.argsort(-scores)[:5]) <= set(found.rows[own])


@pytest.mark.parametrize("num_values", [0, 3, 200])
def test_the_highest_candidates_are_marked_with_few_others(kernels: None, num_values: int) -> None:
    """All of the k highest, and no more than a few beside them; equal ones together; all where they are fewer."""
    rng = np.random.default_rng(9)
    highest = np.concatenate([rng.standard_normal(num_values), np.full(7, 2.5), [-np.inf, np.inf]]).astype(
        "f4"
    )
    ends, marks = np.array([0, num_values, len(highest)]), np.zeros(len(highest), np.bool_)
    topk.compiled_kernels().mark_highest(ends, highest, 5, marks)
    for start, stop in pairwise(ends):
        order = start + np.argsort(-highest[start:stop], kind="stable")
        assert marks[order[:5]].all()
        assert np.count_nonzero(marks[start:stop]) <= min(stop - start, 9)


def test_integer_products_are_exact_and_their_residual_is_measured() -> None:
    """The integer product is NumPy's, at the limits of the codes too; codes and residual make up the row."""
    rng = np.random.default_rng(5)
    queries = rng.choice([-QUERY_LIMIT, 0, QUERY_LIMIT], (7, 300)).astype(np.int8)
    columns = rng.choice([-GALLERY_LIMIT, GALLERY_LIMIT], (300, 40)).astype(np.int8)
    queries[0] = QUERY_LIMIT
    columns[:, 0] = GALLERY_LIMIT
    expected = queries.astype(np.int64) @ columns.astype(np.int64)
    assert (multiply(queries, columns, 1) == expected).all()
    rows = people(rng, 10, 300)
    coded = code_rows(rows, GALLERY_LIMIT)
    residuals = np.linalg.norm(rows - coded.codes * coded.scales[:, None], axis=1)
    np.testing.assert_allclose(coded.residuals, residuals, rtol=1e-12)
    assert np.abs(coded.codes).max() == GALLERY_LIMIT


def test_the_written_out_network_is_one_integer_product() -> None:
    """The bytes of the int8 scan are a valid ONNX file with a single MatMulInteger."""
    model = onnx.load_from_string(MATMUL_INTEGER)
    onnx.checker.check_model(model, full_check=True)
    node = helper.make_node("MatMulInteger", ["q", "g", "z"], ["s"])
    assert list(model.graph.node) == [node]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def wrong_calls() -> list[tuple[Callable[[Gallery], object], str]]:
    """Calls that a gallery of two labeled and one unlabeled rows of 4 dimensions refuses, and its words."""
    ones = np.ones((1, 4), np.float32)
    return [
        (
            lambda g: g.add(np.ones((2, 3), np.float32)),
            r"embeddings must be float32 of shape \(N, 4\), got float32",
        ),
        (
            lambda g: g.add(np.ones((2, 4))),
            r"must be float32 of shape \(N, 4\), got float64 of shape \(2, 4\)",
        ),
        (lambda g: g.add(ones * np.nan), r"embeddings: row 0 is not an embedding: its norm is nan"),
        (lambda g: g.add(ones * 1e20), r"norm is 2e\+20, expected 0 or between 1e-12 and 1e\+12"),
        (lambda g: g.add(ones, pids=[1, 2]), r"pids must be 1 integers, got int64 of shape \(2,\)"),
        (lambda g: g.add(ones, camids=[0.5]), r"camids must be 1 integers, got float64"),
        (
            lambda g: g.add(ones, pids=[2**64 - 1]),
            r"pids must be less than 2\*\*63, got 18446744073709551615",
        ),
        (lambda g: g.add(ones, pids=[-7]), r"pids must be at least -1, or UNLABELED \(-2\), got -7"),
        (lambda g: g.add(ones, camids=[-5]), r"camids must be at least 0, or UNLABELED \(-2\), got -5"),
        (lambda g: g.search(ones, camids=[-1]), r"camids must be at least 0, or UNLABELED \(-2\), got -1"),
        (lambda g: g.add(ones, paths=["a", "b"]), r"paths must be 1 texts, got 2"),
        (lambda g: g.add(ones, paths=["a\ud800"]), r"paths must be text that .*, got 'a\\ud800'"),
        (
            lambda g: g.add(ones, manifest_sha256="cd" * 32),
            r"embeddings were made by another artifact .*cdcdcdcd",
        ),
        (lambda g: g.search(ones, manifest_sha256="cd" * 32), r"queries were made by another artifact"),
        (
            lambda g: g.search(np.ones(4, np.float32)),
            r"queries must be float32 of shape \(N, 4\), got .*\(4,\)",
        ),
        (lambda g: g.search(ones * np.inf), r"queries: row 0 is not an embedding: its norm is inf"),
        (lambda g: g.search(ones, 0), r"k must be at least 1, got 0"),
        (lambda g: g.search(ones, scan="int4"), r"scan must be one of auto, float32, .*, got 'int4'"),  # type: ignore[arg-type]
        (
            lambda g: g.search(ones, filter=SearchFilter(other_cameras=True), camids=[1]),
            r"needs the camid of every row, which 1 of 3",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(among_camids=[1])),
            r"among_camids needs the camid .*the first: row 2 c\.jpg",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(exclude_junk=True), pids=[1]),
            r"exclude_junk needs the pids and camids of the q",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(exclude_junk=True), pids=[1], camids=[0]),
            r"exclude_junk needs the pid of every row, which 1 of 3 .*the first: row 2 c\.jpg",
        ),
        (
            lambda g: g.extend(Gallery(4, metric="euclidean")),
            r"compares by cosine, the other one by euclidean",
        ),
        (lambda g: g.save("gallery.npz"), r"gallery\.npz: expected a name that ends in \.gallery"),
        (lambda g: Gallery(0), r"dim must be at least 1, got 0"),
        (lambda g: Gallery(4, metric="dot"), r"metric must be cosine or euclidean, got 'dot'"),  # type: ignore[arg-type]
        (lambda g: Gallery(4, threads=0), r"threads must be at least 1, got 0"),
    ]


@pytest.mark.parametrize("number", range(len(wrong_calls())))
def test_what_does_not_fit_is_refused_in_words(number: int) -> None:
    """Wrong shapes, labels, artifacts and filters are errors that say so; the gallery stays as it was."""
    call, words = wrong_calls()[number]
    gallery = Gallery(4, manifest_sha256="ab" * 32)
    gallery.add(np.eye(4, dtype=np.float32)[:2], pids=[1, 2], camids=[0, 1], paths=["a.jpg", "b.jpg"])
    gallery.add(np.eye(4, dtype=np.float32)[2:3], paths=["c.jpg"])
    with pytest.raises(InputError, match=words):
        call(gallery)
    assert (len(gallery), len(gallery.paths), len(gallery.camids)) == (3, 3, 3)


def test_other_cameras_needs_the_cameras_of_the_queries() -> None:
    """A query of an unknown camera cannot be kept from its own."""
    gallery = Gallery(2)
    gallery.add(np.eye(2, dtype=np.float32), camids=[0, 1])
    with pytest.raises(InputError, match="other_cameras needs the camids of the queries"):
        gallery.search(np.eye(2, dtype=np.float32), filter=SearchFilter(other_cameras=True))


def test_junk_is_left_out_only_where_it_can_be_told() -> None:
    """Rows of a person need a camera; those of nobody (junk, distractors) are told apart without one."""
    rows = np.eye(4, dtype=np.float32)
    asked = {"filter": SearchFilter(exclude_junk=True), "pids": [1], "camids": [0]}
    gallery = Gallery(4)
    gallery.add(rows[:2], pids=[-1, 0])
    gallery.add(rows[2:3], pids=[1], camids=[0])
    assert gallery.search(rows[2:3], 2, **asked).indices.tolist() == [[1, -1]]
    gallery.add(rows[3:], pids=[1], paths=["d.jpg"])
    with pytest.raises(
        InputError, match=r"exclude_junk needs the camid of every row, which 1 of 4 .*row 3 d\.jpg"
    ):
        gallery.search(rows[2:3], 2, **asked)


def test_galleries_are_joined_with_their_labels() -> None:
    """Extend appends rows, labels and paths; another artifact's are refused."""
    rng = np.random.default_rng(6)
    first, second = gallery_from_manifest(small_manifest()), gallery_from_manifest(small_manifest())
    rows = people(rng, 9, first.dim)
    first.add(rows[:4], pids=range(4), camids=[0] * 4, paths=list("abcd"))
    second.add(rows[4:], paths=list("efghi"))
    first.extend(second)
    assert first.paths == list("abcdefghi")
    assert first.pids.tolist() == [0, 1, 2, 3, *[UNLABELED] * 5]
    assert_same(first.search(rows, 9), sorted_in_full(rows, rows, 9, first.metric))
    with pytest.raises(InputError, match="made by another artifact"):
        first.extend(Gallery(first.dim, metric=first.metric, manifest_sha256="ab" * 32))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small gallery on the disk, with names of every kind."""
    gallery = Gallery(6, metric="euclidean", manifest_sha256="ab" * 32)
    rows = people(np.random.default_rng(8), 5, 6)
    names = ["a.jpg", "", "ö/人.png", os.fsdecode(b"\xff.jpg"), "e"]
    times = [2000451, 0, UNLABELED, 1764086400000, 7]
    gallery.add(rows, pids=[-1, 0, 1, 2, 3], camids=[0, 1, 2, 0, 1], times=times, paths=names)
    gallery.save(tmp_path / "people.gallery")
    return tmp_path / "people.gallery"


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    """Rows, labels, any path, metric and artifact come back; adding and saving again goes on from there."""
    gallery = load_gallery(saved)
    rows = people(np.random.default_rng(8), 5, 6)
    assert gallery.paths == ["a.jpg", "", "ö/人.png", os.fsdecode(b"\xff.jpg"), "e"]
    assert (gallery.pids.tolist(), gallery.camids.tolist()) == ([-1, 0, 1, 2, 3], [0, 1, 2, 0, 1])
    assert gallery.times.tolist() == [2000451, 0, UNLABELED, 1764086400000, 7]
    assert (gallery.metric, gallery.manifest_sha256, gallery.dim) == ("euclidean", "ab" * 32, 6)
    assert_same(gallery.search(rows, 5), sorted_in_full(rows, rows, 5, "euclidean"))
    more = people(np.random.default_rng(9), 3, 6)
    gallery.add(more[:1])
    gallery.add(more[1:])
    gallery.save(saved)
    gallery.save(saved)
    both = np.concatenate([rows, more])
    for scan in SCANS:
        assert_same(
            load_gallery(saved).search(rows, 8, scan=scan), sorted_in_full(rows, both, 8, "euclidean")
        )


def as_version_1(path: Path) -> None:
    """Rewrite a gallery as files were before there were times."""
    content = path.read_bytes()
    start = 48 + int.from_bytes(content[8:16], "little")
    header = json.loads(content[48:start])
    sizes = 4 * header["num_rows"] * header["dim"], 8 * header["num_rows"]
    times = start + sizes[0] + 4 * sizes[1]
    header["format_version"] = 1
    del header["sha256"]["times"]
    text = json.dumps(header).encode()
    text += b" " * (-(48 + len(text)) % 64)
    prefix = MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest()
    path.unlink()  # it may be mapped
    path.write_bytes(prefix + text + content[start:times] + content[times + sizes[1] :])


def test_files_from_before_there_were_times_are_read(saved: Path) -> None:
    """Everything of a file of format version 1 is there, its times are not known, and saving makes it version 2."""
    new = load_gallery(saved)
    as_version_1(saved)
    old = load_gallery(saved)
    assert np.array_equal(old.parts[0], new.parts[0])
    for name in ("pids", "camids", "paths"):
        assert list(getattr(old, name)) == list(getattr(new, name))
    assert old.times.tolist() == [UNLABELED] * 5
    old.save(saved)
    assert load_gallery(saved).times.tolist() == [UNLABELED] * 5
    assert b'"format_version": 2' in saved.read_bytes()


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize(("since", "until"), [(3, None), (None, 6), (3, 6), (5, 5), (99, None)])
def test_a_time_window_holds_its_first_and_last_moment(
    scan: Scan, since: int | None, until: int | None
) -> None:
    """Rows of other times are left out; the rest is what a sort of the whole matrix gives."""
    rng = np.random.default_rng(4)
    rows, queries, times = people(rng, 120, 16), people(rng, 3, 16), rng.integers(0, 10, 120)
    gallery = Gallery(16)
    gallery.add(rows, times=times)
    outside = (times < (since or 0)) | (times > (99 if until is None else until))
    expected = sorted_in_full(queries, rows, 50, "cosine", np.tile(outside, (3, 1)))
    assert_same(
        gallery.search(queries, 50, filter=SearchFilter(since=since, until=until), scan=scan), expected
    )


def test_an_empty_gallery_is_saved_too(tmp_path: Path) -> None:
    """No rows, no error."""
    Gallery(3).save(tmp_path / "none.gallery")
    loaded = load_gallery(tmp_path / "none.gallery")
    assert (len(loaded), loaded.dim) == (0, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".none.gallery.lock", "none.gallery"]


def test_every_flipped_byte_is_detected(saved: Path) -> None:
    """Whichever byte of the file is changed, loading it is an error that names the file."""
    whole = saved.read_bytes()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        saved.write_bytes(broken)
        with pytest.raises(
            InputError, match=r"people\.gallery: (not a gallery|the gallery is (damaged|\d+ bytes))"
        ):
            load_gallery(saved)


def test_a_file_that_is_cut_off_or_longer_is_refused(saved: Path, tmp_path: Path) -> None:
    """Every shorter file, a longer one, an empty one, none and another format are refused in words."""
    whole = saved.read_bytes()
    for length in (1, 7, 20, 60, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"people\.gallery: "):
            load_gallery(saved)
    saved.write_bytes(whole + b"x")
    with pytest.raises(InputError, match=rf"is {len(whole) + 1} bytes long, expected {len(whole)}"):
        load_gallery(saved)
    saved.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        load_gallery(saved)
    saved.write_bytes(b"PK" * 100)
    with pytest.raises(InputError, match=f"it does not start with {MAGIC.decode()}"):
        load_gallery(saved)
    with pytest.raises(InputError, match=r"no\.gallery: cannot be read \(No such file"):
        load_gallery(tmp_path / "no.gallery")


def test_unverified_loading_leaves_the_embeddings_on_the_disk(tmp_path: Path) -> None:
    """With verify=False a load of 256 MiB of embeddings keeps less than 32 MiB of them in memory."""
    path = tmp_path / "large.gallery"
    gallery_of(np.ones((2**15, 2**11), np.float32)).save(path)
    code = (
        "import re, sys; from pathlib import Path; from reidgallery import load_gallery\n"
        "mapped = lambda: int(re.search(r'RssFile:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = mapped(); gallery = load_gallery(sys.argv[1], verify=False); print(mapped() - before, len(gallery))"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc/self/status")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    kibibytes, rows = map(int, done.stdout.split())
    assert rows == 2**15
    assert kibibytes < 32 * 1024


def _save_for_ever(path: str, num_rows: int, value: float) -> None:
    rows = np.full((num_rows, 16), value, np.float32)
    while True:
        gallery_of(rows).save(path)


def _value_of(path: Path, num_rows: int) -> float:
    """The one value that fills a whole gallery."""
    (rows,) = load_gallery(path).parts
    assert rows.shape == (num_rows, 16)
    assert rows.min() == rows.max()
    return float(rows[0, 0])


def test_killed_while_saving_leaves_one_whole_gallery(tmp_path: Path) -> None:
    """Killed while it writes 200,000 rows or after, the old or the new file is whole; a later save tidies up."""
    path, num_rows = tmp_path / "people.gallery", 200_000
    gallery_of(np.zeros((num_rows, 16), np.float32)).save(path)
    context = multiprocessing.get_context("fork")
    outcomes, old = set(), 0.0
    for attempt in range(1, 11):
        replaced = path.stat().st_ino
        writer = context.Process(target=_save_for_ever, args=(str(path), num_rows, float(attempt)))
        writer.start()
        if attempt % 2:
            _wait_until(lambda: any(".unfinished" in file.name for file in tmp_path.iterdir()))
        else:
            _wait_until(lambda inode=replaced: path.stat().st_ino != inode)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        new = _value_of(path, num_rows)
        assert new in (old, float(attempt))
        outcomes.add(new != old)
        old = new
    assert outcomes == {False, True}
    gallery_of(np.ones((2, 3), np.float32)).save(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".people.gallery.lock", "people.gallery"]


def test_saving_tidies_up_after_its_own_path_only(tmp_path: Path) -> None:
    """What a killed save of this path left goes; what others are writing, of names that begin alike, stays."""
    others = [".people[1].2024.0123abcd.unfinished", ".people[1].0123abcd.89ab4567.unfinished"]
    for name in (*others, ".people[1].0123abcd.unfinished"):
        (tmp_path / name).touch()
    gallery_of(np.eye(2, dtype=np.float32)).save(tmp_path / "people[1].gallery")
    assert sorted(path.name for path in tmp_path.glob(".*.unfinished")) == sorted(others)


def _wait_until(is_so: Callable[[], bool], at_most_s: float = 60) -> None:
    end = time.monotonic() + at_most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_two_writers_cannot_corrupt_a_gallery(tmp_path: Path) -> None:
    """While two processes save to one path without a pause, every load is whole and of one of them."""
    path, num_rows = tmp_path / "people.gallery", 20_000
    gallery_of(np.ones((num_rows, 16), np.float32)).save(path)
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_save_for_ever, args=(str(path), num_rows, value)) for value in (1.0, 2.0)
    ]
    for writer in writers:
        writer.start()
    try:
        seen, end = set[float](), time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < end:
            seen.add(_value_of(path, num_rows))
        assert seen == {1.0, 2.0}
        assert all(writer.is_alive() for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def test_rows_of_another_writer_are_not_lost(saved: Path) -> None:
    """Who adds to a gallery that somebody else has replaced since is told so, and the file stays theirs."""
    mine, theirs = load_gallery(saved), load_gallery(saved)
    theirs.add(np.ones((1, 6), np.float32))
    theirs.save(saved)
    mine.add(np.ones((2, 6), np.float32))
    with pytest.raises(
        InputError, match=r"another program has replaced the gallery since it was loaded\. Load it"
    ):
        mine.save(saved)
    assert len(load_gallery(saved)) == 6
    mine.save(saved.with_name("mine.gallery"))
    assert len(load_gallery(saved.with_name("mine.gallery"))) == 7


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error half way (a full disk) leaves the old gallery, and nothing else."""
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    gallery = load_gallery(saved)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=re.escape("people.gallery: cannot be written (No space left on device)")
    ):
        gallery.save(saved)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == [".people.gallery.lock", "people.gallery"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """A path in a folder that is not there, or of a folder, is an error in words."""
    with pytest.raises(InputError, match=r"x\.gallery: cannot be written \(No such file or directory\)"):
        Gallery(2).save(tmp_path / "no" / "x.gallery")
    (tmp_path / "d.gallery").mkdir()
    with pytest.raises(InputError, match=r"d\.gallery: is not a regular file"):
        Gallery(2).save(tmp_path / "d.gallery")


def test_rows_are_read_by_their_numbers(tmp_path: Path) -> None:
    """In any order and more than once, from parts in memory and mapped ones; others are refused."""
    rows = people(np.random.default_rng(3), 50, 6)
    gallery = Gallery(6)
    gallery.add(rows[:40])
    gallery.save(tmp_path / "people.gallery")
    gallery = load_gallery(tmp_path / "people.gallery")
    gallery.add(rows[40:])
    assert gallery.row_numbers().tolist() == list(range(50))
    asked = np.array([49, 0, 39, 40, 0])
    assert np.array_equal(gallery.embeddings(asked), rows[asked])
    assert gallery.embeddings(asked[:0]).shape == (0, 6)
    for bad in (-1, 50):
        with pytest.raises(InputError, match=f"The gallery has 50 rows, and no row {bad}"):
            gallery.embeddings(np.array([0, bad]))


@pytest.mark.parametrize("scan", SCANS)
def test_removed_persons_are_gone(tmp_path: Path, scan: Scan) -> None:
    """A gallery without some persons answers as one that never had them, mapped, saved or searched before."""
    rng = np.random.default_rng(8)
    rows, pids = people(rng, 60, 6), rng.integers(-1, 5, 60)
    pids[20:40] = 3
    paths = [f"{row}.jpg" for row in range(60)]
    gallery = Gallery(6)
    for part in (slice(0, 40), slice(40, 60)):
        gallery.add(rows[part], pids=pids[part], camids=pids[part] + 1, paths=paths[part])
    gallery.save(tmp_path / "people.gallery")
    mapped = load_gallery(tmp_path / "people.gallery")
    kept = ~np.isin(pids, [3, -1])
    for changed in (gallery, mapped):
        changed.search(rows[:5], 3, scan=scan)
        assert changed.remove([3, -1, 99]) == np.count_nonzero(~kept)
        assert changed.paths == [path for path, keep in zip(paths, kept, strict=True) if keep]
        assert changed.pids.tolist() == pids[kept].tolist()
        assert changed.camids.tolist() == (pids[kept] + 1).tolist()
        assert_same(changed.search(rows, 9, scan=scan), sorted_in_full(rows, rows[kept], 9, "cosine"))
    mapped.save(tmp_path / "people.gallery")
    assert len(load_gallery(tmp_path / "people.gallery")) == np.count_nonzero(kept)
    assert rows[pids == 3][0].tobytes() not in (tmp_path / "people.gallery").read_bytes()


def test_no_copy_of_removed_persons_stays_in_memory() -> None:
    """What a search made of the rows is let go when persons are removed or rows are added, not at the next search."""
    rng = np.random.default_rng(6)
    rows = (rng.standard_normal((600, 64)) * np.geomspace(1, 0.001, 64)).astype(np.float32)
    gallery = Gallery(64)
    gallery.add(rows, pids=np.arange(600) % 3)
    for change in (lambda: gallery.remove([2]), lambda: gallery.add(rows[:1])):
        gallery.search(rows[:2], 3, scan="projection")
        assert gallery._projected is not None
        change()
        assert gallery._projected is None


def test_rows_without_a_person_cannot_be_removed() -> None:
    """Asking for the pid of unlabeled rows is refused, and everyone can be removed."""
    gallery = gallery_of(np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="pids to remove must be at least -1, got -2"):
        gallery.remove([1, UNLABELED])
    assert gallery.remove([1]) == 0
    gallery.add(np.eye(3, dtype=np.float32), pids=[1, 1, 1])
    assert gallery.remove([1]) == 3
    assert len(gallery) == 3
    everyone = Gallery(3)
    everyone.add(np.eye(3, dtype=np.float32), pids=[1, 1, 1])
    assert everyone.remove([1]) == 3
    assert everyone.search(np.eye(3, dtype=np.float32), 2).indices.tolist() == [[-1, -1]] * 3


def test_numpys_threads_are_restored_by_the_last_search() -> None:
    """Searches that overlap leave NumPy's products as many threads as they had."""
    before = [library["num_threads"] for library in threadpool_info()]
    entered = [single_threaded_blas() for _ in range(2)]
    for search in entered:
        search.__enter__()
    assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    entered[0].__exit__(None, None, None)
    assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    entered[1].__exit__(None, None, None)
    assert [library["num_threads"] for library in threadpool_info()] == before
