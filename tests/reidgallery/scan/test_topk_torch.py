"""Searching by torch: the answers of the search without it, on a CPU here and on a GPU where there is one."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reidgallery import Gallery, Neighbors, SearchFilter, load_gallery
from reidgallery.rows import GalleryRows, Question
from reidgallery.scan import device_rows, topk, topk_torch
from reidgallery.scan.device_rows import DeviceBlock, DeviceRows
from reidgallery.scan.topk_torch import bfloat16_candidates
from reidruntime import InputError, NotInstalledError
from reidruntime.artifact.manifest import Metric
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.standins.galleries import METRICS, assert_same, people, people_with_copies, sorted_in_full

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def frames_of_one_person(rng: np.random.Generator, changes: np.ndarray) -> np.ndarray:
    """3,000 rows; the first are copies of one, but for changes of their first component."""
    rows = people(rng, 3000, 64)
    rows[: len(changes)] = rows[0]
    rows[: len(changes), 0] += changes.astype(np.float32)
    return rows


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_rows", "dim", "k"), [(9000, 48, 50), (8193, 33, 1), (3, 5, 10)])
def test_search_is_a_sort_of_the_whole_matrix(
    num_rows: int, dim: int, k: int, metric: Metric, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several tiles and query blocks, with copies and zero rows, rows come as a stable sort orders them."""
    rows, queries = people_with_copies(num_rows, dim, every=700)
    gallery = Gallery(dim, metric=metric, device=device)
    gallery.add(rows)
    monkeypatch.setattr(device_rows, "_BLOCK_BYTES", 4 * dim * 5000)
    monkeypatch.setattr(topk_torch, "_TILE_SCORES", 8 * 3000)
    monkeypatch.setattr(topk_torch, "_GROUP", 8)
    monkeypatch.setattr(topk_torch, "_RESCORE_BYTES", 4 * dim * 100)
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
                    filter=SearchFilter(
                        other_cameras=bool(options & 1),
                        exclude_junk=bool(options & 2),
                        among_camids={1, 2} if options & 4 else None,
                    ),
                    pids=np.arange(9) % 5,
                    camids=np.arange(9) % 4,
                )
                for gallery in (by_torch, plain)
            )
            assert found.indices.tolist() == expected.indices.tolist()
            assert found.distances.tobytes() == expected.distances.tobytes()
    assert (found.indices == -1).any()


