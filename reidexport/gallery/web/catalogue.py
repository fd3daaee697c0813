"""Who is in a gallery, and which cameras saw them: what a page needs to leaf through it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from reidgallery import Gallery, MilvusGallery
from reidgallery.input import UNLABELED

from reidexport.data.records import DISTRACTOR_PID, JUNK_PID

_ROWS_AT_ONCE = 2**14
_LAST_PIDS = (DISTRACTOR_PID, JUNK_PID, UNLABELED)  # rows of nobody in particular come after the people
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GalleryPerson:
    """An identity and its images; ``pid`` is None for the images whose person is not known."""

    pid: int | None
    rows: Ints

    @property
    def is_somebody(self) -> bool:
        """Whether it is one person: not a distractor, junk or unknown."""
        return self.pid is not None and self.pid > DISTRACTOR_PID


@dataclass(frozen=True)
class Catalogue:
    """The labels of a gallery, as they were when it was opened.

    Attributes:
        row_numbers: of all rows, ascending.
        people: by pid; then distractors, junk, and the images whose person is not known, where there are such.
        cameras: how many images each camera saw, by camid; without the images whose camera is not known.
    """

    row_numbers: Ints
    people: tuple[GalleryPerson, ...]
    cameras: dict[int, int]

    def __contains__(self, row: int) -> bool:
        place = np.searchsorted(self.row_numbers, row)
        return bool(place < len(self.row_numbers) and self.row_numbers[place] == row)

    def place_of(self, pid: int) -> int:
        """The index of a person among ``people``, or of the next one by pid; 0 where there is none."""
        places = (i for i, person in enumerate(self.people) if person.pid is not None and person.pid >= pid)
        return next(places, 0)


def catalogue_of(gallery: Gallery | MilvusGallery) -> Catalogue:
    """Read the labels of all rows; errors are the gallery's."""
    rows = gallery.row_numbers()
    pids, camids = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        pids[some], camids[some] = gallery.labels(rows[some])[:2]
    order = np.argsort(pids, kind="stable")
    found, starts = np.unique(pids[order], return_index=True)
    people = dict(zip(found.tolist(), np.split(rows[order], starts[1:]), strict=False))
    last = [(pid, people.pop(pid)) for pid in _LAST_PIDS if pid in people]
    seen_by, counts = np.unique(camids[camids != UNLABELED], return_counts=True)
    return Catalogue(
        rows,
        tuple(
            GalleryPerson(None if pid == UNLABELED else pid, own_rows)
            for pid, own_rows in [*people.items(), *last]
        ),
        dict(zip(seen_by.tolist(), counts.tolist(), strict=True)),
    )
