"""k-reciprocal re-ranking.

After Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

Every image is described by who its reciprocal neighbors are; two images are near when those descriptions
overlap. The descriptions are a sparse N x N matrix (a few dozen entries a row). Distances between all images
are computed once for both directions, and only ever held a tile at a time.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from reidexport.errors import InputError
from reidexport.metrics.distances import Floats, checked_features, refuse_overflow, row_norms
from reidexport.metrics.kernels.nearest_kernels import NearestNeighbors, take_columns, take_rows
from reidexport.metrics.kernels.reciprocal_kernels import count_members, encode, mark_reciprocal
from reidexport.metrics.kernels.row_threads import OverRows, row_threads
from reidexport.metrics.kernels.sparse_rows import add_jaccard, empty_rows, mean_of_rows, transposed

_ROWS, _COLUMNS = 1024, 8192  # of a tile: 32 MiB of float32


def k_reciprocal(
    q_feats: npt.ArrayLike, g_feats: npt.ArrayLike, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> npt.NDArray[np.float32]:
    """Distances between queries and gallery after re-ranking, to be scored by ``evaluate_rank``.

    The original distance is the squared Euclidean one divided by the row's largest, as in
    reid-strong-baseline; scale rows to unit length first to re-rank by cosine. Leave junk (pid -1) out.

    Args:
        q_feats: (num_query, dim) floats.
        g_feats: (num_gallery, dim) floats.
        k1: how many neighbors can be reciprocal, at least 1.
        k2: over how many neighbors a description is averaged, 1 (not at all) to ``k1``.
        lambda_value: the share of the original distance in the result, in [0, 1].

    Returns:
        (num_query, num_gallery) float32, in [0, 1] up to rounding, smaller is nearer.

    Raises:
        InputError: features do not fit each other or are not finite, or an option is out of its range.
    """
    query, gallery = checked_features(q_feats, g_feats)
    if not (1 <= k2 <= k1 and 0 <= lambda_value <= 1):
        raise InputError(
            "Re-ranking needs 1 <= k2 <= k1 and 0 <= lambda_value <= 1, "
            f"got k1={k1}, k2={k2}, lambda_value={lambda_value}."
        )
    feats = np.concatenate([query, gallery])
    feats -= feats.mean(axis=0, dtype=np.float64).astype(feats.dtype)  # see distances.comparable_rows
    norms = row_norms(feats)
    refuse_overflow(norms[: len(query)], norms.max(), feats.dtype, "q_feats")
    refuse_overflow(norms[len(query) :], norms.max(), feats.dtype, "g_feats")
    with row_threads() as over_rows:
        neighbors, distmat = _neighbors(feats, len(query), k1, over_rows)
        # Each image as weights on its expanded set of reciprocal neighbors.
        wide = _reciprocal(neighbors.images, over_rows)
        half = _reciprocal(neighbors.images[:, : round(k1 / 2) + 1], over_rows)
        lengths = np.empty(len(feats), np.int64)
        over_rows(partial(count_members, wide, half, lengths), len(feats))
        encoding = empty_rows(lengths, feats.dtype)
        over_rows(partial(encode, feats, wide, half, neighbors.largest, encoding), len(feats))
        if k2 > 1:
            encoding = mean_of_rows(encoding, neighbors.images[:, :k2], over_rows)
        distmat *= lambda_value
        holders = transposed(encoding, len(query))
        over_rows(partial(add_jaccard, encoding, holders, 1 - lambda_value, distmat), len(query))
    return distmat


def _neighbors(
    feats: Floats, num_query: int, k1: int, over_rows: OverRows
) -> tuple[NearestNeighbors, npt.NDArray[np.float32]]:
    """The ``k1 + 1`` nearest of each row, and the distances of query x gallery by each query's largest."""
    num_images = len(feats)
    shape = num_images, min(k1 + 1, num_images)
    neighbors = NearestNeighbors(
        np.zeros(shape, np.int32),
        np.full(shape, np.inf, feats.dtype),
        np.full(num_images, np.finfo(feats.dtype).tiny),
    )
    squares = (row_norms(feats) ** 2).astype(feats.dtype)
    distmat = np.empty((num_query, num_images - num_query), np.float32)
    buffer = np.empty(_ROWS * _COLUMNS, feats.dtype)
    for row in range(0, num_images, _ROWS):
        part = feats[row : row + _ROWS]
        for column in range(row, num_images, _COLUMNS):
            others = feats[column : column + _COLUMNS]
            tile = buffer[: len(part) * len(others)].reshape(len(part), len(others))
            np.matmul(part, others.T, out=tile)
            over_rows(partial(take_rows, tile, squares, (row, column), neighbors), len(part))
            known = max(0, row + len(part) - column)  # the square on the diagonal has both directions
            rest = tile[:, known:]
            over_rows(partial(take_columns, rest, (row, column + known), neighbors), rest.shape[1])
            gallery = slice(max(0, num_query - column), None)
            first = max(column - num_query, 0)
            queries = tile[: max(0, num_query - row), gallery]
            distmat[row : row + len(queries), first : first + queries.shape[1]] = queries
    distmat /= neighbors.largest[:num_query, None]
    return neighbors, distmat


def _reciprocal(
    images: npt.NDArray[np.int32], over_rows: OverRows
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """The neighbors, and which of them have the row's image among theirs, too."""
    images = np.ascontiguousarray(images)
    is_reciprocal = np.empty(images.shape, bool)
    over_rows(partial(mark_reciprocal, images, is_reciprocal), len(images))
    return images, is_reciprocal
