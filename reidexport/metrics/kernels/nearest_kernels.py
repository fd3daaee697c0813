"""The nearest images of every image, from tiles of products, compiled; importing it needs numba."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reidruntime.compiled import compiled

from reidexport.metrics.kernels.ranking_kernels import num_below

_CHUNK = 64  # columns that are looked at together: most of the time none of them is near enough


class NearestNeighbors(NamedTuple):
    """What is known of every image once all distances have gone by.

    Attributes:
        images: (num_images, count) int32, the nearest in order, usually itself first; equal ones by number.
        distances: (num_images, count) squared Euclidean distances to them.
        largest: (num_images,) the distance to the one that is farthest away.
    """

    images: npt.NDArray[np.int32]
    distances: npt.NDArray[np.floating[Any]]
    largest: npt.NDArray[np.floating[Any]]


@compiled
def take_rows(tile, squares, corner, neighbors, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end): turn products of features into distances, and update the rows' images with them.

    The products in ``tile``, (rows, width), are replaced by squared Euclidean distances, for which ``squares`` are the
    squared norms of all features. ``corner`` holds the images of the tile's first row and first column: the neighbors
    so far are images before the latter.
    """
    farthest = np.empty(_CHUNK, tile.dtype)  # of a chunk's columns, each on its own, for vector instructions
    for i in range(begin, end):
        image, row = corner[0] + i, tile[i]
        _turn_into_distances(row, squares[image], squares[corner[1] : corner[1] + row.size])
        if 0 <= image - corner[1] < row.size:
            row[image - corner[1]] = 0
        farthest[:] = neighbors.largest[image]
        for start in range(0, row.size, _CHUNK):
            chunk = row[start : start + _CHUNK]
            _raise_to(farthest, chunk)
            if num_below(chunk, neighbors.distances[image, -1]) > 0:
                for j in range(chunk.size):
                    _insert(neighbors, image, corner[1] + start + j, chunk[j])
        neighbors.largest[image] = farthest.max()


@compiled
def _turn_into_distances(row, square, others):  # type: ignore[no-untyped-def]
    for j in range(row.size):
        distance = square + others[j] - (row[j] + row[j])
        row[j] = distance if distance > 0 else np.float32(0)


@compiled
def _raise_to(farthest, distances):  # type: ignore[no-untyped-def]
    for j in range(distances.size):
        farthest[j] = distances[j] if distances[j] > farthest[j] else farthest[j]


@compiled
def take_columns(tile, corner, neighbors, begin, end):  # type: ignore[no-untyped-def]
    """Columns [begin, end): update the columns' images with the rows, which come after those known so far."""
    images = slice(corner[1] + begin, corner[1] + end)
    largest = neighbors.largest[images]
    limits = neighbors.distances[images, -1].copy()
    for i in range(tile.shape[0]):
        row = tile[i, begin:end]
        _raise_to(largest, row)
        for start in range(0, row.size, _CHUNK):
            chunk, limit = row[start : start + _CHUNK], limits[start : start + _CHUNK]
            if _any_below_each(chunk, limit):
                for j in range(chunk.size):
                    if chunk[j] < limit[j]:
                        _insert(neighbors, images.start + start + j, corner[0] + i, chunk[j])
                        limit[j] = neighbors.distances[images.start + start + j, -1]


@compiled
def _any_below_each(distances, limits):  # type: ignore[no-untyped-def]
    number = np.int32(0)
    for j in range(distances.size):
        number = np.int32(number + (distances[j] < limits[j]))
    return number > 0


@compiled
def _insert(neighbors, image, other, distance):  # type: ignore[no-untyped-def]
    distances, images = neighbors.distances[image], neighbors.images[image]
    place = distances.size - 1
    if not distance < distances[place]:
        return
    while place > 0 and distance < distances[place - 1]:
        distances[place], images[place] = distances[place - 1], images[place - 1]
        place -= 1
    distances[place], images[place] = distance, other
