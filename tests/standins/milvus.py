"""Galleries to be stored in Milvus, and what their answers have in common."""

import numpy as np
from reidgallery import Gallery, Neighbors
from reidruntime.artifact.manifest import Metric

from tests.standins.galleries import people

DIM = 24
ARTIFACT = "ab" * 32


def filled(metric: Metric, num_rows: int = 200) -> Gallery:
    """A gallery with copies, a zero row, junk, and names that need quoting."""
    rng = np.random.default_rng(num_rows)
    rows = people(rng, num_rows, DIM)
    rows[1], rows[num_rows // 2 :: 7] = 0, rows[0]
    gallery = Gallery(DIM, metric=metric, manifest_sha256=ARTIFACT)
    pids, camids = rng.integers(-1, 5, num_rows), rng.integers(0, 4, num_rows)
    paths = [f'a "b"\\\n {{ü}}/{row}.jpg' for row in range(num_rows)]
    times = rng.integers(0, 100, num_rows)
    gallery.add(rows, pids=pids, camids=camids, times=times, paths=paths)
    return gallery


def assert_same_but_for_ties(found: Neighbors, expected: Neighbors) -> None:
    """The same distances to 1e-5, and rows that differ only where two of them are as near as that."""
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5, atol=1e-5)
    for i, j in zip(*np.nonzero(found.indices != expected.indices), strict=True):
        others = np.delete(expected.distances[i], j)
        last = j == len(others)
        assert last or np.abs(others - expected.distances[i, j]).min() < 1e-5
