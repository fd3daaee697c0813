"""What a data set is made of, and how images named after their person and camera become records."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reidexport.data.image_paths import IMAGE_SUFFIXES, is_wanted
from reidexport.errors import DatasetError

# Whether gallery images of a query's person count where the query's own camera took them.
SameCamera = Literal["drop", "keep"]

JUNK_PID = -1
DISTRACTOR_PID = 0

_PID_AND_CAMERA = re.compile(r"(-?\d{1,18})_c(\d{1,18})(?!\d)")  # numbers that fit 64 bits


@dataclass(frozen=True)
class ImageRecord:
    """One image: its path, its person, and its camera.

    ``pid`` is -1 for junk (never scored) and 0 for a distractor (scored, but nobody's match);
    ``camid`` counts from 0, and is ``reidgallery.input.UNLABELED`` where the camera is not known.
    """

    path: Path
    pid: int
    camid: int


@dataclass(frozen=True)
class Dataset:
    """Train, query and gallery records in the order of their file names; ``train`` may be empty.

    The gallery holds junk and distractors too: :mod:`reidexport.metrics.cmc_map` handles them. ``same_camera`` is how
    it is scored: ``drop`` leaves out the gallery images of a query's person by the query's own camera, as Market-1501's
    protocol does; ``keep`` counts them, but for the query image itself.
    """

    name: str
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    same_camera: SameCamera = "drop"

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """All of them."""
        return self.train + self.query + self.gallery

    @property
    def scored_gallery(self) -> tuple[ImageRecord, ...]:
        """The gallery without the images of pid -1, which no query is ever scored on: no need to embed them."""
        return tuple(record for record in self.gallery if record.pid != JUNK_PID)


def records_from_folder(folder: Path) -> tuple[ImageRecord, ...]:
    """Records of a folder's images in order of name: ``<pid>_c<camera>…``, with cameras counted from 1.

    Raises:
        DatasetError: the folder holds no image (``IMAGE_SUFFIXES``; hidden files are none), or one that is named
            otherwise.
    """
    images = images_in(folder)
    if not images:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    records = []
    for path in images:
        labels = pid_and_camid(path.name)
        if labels is None:
            raise DatasetError(
                f"{path}: the name contains no person and camera. Expected <pid>_c<camera>_<anything>, such as "
                "0001_c1s1_000151_00.jpg, with pid -1 for junk, 0 for a distractor, and cameras from 1; or "
                "a folder for each person."
            )
        records.append(ImageRecord(path, *labels))
    return tuple(records)


def images_in(folder: Path) -> list[Path]:
    """The files in a folder that are images by their suffix, in order of name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if is_wanted(path.name))


def pid_and_camid(name: str) -> tuple[int, int] | None:
    """The person and the camera (from 0) that a file name ``<pid>_c<camera>…`` encodes; None for another name."""
    found = _PID_AND_CAMERA.match(name)
    if found is None or int(found[1]) < JUNK_PID or int(found[2]) < 1:
        return None
    return int(found[1]), int(found[2]) - 1
