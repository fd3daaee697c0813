"""The images that INT8 is calibrated on: real ones, and never those that accuracy is measured on."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Preprocess
from reidruntime.images.depth import Depth
from reidruntime.images.preprocess import image_pixels, normalize
from reidruntime.images.resize import Image8
from reidruntime.threads import default_threads

from reidexport.data import Dataset, load_dataset
from reidexport.data.image_paths import find_images
from reidexport.data.layouts import recognized_in
from reidexport.data.same_images import content_digits, image_numbers
from reidexport.errors import DatasetError, InputError

NUM_CALIBRATED, NUM_HELD_OUT = 256, 64
_FEWEST, _FEW = 8, 200
_NUM_FOLDERS_UP = 4  # from an image to the folder of its data set: MSMT17_V1/test/0000/0000_000_01_….jpg
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
        digits: of the content of each image, see :func:`reidexport.data.same_images.content_digits`.
        warnings: what may make the calibration poor, a sentence each.
    """

    calibrated: NDArray[Any]
    held_out: NDArray[Any]
    digits: tuple[str, ...]
    warnings: tuple[str, ...]


def load_calibration_images(
    source: str | Path | Sequence[str],
    preprocess: Preprocess,
    tested_on: Dataset | None = None,
    depth: Depth = "refuse",
) -> CalibrationImages:
    """Draw up to 320 images of a folder, the same ones every time: 256 to calibrate on, 64 to measure on.

    Args:
        source: a folder of images, searched with all its subfolders; a data set, whose train split is used; or paths.
        preprocess: the network's.
        tested_on: the data set that accuracy will be measured on, where ``source`` does not lie inside it.
        depth: what becomes of images of more than 8 bits a channel.

    Raises:
        InputError: the folder does not exist, holds fewer than 8 images, or a copy of a query or gallery image of
            ``tested_on`` or of a data set that it lies in, under whatever name.
        ImageError: an image cannot be read.
    """
    paths = find_calibration_images(source, tested_on)
    order = np.random.default_rng(0).permutation(len(paths))
    chosen = [paths[place] for place in order[: NUM_CALIBRATED + NUM_HELD_OUT]]
    with ThreadPoolExecutor(default_threads()) as workers:
        pixels = np.stack(
            list(workers.map(lambda path: image_pixels(path, path, preprocess, depth=depth), chosen))
        )
    inputs = pixels if preprocess.in_graph else normalize(pixels, preprocess)
    num_calibrated = round(len(inputs) * NUM_CALIBRATED / (NUM_CALIBRATED + NUM_HELD_OUT))
    warnings = tuple(_warnings(pixels, _name_of(source)))
    digits = tuple(content_digits(map(Path, chosen)))
    return CalibrationImages(inputs[:num_calibrated], inputs[num_calibrated:], digits, warnings)


def find_calibration_images(
    source: str | Path | Sequence[str], tested_on: Dataset | None = None
) -> list[str]:
    """Paths of the images that a source offers for calibration, in order; arguments and errors as above."""
    name = _name_of(source)
    if not isinstance(source, str | Path):
        paths = list(source)
    else:
        try:
            paths = [str(record.path) for record in load_dataset(source).train]
        except DatasetError:
            paths = find_images([source])
    datasets = [*_data_sets_around(paths), *([tested_on] if tested_on else [])]
    test_images = tuple(record.path for each in datasets for record in (*each.query, *each.gallery))
    numbers, test_numbers = image_numbers(tuple(map(Path, paths)), test_images)
    if copies := [
        path for path, is_copy in zip(paths, np.isin(numbers, test_numbers), strict=True) if is_copy
    ]:
        raise InputError(
            f"{len(copies)} of the {len(paths)} images of {name} are query or gallery images of "
            f"{' or '.join(each.name for each in datasets)}, {copies[0]} first: they are what accuracy is measured on, "
            "so INT8 must not be calibrated on them. Use the train split, or images of your own cameras."
        )
    if len(paths) < _FEWEST:
        raise InputError(
            f"{name}: {len(paths)} images to calibrate on, expected at least {_FEWEST}, better {_FEW} or more"
        )
    return paths


def _name_of(source: str | Path | Sequence[str]) -> str:
    return str(source) if isinstance(source, str | Path) else "the crops"


def _data_sets_around(paths: Collection[str]) -> Iterator[Dataset]:
    """The data sets in whose folders images lie.

    Raises:
        InputError: such a data set cannot be read.
    """
    places = {folder for path in paths for folder in Path(path).resolve().parents[:_NUM_FOLDERS_UP]}
    for found in (each for place in sorted(places) for each in recognized_in(place)):
        try:
            yield found.read(found.folder, found.names[0])
        except DatasetError as error:
            raise InputError(
                f"{found.folder} looks like a data set, whose query and gallery must not be calibrated on, and cannot "
                f"be read: {error} Calibrate on images in a folder outside of it."
            ) from error


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


def _warnings(pixels: Image8, source: str) -> Iterator[str]:
    if len(pixels) < _FEW:
        yield f"{source}: only {len(pixels)} images to calibrate on; use {_FEW} or more, of all cameras and lights"
    if looks_like_noise(pixels):
        yield f"{source}: these images look like noise, not photographs: ranges from them will not fit real images"
