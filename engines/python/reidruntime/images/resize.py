"""Resizing that is bit-equal to Pillow's ``Image.resize``, compiled where numba is installed.

Training code resizes with Pillow. Another resampler moves the embedding (OpenCV's bilinear costs up to
0.37 of cosine when it shrinks an image), so the kernel is part of the manifest and exact here: a horizontal,
then a vertical pass in 8-bit fixed point with 22-bit weights, widened by the scale when shrinking
(antialiasing), each pass left out when that side keeps its length.

Pillow 13 runs the vertical pass first when the height loses more than twice as many pixels as the width.
The published checkpoints were trained before that, and an answer must not depend on the Pillow that happens
to be installed: the horizontal pass always comes first here.
"""

import math
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidruntime.artifact.manifest import ResizeKernel
from reidruntime.compiled import kernel_module

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Image8 = NDArray[np.uint8]
Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]


def resize(image: Image8, height_px: int, width_px: int, kernel: ResizeKernel) -> Image8:
    """Resize one image exactly as Pillow does.

    Args:
        image: uint8, shape (H, W, 3), any channel order.
        height_px: height of the result, at least 1.
        width_px: width of the result, at least 1.
        kernel: ``"bilinear"`` or ``"bicubic"``, antialiased when shrinking.

    Returns:
        uint8, shape (height_px, width_px, 3), C-contiguous; ``image`` itself where it already is that.
    """
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    if (height, width) == (height_px, width_px):
        return image
    kernels = compiled_kernels()
    if kernels is None:
        # One side at a time keeps the order of the passes in every version of Pillow.
        rows = Image.fromarray(image).resize((width_px, height), _PILLOW[kernel])
        return np.asarray(rows.resize((width_px, height_px), _PILLOW[kernel]))
    if kernel == "bilinear" and (height_px, width_px) == (2 * height, 2 * width):
        doubled = np.empty((height_px, width_px, 3), np.uint8)
        kernels.double_bilinear(image, doubled)
        return doubled
    if width != width_px:
        source, image = image, np.empty((height, width_px, 3), np.uint8)
        kernels.resample_rows(source, *_taps(width, width_px, kernel), image)
    if height != height_px:
        source, image = image, np.empty((height_px, width_px, 3), np.uint8)
        taps = _taps(height, height_px, kernel)
        kernels.resample_columns(source.reshape(height, -1), *taps, image.reshape(height_px, -1))
    return image


def compiled_kernels() -> ModuleType | None:
    """The numba kernels, or None where numba is not installed."""
    return kernel_module("reidruntime.images.resize_kernels")


@lru_cache(maxsize=1024)
def _taps(in_size: int, out_size: int, kernel: ResizeKernel) -> Taps:
    """First input index, number of inputs and fixed-point weights of every output, as Pillow has them."""
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    support = _SUPPORT[kernel] * stretch
    centers = (np.arange(out_size) + 0.5) * scale
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    counts = np.minimum((centers + support + 0.5).astype(np.int64), in_size) - starts
    offsets = np.arange(math.ceil(support) * 2 + 1)
    distances = np.abs((offsets + starts[:, None] - centers[:, None] + 0.5) * (1.0 / stretch))
    weights = np.where(offsets < counts[:, None], _FILTER[kernel](distances), 0.0)
    totals = np.zeros(out_size)
    for column in weights.T:  # one after the other: the order of the additions decides the last bit
        totals += column
    weights /= totals[:, None]
    fixed = np.trunc(weights * (1 << 22) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    return starts, counts, fixed


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTER = {"bilinear": _triangle, "bicubic": _cubic}
