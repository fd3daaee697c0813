"""HACNN (Li et al., CVPR 2018) as torchreid has it, with its parameter names.

Upstream cuts its regions out with ``grid_sample`` and resizes them with ``interpolate``. Both are linear, and treat
rows and columns apart: here they are matrices, which every runtime multiplies alike.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from reidexport.errors import InputError

HEIGHT_PX, WIDTH_PX = 160, 64
_NUM_REGIONS = 4
_EMBEDDED = 512
_Size = tuple[int, int]


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, batch norm, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


def _fc(in_features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, _EMBEDDED), nn.BatchNorm1d(_EMBEDDED), nn.ReLU(inplace=True))


def _bilinear(positions: Tensor, size: int) -> Tensor:
    """Weights of bilinear interpolation, with zeros around: (..., N) positions in pixels → (..., N, size)."""
    pixels, positions = positions.new_tensor(list(range(size))), positions.unsqueeze(-1)
    return torch.relu(1 - torch.relu(positions - pixels) - torch.relu(pixels - positions))


def _resizing(old: int, new: int, like: Tensor) -> Tensor:
    """The matrix (new, old) of bilinear resizing with ``align_corners=True``."""
    return _bilinear(like.new_tensor([place * (old - 1) / (new - 1) for place in range(new)]), old)


class Enlarge(nn.Module):
    """A map of twice the size, by bilinear interpolation with ``align_corners=True``."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 2 H, 2 W)."""
        height, width = int(x.shape[2]), int(x.shape[3])
        return _resizing(height, 2 * height, x) @ x @ _resizing(width, 2 * width, x).T


class Regions(nn.Module):
    """Four regions of a map, each as wide as the map and a quarter as high, resized.

    Args:
        whole: (height, width) of the map.
        resized: (height, width) of a region.
    """

    def __init__(self, whole: _Size, resized: _Size) -> None:
        super().__init__()
        self.whole, self.resized = whole, resized

    def forward(self, x: Tensor, shifts: Tensor) -> Tensor:
        """Cut out and resize.

        Args:
            x: (B, C, height, width).
            shifts: (B, 4, 2), of each region's center from the map's, to the right and down, in units of half a map.

        Returns:
            (4 B, C, height, width), the regions of an image one after the other.

        Raises:
            InputError: the map is of another size.
        """
        if x.shape[2:] != self.whole:
            raise InputError(f"hacnn takes images of {HEIGHT_PX}x{WIDTH_PX} px only: leave --size out")
        (height, width), (new_height, new_width) = self.whole, self.resized
        rows = x.new_tensor([0.375 * (height - 1) + 0.25 * row for row in range(height)])
        columns = x.new_tensor(list(range(width)))
        vertical = _bilinear(rows + shifts[:, :, 1:] * (height / 2), height)
        horizontal = _bilinear(columns + shifts[:, :, :1] * (width / 2), width)
        vertical = _resizing(height, new_height, x) @ vertical
        horizontal = _resizing(width, new_width, x) @ horizontal
        cut = vertical.unsqueeze(2) @ x.unsqueeze(1) @ horizontal.unsqueeze(2).transpose(3, 4)
        return cut.flatten(0, 1)


class InceptionA(nn.Module):
    """Four streams of a quarter of the channels each: (B, C, H, W) → (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        quarter = out_channels // 4
        self.stream1, self.stream2, self.stream3 = (
            nn.Sequential(_conv_norm(in_channels, quarter), _conv_norm(quarter, quarter, 3)) for _ in range(3)
        )
        self.stream4 = nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv_norm(in_channels, quarter))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out_channels, H, W)."""
        return torch.cat((self.stream1(x), self.stream2(x), self.stream3(x), self.stream4(x)), 1)


class InceptionB(nn.Module):
    """Three streams of stride 2: (B, C, H, W) → (B, out_channels, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        quarter = out_channels // 4
        self.stream1 = nn.Sequential(_conv_norm(in_channels, quarter), _conv_norm(quarter, quarter, 3, 2))
        self.stream2 = nn.Sequential(
            _conv_norm(in_channels, quarter),
            _conv_norm(quarter, quarter, 3),
            _conv_norm(quarter, quarter, 3, 2),
        )
        self.stream3 = nn.Sequential(nn.MaxPool2d(3, 2, 1), _conv_norm(in_channels, 2 * quarter))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out_channels, H/2, W/2)."""
        return torch.cat((self.stream1(x), self.stream2(x), self.stream3(x)), 1)


class SpatialAttention(nn.Module):
    """(B, C, H, W) → (B, 1, H, W), from the mean over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.enlarge, self.conv2 = _conv_norm(1, 1, 3, 2), Enlarge(), _conv_norm(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1, H, W)."""
        attention: Tensor = self.conv2(self.enlarge(self.conv1(x.mean(1, keepdim=True))))
        return attention


class ChannelAttention(nn.Module):
    """(B, C, H, W) → (B, C, 1, 1), from the mean over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv_norm(channels, channels // 16), _conv_norm(channels // 16, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 1, 1)."""
        attention: Tensor = self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))
        return attention


class SoftAttention(nn.Module):
    """A weight between 0 and 1 for every element: keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial_attn, self.channel_attn = SpatialAttention(), ChannelAttention(channels)
        self.conv = _conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return torch.sigmoid(self.conv(self.spatial_attn(x) * self.channel_attn(x)))


class HardAttention(nn.Module):
    """Where the regions are: (B, C, H, W) → (B, 4, 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 2 * _NUM_REGIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 4, 2)."""
        return torch.tanh(self.fc(x.mean((2, 3)))).reshape(-1, _NUM_REGIONS, 2)


class HarmoniousAttention(nn.Module):
    """Weights of a map's elements, and where its regions are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.soft_attn, self.hard_attn = SoftAttention(channels), HardAttention(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → the weighted map of the same shape, and (B, 4, 2)."""
        return x * self.soft_attn(x), self.hard_attn(x)


class HACNN(nn.Module):
    """(B, 3, 160, 64) → (B, 1024): a feature of the whole image and one of its regions, each of unit length."""

    out_channels = 2 * _EMBEDDED

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv_norm(3, 32, 3, 2)
        stages = ((32, 128), (128, 256), (256, 384))
        self.inception1, self.inception2, self.inception3 = (
            nn.Sequential(InceptionA(ins, outs), InceptionB(outs, outs)) for ins, outs in stages
        )
        self.ha1, self.ha2, self.ha3 = (HarmoniousAttention(outs) for _, outs in stages)
        self.local_conv1, self.local_conv2, self.local_conv3 = (InceptionB(*stage) for stage in stages)
        self.regions1 = Regions((80, 32), (24, 28))
        self.regions2 = Regions((40, 16), (12, 14))
        self.regions3 = Regions((20, 8), (6, 7))
        self.fc_global, self.fc_local = _fc(384), _fc(_NUM_REGIONS * 384)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 160, 64) → (B, 1024)."""
        x = self.conv(x)
        x1, shifts1 = self.ha1(self.inception1(x))
        x2, shifts2 = self.ha2(self.inception2(x1))
        x3, shifts3 = self.ha3(self.inception3(x2))
        local = self.local_conv1(self.regions1(x, shifts1))
        local = self.local_conv2(self.regions2(x1, shifts2) + local)
        local = self.local_conv3(self.regions3(x2, shifts3) + local)
        whole = self.fc_global(x3.mean((2, 3)))
        regions = self.fc_local(local.mean((2, 3)).reshape(-1, _NUM_REGIONS * 384))
        return torch.cat((_unit_rows(whole), _unit_rows(regions)), 1)


def _unit_rows(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
