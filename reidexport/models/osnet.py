"""OSNet, OSNet-IBN and OSNet-AIN (Zhou et al., ICCV 2019 and TPAMI 2021), with torchreid's AIN parameter names.

Plain OSNet's own names differ from AIN's; ``families.py`` maps them.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

Variant = Literal["plain", "ibn", "ain"]
InstanceNormPlace = Literal["none", "residual", "output"]

WIDTHS: dict[str, tuple[int, int, int, int]] = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
# Where each of the 3 × 2 blocks has its instance norm.
BLOCKS: dict[Variant, tuple[tuple[InstanceNormPlace, InstanceNormPlace], ...]] = {
    "plain": (("none", "none"), ("none", "none"), ("none", "none")),
    "ibn": (("output", "output"), ("none", "none"), ("none", "none")),
    "ain": (("residual", "residual"), ("none", "residual"), ("residual", "none")),
}


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, norm: str = "batch",
    relu: bool = True,
) -> nn.Sequential:  # fmt: skip
    """Convolution without bias, then batch norm (or instance norm, or none), then ReLU unless ``relu`` is False."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    bn: nn.Module = nn.Identity()
    if norm != "none":
        bn = nn.BatchNorm2d(out_channels) if norm == "batch" else nn.InstanceNorm2d(out_channels, affine=True)
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU(inplace=True) if relu else nn.Identity()))


def _light_conv(channels: int) -> nn.Sequential:
    """1×1 convolution, then depthwise 3×3, batch norm and ReLU; keeps the shape."""
    conv1 = nn.Conv2d(channels, channels, 1, bias=False)
    conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    bn, relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    return nn.Sequential(OrderedDict(conv1=conv1, conv2=conv2, bn=bn, relu=relu))


def _light_conv_stream(channels: int, depth: int) -> nn.Sequential:
    """``depth`` light convolutions in a row: one scale of a block; keeps the shape."""
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*(_light_conv(channels) for _ in range(depth)))))


class ChannelGate(nn.Module):
    """Sigmoid gate per channel from the globally pooled input, shared by the four scales of a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(self.relu(self.fc1(pooled))))


class OSBlock(nn.Module):
    """Residual block of four scales; its instance norm is nowhere, in the residual, or on the output."""

    def __init__(self, in_channels: int, out_channels: int, instance_norm: InstanceNormPlace) -> None:
        super().__init__()
        mid_channels = out_channels // 4
        self.in_residual = instance_norm == "residual"
        self.conv1 = _conv_norm(in_channels, mid_channels)
        self.conv2 = nn.ModuleList(_light_conv_stream(mid_channels, depth) for depth in (1, 2, 3, 4))
        self.gate = ChannelGate(mid_channels)
        self.conv3 = _conv_norm(
            mid_channels, out_channels, norm="none" if self.in_residual else "batch", relu=False
        )
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = _conv_norm(in_channels, out_channels, relu=False)
        self.IN: nn.Module = nn.Identity()
        if instance_norm != "none":
            self.IN = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        reduced = self.conv1(x)
        scales = self.gate(self.conv2[0](reduced))
        for stream in list(self.conv2)[1:]:
            scales = scales + self.gate(stream(reduced))
        residual = self.conv3(scales)
        if self.in_residual:
            return torch.relu(self.IN(residual) + self.downsample(x))
        return torch.relu(self.IN(residual + self.downsample(x)))


class OSNet(nn.Module):
    """(B, 3, H, W) → (B, out_channels, H/16, W/16)."""

    def __init__(self, width: str, variant: Variant) -> None:
        super().__init__()
        channels = WIDTHS[width]
        self.out_channels = channels[3]
        self.conv1 = _conv_norm(3, channels[0], 7, 2, norm="batch" if variant == "plain" else "instance")
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(
                OSBlock(channels[i], channels[i + 1], first),
                OSBlock(channels[i + 1], channels[i + 1], second),
            )
            for i, (first, second) in enumerate(BLOCKS[variant])
        )
        self.pool2 = nn.Sequential(_conv_norm(channels[1], channels[1]), nn.AvgPool2d(2, stride=2))
        self.pool3 = nn.Sequential(_conv_norm(channels[2], channels[2]), nn.AvgPool2d(2, stride=2))
        self.conv5 = _conv_norm(channels[3], channels[3])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, H/16, W/16)."""
        x = self.pool2(self.conv2(self.maxpool(self.conv1(x))))
        x = self.pool3(self.conv3(x))
        features: Tensor = self.conv5(self.conv4(x))
        return features
