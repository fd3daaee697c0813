"""Search a gallery and show what was found: per query its nearest images, as objects or a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidgallery.input import ALL_ROWS, UNLABELED

from reidexport.errors import InputError
from reidexport.gallery.contact_sheets import (
    QUERY_COLOR,
    RIGHT_COLOR,
    WRONG_COLOR,
    Cell,
    contact_sheet,
    person_and_camera,
)
from reidexport.records.embeddings import Hit, SeenImage

_LABEL_LENGTH = 14  # letters that fit under a thumbnail


@dataclass(frozen=True)
class Answer:
    """A query and what was found for it, nearest first."""

    query: SeenImage
    hits: tuple[Hit, ...]


def search_gallery(
    gallery: Gallery | MilvusGallery,
    queries: Gallery,
    k: int = 10,
    *,
    filter: SearchFilter = ALL_ROWS,
    threshold: float = np.inf,
) -> list[Answer]:
    """Find the nearest gallery images of every row of another gallery.

    Args:
        gallery: where to search.
        queries: what to search for.
        k: how many images to find, at least 1.
        filter: which images may be found.
        threshold: only images at this distance or less.

    Raises:
        InputError: the two are of different artifacts, or a filter needs cameras or times that are not known.
    """
    if len(queries) == 0:
        return []
    found = gallery.search(
        np.concatenate(queries.parts),
        k,
        filter=filter,
        camids=queries.camids,
        manifest_sha256=queries.manifest_sha256,
    )
    query_images = seen_images(queries, np.arange(len(queries)))
    answers = []
    for query, rows, distances in zip(query_images, found.indices, found.distances, strict=True):
        is_hit = (rows >= 0) & (distances <= threshold)
        images = zip(seen_images(gallery, rows[is_hit]), rows[is_hit], distances[is_hit], strict=True)
        hits = tuple(
            Hit(**vars(image), rank=rank, row=int(row), distance=float(distance))
            for rank, (image, row, distance) in enumerate(images, 1)
        )
        answers.append(Answer(query, hits))
    return answers


def seen_images(gallery: Gallery | MilvusGallery, rows: NDArray[np.int64]) -> list[SeenImage]:
    """Some rows of a gallery as images."""
    *ids, paths = gallery.labels(rows)
    pids, camids, times = (
        [None if label == UNLABELED else label for label in column.tolist()] for column in ids
    )
    return list(map(SeenImage, paths, pids, camids, times))


def answers_sheet(answers: Sequence[Answer], *, num_ranks: int, height_px: int = 192) -> Image.Image:
    """Draw queries, a row each, with what was found: green frames are the query's person, red ones another.

    Frames are gray where a person is not known.

    Raises:
        ImageError: an image cannot be read.
        InputError: an image has no path.
    """
    rows = []
    for answer in answers:
        row = [_cell(answer.query, QUERY_COLOR, "")]
        for hit in answer.hits[:num_ranks]:
            known = answer.query.pid is not None and hit.pid is not None
            color = RIGHT_COLOR if hit.pid == answer.query.pid else WRONG_COLOR
            row.append(_cell(hit, color if known else QUERY_COLOR, f"{hit.distance:.3f}"))
        rows.append(row)
    return contact_sheet(rows, num_ranks=num_ranks, height_px=height_px)


def _cell(image: SeenImage, color: str, note: str) -> Cell:
    if not image.path:
        raise InputError("A contact sheet shows image files, but an image of the gallery has no path.")
    path = Path(image.path)
    if image.pid is None or image.camid is None:
        return Cell(path, color, path.stem[-_LABEL_LENGTH:], note)
    return Cell(path, color, person_and_camera(image.pid, image.camid), note)
