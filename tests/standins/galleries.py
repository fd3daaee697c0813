"""Features of people, galleries of them, and the answers of the slow, obvious search."""

import numpy as np
import numpy.typing as npt
from reidgallery import Gallery, Neighbors
from reidgallery.gallery import Scan
from reidruntime.artifact.manifest import Metric

Floats = npt.NDArray[np.float32]
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
SCANS: tuple[Scan, ...] = ("float32", "int8")


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


def people_with_copies(num_rows: int, dim: int, every: int) -> tuple[Floats, Floats]:
    """Rows, and 21 queries: copies of the first row among both, and a row of zeros in each."""
    rng = np.random.default_rng(num_rows)
    rows, queries = people(rng, num_rows, dim), people(rng, 21, dim)
    rows[num_rows // 2 :: every] = rows[0]
    rows[1], queries[3] = 0, 0
    queries[4] = rows[0]
    return rows, queries


def gallery_of(rows: Floats, metric: Metric = "cosine", threads: int = 2) -> Gallery:
    """A gallery of unlabeled rows."""
    gallery = Gallery(rows.shape[1], metric=metric, threads=threads)
    gallery.add(rows)
    return gallery
