"""Augmentation of a whole batch against one image at a time."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD

from train import augmentation
from train.augmentation import Draws, augment, draw_augmentation, draw_boxes, normalize
from train.recipe import Erasing, Images

HEIGHT, WIDTH, PAD = 24, 12, 4
SETTINGS = Images(height_px=HEIGHT, width_px=WIDTH, pad_px=PAD)
STORE = torch.randint(
    0, 256, (9, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def slow_augment(image: NDArray[np.uint8], draws: Draws, place: int, follows: str) -> NDArray[np.float64]:
    """Mirror, pad, crop, normalize, erase: one image, as the authors' transforms do it."""
    if bool(draws.mirrored[place]):
        image = image[:, ::-1]
    padded = np.zeros((HEIGHT + 2 * PAD, WIDTH + 2 * PAD, 3), np.uint8)
    padded[PAD : PAD + HEIGHT, PAD : PAD + WIDTH] = image
    row, column = draws.corners[place].tolist()
    pixels = padded[row : row + HEIGHT, column : column + WIDTH] / 255
    pixels = (pixels - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    top, left, height, width = draws.boxes[place].tolist()
    fill = pixels.mean((0, 1)) if follows == "paper" else np.array(IMAGENET_MEAN)
    pixels[top : top + height, left : left + width] = fill
    return pixels.transpose(2, 0, 1)


def slow_box(
    areas: list[float], aspects: list[float], corners: list[tuple[float, float]], erasing: Erasing
) -> list[int]:
    """The first rectangle that fits, try after try (paper, 3.2, and the authors' RandomErasing)."""
    for area, aspect, (vertical, horizontal) in zip(areas, aspects, corners, strict=True):
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if erasing.follows == "paper":
            top, left = int(vertical * HEIGHT), int(horizontal * WIDTH)
            if top + height <= HEIGHT and left + width <= WIDTH:
                return [top, left, height, width]
        elif height < HEIGHT and width < WIDTH:
            return [
                int(vertical * (HEIGHT - height + 1)),
                int(horizontal * (WIDTH - width + 1)),
                height,
                width,
            ]
    return [0, 0, 0, 0]


@pytest.mark.parametrize("follows", ["code", "paper"])
def test_a_batch_is_its_images_one_by_one(follows: str) -> None:
    """Equal to the slow version for every image of a batch that repeats some and leaves others out."""
    erasing = Erasing(follows=follows, probability=0.7)  # type: ignore[arg-type]
    indices = np.array([3, 0, 8, 3, 5, 1, 2, 2])
    draws = draw_augmentation(np.random.default_rng(1), len(indices), SETTINGS, erasing)
    assert draws.mirrored.any()
    assert draws.boxes.any()
    found = augment(STORE, torch.from_numpy(indices), draws, PAD, erasing)
    expected = [
        slow_augment(STORE[index].numpy(), draws, place, follows) for place, index in enumerate(indices)
    ]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("follows", ["code", "paper"])
def test_boxes_are_the_first_that_fit(follows: str) -> None:
    """Equal to the slow version on the same random numbers, also where few tries are allowed."""
    erasing = Erasing(follows=follows, probability=1.0, max_tries=3, max_area=0.9)  # type: ignore[arg-type]
    found = draw_boxes(np.random.default_rng(2), 200, HEIGHT, WIDTH, erasing)
    rng = np.random.default_rng(2)
    areas = rng.uniform(erasing.min_area, erasing.max_area, (200, 3)) * HEIGHT * WIDTH
    aspects = rng.uniform(erasing.min_aspect, erasing.max_aspect, (200, 3))
    corners = np.stack([rng.random((200, 3)), rng.random((200, 3))], 2)
    expected = [
        slow_box(a.tolist(), r.tolist(), [tuple(pair) for pair in c.tolist()], erasing)
        for a, r, c in zip(areas, aspects, corners, strict=True)
    ]
    assert found.tolist() == expected
    assert [0, 0, 0, 0] in expected


def test_boxes_have_the_paper_s_probability_and_ranges() -> None:
    """Half of the images; 2 to 40 % of the area; aspects from 0.3 to 3.33; inside the image."""
    boxes = draw_boxes(np.random.default_rng(3), 20_000, 256, 128, Erasing())
    top, left, height, width = boxes[boxes[:, 2] > 0].T
    assert (boxes[:, 2] > 0).mean() == pytest.approx(0.5, abs=0.015)
    share = height * width / (256 * 128)
    assert 0.019 < share.min() < 0.025
    assert 0.35 < share.max() < 0.405
    assert 0.28 < (height / width).min() < 0.35
    assert 3.0 < (height / width).max() < 3.5
    assert (top + height <= 256).all()
    assert (left + width <= 128).all()


def test_without_the_trick_nothing_is_erased() -> None:
    """No boxes, and images that are only mirrored, shifted and normalized."""
    draws = draw_augmentation(np.random.default_rng(4), 5, SETTINGS, None)
    assert not draws.boxes.any()
    found = augment(STORE, torch.arange(5), draws, PAD, None)
    expected = [slow_augment(STORE[index].numpy(), draws, index, "code") for index in range(5)]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-5)


def test_mirroring_and_shifts_are_uniform() -> None:
    """Half are mirrored; every corner from 0 to twice the padding occurs, about equally often."""
    draws = draw_augmentation(np.random.default_rng(5), 9_000, SETTINGS, None)
    assert float(draws.mirrored.float().mean()) == pytest.approx(0.5, abs=0.02)
    for axis in (0, 1):
        counts = np.bincount(draws.corners[:, axis])
        assert len(counts) == 2 * PAD + 1
        assert counts.min() > 850


def test_statistics_first_asked_for_by_an_evaluation_serve_training() -> None:
    """Mean and std are plain tensors, though inference mode made them: a CUDA graph's step could not use others."""
    augmentation._statistics.cache_clear()
    with torch.inference_mode():
        normalize(torch.zeros((1, 3, 2, 2), dtype=torch.uint8))
    assert not any(each.is_inference() for each in augmentation._statistics(torch.device("cpu")))
