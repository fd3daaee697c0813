"""ResNet-50 with something added, as torchreid has it, on torchvision's blocks and with its parameter names."""

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from reidexport.models.trunk import RESNET_STEM, STAGES, Trunk, set_last_stride


def resnext(name: str, last_stride: int) -> Trunk:
    """ResNeXt-50 or -101 as in torchvision: (B, 3, H, W) → (B, 2048, h, w)."""
    network = models.get_model(name, num_classes=1)
    set_last_stride(network.layer4, last_stride)
    return Trunk(network, (*RESNET_STEM, *STAGES), 2048)


class NormedBottleneck(Bottleneck):  # type: ignore[misc]
    """IBN-b (Pan et al., ECCV 2018): an instance norm on the block's output."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels // 4)
        self.IN = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.IN(self.bn3(self.conv3(inner)) + x))


def resnet50_ibn_b(last_stride: int) -> Trunk:
    """(B, 3, H, W) → (B, 2048, h, w); its stem and the ends of layer1 and layer2 have instance norms."""
    network = models.resnet50(weights=None)
    network.bn1 = nn.InstanceNorm2d(64, affine=True)
    network.layer1[-1], network.layer2[-1] = NormedBottleneck(256), NormedBottleneck(512)
    set_last_stride(network.layer4, last_stride)
    return Trunk(network, (*RESNET_STEM, *STAGES), 2048)


class ResNet50Mid(nn.Module):
    """ResNet-50 with mid-level features (Yu et al., 2017): (B, 3, H, W) → (B, 3072).

    The means of the maps of layer4's first two blocks are reduced to 1024, and come before that of its last.
    """

    out_channels = 1024 + 2048

    def __init__(self, last_stride: int) -> None:
        super().__init__()
        network = models.resnet50(weights=None)
        set_last_stride(network.layer4, last_stride)
        for part in (*RESNET_STEM, *STAGES):
            self.add_module(part, network.get_submodule(part))
        self.fc_fusion = nn.Sequential(nn.Linear(4096, 1024), nn.BatchNorm1d(1024), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 3072)."""
        for part in (*RESNET_STEM, *STAGES[:3]):
            x = self.get_submodule(part)(x)
        means = []
        for block in self.get_submodule(STAGES[3]).children():
            x = block(x)
            means.append(x.mean((2, 3)))
        return torch.cat((self.fc_fusion(torch.cat(means[:2], 1)), means[2]), 1)


class Strips(nn.Module):
    """The means over horizontal strips of a map, each of unit length; strips share rows that they divide.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C · count), in the order (C, count)."""
        height = int(x.shape[2])
        bounds = [
            (strip * height // self.count, -(-(strip + 1) * height // self.count))
            for strip in range(self.count)
        ]
        means = torch.stack([x[:, :, top:bottom].mean((2, 3)) for top, bottom in bounds], 2)
        return (means / means.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)).flatten(1)


class PCB(nn.Module):
    """PCB (Sun et al., ECCV 2018) on ResNet-50 of last stride 1: (B, 3, H, W) → (B, 2048 · parts).

    Args:
        parts: number of strips. Weights do not show it: it is kept as a tensor, ``part``, of this length.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        network = models.resnet50(weights=None)
        set_last_stride(network.layer4, 1)
        self.out_channels = 2048 * parts
        for part in (*RESNET_STEM, *STAGES):
            self.add_module(part, network.get_submodule(part))
        self.register_buffer("part", torch.arange(parts, dtype=torch.float32))
        self.strips = Strips(parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048 · parts)."""
        for part in (*RESNET_STEM, *STAGES):
            x = self.get_submodule(part)(x)
        strips: Tensor = self.strips(x)
        return strips
