"""Which pairs of a query and a gallery image the labels make: who is on each image, and who took it."""

import numpy as np
import numpy.typing as npt
from reidgallery.input import checked_integers

from reidexport.data.records import JUNK_PID
from reidexport.metrics.kernels.ranking_kernels import Pairs


def checked_pairs(
    shape: tuple[int, ...],
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> Pairs:
    """The pairs of a (num_query, num_gallery) evaluation, in the order of the queries, and of the gallery for each.

    Raises:
        InputError: one of the labels is not a row of integers of the right length.
    """
    num_query, num_gallery = shape
    q_people = checked_integers(q_pids, "q_pids", num_query)
    g_people = checked_integers(g_pids, "g_pids", num_gallery)
    q_cameras = checked_integers(q_camids, "q_camids", num_query)
    g_cameras = checked_integers(g_camids, "g_camids", num_gallery)
    kept = np.flatnonzero(g_people != JUNK_PID)
    g_people, g_cameras = g_people[kept], g_cameras[kept]
    by_pid = np.argsort(g_people, kind="stable")
    first = np.searchsorted(g_people, q_people, "left", sorter=by_pid)
    lengths = np.searchsorted(g_people, q_people, "right", sorter=by_pid) - first
    starts = np.concatenate([[0], np.cumsum(lengths)])
    query = np.repeat(np.arange(num_query), lengths)
    columns = by_pid[np.arange(len(query)) - starts[query] + first[query]]
    return Pairs(kept, starts, columns, g_cameras[columns] != q_cameras[query])
