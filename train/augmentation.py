"""Mirroring, padding and cropping, random erasing and normalization of a whole batch, on the device that holds it.

What is random is drawn first, on the CPU and with numpy, so that a seed means the same on every device; then it is
applied to all images of the batch at once.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor

from train.recipe import Erasing, Images

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """What chance decided for B images.

    Attributes:
        mirrored: bool (B,).
        corners: int64 (B, 2), row and column of the crop in the padded image, 0 to 2·pad_px.
        boxes: int64 (B, 4), top, left, height and width of the erased rectangle; all 0 where nothing is erased.
    """

    mirrored: Tensor
    corners: Tensor
    boxes: Tensor

    def part(self, start: int, stop: int) -> "Draws":
        """Those of some of the images."""
        return Draws(self.mirrored[start:stop], self.corners[start:stop], self.boxes[start:stop])

    def to(self, device: torch.device) -> "Draws":
        """The same on another device."""
        return Draws(self.mirrored.to(device), self.corners.to(device), self.boxes.to(device))


def draw_augmentation(rng: np.random.Generator, count: int, images: Images, erasing: Erasing | None) -> Draws:
    """Draw for ``count`` images what is to happen to each; no erasing for None."""
    boxes = np.zeros((count, 4), np.int64)
    if erasing is not None:
        boxes = draw_boxes(rng, count, images.height_px, images.width_px, erasing)
    return Draws(
        mirrored=torch.from_numpy(rng.random(count) < images.flip_probability),
        corners=torch.from_numpy(rng.integers(0, 2 * images.pad_px, (count, 2), endpoint=True)),
        boxes=torch.from_numpy(boxes),
    )


def draw_boxes(
    rng: np.random.Generator, count: int, height_px: int, width_px: int, erasing: Erasing
) -> Integers:
    """Rectangles to erase (paper, 3.2): each the first of up to ``max_tries`` that fits into its image.

    Returns:
        int64 (count, 4): top, left, height, width; zeros for an image that stays whole.
    """
    shape = (count, erasing.max_tries)
    area = rng.uniform(erasing.min_area, erasing.max_area, shape) * height_px * width_px
    aspect = rng.uniform(erasing.min_aspect, erasing.max_aspect, shape)
    heights = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    vertical, horizontal = rng.random(shape), rng.random(shape)
    if erasing.follows == "paper":
        tops, lefts = (vertical * height_px).astype(np.int64), (horizontal * width_px).astype(np.int64)
        fits = (tops + heights <= height_px) & (lefts + widths <= width_px)
    else:
        fits = (heights < height_px) & (widths < width_px)
        tops = (vertical * (height_px - heights + 1)).astype(np.int64)
        lefts = (horizontal * (width_px - widths + 1)).astype(np.int64)
    first = fits.argmax(1)
    rows = np.arange(count)
    boxes = np.stack([each[rows, first] for each in (tops, lefts, heights, widths)], 1)
    erased = fits.any(1) & (rng.random(count) < erasing.probability)
    return np.where(erased[:, None], boxes, 0)


def augment(store: Tensor, indices: Tensor, draws: Draws, pad_px: int, erasing: Erasing | None) -> Tensor:
    """Images of the store as they were drawn to be trained on.

    Mirror, pad with black, crop, normalize, erase: the authors' order. Mirroring before or after the crop, as the
    paper has it, is the same in distribution.

    Args:
        store: uint8 (N, H, W, 3), all training images.
        indices: int64 (B,), on the store's device.
        draws: for B images.
        pad_px: width of the black border.
        erasing: what to fill rectangles with; None: there are none.

    Returns:
        float32 (B, 3, H, W), normalized with ImageNet's mean and std, in channels-last memory.
    """
    device, (height, width) = store.device, store.shape[1:3]
    draws = draws.to(device)
    rows = draws.corners[:, :1] - pad_px + torch.arange(height, device=device)
    columns = draws.corners[:, 1:] - pad_px + torch.arange(width, device=device)
    columns = torch.where(draws.mirrored[:, None], width - 1 - columns, columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    pixels = store[
        indices[:, None, None],
        rows.clamp(0, height - 1)[:, :, None],
        columns.clamp(0, width - 1)[:, None],
    ]
    normalized = normalize((pixels * inside[..., None]).permute(0, 3, 1, 2))
    return normalized if erasing is None else _erase(normalized, draws.boxes, erasing)


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W), RGB → float32, less ImageNet's mean and over its std (paper, 2, step 5)."""
    mean, std = _statistics(pixels.device)
    return pixels.float().div_(255).sub_(mean).div_(std)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and std, copied to a GPU once."""
    # An evaluation may be the first to ask, and training steps need plain tensors.
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(each, device=device).reshape(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD)
        )
    return mean, std


def _erase(images: Tensor, boxes: Tensor, erasing: Erasing) -> Tensor:
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.T[:, :, None]
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < top + box_height)
    in_columns = (columns >= left) & (columns < left + box_width)
    erased = in_rows[:, None, :, None] & in_columns[:, None, None]
    fill = images.mean((2, 3), keepdim=True) if erasing.follows == "paper" else _statistics(images.device)[0]
    return torch.where(erased, fill, images)
