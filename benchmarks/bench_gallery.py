"""How long does an exact top-50 search take, against faiss, usearch, cuVS and the matrix product alone?

The features are those of :mod:`benchmarks.bench_ranking`: seeded, of unit norm, most of it along few dimensions.

pytest benchmarks/bench_gallery.py --results benchmarks/results/MACHINE    (-k "not large": without the 8 GB gallery;
-k on_a_gpu: the GPU alone)
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from reidgallery import Gallery, load_gallery
from reidgallery.gallery import Scan

from benchmarks.bench_ranking import data
from benchmarks.harness.comparison import Compare, ComparisonOptions, Row
from benchmarks.harness.fresh_process import peak_mib_of
from benchmarks.harness.subjects import NO_GPU, device
from benchmarks.harness.turns import Side, rounded
from benchmarks.peers.gallery_peers import (
    Features,
    Found,
    Search,
    faiss_flat,
    faiss_knn,
    gpu_searches,
    usearch_exact,
)
from benchmarks.peers.peers import num_threads

_K, _DIM, _NUM_GALLERY, _NUM_LARGE = 50, 2048, 19_732, 1_000_000
_QUICK = 500, 60
_ROWS_AT_ONCE = 20_000
_NUM_CHECKED, _NUM_USEARCH = 40, 400
_MAX_PEAK_MIB = 24 * 1024
_MIN_RECALL = 0.999  # of peers, whose rounding may swap the last neighbor with the next
_TIMED = "float32 queries in, indices and distances out, projections and int8 codes made before"
_LIMIT = "limit: numpy.matmul of the same features, into memory in use"


class Searched(NamedTuple):
    """Queries, a gallery, and its rows as one array."""

    queries: Features
    gallery: Gallery
    rows: Features


@pytest.fixture(scope="module")
def market(quick: bool) -> Searched:
    """The size of Market-1501 with its distractors and junk."""
    features = data(*_QUICK) if quick else data(_NUM_GALLERY)
    gallery = Gallery(_DIM, threads=num_threads())
    gallery.add(features.g_feats)
    return Searched(features.q_feats, gallery, features.g_feats)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, market: Searched, quick: bool) -> Iterator[Path]:
    """A file of a million rows, copies of the small gallery's, each with noise of its own; beside it, the queries."""
    folder = tmp_path_factory.mktemp("large")
    rng, gallery = np.random.default_rng(1), Gallery(_DIM)
    while len(gallery) < (_ROWS_AT_ONCE if quick else _NUM_LARGE):
        rows = market.rows[rng.integers(0, len(market.rows), _ROWS_AT_ONCE)]
        rows += rng.standard_normal(rows.shape, np.float32) * np.float32(0.3 * _DIM**-0.5)
        gallery.add(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    gallery.save(folder / "large.gallery")
    np.save(folder / "queries.npy", market.queries)
    del gallery
    yield folder / "large.gallery"
    shutil.rmtree(folder)


@pytest.mark.parametrize("scan", ["float32", "int8"])
def test_market1501(compare: Compare, market: Searched, scan: Scan) -> None:
    """All queries of Market-1501 in its whole gallery."""
    peers = {"faiss IndexFlatIP": faiss_flat(market.rows, _K)}
    limit = _multiplication(market.queries, market.rows)
    _compare_exact(compare, market, scan, peers, f"{_TIMED}; {_LIMIT}", limit=limit)


@pytest.mark.skipif(device() != "cuda", reason=NO_GPU)
def test_market1501_on_a_gpu(compare: Compare, market: Searched, tmp_path: Path) -> None:
    """The same on a GPU, to the CPU's bits."""
    market.gallery.save(tmp_path / "market.gallery")
    compare_on_device(compare, tmp_path / "market.gallery", market.queries, "cuda")


def test_usearch(compare: Compare, market: Searched) -> None:
    """Some queries only: usearch goes through the rows without matrix products."""
    few = market._replace(queries=market.queries[:_NUM_USEARCH])
    _compare_exact(compare, few, "float32", {"usearch exact": usearch_exact(few.rows, _K)}, _TIMED, rounds=3)


@pytest.mark.parametrize("scan", ["float32", "int8"])
def test_large_gallery(compare: Compare, large: Path, market: Searched, scan: Scan) -> None:
    """All queries of Market-1501 in a million rows, mapped from a file; faiss on the same memory."""
    queries, threads = market.queries, num_threads()
    peak_mib = peak_mib_of(
        "import numpy, reidgallery\n"
        f"gallery = reidgallery.load_gallery({str(large)!r}, threads={threads})\n"
        f"gallery.search(numpy.load({str(large.with_name('queries.npy'))!r}), {_K}, scan={scan!r})"
    )
    assert peak_mib < _MAX_PEAK_MIB
    gallery = load_gallery(large, threads=threads)
    rows = gallery.parts[0]
    row = _compare_exact(
        compare,
        Searched(queries, gallery, rows),
        scan,
        {"faiss knn": faiss_knn(rows, _K)},
        f"{_TIMED}; {_LIMIT}, by blocks of 20,000 rows; faiss: knn, which is what IndexFlatIP calls",
        limit=_multiplication(queries, rows),
        rounds=2,
    )
    row["peak_process_mib"] = peak_mib


@pytest.mark.skipif(device() != "cuda", reason=NO_GPU)
def test_large_gallery_on_a_gpu(compare: Compare, large: Path, market: Searched) -> None:
    """The same on a GPU, to the CPU's bits."""
    compare_on_device(compare, large, market.queries, "cuda")


def compare_on_device(compare: Compare, saved: Path, queries: Features, where: str) -> Row:
    """Search a gallery that was saved on a device of torch; some queries are searched on the CPU without torch, too."""
    gallery = load_gallery(saved, threads=num_threads(), device=where)
    rows, few = gallery.parts[0], queries[:_NUM_CHECKED]
    found = gallery.search(few, _K)
    expected = load_gallery(saved, verify=False).search(few, _K, scan="float32")
    assert found.indices.tobytes() == expected.indices.tobytes()
    assert found.distances.tobytes() == expected.distances.tobytes()
    peers, missing = gpu_searches(rows, _K) if where == "cuda" else ({}, [])
    row = _compare_exact(
        compare,
        Searched(queries, gallery, rows),
        "auto",
        peers,
        "float32 queries in, indices and distances out, in the CPU's memory, rows on the device before; limit: "
        "torch.mm of the same features, queries copied to it, by blocks of 20,000 rows",
        limit=_multiplication_on(where, queries, rows),
        rounds=3,
    )
    row["name"] += " on a GPU"
    row["queries_per_s"] = rounded(len(queries) / row["seconds"]["reidexport"]["median"])
    row["num_bit_equal_to_the_cpu"] = len(few)
    row["not_installed"] = missing
    return row


def _blocks(rows: Features) -> list[Features]:
    return [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]


def _multiplication(queries: Features, rows: Features) -> Side:
    """The products of all queries and rows in float32, by numpy."""
    blocks = _blocks(rows)
    out = np.empty((len(queries), len(blocks[0])), np.float32)

    def multiply() -> None:
        for block in blocks:
            np.matmul(queries, block.T, out=out[:, : len(block)])

    return multiply


def _multiplication_on(where: str, queries: Features, rows: Features) -> Side:
    """The same by torch, on a device that holds the rows."""
    blocks = [torch.from_numpy(block.copy()).to(where) for block in _blocks(rows)]
    q_tensor = torch.from_numpy(queries)
    out = torch.empty((len(queries), len(blocks[0])), device=where)

    def multiply() -> None:
        on_device = q_tensor.to(where)
        for block in blocks:
            torch.mm(on_device, block.T, out=out[:, : len(block)])
        if where == "cuda":
            torch.cuda.synchronize()

    return multiply


def _compare_exact(
    compare: Compare,
    searched: Searched,
    scan: Scan,
    peers: dict[str, Search],
    timed: str,
    *,
    limit: Side | None = None,
    rounds: int = 5,
) -> Row:
    """Check all answers, and compare the times that they take."""
    queries, gallery, rows = searched
    search = partial(gallery.search, queries, _K, scan=scan)
    found = search().indices
    _check_nearest(found, queries, rows)
    recalls = {name: _recall(answer(queries), found) for name, answer in peers.items()}
    assert all(recall > _MIN_RECALL for recall in recalls.values()), recalls
    sides: dict[str, Side] = {name: partial(answer, queries) for name, answer in peers.items()}
    row = compare(
        f"exact top-{_K} of {len(queries)} queries in {len(rows)} x {_DIM}, {scan} scan",
        timed,
        search,
        sides | ({"limit": limit} if limit else {}),
        ComparisonOptions(rounds=rounds),
    )
    row["recalls"] = recalls
    return row


def _check_nearest(found: Found, queries: Features, rows: Features) -> None:
    """Compare some answers with the inner products of all rows in float64, sorted."""
    few = queries[:_NUM_CHECKED].astype(np.float64)
    products = np.concatenate([few @ block.T.astype(np.float64) for block in _blocks(rows)], axis=1)
    expected = np.sort(products, axis=1)[:, : -_K - 1 : -1]
    ours = np.take_along_axis(products, found[:_NUM_CHECKED], axis=1)
    np.testing.assert_allclose(ours, expected, atol=2e-7)


def _recall(found: Found, expected: Found) -> float:
    """The share of the expected rows that was found, over all queries."""
    same = [len(np.intersect1d(*rows)) for rows in zip(found, expected, strict=True)]
    return sum(same) / expected.size
