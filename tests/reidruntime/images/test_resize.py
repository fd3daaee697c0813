"""Resizing is Pillow's, bit for bit."""

import numpy as np
import pytest
from PIL import Image
from reidruntime.artifact.manifest import ResizeKernel
from reidruntime.images import resize as module
from reidruntime.images.resize import Image8, resize

KERNELS: tuple[ResizeKernel, ...] = ("bilinear", "bicubic")
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pillow(image: Image8, height: int, width: int, kernel: ResizeKernel) -> Image8:
    """Horizontal pass first, as every Pillow before 13 does."""
    rows = Image.fromarray(image).resize((width, image.shape[0]), PILLOW[kernel])
    return np.asarray(rows.resize((width, height), PILLOW[kernel]))


def noise(rng: np.random.Generator, height: int, width: int) -> Image8:
    """Black and white noise reaches the clipping of the bicubic kernel, gray noise the rounding."""
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image if rng.random() < 0.5 else np.where(image > 127, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_sizes_equal_pillow(kernel: ResizeKernel) -> None:
    """Every pair of sizes, growing and shrinking, gives Pillow's bytes."""
    rng = np.random.default_rng(7)
    for _ in range(150):
        height, width, out_height, out_width = rng.integers(1, 200, 4).tolist()
        image = noise(rng, height, width)
        expected = pillow(image, out_height, out_width, kernel)
        assert np.array_equal(resize(image, out_height, out_width, kernel), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (128, 64), (37, 90)])
def test_exact_doubling_equals_pillow(kernel: ResizeKernel, size: tuple[int, int]) -> None:
    """The special path of the exact 2x upscale gives Pillow's bytes too, in one call of Pillow."""
    image = noise(np.random.default_rng(1), *size)
    doubled = (2 * size[1], 2 * size[0])
    expected = np.asarray(Image.fromarray(image).resize(doubled, PILLOW[kernel]))
    assert np.array_equal(resize(image, 2 * size[0], 2 * size[1], kernel), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(50, 30), (50, 77), (20, 30), (90, 30)])
def test_a_side_that_stays_is_not_touched(kernel: ResizeKernel, size: tuple[int, int]) -> None:
    """Where one side keeps its length, only the other pass runs, as in Pillow."""
    image = noise(np.random.default_rng(2), 50, 30)
    expected = np.asarray(Image.fromarray(image).resize((size[1], size[0]), PILLOW[kernel]))
    assert np.array_equal(resize(image, *size, kernel), expected)


def test_strided_pixels_are_read_as_they_look() -> None:
    """A view with reversed channels or every second column is resized as what it shows."""
    image = noise(np.random.default_rng(3), 40, 60)[:, ::2, ::-1]
    expected = pillow(np.ascontiguousarray(image), 33, 21, "bilinear")
    assert np.array_equal(resize(image, 33, 21, "bilinear"), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_numba_the_bytes_are_the_same(kernel: ResizeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow itself stands in for a missing numba, with the same order of the passes in every version."""
    image = noise(np.random.default_rng(4), 400, 150)
    compiled = resize(image, 256, 128, kernel)
    monkeypatch.setattr(module, "compiled_kernels", lambda: None)
    assert np.array_equal(resize(image, 256, 128, kernel), compiled)


def test_kernels_agree_with_their_python_source() -> None:
    """The compiled kernels compute what their Python text says."""
    kernels = module.compiled_kernels()
    if kernels is None:
        pytest.skip("numba is not installed")
    image = noise(np.random.default_rng(5), 6, 4)
    doubled = np.empty((12, 8, 3), np.uint8)
    kernels.double_bilinear.py_func(image, doubled)
    assert np.array_equal(doubled, resize(image, 12, 8, "bilinear"))
    rows, columns = np.empty((6, 9, 3), np.uint8), np.empty((5, 27), np.uint8)
    kernels.resample_rows.py_func(image, *module._taps(4, 9, "bicubic"), rows)
    kernels.resample_columns.py_func(rows.reshape(6, 27), *module._taps(6, 5, "bicubic"), columns)
    assert np.array_equal(columns.reshape(5, 9, 3), resize(image, 5, 9, "bicubic"))
