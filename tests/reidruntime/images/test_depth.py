"""Images of more than 8 bits a channel are refused by name, or scaled by their whole range."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from reidruntime import EncodedImage, SessionOptions, open_session
from reidruntime.errors import ImageError, InputError
from reidruntime.images.preprocess import decode_bytes
from reidruntime.images.resize import Image8

from tests.conftest import Exported, Run

GRAY = (np.arange(40 * 20) % 256).astype(np.uint8).reshape(40, 20)
COLOR = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=2)
_FORMATS = {"u": 1, "i": 2, "f": 3}  # of TIFF's SampleFormat
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels


def png16(pixels: Image8) -> bytes:
    """A PNG file of 16 bits a channel; each value of ``pixels`` (H, W) or (H, W, C) is repeated in the low byte."""
    height, width, channels = (*pixels.shape, 1)[:3]
    rows = (pixels.astype(">u2") * 257).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(values: NDArray[Any]) -> bytes:
    """An uncompressed TIFF file of any values, (H, W) or (H, W, 3)."""
    height, width, channels = (*values.shape, 1)[:3]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    kinds = struct.pack("<6H", *3 * (values.dtype.itemsize * 8,), *3 * (_FORMATS[values.dtype.kind],))
    begin = 8 + 2 + 10 * 12 + 4  # of what follows the tags
    bits, form = (begin, begin + 6) if channels == 3 else struct.unpack("<H4xH4x", kinds)
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, bits), 259: (3, 1, 1)}
    tags |= {262: (3, 1, channels // 3 + 1), 273: (4, 1, begin + len(kinds)), 277: (3, 1, channels)}
    tags |= {278: (4, 1, height), 279: (4, 1, len(data)), 339: (3, channels, form)}
    listed = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + listed + bytes(4) + kinds + data


def netpbm16(pixels: Image8) -> bytes:
    """A PGM or PPM file of 16 bits a channel."""
    magic = "P6" if pixels.ndim == 3 else "P5"
    return f"{magic} 20 40 65535\n".encode() + (pixels.astype(">u2") * 257).tobytes()


DEEP = {
    "gray16.png": (png16(GRAY), "of 16 bits", GRAY),
    "gray_alpha16.png": (png16(np.stack([GRAY, GRAY], axis=2)), "of 16 bits", GRAY),
    "rgb16.png": (png16(COLOR), "of 16 bits", COLOR),
    "rgba16.png": (png16(np.dstack([COLOR, GRAY])), "of 16 bits", COLOR),
    "gray16.tif": (tiff(GRAY.astype(np.uint16) * 257), "of 16 bits", GRAY),
    "signed16.tif": (tiff(GRAY.astype(np.int16) * 128), "of 16 bits", GRAY),
    "rgb16.tif": (tiff(COLOR.astype(np.uint16) * 257), "of 16 bits", COLOR),
    "gray32.tif": (tiff(GRAY.astype(np.uint32) * 0x01010101), "of 32 bits", GRAY),
    "signed32.tif": (tiff(GRAY.astype(np.int32) << 23), "of 32 bits", GRAY),
    "float32.tif": (tiff((GRAY / 255).astype(np.float32)), "of floats", GRAY),
    "gray16.pgm": (netpbm16(GRAY), "of 16 bits", GRAY),
    "rgb16.ppm": (netpbm16(COLOR), "of 16 bits", COLOR),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused_by_name(name: str) -> None:
    """Every such file is named with what it holds and what to do, not turned into white or black."""
    data, kind, _ = DEEP[name]
    with pytest.raises(
        ImageError, match=f"{name}: an image {kind}.*, expected 8 bits a channel. Convert it .*--depth scale"
    ):
        decode_bytes(data, name)


@pytest.mark.parametrize("name", DEEP)
def test_scaling_takes_the_whole_range(name: str) -> None:
    """Scaled, the largest value that a file could hold becomes 255: the image from which it was made."""
    data, _, expected = DEEP[name]
    pixels = decode_bytes(data, name, depth="scale")
    assert pixels.dtype == np.uint8
    rgb = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert np.array_equal(pixels, rgb)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "WEBP", "PPM", "GIF"])
def test_8_bits_are_not_touched_by_scaling(form: str) -> None:
    """An ordinary file gives the same pixels whatever is asked for."""
    stream = io.BytesIO()
    Image.fromarray(COLOR).save(stream, form)
    refusing, scaling = (decode_bytes(stream.getvalue(), "a", depth=depth) for depth in ("refuse", "scale"))
    assert np.array_equal(refusing, scaling)
    assert np.array_equal(refusing, np.asarray(Image.open(stream).convert("RGB")))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (GRAY.astype(np.float32), r"values from 0 to 255, expected 0 to 1\. Convert it to 8 bits"),
        (np.full((4, 4), np.nan, np.float32), "values from nan to nan, expected 0 to 1"),
        (GRAY.astype(np.int16) - 9, "values from -9 to 246, expected none below 0"),
        (GRAY.astype(np.uint16), r"of 16 bits a channel that is black when .* scaled"),
        (GRAY.astype(np.uint32), r"of 32 bits a channel that is black when .* scaled"),
    ],
)
def test_what_cannot_be_scaled_is_refused(values: NDArray[Any], words: str) -> None:
    """Values outside the range, and 8-bit values in a deeper file, are named rather than clipped."""
    with pytest.raises(ImageError, match=f"^a.tif: an image .*{words}"):
        decode_bytes(tiff(values), "a.tif", depth="scale")


def test_a_session_scales_when_asked(exported: Exported, tmp_path: Path) -> None:
    """A session refuses a 16-bit file, its bytes too; with depth "scale" it embeds it as the 8-bit image."""
    path = tmp_path / "a.png"
    path.write_bytes(png16(COLOR))
    with open_session(exported.onnx) as session, pytest.raises(ImageError, match=r"a\.png: an image of 16"):
        session.embed([path])
    with open_session(exported.onnx, SessionOptions(depth="scale")) as session:
        deep, encoded, plain = session.embed([path, EncodedImage("a", path.read_bytes()), COLOR])
    assert np.array_equal(deep, plain)
    assert np.array_equal(encoded, plain)
    with pytest.raises(InputError, match="depth must be refuse or scale, got 'clip'"):
        open_session(exported.onnx, SessionOptions(depth="clip"))  # type: ignore[arg-type]


def test_commands_scale_when_asked(run: Run, exported: Exported, tmp_path: Path) -> None:
    """Embed names a 16-bit image, and takes it with --depth scale; verify passes over such a data set."""
    for part in ("query", "gallery"):
        (tmp_path / "data" / part).mkdir(parents=True)
        for camera in (1, 2):
            path = tmp_path / "data" / part / f"0001_c{camera}_{part}.png"
            path.write_bytes(png16(np.roll(COLOR, camera, axis=0)))
    output = tmp_path / "a.npz"
    done = run("embed", exported.onnx, tmp_path / "data", "-o", output)
    assert done.returncode == 2
    assert "0001_c1_gallery.png: an image of 16 bits a channel" in done.stderr
    assert run("embed", exported.onnx, tmp_path / "data", "-o", output, "--depth", "scale").returncode == 0
    arguments = ("verify", exported.onnx, "--reference", exported.checkpoint, "--data", tmp_path / "data")
    assert "of 16 bits a channel" in run(*arguments).stderr
    done = run(*arguments, "--depth", "scale")
    assert done.returncode == 0, done.stderr
