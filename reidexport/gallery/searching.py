"""Search a gallery: what was found for each query, by its images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from reidgallery import Gallery, MilvusGallery, Neighbors, SearchFilter
from reidgallery.input import ALL_ROWS, UNLABELED

from reidexport.records.embeddings import Hit, SeenImage

Rows = NDArray[np.int64]


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
    return answers_from_neighbors(query_images, found, lambda rows: seen_images(gallery, rows), threshold)


def answers_from_neighbors(
    queries: Iterable[SeenImage],
    found: Neighbors,
    images_of: Callable[[Rows], list[SeenImage]],
    threshold: float = np.inf,
) -> list[Answer]:
    """What was found for each query; ``images_of`` are those of some rows of the gallery."""
    answers = []
    for query, rows, distances in zip(queries, *found, strict=True):
        is_hit = (rows >= 0) & (distances <= threshold)
        images = zip(images_of(rows[is_hit]), rows[is_hit], distances[is_hit], strict=True)
        hits = tuple(
            Hit(**vars(image), rank=rank, row=int(row), distance=float(distance))
            for rank, (image, row, distance) in enumerate(images, 1)
        )
        answers.append(Answer(query, hits))
    return answers


def seen_images(gallery: Gallery | MilvusGallery, rows: Rows) -> list[SeenImage]:
    """Some rows of a gallery as images."""
    *ids, paths = gallery.labels(rows)
    pids, camids, times = (
        [None if label == UNLABELED else label for label in column.tolist()] for column in ids
    )
    return list(map(SeenImage, paths, pids, camids, times))
