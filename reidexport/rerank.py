"""k-reciprocal re-ranking.

After Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

Every image is described by who its reciprocal neighbours are; two images are near when those descriptions
overlap. The descriptions are a sparse N x N matrix (a few dozen entries a row), and distances between all
images are only ever held a block of rows at a time.
"""

import numpy as np
import numpy.typing as npt

from reidexport.distances import Floats, checked_features, distance_blocks
from reidexport.errors import InputError
from reidexport.sparse_rows import Indices, SparseRows, entries_of, mean_of_rows, transposed

_BLOCK_BYTES = 32 * 2**20


def k_reciprocal(
    q_feats: npt.ArrayLike, g_feats: npt.ArrayLike, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> npt.NDArray[np.float32]:
    """Distances between queries and gallery after re-ranking, to be scored by ``evaluate_rank``.

    The original distance is the squared Euclidean one divided by the row's largest, as in
    reid-strong-baseline; scale rows to unit length first to re-rank by cosine. Leave junk (pid -1) out.

    Args:
        q_feats: (num_query, dim) floats.
        g_feats: (num_gallery, dim) floats.
        k1: how many neighbours can be reciprocal, at least 1.
        k2: over how many neighbours a description is averaged, 1 (not at all) to ``k1``.
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
    neighbours, largest, distmat = _neighbours(feats, len(query), k1)
    encoding = _encode(feats, neighbours, largest, k1)
    if k2 > 1:
        encoding = mean_of_rows(encoding, neighbours[:, :k2])
    distmat *= lambda_value
    _add_jaccard(distmat, encoding, 1 - lambda_value)
    return distmat


def _neighbours(feats: Floats, num_query: int, k1: int) -> tuple[Indices, Floats, npt.NDArray[np.float32]]:
    """The ``k1 + 1`` nearest of each row (itself first), each row's largest distance, and query x gallery."""
    num_images = len(feats)
    nearest = np.empty((num_images, min(k1 + 1, num_images)), np.int64)
    largest = np.empty(num_images, feats.dtype)
    distmat = np.empty((num_query, num_images - num_query), np.float32)
    for part, block in distance_blocks(feats, feats, metric="euclidean", block_bytes=_BLOCK_BYTES):
        np.maximum(block, 0, out=block)
        block[np.arange(len(block)), np.arange(part.start, part.stop)] = 0
        largest[part] = np.maximum(block.max(axis=1), np.finfo(feats.dtype).tiny)
        nearest[part] = _nearest(block, nearest.shape[1])
        queries = slice(part.start, min(part.stop, num_query))
        if queries.start < num_query:
            rows = block[: queries.stop - queries.start, num_query:]
            distmat[queries] = rows / largest[queries, None]
    return nearest, largest, distmat


def _nearest(block: Floats, count: int) -> Indices:
    """The columns of the ``count`` smallest of each row in order, equal ones by column."""
    # The bits of a non-negative float32 order as it does; with the column below them, ties are ordered too.
    bits = (block.astype(np.float32) + np.float32(0)).view(np.uint32)
    keys = (bits.astype(np.uint64) << np.uint64(32)) | np.arange(block.shape[1], dtype=np.uint64)
    if count < block.shape[1]:
        keys.partition(count - 1, axis=1)
    smallest = np.sort(keys[:, :count], axis=1)
    return (smallest & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _encode(feats: Floats, neighbours: Indices, largest: Floats, k1: int) -> SparseRows:
    """Each image as weights exp(-distance), summing to 1, on its expanded set of reciprocal neighbours."""
    wide = _is_reciprocal(neighbours)
    half = neighbours[:, : round(k1 / 2) + 1]
    half_reciprocal = _is_reciprocal(half)
    num_images = len(feats)
    chunk = max(1, _BLOCK_BYTES // num_images)
    counts, columns, values = [], [], []
    for start in range(0, num_images, chunk):
        images = np.arange(start, min(start + chunk, num_images))
        members = _expanded(images, neighbours, wide, half, half_reciprocal)
        row, column = np.nonzero(members)
        weight = np.exp(-_pair_distances(feats, images[row], column) / largest[images[row]])
        total = np.bincount(row, weight, minlength=len(images))
        counts.append(members.sum(axis=1))
        columns.append(column)
        values.append((weight / total[row]).astype(feats.dtype))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return SparseRows(starts, np.concatenate(columns), np.concatenate(values))


def _is_reciprocal(neighbours: Indices) -> npt.NDArray[np.bool_]:
    """For each (image, neighbour): is the image among that neighbour's neighbours too?"""
    reciprocal = np.empty(neighbours.shape, bool)
    for start in range(0, len(neighbours), 4096):
        part = neighbours[start : start + 4096]
        images = np.arange(start, start + len(part))
        reciprocal[start : start + len(part)] = (neighbours[part] == images[:, None, None]).any(axis=2)
    return reciprocal


def _expanded(
    images: Indices,
    neighbours: Indices,
    wide: npt.NDArray[np.bool_],
    half: Indices,
    half_reciprocal: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Membership, (len(images), N), in each reciprocal set and in those of its members that it mostly holds."""
    row = np.arange(len(images))[:, None]
    members = np.zeros((len(images), len(neighbours)), bool)
    members[row, neighbours[images]] = wide[images]
    members[row[:, 0], images] = True  # even when more than k1 exact copies come before the image itself
    row, rank = np.nonzero(wide[images])
    candidate = neighbours[images[row], rank]
    theirs, valid = half[candidate], half_reciprocal[candidate]
    shared = (members[row[:, None], theirs] & valid).sum(axis=1)
    accepted = 3 * shared > 2 * valid.sum(axis=1)
    adding = valid & accepted[:, None]
    members[np.broadcast_to(row[:, None], theirs.shape)[adding], theirs[adding]] = True
    return members


def _pair_distances(feats: Floats, left: Indices, right: Indices) -> Floats:
    """Squared Euclidean distances of pairs of rows."""
    distances = np.empty(len(left), feats.dtype)
    step = max(1, _BLOCK_BYTES // (feats.shape[1] * feats.itemsize))
    for start in range(0, len(left), step):
        pairs = slice(start, start + step)
        difference = feats[left[pairs]] - feats[right[pairs]]
        distances[pairs] = np.einsum("nd,nd->n", difference, difference)
    return distances


def _add_jaccard(distmat: npt.NDArray[np.float32], encoding: SparseRows, share: float) -> None:
    """Add ``share`` times the Jaccard distance of the descriptions, 1 - Σ min / Σ max, to ``distmat``."""
    num_query, num_gallery = distmat.shape
    holders = transposed(encoding, num_query)
    for i in range(num_query):
        mine = slice(encoding.starts[i], encoding.starts[i + 1])
        entries, owner = entries_of(holders, encoding.columns[mine])
        least = np.minimum(encoding.values[mine][owner], holders.values[entries])
        overlap = np.bincount(holders.columns[entries], least, minlength=num_gallery)
        # Both descriptions sum to 1, so the sum of the larger ones is 2 - overlap.
        distmat[i] += share * (1 - overlap / (2 - overlap))
