"""Who is on each image and who took it; which pairs of a query and a gallery image that makes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from reidgallery.input import checked_integers

from reidexport.data.records import JUNK_PID
from reidexport.metrics.kernels.ranking_kernels import Pairs

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """The person and the camera of each query and each gallery image."""

    q_pids: Ints
    g_pids: Ints
    q_camids: Ints
    g_camids: Ints


def pairs_from_labels(labels: Labels) -> Pairs:
    """The pairs in the order of the queries, and of the gallery for each query."""
    kept = np.flatnonzero(labels.g_pids != JUNK_PID)
    g_pids, g_camids = labels.g_pids[kept], labels.g_camids[kept]
    by_pid = np.argsort(g_pids, kind="stable")
    first = np.searchsorted(g_pids, labels.q_pids, "left", sorter=by_pid)
    lengths = np.searchsorted(g_pids, labels.q_pids, "right", sorter=by_pid) - first
    starts = np.concatenate([[0], np.cumsum(lengths)])
    query = np.repeat(np.arange(len(lengths)), lengths)
    columns = by_pid[np.arange(len(query)) - starts[query] + first[query]]
    return Pairs(kept, starts, columns, g_camids[columns] != labels.q_camids[query])


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
        checked_integers(q_pids, "q_pids", num_query),
        checked_integers(g_pids, "g_pids", num_gallery),
        checked_integers(q_camids, "q_camids", num_query),
        checked_integers(g_camids, "g_camids", num_gallery),
    )
