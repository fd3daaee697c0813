"""The recall of an index is measured against every row."""

from collections.abc import Callable

import numpy as np
import pytest
from reidgallery import SearchFilter
from reidgallery.milvus.gallery import MilvusGallery
from reidgallery.milvus.recall import measured_recall

from tests.standins.milvus import DIM


def test_an_approximate_index_is_built_measured_and_taken_back(
    new_gallery: Callable[..., MilvusGallery],
) -> None:
    """Its recall is measured, and it stays chosen when the gallery is opened again."""
    gallery = new_gallery("euclidean")
    rows = np.random.default_rng(3).standard_normal((1500, DIM)).astype(np.float32)
    gallery.add(rows)
    assert gallery.index == "exact"
    assert measured_recall(gallery, k=5, num_queries=40) == (1.0, 5, 40)
    gallery.use_index("approximate")
    again = new_gallery("euclidean")
    assert again.index == "approximate"
    assert measured_recall(again, k=5, num_queries=40).share > 0.9
    gallery.use_index("exact")
    assert measured_recall(gallery).share == 1.0


def test_recall_is_counted_against_every_row(new_gallery: Callable[..., MilvusGallery]) -> None:
    """A search that finds every second row only has that share of the nearest ones."""
    gallery = new_gallery("euclidean")
    rows = np.random.default_rng(5).standard_normal((60, DIM)).astype(np.float32)
    gallery.add(rows, times=[row % 2 for row in range(60)])
    distances = ((rows[:, None] - rows) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :4]
    search = gallery.search
    gallery.search = lambda queries, k: search(queries, k, filter=SearchFilter(since=1))  # type: ignore[method-assign, misc]
    assert measured_recall(gallery, k=4, num_queries=60).share == pytest.approx((nearest % 2).mean())


def test_nothing_to_find_is_no_miss(new_gallery: Callable[..., MilvusGallery]) -> None:
    """A gallery of one row, or of none, has a recall of 1."""
    gallery = new_gallery()
    assert measured_recall(gallery) == (1.0, 10, 0)
    gallery.add(np.ones((1, DIM), np.float32))
    assert measured_recall(gallery) == (1.0, 10, 1)
