"""From an image to the pixels that an artifact takes: decode, channel order, resize, normalize."""

import io
import struct
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from reidruntime.artifact.manifest import ChannelOrder, Manifest, Preprocess
from reidruntime.errors import ImageError
from reidruntime.images.depth import Depth, rgb_pixels
from reidruntime.images.resize import Image8, resize

_JPEG_MAGIC = b"\xff\xd8\xff"
_MAX_FAST_PIXELS = 1 << 25  # above that Pillow decides whether it is a decompression bomb
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError)


class EncodedImage(NamedTuple):
    """An encoded image that is not a file of its own; ``name`` is what error messages call it."""

    name: str
    data: bytes


Image = Image8 | str | Path | EncodedImage


def image_pixels(
    image: Image,
    name: str,
    preprocess: Preprocess,
    *,
    depth: Depth = "refuse",
    channel_order: ChannelOrder = "RGB",
) -> Image8:
    """Bring one image to the manifest's size and channel order.

    Args:
        image: a path, the bytes of a file, or pixels: uint8, shape (H, W, 3).
        name: what to call the image in an error message.
        preprocess: the manifest's preprocessing.
        depth: what to do with files of more than 8 bits a channel, see :func:`reidruntime.images.depth.rgb_pixels`.
        channel_order: of pixels; OpenCV's are BGR. Files have their own.

    Returns:
        uint8, shape (height_px, width_px, 3).

    Raises:
        ImageError: the file cannot be decoded, or the array is not uint8 HWC.
    """
    pixels = _pixels(in_rgb(image, channel_order), name, depth)
    sized = resize(pixels, preprocess.height_px, preprocess.width_px, preprocess.resize)
    return sized if preprocess.channel_order == "RGB" else sized[..., ::-1]


def in_rgb(image: Image, channel_order: ChannelOrder) -> Image:
    """The same image, pixels in RGB; files, and arrays of no image's shape, as they are."""
    if channel_order == "BGR" and isinstance(image, np.ndarray) and image.ndim == 3:
        return image[..., ::-1]
    return image


def decode_image(path: Path, *, depth: Depth = "refuse") -> Image8:
    """Decode an image file exactly as ``PIL.Image.open(path).convert("RGB")`` does, if it has 8 bits a channel.

    As in training code, an EXIF orientation is not applied and an alpha channel is dropped. Ordinary JPEG
    files go through simplejpeg where it is installed, which gives the same pixels several times faster.

    Args:
        path: of the file.
        depth: what to do with more than 8 bits a channel, see :func:`reidruntime.images.depth.rgb_pixels`.

    Returns:
        uint8 RGB, shape (H, W, 3).

    Raises:
        ImageError: the file is missing, empty, cut or not an image, or refused for its depth.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).") from error
    return decode_bytes(data, str(path), depth=depth)


def decode_bytes(data: bytes, name: str, *, max_pixels: int | None = None, depth: Depth = "refuse") -> Image8:
    """Decode the content of an image file, as :func:`decode_image` does.

    Args:
        data: the file's bytes.
        name: what to call it in an error message.
        max_pixels: refuse larger images before they are decoded; default: Pillow's limit.
        depth: as for :func:`decode_image`.

    Raises:
        ImageError: it is empty, cut, not an image, too large, or refused for its depth.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty.")
    pixels = _fast_jpeg(data, max_pixels or _MAX_FAST_PIXELS)
    return _pillow(data, name, max_pixels, depth) if pixels is None else pixels


def network_input(batch: Image8, manifest: Manifest) -> NDArray[Any]:
    """Pixels in the form of an artifact's own input.

    Args:
        batch: uint8, shape (N, height_px, width_px, 3), in the manifest's channel order.
        manifest: of the artifact.

    Returns:
        The manifest's input dtype and layout: raw where the graph normalizes, else normalized; C-contiguous.
    """
    if not manifest.preprocess.in_graph:
        return normalize(batch, manifest.preprocess).astype(manifest.input.dtype, copy=False)
    ordered = batch if manifest.preprocess.layout == "NHWC" else batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(ordered)


def normalize(batch: Image8, preprocess: Preprocess) -> NDArray[np.float32]:
    """Scale to [0, 1], subtract the mean, divide by the deviation, and lay out as the artifact takes it.

    Args:
        batch: uint8, shape (N, height_px, width_px, 3), in the manifest's channel order.
        preprocess: the manifest's preprocessing.

    Returns:
        float32, shape (N, 3, H, W) for layout NCHW or (N, H, W, 3) for NHWC.
    """
    std = np.asarray(preprocess.std)
    scale = (1.0 / (255.0 * std)).astype(np.float32)
    shift = (-np.asarray(preprocess.mean) / std).astype(np.float32)
    if preprocess.layout == "NHWC":
        pixels: NDArray[np.float32] = batch * scale + shift
        return pixels
    planes = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
    for channel in range(3):
        np.multiply(batch[..., channel], scale[channel], out=planes[:, channel])
        planes[:, channel] += shift[channel]
    return planes


def describe_preprocessing() -> str:
    """Which decoder and resizer are at work, for a session's description."""
    decoder = "simplejpeg" if _simplejpeg() else "Pillow"
    resizer = "numba" if find_spec("numba") else "Pillow"  # importing it would take a third of a second
    return f"decode {decoder}, resize {resizer}"


def _pixels(image: Image, name: str, depth: Depth) -> Image8:
    if isinstance(image, str | Path):
        return decode_image(Path(image), depth=depth)
    if isinstance(image, EncodedImage):
        return decode_bytes(image.data, image.name, depth=depth)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name}: expected a path or a uint8 array, got {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(
            f"{name}: expected pixels, uint8 of shape (height, width, 3); "
            f"got {image.dtype} of shape {image.shape}."
        )
    return image


@cache
def _simplejpeg() -> Any:
    """The package, or None where it is not installed."""
    try:
        import simplejpeg
    except ModuleNotFoundError:
        return None
    return simplejpeg


def _fast_jpeg(data: bytes, max_pixels: int) -> Image8 | None:
    """Pixels of an ordinary color JPEG; None for everything else, which Pillow then accepts or refuses."""
    decoder = _simplejpeg()
    if decoder is None or not data.startswith(_JPEG_MAGIC):
        return None
    try:
        height, width, colorspace, _ = decoder.decode_jpeg_header(data)
        if colorspace != "YCbCr" or height * width > min(max_pixels, _MAX_FAST_PIXELS):
            return None
        pixels: Image8 = decoder.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _pillow(data: bytes, name: str, max_pixels: int | None, depth: Depth) -> Image8:
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            most = max_pixels or PIL.Image.MAX_IMAGE_PIXELS  # twice that many are more than 2 GiB on the way
            if most and image.width * image.height > most:
                size = f"{image.width}x{image.height}"
                raise ImageError(f"{name}: {size} is too large an image, at most {most} pixels are taken.")
            return rgb_pixels(image, name, depth)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that Pillow can read.") from error
    except _PILLOW_ERRORS as error:
        raise ImageError(f"{name}: the image is damaged ({error}).") from error
