"""Searching by torch: the answers of the search without it, on a CPU here and on a GPU where there is one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reidruntime import Gallery, InputError, NotInstalledError, load_gallery, topk, topk_torch
from reidruntime.gallery_rows import GalleryRows, Question
from reidruntime.manifest import Metric
from reidruntime.topk_torch import DeviceRows

from tests.reidruntime.test_gallery import METRICS, assert_same, people, sorted_in_full

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_rows", "dim", "k"), [(9000, 48, 50), (8193, 33, 1), (3, 5, 10)])
def test_search_is_a_sort_of_the_whole_matrix(
    num_rows: int, dim: int, k: int, metric: Metric, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several tiles and query blocks, with copies and zero rows, rows come as a stable sort orders them."""
    rng = np.random.default_rng(num_rows)
    rows, queries = people(rng, num_rows, dim), people(rng, 21, dim)
    rows[num_rows // 2 :: 700] = rows[0]
    rows[1], queries[3] = 0, 0
    queries[4] = rows[0]
    gallery = Gallery(dim, metric=metric, device=device)
    gallery.add(rows)
    monkeypatch.setattr(topk_torch, "_TILE_ROWS", 1000)
    monkeypatch.setattr(topk, "_MAX_QUERIES_AT_ONCE", 8)
    assert_same(gallery.search(queries, k), sorted_in_full(queries, rows, k, metric))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_rows_nearer_to_each_other_than_rounding_are_told_apart(metric: Metric, device: str) -> None:
    """Rows that float32 products cannot order, and more copies than are kept, are left to the exact search."""
    rng = np.random.default_rng(0)
    base = rng.integers(-3, 4, 64).astype(np.float32)
    rows = np.tile(base, (3000, 1))
    rows[np.arange(3000), rng.integers(0, 64, 3000)] += rng.integers(0, 5, 3000).astype(np.float32) / 4096
    queries = np.stack([base, base + 1, -base])
    gallery = Gallery(64, metric=metric, device=device)
    gallery.add(rows)
    assert_same(gallery.search(queries, 30), sorted_in_full(queries, rows, 30, metric))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_filters_leave_out_what_they_leave_out_without_torch(seed: int, device: str, tmp_path: Path) -> None:
    """Each filter and all together, on a mapped file, and after rows were added and removed: bit for bit."""
    rng = np.random.default_rng(seed)
    rows, queries = people(rng, 500, 12), people(rng, 9, 12)
    pids, camids = rng.integers(-1, 5, 500), rng.integers(0, 4, 500)
    plain = Gallery(12)
    plain.add(rows[:300], pids=pids[:300], camids=camids[:300])
    plain.save(tmp_path / "people.gallery")
    by_torch = load_gallery(tmp_path / "people.gallery", device=device)
    for step in ("loaded", "added", "removed"):
        for gallery in (plain, by_torch):
            if step == "added":
                gallery.add(rows[300:], pids=pids[300:], camids=camids[300:])
            if step == "removed":
                gallery.remove([2])
        for options in range(8):
            found, expected = (
                gallery.search(
                    queries,
                    100,
                    pids=np.arange(9) % 5,
                    camids=np.arange(9) % 4,
                    other_cameras=bool(options & 1),
                    exclude_junk=bool(options & 2),
                    among_camids={1, 2} if options & 4 else None,
                )
                for gallery in (by_torch, plain)
            )
            assert found.indices.tolist() == expected.indices.tolist()
            assert found.distances.tobytes() == expected.distances.tobytes()
    assert (found.indices == -1).any()


def question_of(rows: np.ndarray, queries: np.ndarray, k: int) -> Question:
    """An unfiltered question of cosines."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    ones = np.ones(len(rows), np.bool_)
    keys = np.full(len(queries), -1), np.zeros(len(rows), np.int64)
    q_lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    return Question(queries, q_lengths, GalleryRows([rows], lengths), k, "cosine", ones, *keys)


def test_candidates_are_few_or_none() -> None:
    """Of rows that are apart little more than k come back, in order; of more copies than are kept, no answer."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5000, 32)).astype(np.float32)
    question = question_of(rows, rows[:4], 10)
    candidates = DeviceRows(question.gallery, "cpu").candidates(question)
    assert candidates.is_whole.all()
    for i, found in enumerate(np.split(candidates.rows, candidates.ends[1:-1])):
        assert 10 <= len(found) <= 12
        assert i in found
        assert (np.diff(found) > 0).all()
    copies = question_of(np.ones((5000, 32), np.float32), rows[:2], 10)
    candidates = DeviceRows(copies.gallery, "cpu").candidates(copies)
    assert (candidates.is_whole.tolist(), candidates.ends.tolist()) == ([False, False], [0, 0, 0])


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_application_has_set_neither_spoils_the_answer_nor_changes(device: str) -> None:
    """Under autocast and with TF32 allowed, candidates are those of float32; the settings stay as they were."""
    rng = np.random.default_rng(2)
    rows = people(rng, 2000, 64)
    gallery = Gallery(64, device=device)
    gallery.add(rows)
    expected = sorted_in_full(rows[:20], rows, 10, "cosine")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            assert_same(gallery.search(rows[:20], 10), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name, a device of another kind, a GPU that is missing, and no torch: each in words."""
    with pytest.raises(InputError, match=r"There is no device 'gpu'\. Expected cpu, cuda or cuda:NUMBER"):
        Gallery(4, device="gpu")
    with pytest.raises(InputError, match="must be cpu, cuda or cuda:NUMBER, got 'meta'"):
        Gallery(4, device="meta")
    with pytest.raises(NotInstalledError, match="torch finds no GPU 'cuda:99'"):
        Gallery(4, device="cuda:99")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        NotInstalledError, match="'cpu' needs torch, which is not installed: pip install torch"
    ):
        Gallery(4, device="cpu")


def test_torch_is_imported_only_when_asked() -> None:
    """A gallery without a device searches without importing torch or pymilvus."""
    code = (
        "import sys, numpy as np; from reidruntime import Gallery; g = Gallery(2); g.add(np.eye(2, dtype='f4'))\n"
        "g.search(np.eye(2, dtype='f4'), 1); sys.exit('torch' in sys.modules or 'pymilvus' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
