"""Sites made of known crops: other light, other boxes, mistakes of decoding, broken cameras.

What a site needs is then known, since the persons are.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from reidexport.data.records import Dataset, ImageRecord

Change = Callable[[Image.Image, int], Image.Image]  # of a crop, by its camera
_JPEG_QUALITY = 90


def unchanged(image: Image.Image, camid: int) -> Image.Image:
    """As it was."""
    return image


def darker(image: Image.Image, camid: int) -> Image.Image:
    """Dusk: a gamma of 2.2 in all cameras."""
    return image.point([round(255 * (value / 255) ** 2.2) for value in range(256)] * 3)


def tinted(image: Image.Image, camid: int) -> Image.Image:
    """Another white balance in each camera."""
    gains = np.exp(np.random.default_rng((1, camid)).normal(0, 0.25, 3))
    return Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))


def blurred(image: Image.Image, camid: int) -> Image.Image:
    """Out of focus: a Gaussian of a 24th of the width."""
    return image.filter(ImageFilter.GaussianBlur(image.width / 24))


def other_light(image: Image.Image, camid: int) -> Image.Image:
    """Light, tint and focus that differ from camera to camera."""
    rng = np.random.default_rng((2, camid))
    gamma, radius = np.exp(rng.normal(0.4, 0.3)), rng.uniform(0, 1 / 24) * image.width
    lit = image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)
    return tinted(lit.filter(ImageFilter.GaussianBlur(radius)), camid)


def tight(image: Image.Image, camid: int) -> Image.Image:
    """Boxes that cut the person: 12 % off each side."""
    across, down = round(0.12 * image.width), round(0.12 * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


def loose(image: Image.Image, camid: int) -> Image.Image:
    """Boxes with a quarter of the size around them, of what stands at the crop's border."""
    pixels = np.asarray(image)
    down, across = round(0.25 * pixels.shape[0]), round(0.25 * pixels.shape[1])
    return Image.fromarray(np.pad(pixels, ((down, down), (across, across), (0, 0)), mode="edge"))


def swapped(image: Image.Image, camid: int) -> Image.Image:
    """BGR, saved as if it were RGB."""
    return Image.fromarray(np.asarray(image)[..., ::-1].copy())


def nearest(image: Image.Image, camid: int) -> Image.Image:
    """Sampled without a filter to a third of the size."""
    return image.resize((max(image.width // 3, 1), max(image.height // 3, 1)), Image.Resampling.NEAREST)


def broken(image: Image.Image, camid: int, *, camids: Collection[int]) -> Image.Image:
    """Some cameras see everything in a strong tint and out of focus."""
    return blurred(darker(swapped(image, camid), camid), camid) if camid in camids else image


def two_broken(image: Image.Image, camid: int) -> Image.Image:
    """Cameras 2 and 5 are broken."""
    return partial(broken, camids=(1, 4))(image, camid)


def write_crops(records: Sequence[ImageRecord], folder: Path, change: Change) -> None:
    """Write the crops of records into a folder, under their own names, changed by their cameras."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        with Image.open(record.path) as image:
            changed = change(image.convert("RGB"), record.camid)
        changed.save(folder / record.path.name, "JPEG", quality=_JPEG_QUALITY)


def changed_dataset(dataset: Dataset, folder: Path, change: Change) -> Dataset:
    """The same queries and gallery, changed by their cameras and written to ``query`` and ``gallery`` of a folder."""
    parts = {"query": dataset.query, "gallery": dataset.gallery}
    for name, records in parts.items():
        write_crops(records, folder / name, change)
    moved = {
        name: tuple(replace(record, path=folder / name / record.path.name) for record in records)
        for name, records in parts.items()
    }
    return replace(dataset, **moved)