def question_of(rows: np.ndarray, queries: np.ndarray, k: int) -> Question:
    """An unfiltered question of cosines."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    ones = np.ones(len(rows), np.bool_)
    keys = np.full(len(queries), -1), np.zeros(len(rows), np.int64)
    q_norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    return Question(queries, q_norms, GalleryRows([rows], norms), k, "cosine", ones, *keys)


def test_candidates_are_few_or_none() -> None:
    """Of rows that are apart little more than k come back, in order; of more copies than are kept, no answer."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5000, 32)).astype(np.float32)
    question = question_of(rows, rows[:4], 10)
    candidates = bfloat16_candidates(question, DeviceRows("cpu", "cosine"))
    assert candidates.is_whole.all()
    for i, found in enumerate(np.split(candidates.rows, candidates.ends[1:-1])):
        assert 10 <= len(found) <= 12
        assert i in found
        assert (np.diff(found) > 0).all()
    copies = question_of(np.ones((5000, 32), np.float32), rows[:2], 10)
    candidates = bfloat16_candidates(copies, DeviceRows("cpu", "cosine"))
    assert (candidates.is_whole.tolist(), candidates.ends.tolist()) == ([False, False], [0, 0, 0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["random", "rounded up", "rounded off", "cancelling", "of all sizes"])
def test_scores_in_bfloat16_are_within_their_bound(kind: str, metric: Metric, device: str) -> None:
    """Also where every component is rounded by half a unit in the same direction, which comes close to the bound."""
    rng = np.random.default_rng(5)
    rows, queries = (rng.standard_normal((n, 512)).astype(np.float32) for n in (64, 9))
    halfway = 1 + np.float32(2.0**-8)  # between two bfloat16 numbers, to be rounded to 1
    if kind == "rounded up":
        rows[:], queries[:] = halfway + np.float32(2.0**-20), halfway + np.float32(2.0**-20)
    if kind == "rounded off":
        rows[:], queries[:] = halfway, halfway
    if kind == "cancelling":
        rows[:, ::2], rows[:, 1::2], queries[:] = halfway, -1, 1
    if kind == "of all sizes":
        rows *= np.float32(10) ** rng.integers(-6, 7, rows.shape)
        queries *= np.float32(10) ** rng.integers(-6, 7, queries.shape)
    question = question_of(rows, queries, 1)._replace(metric=metric)
    on_device = DeviceRows(device, metric)
    with torch.inference_mode():
        blocks, uploaded = (
            on_device.blocks(question.gallery),
            topk_torch._upload(question, on_device),
        )
        q_rounded, residuals = on_device.rounded(uploaded.queries.clone())
        best = topk_torch._best(on_device, blocks, uploaded, q_rounded, 64)
        bounds = topk_torch._bfloat16_errors(uploaded, residuals.double(), blocks[0].residual).cpu().numpy()
    products = queries.astype(np.float64) @ rows.T.astype(np.float64)
    norms = question.q_norms[:, None], question.gallery.norms
    expected = products / norms[0] / norms[1] if metric == "cosine" else products - norms[1] ** 2 / 2
    found = np.empty_like(expected)
    np.put_along_axis(found, best.rows.cpu().numpy(), best.scores.cpu().numpy().astype(np.float64), axis=1)
    errors = np.abs(found - expected).max(axis=1)
    assert (errors <= bounds).all()
    if kind == "rounded off" and metric == "euclidean":
        assert (errors > 0.8 * bounds).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_decoys", [200, 2000])
def test_rows_that_lose_by_rounding_to_bfloat16_are_found(num_decoys: int, device: str) -> None:
    """The nearest rows score least in bfloat16, behind more exact ones than are kept, which are well apart."""
    rng = np.random.default_rng(6)
    signs = np.where(rng.random(64) < 0.5, -1, 1).astype(np.float32)
    rows = np.tile(signs, (num_decoys + 10, 1))
    rows[:, :2] *= 1 + rng.integers(0, 13, (len(rows), 2)).astype(np.float32) * np.float32(2.0**-7)
    nearest = rng.choice(len(rows), 10, replace=False)
    rows[nearest] = signs * np.float32(1 + 2.0**-8)  # halfway between two bfloat16 numbers, rounded to 1
    gallery = Gallery(64, metric="euclidean", device=device)
    gallery.add(rows)
    queries = 4 * signs[None]
    assert_same(gallery.search(queries, 10), sorted_in_full(queries, rows, 10, "euclidean"))
    assert gallery.search(queries, 10).indices[0].tolist() == sorted(nearest.tolist())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_near_identical_frames_are_searched_on_the_device(
    metric: Metric, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several hundred frames of one person, closer than float32 products tell, do not need the scan on the CPU."""
    rng = np.random.default_rng(7)
    rows = frames_of_one_person(rng, rng.integers(0, 5, 600) * 2.0**-22)
    monkeypatch.setattr(topk, "float32_candidates", lambda *_, **__: pytest.fail("scanned on the CPU"))
    gallery = Gallery(64, metric=metric, device=device)
    gallery.add(rows)
    assert_same(gallery.search(rows[::500], 50), sorted_in_full(rows[::500], rows, 50, metric))


def test_removing_rows_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device fails, the gallery holds what is left of rows and labels, and searches right."""
    rng = np.random.default_rng(8)
    rows, pids = people(rng, 400, 16), np.repeat(np.arange(4), 100)
    plain, by_torch = Gallery(16), Gallery(16, device="cpu")
    for gallery in (plain, by_torch):
        gallery.add(rows, pids=pids)
        gallery.search(rows[:3], 5)

    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(DeviceRows, "pack", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        by_torch.remove([1])
    plain.remove([1])
    assert len(by_torch) == len(plain) == 300
    found, expected = (gallery.search(rows[::50], 20) for gallery in (by_torch, plain))
    assert found.indices.tolist() == expected.indices.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_only_what_is_new_is_uploaded(
    metric: Metric, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added rows are, once; to remove rows uploads nothing and leaves the other blocks alone. Answers bit for bit."""
    uploaded: list[int] = []
    upload = DeviceRows._uploaded

    def counted(self: DeviceRows, part: np.ndarray, norms: np.ndarray) -> list[DeviceBlock]:
        uploaded.append(part.nbytes)
        return upload(self, part, norms)

    monkeypatch.setattr(DeviceRows, "_uploaded", counted)
    monkeypatch.setattr(device_rows, "_BLOCK_BYTES", 4 * 16 * 1000)  # blocks of 1000 rows
    rng = np.random.default_rng(8)
    rows, pids = people(rng, 5000, 16), np.repeat(np.arange(50), 100)
    plain = Gallery(16, metric=metric)
    plain.add(rows, pids=pids)
    plain.save(tmp_path / "people.gallery")
    by_torch = load_gallery(tmp_path / "people.gallery", device=device)
    assert by_torch._on_device is not None
    new = people(rng, 150, 16)

    def search() -> list[DeviceBlock]:
        found, expected = (gallery.search(rows[::500], 20) for gallery in (by_torch, plain))
        assert found.indices.tolist() == expected.indices.tolist()
        assert found.distances.tobytes() == expected.distances.tobytes()
        assert by_torch._on_device is not None
        return by_torch._on_device.blocks(by_torch._rows)

    before = search()
    assert uploaded == [rows.nbytes]
    for gallery in (plain, by_torch):
        gallery.add(new[:100], pids=np.arange(100))
    assert search()[0] is before[0]
    for gallery in (plain, by_torch):  # some rows of two blocks and of those added, and all of another block
        gallery.remove([3, 47, *range(20, 30)])
    after = search()
    assert [len(block.rows) for block in after] == [900, 1000, 1000, 900, 88]
    assert after[1].rounded is before[1].rounded
    for gallery in (plain, by_torch):
        gallery.add(new[100:], pids=np.arange(50))
    search()
    assert uploaded == [rows.nbytes, new[:100].nbytes, new[100:].nbytes]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("room_for", ["nothing", "bfloat16", "some blocks"])
def test_rows_that_do_not_fit_are_searched_all_the_same(
    room_for: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the float32 rows of some or all blocks left with the CPU, and the others too, before and after removal."""
    num_asked = 0

    def free_bytes(self: DeviceRows) -> float:
        nonlocal num_asked
        num_asked += 1
        bytes_of_block = 4 * 24 * 1000
        return {
            "nothing": 0,
            "bfloat16": bytes_of_block / 2,
            "some blocks": bytes_of_block * (2 - num_asked / 2),
        }[room_for]

    monkeypatch.setattr(DeviceRows, "_free_bytes", free_bytes)
    monkeypatch.setattr(device_rows, "_BLOCK_BYTES", 4 * 24 * 1000)
    rng = np.random.default_rng(9)
    rows, pids = people(rng, 3500, 24), rng.integers(0, 9, 3500)
    rows[100:1500] = rows[100]  # too many for the first scan
    gallery = Gallery(24, device=device)
    gallery.add(rows, pids=pids)
    queries = rows[[100, 2000, 3000]]
    assert_same(gallery.search(queries, 20), sorted_in_full(queries, rows, 20, "cosine"))
    gallery.remove([1, 2])
    rows = rows[~np.isin(pids, [1, 2])]
    assert_same(gallery.search(queries, 20), sorted_in_full(queries, rows, 20, "cosine"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("newer", [False, True])
def test_what_the_application_has_set_neither_spoils_the_answer_nor_changes(
    newer: bool, device: str, precision_switches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast and with TF32 allowed by either kind of switch, answers are exact; the settings stay."""
    monkeypatch.setattr(topk_torch, "_SPARE", -10)  # as many are kept as asked for: float32 has to decide
    rows = people(np.random.default_rng(2), 2000, 64)
    gallery = Gallery(64, device=device)
    gallery.add(rows)
    expected = sorted_in_full(rows[::20], rows, 10, "cosine")
    if newer:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision("medium")
    with torch.autocast(device, dtype=torch.bfloat16):
        assert_same(gallery.search(rows[::20], 10), expected)
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert newer or torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("device", DEVICES)
def test_searches_at_once_are_all_exact(
    device: str, precision_switches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search ends while another has not multiplied yet: that one is in float32 all the same."""
    rng = np.random.default_rng(10)
    rows = frames_of_one_person(rng, np.arange(200) * 2.0**-20)
    gallery = Gallery(64, device=device)
    gallery.add(rows)
    gallery.search(rows[:1], 1)
    has_entered, has_left, precisions = threading.Event(), threading.Event(), []
    best = topk_torch._best

    def watched(*args: Any) -> Any:
        if threading.current_thread().name == "slow":
            has_entered.set()
            assert has_left.wait(30)
        precisions.append(torch.backends.cuda.matmul.fp32_precision)
        return best(*args)

    monkeypatch.setattr(topk_torch, "_best", watched)
    torch.set_float32_matmul_precision("high")
    found: list[Neighbors] = []
    slow = threading.Thread(target=lambda: found.append(gallery.search(rows[:5], 30)), name="slow")

    def quick() -> None:
        assert has_entered.wait(30)
        found.append(gallery.search(rows[:5], 30))

    quick_one = threading.Thread(target=quick)
    slow.start()
    quick_one.start()
    quick_one.join()
    has_left.set()
    slow.join()
    for neighbors in found:
        assert_same(neighbors, sorted_in_full(rows[:5], rows, 30, "cosine"))
    assert len(found) == 2
    assert set(precisions) == {"ieee"}
    assert torch.get_float32_matmul_precision() == "high"


def test_the_highest_of_a_wide_tile_are_those_of_a_sort() -> None:
    """Chosen by groups of columns, with equal scores, forbidden rows and an incomplete last group."""
    rng = np.random.default_rng(11)
    scores = torch.from_numpy(rng.integers(0, 300, (7, 1003)).astype(np.float32))
    scores[:, :100] = -np.inf
    scores[3, 5:] = -np.inf
    for width in (1, 5, 12, 60, 1003, 2000):
        found, columns = topk_torch._highest(torch, scores.clone(), width)
        expected = scores.sort(1, descending=True).values[:, :width]
        assert torch.equal(found.sort(1, descending=True).values, expected)
        is_finite = ~found.isneginf()
        assert torch.equal(scores.gather(1, columns.clamp(max=1002))[is_finite], found[is_finite])
        assert all(
            len(set(row[own].tolist())) == own.sum() for row, own in zip(columns, is_finite, strict=True)
        )


@pytest.mark.parametrize("metric", METRICS)
def test_a_scan_on_a_gpu_mixes_no_devices(metric: Metric) -> None:
    """On tensors without content, as torch.compile traces with: rows here and there, filters, both precisions."""
    with FakeTensorMode():

        def tensor(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cuda") -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        on_device = DeviceRows("cpu", metric)
        on_device.device = torch.device("cuda")
        rounded = tensor(9000, 8, dtype=torch.bfloat16)
        blocks = [
            DeviceBlock(rows, kept, 0.1, tensor(9000), tensor(9000))
            for rows in (tensor(9000, 8), tensor(9000, 8, device="cpu"))
            for kept in (rounded, None)
        ]
        uploaded = topk_torch._Uploaded(
            queries=tensor(5, 8),
            q_norms=tensor(5, dtype=torch.float64),
            largest=1.0,
            errors=tensor(5, dtype=torch.float64),
            forbidden=tensor(36000, dtype=torch.bool),
            keys=(tensor(5, 1, dtype=torch.int64), tensor(36000, dtype=torch.int64)),
        )
        q_rounded, residuals = on_device.rounded(uploaded.queries.clone())
        errors = topk_torch._bfloat16_errors(uploaded, residuals.double(), 0.1)
        assert (errors.dtype, errors.device.type) == (torch.float64, "cuda")
        for queries in (q_rounded, uploaded.queries):
            best = topk_torch._best(on_device, blocks, uploaded, queries, 100)
            assert [(values.shape, values.device.type) for values in best] == [((5, 100), "cuda")] * 2
            assert (best.scores.dtype, best.rows.dtype) == (torch.float32, torch.int64)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_a_large_gallery_on_a_gpu_answers_as_the_cpu_does(metric: Metric) -> None:
    """Whole blocks and tiles, choice by groups, and a block of odd size, to the last bit."""
    rng = np.random.default_rng(12)
    rows = rng.standard_normal((140_001, 2048), dtype=np.float32)
    rows[1::2] += rows[::2][:-1]
    galleries = [Gallery(2048, metric=metric, device=device) for device in ("cuda", None)]
    for gallery in galleries:
        gallery.add(rows)
    queries = rows[::1000] + rng.standard_normal((141, 2048), dtype=np.float32)
    found, expected = (gallery.search(queries, 50) for gallery in galleries)
    assert found.indices.tobytes() == expected.indices.tobytes()
    assert found.distances.tobytes() == expected.distances.tobytes()


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
        "import sys, numpy as np; from reidgallery import Gallery; g = Gallery(2); g.add(np.eye(2, dtype='f4'))\n"
        "g.search(np.eye(2, dtype='f4'), 1); sys.exit('torch' in sys.modules or 'pymilvus' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
