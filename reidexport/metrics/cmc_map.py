"""CMC, mAP and mINP: how well a query's own images are ranked among the gallery. Arrays in, numbers out.

For each query the gallery images that are ignored are *junk*: those of pid -1, and those of the query's own
person taken by the query's own camera. A *distractor* (pid 0) counts as a wrong answer like any other person.
A query that has no match in what is left is left out, and shows in ``num_valid_query``.
To let images of the query's own camera count, pass numbers of images in the place of cameras: then only a gallery image
with the query's number, the query itself, is junk.
Equal distances rank in gallery order, as ``numpy.argsort(kind="stable")`` ranks them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from reidgallery.input import checked_integers
from reidruntime.artifact.manifest import Metric

from reidexport.data.records import JUNK_PID
from reidexport.errors import InputError
from reidexport.metrics.distances import checked_features
from reidexport.metrics.kernels.ranking_kernels import Counts, Pairs, score_queries
from reidexport.metrics.ranking import counts_from_distances, counts_from_features
from reidexport.records.accuracy import Ranks


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """The scores of one evaluation; all are fractions in [0, 1].

    ``cmc`` is 0-based: ``cmc[k - 1]`` is the share of valid queries with a match among the first k images
    that are not junk. Its length is ``max_rank``, or the number of gallery images when there are fewer.
    Query by query, ``first_match_ranks`` (num_query,) is the rank of the nearest match, from 1, and
    ``average_precisions`` (num_query,) the AP; for a query without a match they are 0 and NaN.
    """

    cmc: npt.NDArray[np.float64]
    mAP: float
    mINP: float
    num_valid_query: int
    first_match_ranks: npt.NDArray[np.int64]
    average_precisions: npt.NDArray[np.float64]

    @property
    def rank1(self) -> float:
        """The share of queries whose nearest image is a match."""
        return self._rank(1)

    @property
    def rank5(self) -> float:
        """The share of queries with a match among the five nearest images."""
        return self._rank(5)

    @property
    def rank10(self) -> float:
        """The share of queries with a match among the ten nearest images."""
        return self._rank(10)

    def _rank(self, k: int) -> float:
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    @property
    def ranks(self) -> Ranks:
        """The scores as records hold them."""
        return Ranks(**self.as_dict())

    def as_dict(self) -> dict[str, float]:
        """The scores under the keys that every JSON file of this project uses."""
        return {name: getattr(self, name) for name in Ranks.model_fields}


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


def evaluate_rank(
    distmat: npt.ArrayLike,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """Score a distance matrix.

    The protocol is Market-1501's (Zheng et al., ICCV 2015); mINP is that of AGW (Ye et al., TPAMI 2021).

    Args:
        distmat: (num_query, num_gallery) numbers, smaller is nearer.
        q_pids: (num_query,) integers, the person on each query.
        g_pids: (num_gallery,) integers, the person on each gallery image; -1 is junk, 0 a distractor.
        q_camids: (num_query,) integers, the camera of each query.
        g_camids: (num_gallery,) integers, the camera of each gallery image.
        max_rank: how long the CMC curve is, at least 1.

    Raises:
        InputError: shapes or dtypes do not fit, a distance is NaN, or no query has a match.
    """
    distances = np.asarray(distmat)
    if distances.ndim != 2 or distances.dtype.kind not in "fiu":
        raise InputError(
            "distmat must be a (num_query, num_gallery) array of numbers, "
            f"got {distances.dtype} of shape {distances.shape}."
        )
    pairs = checked_pairs(distances.shape, q_pids, g_pids, q_camids, g_camids)
    max_rank = _checked_max_rank(max_rank, distances.shape[1])
    return _scores(pairs, counts_from_distances(distances, pairs), max_rank)


def rank_features(
    q_feats: npt.ArrayLike,
    g_feats: npt.ArrayLike,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
    max_rank: int = 50,
) -> RankMetrics:
    """Score features as :func:`evaluate_rank` scores their distances, never holding the distance matrix.

    Args:
        q_feats: (num_query, dim) floats; float64 features are compared in float64, others in float32.
        g_feats: (num_gallery, dim) floats.
        q_pids: (num_query,) integers.
        g_pids: (num_gallery,) integers; -1 is junk, 0 a distractor.
        q_camids: (num_query,) integers.
        g_camids: (num_gallery,) integers.
        metric: ``cosine`` or ``euclidean``.
        max_rank: how long the CMC curve is, at least 1.

    Raises:
        InputError: shapes or dtypes do not fit, a feature is not finite, the metric is unknown,
            or no query has a match.
    """
    query, gallery = checked_features(q_feats, g_feats)
    pairs = checked_pairs((len(query), len(gallery)), q_pids, g_pids, q_camids, g_camids)
    max_rank = _checked_max_rank(max_rank, len(gallery))
    return _scores(pairs, counts_from_features(query, gallery, pairs, metric), max_rank)


def _scores(pairs: Pairs, counts: Counts, max_rank: int) -> RankMetrics:
    """Average over the queries that have a match."""
    num_query = len(pairs.starts) - 1
    first_ranks = np.empty(num_query, np.int64)
    precisions, penalties = np.empty(num_query), np.empty(num_query)
    score_queries(pairs, counts, first_ranks, precisions, penalties)
    is_valid = first_ranks >= 0
    num_valid = int(is_valid.sum())
    if num_valid == 0:
        raise InputError(
            f"None of the {num_query} queries has a match in the gallery: an image of the same "
            "person from another camera, or where images stand for cameras, another image of the same person. Check "
            "that pids and camids are those of these images, in this order."
        )
    hits = np.bincount(first_ranks[is_valid], minlength=max_rank)[:max_rank]
    return RankMetrics(
        np.cumsum(hits) / num_valid,
        float(precisions[is_valid].mean()),
        float(penalties[is_valid].mean()),
        num_valid,
        first_ranks + 1,
        np.where(is_valid, precisions, np.nan),
    )


def _checked_max_rank(max_rank: int, num_gallery: int) -> int:
    """``max_rank``, cut to the size of the gallery."""
    if max_rank < 1:
        raise InputError(f"max_rank must be at least 1, got {max_rank}.")
    return min(max_rank, num_gallery)
