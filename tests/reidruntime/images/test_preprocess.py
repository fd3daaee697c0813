"""Decoding is Pillow's, bit for bit, and errors name the file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reidruntime.artifact.manifest import Preprocess
from reidruntime.errors import ImageError
from reidruntime.images import preprocess as module
from reidruntime.images.preprocess import decode_bytes, decode_image, image_pixels, normalize
from reidruntime.images.resize import Image8


def scene(height: int = 61, width: int = 43) -> Image.Image:
    """Smooth colors with some noise, so that chroma subsampling matters."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    planes = np.stack([x * 5 % 256, y * 4 % 256, (x + y) * 3 % 256], axis=2)
    return Image.fromarray(np.clip(planes + rng.integers(-20, 20, planes.shape), 0, 255).astype(np.uint8))


def pillow(path: Path) -> Image8:
    """What training code sees."""
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{"quality": 40}, {"quality": 95, "progressive": True}, {"optimize": True}]
)
def test_jpeg_equals_pillow(tmp_path: Path, subsampling: int, options: dict[str, Any]) -> None:
    """Color JPEGs of all usual samplings decode to Pillow's bytes."""
    path = tmp_path / "a.jpg"
    scene().save(path, subsampling=subsampling, **options)
    assert np.array_equal(decode_image(path), pillow(path))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpeg_of_every_mode_equals_pillow(tmp_path: Path, mode: str) -> None:
    """Gray and CMYK JPEGs are converted as Pillow converts them."""
    path = tmp_path / "a.jpg"
    scene().convert(mode).save(path)
    assert np.array_equal(decode_image(path), pillow(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_of_every_mode_equals_pillow(tmp_path: Path, mode: str) -> None:
    """Palettes and alpha are converted as Pillow converts them."""
    path = tmp_path / "a.png"
    scene().convert(mode).save(path)
    assert np.array_equal(decode_image(path), pillow(path))


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "gray.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("has_simplejpeg", [True, False])
def test_exif_orientation_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_simplejpeg: bool
) -> None:
    """A rotated photo comes as it is stored, as in training, whatever decodes it."""
    if not has_simplejpeg:
        monkeypatch.setattr(module, "_simplejpeg", lambda: None)
    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = scene().convert("L" if "gray" in name else "RGB")
    stored.save(path, exif=exif, **({"progressive": True} if "progressive" in name else {}))
    assert decode_image(path).shape == (61, 43, 3)
    assert np.array_equal(decode_image(path), pillow(path))


def test_a_tiff_is_turned_as_pillow_turns_it(tmp_path: Path) -> None:
    """The orientation of a TIFF file is a part of its format, which Pillow and so training code apply."""
    path = tmp_path / "a.tif"
    scene().save(path, tiffinfo={0x0112: 6})
    assert decode_image(path).shape == (43, 61, 3)
    assert np.array_equal(decode_image(path), pillow(path))


def test_without_simplejpeg_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow stands in for a missing simplejpeg."""
    path = tmp_path / "a.jpg"
    scene().save(path)
    fast = decode_image(path)
    monkeypatch.setattr(module, "_simplejpeg", lambda: None)
    assert np.array_equal(decode_image(path), fast)
    assert "decode Pillow" in module.describe_preprocessing()


def _png_bytes() -> bytes:
    buffer = io.BytesIO()
    scene().save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "not an image"),
        (_jpeg_bytes()[:600], "damaged"),
        (_png_bytes()[:900], "damaged"),
        (b"\xff\xd8\xff\xe0", "image"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    """Empty, cut and foreign files raise ImageError with the file's name."""
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"bad.jpg: .*{words}"):
        decode_image(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_larger_images_than_asked_for_are_refused(form: str) -> None:
    """The size is read from the file's head; one of as many pixels as allowed is decoded."""
    stream = io.BytesIO()
    scene(61, 43).save(stream, form)
    with pytest.raises(
        ImageError, match=r"upload: 43x61 is too large an image, at most 2622 pixels are taken\."
    ):
        decode_bytes(stream.getvalue(), "upload", max_pixels=61 * 43 - 1)
    assert decode_bytes(stream.getvalue(), "upload", max_pixels=61 * 43).shape == (61, 43, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere raises ImageError with the reason."""
    with pytest.raises(ImageError, match=r"none\.jpg: cannot be read \(No such file"):
        decode_image(tmp_path / "none.jpg")


PREPROCESS = Preprocess(
    height_px=10,
    width_px=6,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    in_graph=False,
    layout="NCHW",
)


def test_bgr_artifacts_get_bgr(tmp_path: Path) -> None:
    """The channel order of the manifest decides the order of the pixels."""
    path = tmp_path / "a.png"
    scene().save(path)
    swapped = image_pixels(path, "a", PREPROCESS.model_copy(update={"channel_order": "BGR"}))
    assert np.array_equal(swapped[..., ::-1], image_pixels(path, "a", PREPROCESS))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), [1, 2]]
)
def test_unfit_arrays_are_refused(image: Any) -> None:
    """Only uint8 HWC arrays with three channels and some pixels pass."""
    with pytest.raises(ImageError, match="image 3: expected"):
        image_pixels(image, "image 3", PREPROCESS)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalize_is_the_training_formula(layout: str) -> None:
    """(x / 255 - mean) / std, in either layout."""
    batch = np.random.default_rng(0).integers(0, 256, (2, 10, 6, 3), dtype=np.uint8)
    expected = (batch / 255.0 - PREPROCESS.mean) / PREPROCESS.std
    got = normalize(batch, PREPROCESS.model_copy(update={"layout": layout}))
    assert got.dtype == np.float32
    assert np.abs((got.transpose(0, 2, 3, 1) if layout == "NCHW" else got) - expected).max() < 2e-6
