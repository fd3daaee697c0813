"""How much of what is nearest an index finds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reidgallery.gallery import Gallery
from reidgallery.milvus.gallery import MilvusGallery

_ROUNDING = 1e-5  # Milvus' distances are of float32


class Recall(NamedTuple):
    """Of the ``k`` rows that are nearest to each of ``num_queries`` rows, the share that a search finds.

    Where a gallery has no other row to find, that is 1.
    """

    share: float
    k: int
    num_queries: int


def measured_recall(
    gallery: MilvusGallery,
    *,
    k: int = 10,
    num_queries: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Recall:
    """Compare a gallery's answers with exact ones, on rows of its own.

    The queries are drawn from the rows, and the row itself does not count. All rows are read once, a part at a time,
    and searched here. A row that is as near as the k-th nearest counts as found.

    Args:
        gallery: with any index.
        k: how many rows to find, at least 1.
        num_queries: how many rows to ask for, at most.
        seed: of the draw.
        progress: called with the number of rows read.

    Raises:
        InputError: Milvus fails on the way.
    """
    numbers, queries = gallery.sample(num_queries, seed)
    nearest = np.full((len(queries), k), np.inf, np.float32)
    done = 0
    for rows, part in gallery.numbered_parts():
        here = Gallery(gallery.dim, metric=gallery.metric)
        here.add(part.embeddings)
        exact = here.search(queries, k + 1)
        is_other = (exact.indices >= 0) & (rows[exact.indices] != numbers[:, None])
        distances = np.where(is_other, exact.distances, np.inf)
        nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, :k]
        done += len(rows)
        if progress:
            progress(done)
    found = gallery.search(queries, k + 1)
    limits = nearest.max(axis=1, initial=0, where=np.isfinite(nearest))
    is_near = found.distances <= (limits + _ROUNDING * (1 + np.abs(limits)))[:, None]
    is_hit = is_near & (found.indices >= 0) & (found.indices != numbers[:, None])
    expected = np.isfinite(nearest).sum(axis=1)
    hits = np.minimum(is_hit.sum(axis=1), expected)
    share = float(hits.sum() / expected.sum()) if expected.any() else 1.0
    return Recall(share, k, len(queries))
