"""How long does an exact top-50 search take, against faiss, usearch and the matrix product alone?

The features are those of :mod:`benchmarks.bench_ranking`: seeded, of unit length, most of it along few dimensions.

pytest benchmarks/bench_gallery.py --results benchmarks/results/MACHINE    (-k "not large": without the 8 GB gallery)
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from reidruntime import Gallery, load_gallery
from reidruntime.gallery import Scan
from usearch.index import MetricKind
from usearch.index import search as usearch_search

from benchmarks.bench_ranking import data
from benchmarks.fresh_process import peak_mib_of_this_process
from reidexport.machine import machine_info

if "OPENBLAS_CORETYPE" in os.environ:
    pytest.skip("unset OPENBLAS_CORETYPE: it slows NumPy and faiss down", allow_module_level=True)

_K, _DIM, _NUM_GALLERY, _NUM_LARGE = 50, 2048, 19_732, 1_000_000
_QUICK = 500, 60
_ROWS_AT_ONCE = 20_000
_NUM_CHECKED, _NUM_USEARCH = 40, 400
_TIMED = (
    "float32 queries in, indices and distances out, projections and int8 codes made before; limit: numpy.matmul of the "
    "same features, into memory in use"
)

Features = npt.NDArray[np.float32]
Compare = Callable[..., dict[str, Any]]


class Searched(NamedTuple):
    """Queries, a gallery, and its rows as one array."""

    queries: Features
    gallery: Gallery
    rows: Features


@pytest.fixture(scope="module")
def market(quick: bool) -> Searched:
    """The size of Market-1501 with its distractors and junk."""
    given = data(*_QUICK) if quick else data(_NUM_GALLERY)
    gallery = Gallery(_DIM)
    gallery.add(given.g_feats)
    return Searched(given.q_feats, gallery, given.g_feats)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, market: Searched, quick: bool) -> Iterator[Searched]:
    """A million rows, mapped from a file: copies of the small gallery's, each with noise of its own."""
    path = tmp_path_factory.mktemp("large") / "large.gallery"
    rng, gallery = np.random.default_rng(1), Gallery(_DIM)
    while len(gallery) < (_ROWS_AT_ONCE if quick else _NUM_LARGE):
        rows = market.rows[rng.integers(0, len(market.rows), _ROWS_AT_ONCE)]
        rows += rng.standard_normal(rows.shape, np.float32) * np.float32(0.3 * _DIM**-0.5)
        gallery.add(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    gallery.save(path)
    del gallery
    mapped = load_gallery(path)
    yield Searched(market.queries, mapped, mapped.parts[0])
    path.unlink()


@pytest.mark.parametrize("scan", ["float32", "projection", "int8"])
def test_market1501(compare: Compare, market: Searched, scan: Scan) -> None:
    """All queries of Market-1501 in its whole gallery."""
    queries, gallery, rows = market
    index = faiss.IndexFlatIP(_DIM)
    index.add(rows)
    products = np.empty((len(queries), len(rows)), np.float32)
    recall = _recall(market, scan, index.search(queries, _K)[1])
    row = compare(
        f"exact top-{_K} of {len(queries)} queries in {len(rows)} x {_DIM}, {scan} scan",
        _TIMED,
        lambda: gallery.search(queries, _K, scan=scan),
        {
            "faiss IndexFlatIP": lambda: index.search(queries, _K),
            "limit": lambda: np.matmul(queries, rows.T, out=products),
        },
    )
    row["recall_of_faiss"] = recall


def test_usearch(compare: Compare, market: Searched) -> None:
    """Some queries only: usearch goes through the rows without matrix products."""
    queries, gallery, rows = market.queries[:_NUM_USEARCH], market.gallery, market.rows
    threads = machine_info()["cores"]
    compare(
        f"exact top-{_K} of {len(queries)} queries in {len(rows)} x {_DIM}, float32 scan",
        _TIMED.partition(";")[0],
        lambda: gallery.search(queries, _K, scan="float32"),
        {
            "usearch exact": lambda: usearch_search(
                rows, queries, _K, MetricKind.IP, exact=True, threads=threads
            )
        },
        rounds=3,
    )


@pytest.mark.parametrize("scan", ["float32", "projection", "int8"])
def test_large_gallery(compare: Compare, large: Searched, scan: Scan) -> None:
    """All queries of Market-1501 in a million rows, faiss on the same memory."""
    queries, gallery, rows = large

    def search_with_faiss() -> Any:
        return faiss.knn(queries, rows, _K, metric=faiss.METRIC_INNER_PRODUCT)

    recall = _recall(large, scan, search_with_faiss()[1])
    row = compare(
        f"exact top-{_K} of {len(queries)} queries in {len(rows)} x {_DIM}, {scan} scan",
        _TIMED + ", by blocks of 20,000 rows; faiss: knn, which is what IndexFlatIP calls",
        lambda: gallery.search(queries, _K, scan=scan),
        {"faiss knn": search_with_faiss, "limit": lambda: _products(queries, rows)},
        rounds=2,
    )
    row["recall_of_faiss"] = recall
    row["peak_process_mib"] = peak_mib_of_this_process()


def _products(queries: Features, rows: Features) -> None:
    products = np.empty((len(queries), _ROWS_AT_ONCE), np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        np.matmul(queries, rows[start : start + _ROWS_AT_ONCE].T, out=products)


def _recall(searched: Searched, scan: Scan, found_by_faiss: npt.NDArray[np.int64]) -> float:
    """Check answers against distances in float64, all of them sorted; how many of ours did faiss find, too?"""
    queries, gallery, rows = searched
    found = gallery.search(queries, _K, scan=scan).indices
    few = queries[:_NUM_CHECKED].astype(np.float64)
    cosines = np.concatenate(
        [
            few @ rows[start : start + _ROWS_AT_ONCE].T.astype(np.float64)
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ],
        axis=1,
    )
    expected = np.sort(cosines, axis=1)[:, : -_K - 1 : -1]
    ours = np.take_along_axis(cosines, found[:_NUM_CHECKED], axis=1)
    np.testing.assert_allclose(ours, expected, atol=2e-7)
    same = [len(np.intersect1d(a, b)) for a, b in zip(found, found_by_faiss, strict=True)]
    return sum(same) / found.size
