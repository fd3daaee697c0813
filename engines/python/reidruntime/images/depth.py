"""Images of more than 8 bits a channel: refused by name, or scaled to 8 bits where that is asked for.

``PIL.Image.convert("RGB")`` clips gray images of 16 bits, 32 bits and floats, to white or to black all over, and keeps
the high byte of colored ones, all in silence.
"""

from typing import Literal, NamedTuple

import numpy as np
from PIL.ImageFile import ImageFile

from reidruntime.errors import ImageError
from reidruntime.images.resize import Image8

Depth = Literal["refuse", "scale"]
DEPTHS: tuple[Depth, ...] = ("refuse", "scale")
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # TIFF's


class _Deep(NamedTuple):
    """What the channels of an image hold: integers of so many bits, one of them the sign; 0 for floats."""

    bits: int
    is_signed: bool = False


def rgb_pixels(image: ImageFile, name: str, depth: Depth) -> Image8:
    """The pixels of an opened image file.

    Args:
        image: opened, not loaded yet.
        name: what to call it in an error message.
        depth: what to do with more than 8 bits a channel. ``"scale"`` takes the high byte of integers, and 255 times a
            float from 0 to 1.

    Returns:
        uint8 RGB, shape (H, W, 3): ``image.convert("RGB")`` for 8 bits a channel.

    Raises:
        ImageError: the image has more than 8 bits a channel and ``depth`` is ``"refuse"``; or its values cannot be
            scaled: negative, floats above 1, or so small that the image becomes black.
    """
    deep = _more_than_8_bits(image)
    if deep is None:
        return np.asarray(image.convert("RGB"))
    kind = f"of {deep.bits} bits a channel" if deep.bits else "of floats"
    if depth == "refuse":
        raise ImageError(
            f"{name}: an image {kind}, expected 8 bits a channel. Convert it to 8 bits, or have its values scaled "
            'where that can be chosen (--depth scale, SessionOptions(depth="scale")).'
        )
    pixels = _scaled(image, name, deep)
    if not pixels.any():
        raise ImageError(
            f"{name}: an image {kind} that is black when its whole range is scaled to 0 to 255. Convert it to 8 bits."
        )
    return pixels


def _more_than_8_bits(image: ImageFile) -> _Deep | None:
    if image.mode == "F":
        return _Deep(0)
    tags = getattr(image, "tag_v2", {})
    if (bits := max(tags.get(_BITS_PER_SAMPLE, (8,)))) > 8:
        return _Deep(bits, _SIGNED in tags.get(_SAMPLE_FORMAT, ()))
    # Pillow says "RGB" of color images that it cuts to 8 bits: what it reads them from tells.
    source = image.tile[0][3] if image.tile else ()
    is_cut = (image.format == "PNG" and ";16" in str(source)) or (
        image.format == "PPM" and isinstance(source, tuple) and source[-1] > 255  # the largest value
    )
    return _Deep(16) if is_cut or image.mode.startswith("I") else None


def _scaled(image: ImageFile, name: str, deep: _Deep) -> Image8:
    if image.mode != "F" and not image.mode.startswith("I"):
        return np.asarray(image.convert("RGB"))  # Pillow has taken the high byte
    values = np.asarray(image)
    if deep.bits == 32 and not deep.is_signed:
        values = values.view(np.uint32)
    lowest, highest = values.min(), values.max()
    if lowest < 0 or (deep.bits == 0 and not highest <= 1):  # nor NaN
        expected = "0 to 1" if deep.bits == 0 else "none below 0"
        raise ImageError(
            f"{name}: an image with values from {lowest:g} to {highest:g}, expected {expected}. Convert it to 8 bits."
        )
    gray = values * 255 + 0.5 if deep.bits == 0 else values >> (deep.bits - deep.is_signed - 8)
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
