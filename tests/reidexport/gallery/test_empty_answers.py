"""A search that finds nothing says which part of its filter leaves no row."""

import numpy as np
import pytest
from reidgallery import Gallery, SearchFilter

from reidexport.gallery.empty_answers import why_empty
from reidexport.gallery.searching import search_gallery


@pytest.mark.parametrize(
    ("filter", "threshold", "words"),
    [
        (SearchFilter(), np.inf, None),
        (SearchFilter(among_camids=[8]), np.inf, "no row is of camera 9, the gallery has 1, 2."),
        (
            SearchFilter(since=1893456000000),
            np.inf,
            "no row is of a time since 2030-01-01T00:00:00.000Z, the gallery's clock spans 1000101 to 1000103.",
        ),
        (
            SearchFilter(until=5),
            np.inf,
            "no row is of a time until 5, the gallery's clock spans 1000101 to 1000103.",
        ),
        (
            SearchFilter(among_camids=[0], since=1000103),
            np.inf,
            "rows are of these cameras or of this time, but none of both.",
        ),
        (
            SearchFilter(other_cameras=True, among_camids=[0]),
            np.inf,
            "all rows that may be found are of the query's own camera (1).",
        ),
        (SearchFilter(), -1.0, "no row is at distance -1 or less."),
    ],
)
def test_the_part_of_the_filter_is_named(filter: SearchFilter, threshold: float, words: str | None) -> None:
    """With what the gallery has instead; a search that finds something says nothing."""
    gallery, query = Gallery(2), Gallery(2)
    times = [1000101, 1000102, 1000103]
    gallery.add(np.ones((3, 2), np.float32), pids=[1, 2, 3], camids=[0, 0, 1], times=times)
    query.add(np.ones((1, 2), np.float32), pids=[1], camids=[0])
    answers = search_gallery(gallery, query, filter=filter, threshold=threshold)
    said = why_empty(gallery, answers, filter, threshold)
    assert said == (words and f"1 of 1 queries found nothing: {words}")


def test_an_empty_gallery_is_named_as_one() -> None:
    """Nothing can be found there, whatever the filter."""
    query = Gallery(2)
    query.add(np.ones((1, 2), np.float32))
    answers = search_gallery(Gallery(2), query)
    assert (
        why_empty(Gallery(2), answers, SearchFilter(), np.inf)
        == "1 of 1 queries found nothing: the gallery is empty."
    )
