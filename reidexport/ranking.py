"""The rank of every match of a query, which is all that CMC, AP and INP need.

Nothing is sorted: the rank of an image is the number of images before it, and counting those is quicker.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reidexport.errors import InputError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """The person and the camera of each query and each gallery image."""

    q_pids: Ints
    g_pids: Ints
    q_camids: Ints
    g_camids: Ints


def match_ranks(
    row: npt.NDArray[Any], same_pid: npt.NDArray[np.bool_], same_camid: npt.NDArray[np.bool_]
) -> Ints:
    """The 0-based ranks of the matches among what is not junk, in increasing order."""
    matches = np.flatnonzero(same_pid & ~same_camid)
    junk = np.flatnonzero(same_pid & same_camid)
    ranks = [_num_before(row, match) - _num_junk_before(row, junk, match) for match in matches]
    return np.sort(np.array(ranks, np.int64))


def _num_before(row: npt.NDArray[Any], index: np.intp) -> int:
    nearer = np.count_nonzero(row < row[index])
    return int(nearer + np.count_nonzero(row[:index] == row[index]))


def _num_junk_before(row: npt.NDArray[Any], junk: npt.NDArray[np.intp], index: np.intp) -> int:
    distances = row[junk]
    before = (distances < row[index]) | ((distances == row[index]) & (junk < index))
    return int(np.count_nonzero(before))


def checked_labels(
    shape: tuple[int, ...],
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> Labels:
    """The labels of a (num_query, num_gallery) evaluation as int64.

    Raises:
        InputError: one is not a row of integers of the right length.
    """
    num_query, num_gallery = shape
    return Labels(
        _checked_ids(q_pids, "q_pids", num_query),
        _checked_ids(g_pids, "g_pids", num_gallery),
        _checked_ids(q_camids, "q_camids", num_query),
        _checked_ids(g_camids, "g_camids", num_gallery),
    )


def _checked_ids(ids: npt.ArrayLike, name: str, length: int) -> Ints:
    array = np.asarray(ids)
    if array.shape != (length,) or (array.dtype.kind not in "iu" and length > 0):
        raise InputError(f"{name} must be {length} integers, got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def checked_max_rank(max_rank: int, num_gallery: int) -> int:
    """``max_rank``, cut to the size of the gallery.

    Raises:
        InputError: it is less than 1.
    """
    if max_rank < 1:
        raise InputError(f"max_rank must be at least 1, got {max_rank}.")
    return min(max_rank, num_gallery)
