"""The compiled half of :mod:`reidruntime.resize`; importing it needs numba.

All kernels release the interpreter lock, so that worker threads resize while the network runs.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

PRECISION_BITS = 22  # Pillow's: 32 - 8 bits of pixel - 2 bits of head room
_HALF = 1 << (PRECISION_BITS - 1)


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder is writable: neither the install folder nor the user's cache
        return numba.njit(nogil=True)(function)


@_compiled
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


@_compiled
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


@_compiled
def double_bilinear(image, out):  # type: ignore[no-untyped-def]
    """Both passes of the exact 2x bilinear upscale, (H, W, 3) -> (2H, 2W, 3): every weight is 1/4 or 3/4.

    That is the step from a 128x64 crop of Market-1501 to a 256x128 input.
    """
    height, width = image.shape[0], image.shape[1]
    wide = np.empty((height, 2 * width * 3), np.uint8)
    for y in range(height):
        for c in range(3):
            wide[y, c] = image[y, 0, c]
            wide[y, 6 * width - 3 + c] = image[y, width - 1, c]
        for x in range(width - 1):
            for c in range(3):
                left = np.uint32(image[y, x, c])
                right = np.uint32(image[y, x + 1, c])
                wide[y, 6 * x + 3 + c] = (3 * left + right + 2) >> 2
                wide[y, 6 * x + 6 + c] = (left + 3 * right + 2) >> 2
    flat = out.reshape(2 * height, 2 * width * 3)
    flat[0] = wide[0]
    flat[2 * height - 1] = wide[height - 1]
    for y in range(height - 1):
        for i in range(flat.shape[1]):
            upper = np.uint32(wide[y, i])
            lower = np.uint32(wide[y + 1, i])
            flat[2 * y + 1, i] = (3 * upper + lower + 2) >> 2
            flat[2 * y + 2, i] = (upper + 3 * lower + 2) >> 2
