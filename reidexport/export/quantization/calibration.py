"""The images that INT8 is calibrated on: real ones, and never those that accuracy is measured on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Preprocess
from reidruntime.images.preprocess import image_pixels, normalize
from reidruntime.images.resize import Image8
from reidruntime.threads import default_threads

from reidexport.data import load_dataset
from reidexport.data.image_paths import find_images
from reidexport.errors import DatasetError, InputError

NUM_CALIBRATED, NUM_HELD_OUT = 256, 64
_FEWEST, _FEW = 8, 200
_TEST_FOLDERS = {"query", "gallery", "bounding_box_test", "gt_query", "gt_bbox", "mask_test_v2"}
# Pixels this part of the width apart resemble each other in a photograph, and not at all in noise.
_DISTANCE = 8
_NOISE_LIKENESS = 0.85


@dataclass(frozen=True)
class CalibrationImages:
    """Images drawn from a folder: those to calibrate on, and others to measure the outcome on.

    Attributes:
        calibrated: as the network takes them: pixels, uint8 (N, height, width, 3) in its channel order, where it
            normalizes them itself, else normalized.
        held_out: the same; none of them is among ``calibrated``.
        warnings: what may make the calibration poor, a sentence each.
    """

    calibrated: NDArray[Any]
    held_out: NDArray[Any]
    warnings: tuple[str, ...]


def load_calibration_images(source: str | Path, preprocess: Preprocess) -> CalibrationImages:
    """Draw up to 320 images of a folder, the same ones every time: 256 to calibrate on, 64 to measure on.

    Args:
        source: a folder of images, searched with all its subfolders, or a data set, whose train split is used.
        preprocess: the network's.

    Raises:
        InputError: the folder does not exist, holds fewer than 8 images, or query or gallery images.
        ImageError: an image cannot be read.
    """
    paths = find_calibration_images(source)
    order = np.random.default_rng(0).permutation(len(paths))
    chosen = [paths[place] for place in order[: NUM_CALIBRATED + NUM_HELD_OUT]]
    with ThreadPoolExecutor(default_threads()) as workers:
        pixels = np.stack(list(workers.map(lambda path: image_pixels(path, path, preprocess), chosen)))
    inputs = pixels if preprocess.in_graph else normalize(pixels, preprocess)
    num_calibrated = round(len(inputs) * NUM_CALIBRATED / (NUM_CALIBRATED + NUM_HELD_OUT))
    warnings = tuple(_warnings(pixels, source))
    return CalibrationImages(inputs[:num_calibrated], inputs[num_calibrated:], warnings)


def find_calibration_images(source: str | Path) -> list[str]:
    """Paths of the images that a folder offers for calibration, in order; errors as above."""
    try:
        paths = [str(record.path) for record in load_dataset(source).train]
    except DatasetError:
        paths = find_images([source])
    for path in paths:
        if not _TEST_FOLDERS.isdisjoint(folder.name for folder in Path(path).resolve().parents[:2]):
            raise InputError(
                f"{path}: query and gallery images are what accuracy is measured on, so INT8 must not be calibrated on "
                "them. Use the train split, or images of your own cameras."
            )
    if len(paths) < _FEWEST:
        raise InputError(
            f"{source}: {len(paths)} images to calibrate on, expected at least {_FEWEST}, better {_FEW} or more"
        )
    return paths


def looks_like_noise(pixels: Image8) -> bool:
    """Whether most images are unlike photographs: pixels near each other differ as much as pixels far apart.

    Args:
        pixels: uint8, shape (N, height, width, 3).
    """
    gray = pixels.mean(3, dtype=np.float32)
    lag = max(gray.shape[2] // _DISTANCE, 1)
    difference = ((gray[:, :, lag:] - gray[:, :, :-lag]) ** 2).mean((1, 2))
    # Independent pixels differ by twice their variance; an image of one color shows nothing either.
    likeness = np.sqrt(difference / np.maximum(2 * gray.var((1, 2)), 1e-6))
    return bool(np.median(likeness) > _NOISE_LIKENESS or np.median(gray.var((1, 2))) < 1)


def _warnings(pixels: Image8, source: str | Path) -> Iterator[str]:
    if len(pixels) < _FEW:
        yield f"{source}: only {len(pixels)} images to calibrate on; use {_FEW} or more, of all cameras and lights"
    if looks_like_noise(pixels):
        yield f"{source}: these images look like noise, not photographs: ranges from them will not fit real images"
