"""A gallery that is searched on the GPU answers with the bits of one that is searched without torch."""

from collections.abc import Callable

import numpy as np
import pytest
from reidgallery.gallery import Gallery
from reidruntime.artifact.manifest import Metric

from tests.gpu.conftest import Judge, Setup


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_same_bits(metric: Metric, setup: Setup, judge: Judge) -> None:
    """Neighbors and distances: at first, after rows were added, and after some were removed."""
    rows = np.random.default_rng(1).standard_normal((3 * setup.matrix_size, 512), dtype=np.float32)
    alike, others, queries = rows[: setup.matrix_size], rows[setup.matrix_size : -300], rows[-300:]
    alike[1:] = alike[0] + 1e-3 * alike[1:]  # as the frames of a track are
    queries[0] = alike[0]
    on_device, plain = Gallery(512, metric=metric, device=setup.device), Gallery(512, metric=metric)
    steps: dict[str, Callable[[Gallery], object]] = {
        "first rows": lambda gallery: gallery.add(alike, pids=np.arange(len(alike))),
        "more rows": lambda gallery: gallery.add(others, pids=np.arange(len(others))),
        "fewer rows": lambda gallery: gallery.remove(range(0, len(alike), 3)),
    }
    for what, change in steps.items():
        for gallery in (on_device, plain):
            change(gallery)
        found, expected = on_device.search(queries), plain.search(queries)
        judge.same_bits(found.indices, expected.indices, f"{what}: indices")
        judge.same_bits(found.distances, expected.distances, f"{what}: distances")
