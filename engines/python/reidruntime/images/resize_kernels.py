"""The compiled part of :mod:`reidruntime.images.resize`; importing it needs numba.

All kernels release the interpreter lock, so that worker threads resize while the network runs.
"""

import numpy as np

from reidruntime.compiled import compiled

PRECISION_BITS = 22  # Pillow's: 32 - 8 bits of pixel - 2 bits of head room
_HALF = 1 << (PRECISION_BITS - 1)


@compiled
def resample_rows(image, starts, counts, weights, out):  # type: ignore[no-untyped-def]
    """Horizontal pass: (H, W, 3) -> (H, len(starts), 3), uint8."""
    for y in range(image.shape[0]):
        for x in range(starts.size):
            red = green = blue = np.int64(_HALF)
            for k in range(counts[x]):
                weight = weights[x, k]
                column = starts[x] + k
                red += image[y, column, 0] * weight
                green += image[y, column, 1] * weight
                blue += image[y, column, 2] * weight
            out[y, x, 0] = min(max(red >> PRECISION_BITS, 0), 255)
            out[y, x, 1] = min(max(green >> PRECISION_BITS, 0), 255)
            out[y, x, 2] = min(max(blue >> PRECISION_BITS, 0), 255)


@compiled
def resample_columns(image, starts, counts, weights, out):  # type: ignore[no-untyped-def]
    """Vertical pass over rows of flattened pixels: (H, W * 3) -> (len(starts), W * 3), uint8."""
    total = np.empty(image.shape[1], np.int32)
    for y in range(starts.size):
        total[:] = _HALF
        for k in range(counts[y]):
            weight = weights[y, k]
            row = image[starts[y] + k]
            for i in range(total.size):
                total[i] += row[i] * weight
        for i in range(total.size):
            out[y, i] = min(max(total[i] >> PRECISION_BITS, 0), 255)


@compiled
def double_bilinear(image, out):  # type: ignore[no-untyped-def]
    """Both passes of the exact 2x bilinear upscale, (H, W, 3) -> (2H, 2W, 3): every weight is 1/4 or 3/4.

    That is the step from a 128x64 crop of Market-1501 to a 256x128 input. Pillow's (3 a + b + 2) >> 2 is
    the rounded mean of a and the cut-off mean of both: the compiler has byte-wide instructions for means.
    """
    height, length = image.shape[0], 3 * image.shape[1]
    rows, doubled = image.reshape(height, length), out.reshape(2 * height, 2 * length)
    near_left, near_right = np.empty(length, np.uint8), np.empty(length, np.uint8)
    wide = np.empty((2, 2 * length), np.uint8)  # the row before and this one, both doubled in length
    for y in range(height):
        new, old = y & 1, 1 - (y & 1)
        for i in range(length - 3):
            left, right = np.uint32(rows[y, i]), np.uint32(rows[y, i + 3])
            mean = (left + right) >> 1
            near_left[i] = (left + mean + 1) >> 1
            near_right[i] = (right + mean + 1) >> 1
        for c in range(3):
            wide[new, c] = rows[y, c]
            wide[new, 2 * length - 3 + c] = rows[y, length - 3 + c]
        for x in range(
            image.shape[1] - 1
        ):  # written out: as a loop over channels it takes three times as long
            i, o = 3 * x, 6 * x + 3
            wide[new, o] = near_left[i]
            wide[new, o + 1] = near_left[i + 1]
            wide[new, o + 2] = near_left[i + 2]
            wide[new, o + 3] = near_right[i]
            wide[new, o + 4] = near_right[i + 1]
            wide[new, o + 5] = near_right[i + 2]
        if y == 0:
            doubled[0] = wide[new]
            continue
        for i in range(2 * length):
            upper, lower = np.uint32(wide[old, i]), np.uint32(wide[new, i])
            mean = (upper + lower) >> 1
            doubled[2 * y - 1, i] = (upper + mean + 1) >> 1
            doubled[2 * y, i] = (lower + mean + 1) >> 1
    doubled[2 * height - 1] = wide[(height - 1) & 1]
