"""ShuffleNet (Zhang et al., CVPR 2018) and ShuffleNetV2 (Ma et al., ECCV 2018), with torchreid's parameter names."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision import models

_NUM_GROUPS = 3
_CHANNELS = (240, 480, 960)
_NUM_UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1×1 convolutions with a shuffle between them, beside the input or its average of half the size."""

    def __init__(self, in_channels: int, out_channels: int, *, strided: bool, is_first: bool = False) -> None:
        super().__init__()
        mid_channels = out_channels // 4
        kept = out_channels - in_channels if strided else out_channels
        # The first of all has too few input channels for groups.
        self.conv1 = nn.Conv2d(
            in_channels, mid_channels, 1, groups=1 if is_first else _NUM_GROUPS, bias=False
        )
        self.bn1 = nn.BatchNorm2d(mid_channels)
        self.shuffle1 = nn.ChannelShuffle(_NUM_GROUPS)
        self.conv2 = nn.Conv2d(
            mid_channels, mid_channels, 3, 2 if strided else 1, 1, groups=mid_channels, bias=False
        )
        self.bn2 = nn.BatchNorm2d(mid_channels)
        self.conv3 = nn.Conv2d(mid_channels, kept, 1, groups=_NUM_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(kept)
        self.is_strided = strided
        self.shortcut = nn.AvgPool2d(3, 2, 1) if strided else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W) or half its size."""
        inner = self.shuffle1(torch.relu(self.bn1(self.conv1(x))))
        inner = self.bn3(self.conv3(self.bn2(self.conv2(inner))))
        shortcut = self.shortcut(x)
        return torch.relu(torch.cat((shortcut, inner), 1) if self.is_strided else shortcut + inner)


class ShuffleNet(nn.Sequential):
    """ShuffleNet with three groups: (B, 3, H, W) → (B, 960, H/32, W/32)."""

    out_channels = _CHANNELS[-1]

    def __init__(self) -> None:
        channels = 24
        stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        super().__init__(OrderedDict(conv1=nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))))
        for stage, (out_channels, num_units) in enumerate(zip(_CHANNELS, _NUM_UNITS, strict=True), start=2):
            units = [ShuffleUnit(channels, out_channels, strided=True, is_first=stage == 2)]
            units += [ShuffleUnit(out_channels, out_channels, strided=False) for _ in range(num_units - 1)]
            self.add_module(f"stage{stage}", nn.Sequential(*units))
            channels = out_channels


class ShuffleUnitV2(nn.Module):
    """A unit of torchvision's ShuffleNetV2, whose shuffle is a layer."""

    def __init__(self, unit: models.shufflenetv2.InvertedResidual) -> None:
        super().__init__()
        self.is_strided = unit.stride > 1
        self.branch1 = unit.branch1
        self.branch2 = unit.branch2
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W) or half its size."""
        if self.is_strided:
            parts = self.branch1(x), self.branch2(x)
        else:
            first, second = x.chunk(2, 1)
            parts = first, self.branch2(second)
        shuffled: Tensor = self.shuffle(torch.cat(parts, 1))
        return shuffled


class ShuffleNetV2(nn.Sequential):
    """(B, 3, H, W) → (B, out_channels, H/32, W/32).

    Args:
        width: such as "x1_0".
    """

    def __init__(self, width: str) -> None:
        network = models.get_model(f"shufflenet_v2_{width}", num_classes=1)
        super().__init__()
        self.out_channels: int = network.fc.in_features
        for name in ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"):
            part = network.get_submodule(name)
            if name.startswith("stage"):
                part = nn.Sequential(*(ShuffleUnitV2(unit) for unit in part))
            self.add_module(name, part)
