"""Images that browsers upload, checked before they are decoded, and images that they are shown, small."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from reidruntime.images.depth import Depth
from reidruntime.images.preprocess import decode_bytes, decode_image

from reidexport.errors import ImageError

MAX_UPLOAD_MIB = 10
MAX_UPLOAD_PIXELS = 2**25  # 100 MB when decoded; Pillow itself would go five times as far

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_SHOWN_PX = (256, 512)  # width and height that a crop is shown within
_JPEG_QUALITY = 90

Pixels = NDArray[np.uint8]


def decode_upload(data: bytes, name: str, depth: Depth = "refuse") -> Pixels:
    """Decode an uploaded image as the runtime decodes files, after its header has been checked.

    Args:
        data: the content of the file.
        name: what to call it in an error message.
        depth: as in :class:`reidruntime.SessionOptions`.

    Returns:
        uint8 RGB, shape (height, width, 3).

    Raises:
        ImageError: it is not a JPEG, PNG, WebP or BMP file, has too many pixels, or is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            num_pixels = header.width * header.height
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: this is not an image. Choose a JPEG, PNG, WebP or BMP file.") from error
    except Image.DecompressionBombError:
        num_pixels = MAX_UPLOAD_PIXELS + 1
    if num_pixels > MAX_UPLOAD_PIXELS:
        raise ImageError(
            f"{name}: this image has more than {MAX_UPLOAD_PIXELS // 10**6} million pixels. Crop it to the person "
            "first."
        )
    return decode_bytes(data, name, depth=depth)


def shown_jpeg(path: Path) -> bytes:
    """An image file as a JPEG of at most 256 x 512 pixels, never its own bytes; raises ImageError where it is none."""
    if not path.is_file():
        raise ImageError(f"{path}: file not found.")
    image = Image.fromarray(decode_image(path, depth="scale"))
    image.thumbnail(_SHOWN_PX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
