"""Who counts in a ranking: what a data set must have to be scored, and what would make its scores doubtful.

Market-1501's protocol drops, for each query, the gallery images of its person by its own camera: they are easy, often
of the same second. A data set with ``same_camera="keep"`` lets them count, for images of one camera or of none; then
only the query image itself is left out.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import UNLABELED

from reidexport.data.records import Dataset, ImageRecord, SameCamera
from reidexport.data.same_images import copies, image_numbers
from reidexport.errors import DatasetError

Ints = NDArray[np.int64]

_KEEP = "--same-camera keep (in Python: load_dataset(…, same_camera='keep'))"


def check_scorable(dataset: Dataset) -> None:
    """Refuse, before anything is embedded, a test split that cannot be scored.

    Raises:
        DatasetError: there are no queries or no gallery, no query has a match, or cameras are needed and not known.
        ImageError: a file is missing.
    """
    query, gallery = dataset.query, dataset.scored_gallery
    if not query or not gallery:
        raise DatasetError(
            f"{dataset.name} cannot be scored: found {len(query)} query and {len(gallery)} gallery images of persons, "
            "expected both."
        )
    if dataset.same_camera == "drop":
        _check_cameras(dataset)
    if not _num_with_match(dataset, dataset.same_camera):
        raise DatasetError(_no_match(dataset))


def copy_warnings(dataset: Dataset) -> tuple[str, ...]:
    """What queries that lie in the gallery, too, byte for byte, do to the scores.

    Raises:
        ImageError: a file cannot be read.
    """
    query, gallery = dataset.query, dataset.scored_gallery
    by_person: dict[ImageRecord, ImageRecord] = {}
    by_camera: dict[ImageRecord, ImageRecord] = {}
    itself: dict[ImageRecord, ImageRecord] = {}
    for place, other in copies(*numbers_of_images(query, gallery)):
        one, copy = query[place], gallery[other]
        if one.pid != copy.pid:
            by_person.setdefault(one, copy)
        elif dataset.same_camera == "keep":
            itself.setdefault(one, copy)
        elif one.camid != copy.camid:
            by_camera.setdefault(one, copy)
    effects = {
        "as another person, so each counts as a wrong answer. Correct the names": by_person,
        "as another camera, so each is found at once and raises the scores. Remove the copies": by_camera,
        "and are left out of their own ranked lists": itself,
    }
    return tuple(
        f"{len(pairs)} of {len(query)} queries are in the gallery too, byte for byte (first "
        f"{' and '.join(str(record.path) for record in next(iter(pairs.items())))}), {effect}."
        for effect, pairs in effects.items()
        if pairs
    )


def numbers_of_images(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> tuple[Ints, Ints]:
    """int64 (num_query,) and (num_gallery,), equal where a query and a gallery image are one image."""
    return image_numbers(*(tuple(record.path for record in records) for records in (query, gallery)))


def _check_cameras(dataset: Dataset) -> None:
    persons = {record.pid for record in dataset.query}
    images = [record for record in (*dataset.query, *dataset.scored_gallery) if record.pid in persons]
    unknown = [record for record in images if record.camid == UNLABELED]
    if unknown:
        raise DatasetError(
            f"{dataset.name}: the names of {len(unknown)} of {len(images)} images tell no camera, first "
            f"{unknown[0].path}, and images by the query's own camera are to be left out. Name them "
            f"<pid>_c<camera>_<anything>, or pass {_KEEP}: then they count."
        )


def _num_with_match(dataset: Dataset, same_camera: SameCamera) -> int:
    """How many queries have a gallery image of their person that counts."""
    query, gallery = dataset.query, dataset.scored_gallery
    if same_camera == "keep":
        q_numbers, g_numbers = (numbers.tolist() for numbers in numbers_of_images(query, gallery))
    else:
        q_numbers, g_numbers = ([record.camid for record in records] for records in (query, gallery))
    seen = defaultdict(set)
    for record, number in zip(gallery, g_numbers, strict=True):
        seen[record.pid].add(number)
    return sum(bool(seen[record.pid] - {number}) for record, number in zip(query, q_numbers, strict=True))


def _no_match(dataset: Dataset) -> str:
    count = len(dataset.query)
    if dataset.same_camera == "keep":
        return (
            f"{dataset.name} cannot be scored: none of the {count} queries has another image of its person in the "
            "gallery. Expected the same persons, under the same numbers, in both."
        )
    kept = _num_with_match(dataset, "keep")
    cameras = {record.camid + 1 for record in (*dataset.query, *dataset.scored_gallery)}
    found = (
        f"all images are of camera {min(cameras)}" if len(cameras) == 1 else f"found {len(cameras)} cameras"
    )
    advice = (
        f"With {_KEEP} images by the query's own camera count, too, and {kept} queries have a match."
        if kept
        else "Expected the same persons, under the same numbers, in both."
    )
    return (
        f"{dataset.name} cannot be scored: none of the {count} queries has an image of its person by another camera "
        f"in the gallery ({found}). {advice}"
    )
