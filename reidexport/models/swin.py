"""Swin transformers (Liu et al., ICCV 2021), with SOLIDER's semantic embedding (Chen et al., CVPR 2023)."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reidexport.models.vit import Mlp

WINDOW = 7
_SHIFT = WINDOW // 2
_HEAD_WIDTH = 32


@dataclass(frozen=True)
class SwinDimensions:
    """What makes a :class:`SwinTransformer` of one size.

    Attributes:
        width: channels of the first stage; each further one has twice as many.
        depths: number of blocks of the four stages.
    """

    width: int
    depths: tuple[int, int, int, int]


SWINS = {
    "swin_tiny": SwinDimensions(96, (2, 2, 6, 2)),
    "swin_small": SwinDimensions(96, (2, 2, 18, 2)),
    "swin_base": SwinDimensions(128, (2, 2, 18, 2)),
}


def padded(x: Tensor, multiple: int) -> Tensor:
    """A map (B, h, w, C) with zeros below and to the right, so that both sides are a multiple of something."""
    height, width = x.shape[1:3]
    return functional.pad(x, (0, 0, 0, -width % multiple, 0, -height % multiple))


def windows(x: Tensor) -> Tensor:
    """(B, h, w, C) → (B, windows, 49, C)."""
    height, width, channels = x.shape[1:]
    parts = x.reshape(-1, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return parts.transpose(2, 3).reshape(-1, height * width // WINDOW**2, WINDOW**2, channels)


def from_windows(parts: Tensor, height: int, width: int) -> Tensor:
    """(B, windows, 49, C) → (B, h, w, C)."""
    shape = (-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, parts.shape[3])
    return parts.reshape(shape).transpose(2, 3).reshape(-1, height, width, parts.shape[3])


@cache
def relative_positions() -> NDArray[np.int64]:
    """(49, 49): for each pair of places of a window, the row of its bias in the table of 13 · 13 offsets."""
    down, across = np.divmod(np.arange(WINDOW**2), WINDOW)
    row, column = (place[:, None] - place[None, :] + WINDOW - 1 for place in (down, across))
    index: NDArray[np.int64] = row * (2 * WINDOW - 1) + column
    return index


@cache
def shift_mask(height: int, width: int) -> NDArray[np.float32]:
    """What keeps apart, in the windows of a shifted map, places that were no neighbors before the shift.

    Args:
        height: of the padded map.
        width: likewise.

    Returns:
        (windows, 1, 49, 49): 0 for two places of one region, -100 of two.
    """
    # The last window of a side holds its end and, behind the shift, its start.
    down, across = (
        np.repeat((0, 1, 2), (side - WINDOW, WINDOW - _SHIFT, _SHIFT)) for side in (height, width)
    )
    regions = (3 * down[:, None] + across).reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    flat = regions.transpose(0, 2, 1, 3).reshape(-1, 1, WINDOW**2)
    return np.where(flat[..., :, None] == flat[..., None, :], 0, -100).astype(np.float32)


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of 7x7 places, with a learned bias for every offset between two places.

    Args:
        channels: of the map.
        shifted: whether the windows lie 3 places further down and to the right, those at the borders wrapped around.
    """

    def __init__(self, channels: int, *, shifted: bool) -> None:
        super().__init__()
        self.num_heads, self.shifted = channels // _HEAD_WIDTH, shifted
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, self.num_heads))
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) → the same shape."""
        height, width = x.shape[1:3]
        x = padded(x, WINDOW)
        bias = self.relative_position_bias_table[torch.from_numpy(relative_positions())].permute(2, 0, 1)
        if self.shifted:
            bias = bias + torch.from_numpy(shift_mask(*x.shape[1:3])).to(bias)
            x = x.roll((-_SHIFT, -_SHIFT), (1, 2))
        parts = windows(x)
        qkv = self.qkv(parts).reshape(-1, *parts.shape[1:3], 3, self.num_heads, _HEAD_WIDTH)
        queries, keys, values = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        logits = (queries * _HEAD_WIDTH**-0.5) @ keys.transpose(3, 4) + bias
        attended = (logits.softmax(-1) @ values).transpose(2, 3)
        answer = from_windows(self.proj(attended.reshape(-1, *parts.shape[1:])), *x.shape[1:3])
        if self.shifted:
            answer = answer.roll((_SHIFT, _SHIFT), (1, 2))
        return answer[:, :height, :width]


class SwinBlock(nn.Module):
    """A pre-norm block of windowed attention; (B, h, w, C) → the same shape."""

    def __init__(self, channels: int, *, shifted: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(channels), WindowAttention(channels, shifted=shifted)
        self.norm2, self.mlp = nn.LayerNorm(channels), Mlp(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        x = x + self.attn(self.norm1(x))
        answer: Tensor = x + self.mlp(self.norm2(x))
        return answer


class SwinStem(nn.Module):
    """A token of every 4x4 pixels: (B, 3, H, W) → (B, H / 4, W / 4, C), both rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, h, w, C)."""
        height, width = images.shape[2:]
        images = functional.pad(images, (0, -width % 4, 0, -height % 4))
        tokens: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return tokens


class PatchMerging(nn.Module):
    """A token of every 2x2: (B, h, w, C) → (B, h / 2, w / 2, 2 · C), both rounded up.

    What it norms is in the order of ``nn.Unfold``, (C, 2, 2), as mmdetection's Swin has it; Microsoft's has (2, 2, C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) → (B, h / 2, w / 2, 2 · C)."""
        x = padded(x, 2)
        height, width, channels = x.shape[1:]
        squares = x.reshape(-1, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 5, 2, 4)
        tokens: Tensor = self.reduction(self.norm(squares.flatten(3)))
        return tokens


class SemanticEmbedding(nn.Module):
    """SOLIDER's scale and shift of every channel, from one number: how much the feature is to say of semantics.

    Args:
        channels: of the map.
        weight: that number, from 0 (how a person looks) to 1 (which part of a body it is).
    """

    def __init__(self, channels: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.scale, self.shift = nn.Linear(2, channels), nn.Linear(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) → the same shape."""
        scale, shift = (
            self.weight * linear.weight[:, 0] + (1 - self.weight) * linear.weight[:, 1] + linear.bias
            for linear in (self.scale, self.shift)
        )
        return x * functional.softplus(scale) + shift


class SwinTransformer(nn.Module):
    """(B, 3, H, W) → (B, 8 · width, H / 32, W / 32), both rounded up.

    Args:
        dimensions: its size.
        semantic_weight: of SOLIDER's semantic embedding; None where there is none.
    """

    def __init__(self, dimensions: SwinDimensions, semantic_weight: float | None) -> None:
        super().__init__()
        width = dimensions.width
        self.out_channels = 8 * width
        self.patch_embed = SwinStem(width)
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(dimensions.depths):
            channels = width << stage
            blocks = [SwinBlock(channels, shifted=place % 2 == 1) for place in range(depth)]
            parts: OrderedDict[str, nn.Module] = OrderedDict(blocks=nn.Sequential(*blocks))
            if stage < 3:
                parts["downsample"] = PatchMerging(channels)
                if semantic_weight is not None:
                    parts["semantic_embed"] = SemanticEmbedding(2 * channels, semantic_weight)
            self.stages.append(nn.Sequential(parts))
        self.norm = nn.LayerNorm(self.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, h, w)."""
        x = self.patch_embed(images)
        for stage in self.stages:
            x = stage(x)
        answer: Tensor = self.norm(x).permute(0, 3, 1, 2)
        return answer
