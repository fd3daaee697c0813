"""Who is in a gallery: people in order, then those that are nobody, and what each camera saw."""

import numpy as np
import pytest
from reidgallery import Gallery
from reidgallery.input import UNLABELED

from reidexport.gallery.web import catalogue
from reidexport.gallery.web.catalogue import catalogue_of


def test_people_come_first_and_hold_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loop over all rows says it, whatever is read at once."""
    monkeypatch.setattr(catalogue, "_ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(UNLABELED, 9, 100), rng.choice([UNLABELED, 0, 3], 100)
    gallery = Gallery(2)
    gallery.add(np.ones((100, 2), np.float32), pids=pids, camids=camids)
    found = catalogue_of(gallery)
    order = [*range(1, 9), 0, -1, UNLABELED]
    assert [person.pid for person in found.people] == [None if pid == UNLABELED else pid for pid in order]
    for person, pid in zip(found.people, order, strict=True):
        assert person.rows.tolist() == [row for row in range(100) if pids[row] == pid]
        assert person.is_somebody == (pid > 0)
    assert found.cameras == {camid: int((camids == camid).sum()) for camid in (0, 3)}
    assert [row for row in range(-3, 105) if row in found] == list(range(100))


def test_a_person_is_found_or_the_next_one() -> None:
    """A missing pid leads to the one behind it, one beyond all to the beginning."""
    gallery = Gallery(2)
    gallery.add(np.ones((4, 2), np.float32), pids=[3, 7, -1, 0])
    found = catalogue_of(gallery)
    assert [found.place_of(pid) for pid in (1, 3, 4, 7, 8)] == [0, 0, 1, 1, 0]


def test_an_empty_gallery_has_nobody() -> None:
    """No rows, no people, no cameras."""
    found = catalogue_of(Gallery(2))
    assert (len(found.row_numbers), found.people, found.cameras) == (0, (), {})
    assert 0 not in found
