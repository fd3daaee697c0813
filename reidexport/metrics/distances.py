"""Distances between features, block by block, so that a whole matrix is held only by who asks for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from reidruntime.artifact.manifest import Metric

from reidexport.errors import InputError

Floats = npt.NDArray[np.floating[Any]]

_BLOCK_BYTES = 64 * 2**20
_CHECKED_ROWS = 1024


def checked_features(q_feats: npt.ArrayLike, g_feats: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Both feature sets as float32 (float64 if either has more digits), after checking that they fit each other.

    Raises:
        InputError: one is empty, not 2-D, not of numbers or not finite, or their dimensions differ.
    """
    query, gallery = _checked(q_feats, "q_feats"), _checked(g_feats, "g_feats")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"q_feats have {query.shape[1]} dimensions and g_feats {gallery.shape[1]}: "
            "they must come from the same model."
        )
    dtype = np.float64 if max(query.itemsize, gallery.itemsize) > 4 else np.float32
    return query.astype(dtype, copy=False), gallery.astype(dtype, copy=False)


def _checked(feats: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(feats)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise InputError(
            f"{name} must be a (number of images, dimension) array of floats, got {array.dtype} of shape {array.shape}."
        )
    for start in range(0, len(array), _CHECKED_ROWS):
        is_finite = np.isfinite(array[start : start + _CHECKED_ROWS]).all(axis=1)
        if not is_finite.all():
            row = start + int(np.argmin(is_finite))
            raise InputError(f"{name} hold NaN or infinity, first in row {row}: embed that image again.")
    return array


def distance_blocks(
    q_feats: Floats, g_feats: Floats, *, metric: Metric, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[slice, Floats]]:
    """The rows of the distance matrix, a block at a time, in the dtype of the features.

    Args:
        q_feats: (num_query, dim), from :func:`checked_features`.
        g_feats: (num_gallery, dim), likewise.
        metric: ``cosine`` for 1 - cosine similarity, in [0, 2]; ``euclidean`` for the squared Euclidean
            distance, which ranks as the distance itself does. Rounding can take a value just below 0.
        block_bytes: about how much memory one block may take.

    Yields:
        The slice of query rows, and their (len, num_gallery) distances, which the caller may overwrite.

    Raises:
        InputError: the metric is unknown.
    """
    center = center_of(g_feats, metric)
    left, right = comparable_rows(q_feats, center), comparable_rows(g_feats, center)
    rows = max(1, block_bytes // (right.shape[0] * right.itemsize))
    for start in range(0, left.shape[0], rows):
        part = slice(start, min(start + rows, left.shape[0]))
        block = left[part] @ right.T
        if center is None:
            np.subtract(1, block, out=block)
        else:
            block *= -2
            block += np.einsum("nd,nd->n", right, right)
            block += np.einsum("nd,nd->n", left[part], left[part])[:, None]
        yield part, block


def center_of(g_feats: Floats, metric: Metric) -> Floats | None:
    """What :func:`comparable_rows` subtracts: the mean for ``euclidean``, and None for ``cosine``.

    Raises:
        InputError: the metric is unknown.
    """
    if metric == "cosine":
        return None
    if metric == "euclidean":
        center: Floats = g_feats.mean(axis=0, dtype=np.float64).astype(g_feats.dtype)
        return center
    raise InputError(f"The metric must be cosine or euclidean, got {metric!r}.")


def comparable_rows(feats: Floats, center: Floats | None) -> Floats:
    """Rows whose products give the distances: of unit length, or without the center.

    |q|² + |g|² - 2qg cancels when all features share a large offset, which distances do not depend on.
    """
    return unit_rows(feats) if center is None else feats - center


def row_norms(feats: Floats) -> npt.NDArray[np.float64]:
    """The Euclidean norm of each row, in float64, whose squares do not overflow where float32's do."""
    norms: npt.NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", feats, feats, dtype=np.float64))
    return norms


def unit_rows(feats: Floats) -> Floats:
    """Rows scaled to unit length; a row of zeros stays zero, and is at cosine distance 1 from everything."""
    norms = row_norms(feats)
    return feats / np.where(norms > 0, norms, 1).astype(feats.dtype)[:, None]


def refuse_overflow(norms: npt.NDArray[np.float64], other: float, dtype: Any, name: str) -> None:
    """Raise if squared distances of features of these norms to one of norm ``other`` leave the dtype.

    Raises:
        InputError: they do; ``name`` is what the features are called.
    """
    is_small = (norms + other) ** 2 < np.finfo(dtype).max
    if not is_small.all():
        raise InputError(
            f"Distances overflow {np.dtype(dtype)}, first for row {int(np.argmin(is_small))} of {name}: "
            "the features are too large, or damaged."
        )


def distmat_from_features(
    q_feats: npt.ArrayLike, g_feats: npt.ArrayLike, *, metric: Metric = "cosine"
) -> Floats:
    """The whole (num_query, num_gallery) distance matrix; see :func:`distance_blocks` for its values.

    Raises:
        InputError: the features do not fit each other, or the metric is unknown.
    """
    query, gallery = checked_features(q_feats, g_feats)
    distmat = np.empty((len(query), len(gallery)), query.dtype)
    for part, block in distance_blocks(query, gallery, metric=metric):
        distmat[part] = block
    return distmat
