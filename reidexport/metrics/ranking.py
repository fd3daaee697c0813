"""How many images are before each match of a query, which is all that CMC, AP and INP need.

Nothing is sorted: the rank of an image is the number of images before it, and counting those is quicker.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from reidruntime.artifact.manifest import Metric

from reidexport.errors import InputError
from reidexport.metrics.distances import Floats, center_of, comparable_rows, refuse_overflow, row_norms
from reidexport.metrics.kernels.ranking_kernels import Counts, Pairs, count_in_rows
from reidexport.metrics.kernels.row_threads import row_threads
from reidexport.metrics.kernels.tile_kernels import Features, count_in_tile, measure_pairs, prepare_tile

Float64s = npt.NDArray[np.float64]

# Of a tile, 64 MiB of float32: as fast to multiply as the whole matrix. After each product the threads of the BLAS wait
# for the next one busily and take CPU time from ours, so tiles are few.
_ROWS, _COLUMNS = 4096, 4096


def counts_from_distances(distances: npt.NDArray[Any], pairs: Pairs) -> Counts:
    """Count in a distance matrix.

    Raises:
        InputError: a distance is NaN.
    """
    distances = np.ascontiguousarray(distances, _compiled_dtype(distances.dtype))
    num_pairs = len(pairs.columns)
    counts = Counts(np.zeros(num_pairs, distances.dtype), np.zeros(num_pairs, np.int64))
    has_nan = np.zeros(len(distances), bool)
    with row_threads() as over_rows:
        over_rows(partial(count_in_rows, distances, pairs, counts, has_nan), len(distances))
    if has_nan.any():
        row = int(np.argmax(has_nan))
        raise InputError(f"Distances are NaN, first for query {row}: its features overflow or are damaged.")
    return counts


def _compiled_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The one of four dtypes for which the kernel is compiled; only long double loses digits."""
    if dtype.kind == "f":
        return np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)
    return np.dtype(np.int64 if dtype.kind == "i" else np.uint64)


def counts_from_features(q_feats: Floats, g_feats: Floats, pairs: Pairs, metric: Metric) -> Counts:
    """Count in the products of features, a tile at a time.

    A product rounds differently from one tile, thread or processor to the next. It decides only what is beyond the
    reach of rounding (see :func:`_slack`); what comes closer to a match is measured pair by pair in float64. So ranks
    depend on the features alone, and copies of a feature tie.

    Features are those of :func:`reidexport.metrics.distances.checked_features`, and ``pairs`` those of their labels.

    Raises:
        InputError: the metric is unknown, or the distances overflow the dtype of the features.
    """
    center = center_of(g_feats, metric)
    features = Features(np.ascontiguousarray(q_feats), np.ascontiguousarray(g_feats), center is None)
    left = comparable_rows(features.query, center)
    left *= -1 if center is None else -2
    q_norms = row_norms(left)
    counts = Counts(np.zeros(len(pairs.columns)), np.zeros(len(pairs.columns), np.int64))
    ranking = features, pairs, counts
    subtracted = np.zeros(left.shape[1], left.dtype) if center is None else center
    products = np.empty(_ROWS * _COLUMNS, left.dtype)
    right, g_norms = np.empty((_COLUMNS, left.shape[1]), left.dtype), np.empty(_COLUMNS)
    with row_threads() as over_rows:
        over_rows(partial(measure_pairs, features, pairs, counts.values), len(left))
        owner = np.repeat(np.arange(len(left)), np.diff(pairs.starts))
        if center is None:
            norms = row_norms(features.query)
            values = counts.values / np.where(norms > 0, norms, 1)[owner]
        else:
            values = counts.values - (q_norms**2 / 4)[owner]
        for column in range(0, len(pairs.kept), _COLUMNS):
            images = pairs.kept[column : column + _COLUMNS]
            right, g_norms = right[: len(images)], g_norms[: len(images)]
            over_rows(partial(prepare_tile, features, images, subtracted, right, g_norms), len(images))
            refuse_overflow(q_norms, g_norms.max(), left.dtype, "q_feats")
            terms = (np.zeros(len(right)) if center is None else g_norms**2).astype(left.dtype)
            slack = _slack(left, q_norms, g_norms.max())[owner]
            bounds = np.stack([values - slack, values + slack]).astype(left.dtype)
            for row in range(0, len(left), _ROWS):
                part = left[row : row + _ROWS]
                tile = products[: len(part) * len(right)].reshape(len(part), len(right))
                np.matmul(part, right.T, out=tile)
                over_rows(partial(count_in_tile, tile, terms, (row, column), bounds, ranking), len(part))
    return counts


def _slack(left: Floats, q_norms: Float64s, g_norm: float) -> Float64s:
    """How far rounding can take a product of each row of ``left`` from the exact distance.

    ``q_norms`` are the norms of these rows, ``g_norm`` is the largest of a right factor.
    """
    limits, dim = np.finfo(left.dtype), left.shape[1]
    unit = (limits.eps + np.finfo(np.float64).eps) / 2
    # A sum of n products errs by at most n units of |q||g|, in whatever order it is taken (Jeannerod and Rump, SIAM J.
    # Matrix Anal. Appl. 2013), and each product by the least number where it underflows.
    of_sum = dim * q_norms * g_norm
    bound: Float64s = unit * (of_sum + 16 * (q_norms + g_norm) ** 2) + (dim + 1) * limits.tiny
    return bound
