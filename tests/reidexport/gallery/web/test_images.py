"""Uploaded images are checked before they are decoded; those that are shown are small JPEGs."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reidruntime.images.preprocess import decode_image

from reidexport.data import Dataset
from reidexport.errors import ImageError
from reidexport.gallery.web.images import MAX_UPLOAD_PIXELS, decode_upload, shown_jpeg


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A piece of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width_px: int, height_px: int) -> bytes:
    """A PNG of a few bytes that claims to be of that size."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pixels_are_those_of_the_runtime(kind: str, drawn_dataset: Dataset, tmp_path: Path) -> None:
    """An uploaded image is decoded as the same file would be."""
    path = tmp_path / "upload"
    with Image.open(drawn_dataset.query[0].path) as image:
        image.save(path, kind)
    assert np.array_equal(decode_upload(path.read_bytes(), "upload"), decode_image(path))


def saved(kind: str) -> bytes:
    """A small image in some format."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 16)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a.jpg: this is not an image. Choose a JPEG, PNG, WebP or BMP file."),
        (b"hello", "a.jpg: this is not an image"),
        (b"\xff\xd8\xff" + bytes(100), "a.jpg: this is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.jpg: this is not an image"),
        (saved("GIF"), "a.jpg: this is not an image"),
        (saved("PNG")[:-30], "a.jpg: the image is damaged"),
        (png_of(5793, 5793), "a.jpg: this image has more than 33 million pixels. Crop it to the person"),
        (png_of(12_000, 12_000), "a.jpg: this image has more than 33 million pixels"),
        (png_of(60_000, 60_000), "a.jpg: this image has more than 33 million pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_not_an_image_is_refused(data: bytes, words: str) -> None:
    """Texts, other formats, damaged files and decompression bombs, whatever they are called."""
    assert 5792**2 <= MAX_UPLOAD_PIXELS < 5793**2
    with pytest.raises(ImageError, match=words):
        decode_upload(data, "a.jpg")


def test_a_cut_off_jpeg_is_refused(drawn_dataset: Dataset) -> None:
    """Half of a JPEG is not half a person."""
    data = drawn_dataset.query[0].path.read_bytes()
    with pytest.raises(ImageError, match=r"a\.jpg: the image is damaged"):
        decode_upload(data[: len(data) // 2], "a.jpg")


@pytest.mark.parametrize("size", [(64, 128), (1000, 300), (30, 2000)])
def test_shown_images_are_small_jpegs(tmp_path: Path, size: tuple[int, int]) -> None:
    """At most 256 x 512, never enlarged, in proportion, whatever the file was."""
    path = tmp_path / "image.tiff"
    Image.new("RGB", size, "teal").save(path)
    with Image.open(io.BytesIO(shown_jpeg(path))) as shown:
        assert shown.format == "JPEG"
        assert shown.width <= min(256, size[0]) and shown.height <= min(512, size[1])
        assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.1)


def test_only_images_are_shown(tmp_path: Path) -> None:
    """A missing file, a folder and a text are refused by name."""
    (tmp_path / "notes.jpg").write_text("secret")
    with pytest.raises(ImageError, match=r"gone\.jpg: file not found"):
        shown_jpeg(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="file not found"):
        shown_jpeg(tmp_path)
    with pytest.raises(ImageError, match=r"notes\.jpg: not an image"):
        shown_jpeg(tmp_path / "notes.jpg")
