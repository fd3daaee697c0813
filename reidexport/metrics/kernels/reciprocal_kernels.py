"""Sets of k-reciprocal neighbors, and weights on them, compiled; importing it needs numba.

An image's *reciprocal* neighbors are those of its nearest images that have it among their nearest, too.
"""

import numpy as np
from reidruntime.compiled import compiled

from reidexport.metrics.kernels.tile_kernels import squared_distance


@compiled
def mark_reciprocal(images, is_reciprocal, begin, end):  # type: ignore[no-untyped-def]
    """Images [begin, end): which of the neighbors in their row of ``images`` have them in theirs."""
    for image in range(begin, end):
        for place in range(images.shape[1]):
            is_reciprocal[image, place] = image in images[images[image, place]]


@compiled
def count_members(wide, half, lengths, begin, end):  # type: ignore[no-untyped-def]
    """Images [begin, end): the size of each image's expanded set of reciprocal neighbors."""
    core, added = np.full(len(lengths), -1, np.int32), np.full(len(lengths), -1, np.int32)
    members = np.empty(len(lengths), np.int32)
    for image in range(begin, end):
        lengths[image] = _expand(image, wide, half, core, added, members)


@compiled
def encode(feats, wide, half, largest, encoding, begin, end):  # type: ignore[no-untyped-def]
    """Images [begin, end): weights exp(-distance / largest), summing to 1, on each image's expanded set.

    ``wide`` is images (num_images, k1 + 1) and which of them are reciprocal, ``half`` the same of the nearer half,
    ``largest`` (num_images,) each image's largest distance; ``encoding``, rows as long as :func:`count_members` says,
    is written.
    """
    core, added = np.full(len(largest), -1, np.int32), np.full(len(largest), -1, np.int32)
    members = np.empty(len(largest), np.int32)
    for image in range(begin, end):
        size = _expand(image, wide, half, core, added, members)
        row = slice(encoding.starts[image], encoding.starts[image] + size)
        columns, values = encoding.columns[row], encoding.values[row]
        total = 0.0
        for i in range(size):
            columns[i] = members[i]
            values[i] = np.exp(-squared_distance(feats[image], feats[members[i]]) / largest[image])
            total += values[i]
        for i in range(size):
            values[i] /= total


@compiled
def _expand(image, wide, half, core, added, members):  # type: ignore[no-untyped-def]
    """Write an image's reciprocal neighbors, and those of each of them that it mostly shares, to ``members``.

    ``core`` and ``added`` hold for every image the last one whose set it was put into. Returns the number.
    """
    members[0] = image  # even when more than k1 exact copies come before the image itself
    core[image] = added[image] = image
    size = 1
    images, is_reciprocal = wide
    for place in range(images.shape[1]):
        other = images[image, place]
        if is_reciprocal[image, place] and other != image:
            core[other] = added[other] = image
            members[size] = other
            size += 1
    half_images, is_half_reciprocal = half
    for i in range(images.shape[1]):
        if not is_reciprocal[image, i]:
            continue
        other = images[image, i]
        num_theirs = num_shared = 0
        for place in range(half_images.shape[1]):
            if is_half_reciprocal[other, place]:
                num_theirs += 1
                num_shared += core[half_images[other, place]] == image
        if 3 * num_shared > 2 * num_theirs:
            for place in range(half_images.shape[1]):
                theirs = half_images[other, place]
                if is_half_reciprocal[other, place] and added[theirs] != image:
                    added[theirs] = image
                    members[size] = theirs
                    size += 1
    return size
