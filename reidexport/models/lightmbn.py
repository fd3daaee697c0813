"""LightMBN (Herzog et al., ICIP 2021): a global, a partial and a channel branch on a shared stem.

Its seven features of 512 each are pooled, reduced, and have a BatchNorm each. Here they are one vector, in upstream's
order (512, 7), so that one BatchNorm stands for the seven.
"""

import copy

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from reidexport.models.osnet import OSBlock, OSNet
from reidexport.models.parts import means_of_stripes
from reidexport.models.trunk import set_last_stride

NUM_PARTS = 7
_REDUCED = 512


def _osnet_parts() -> tuple[nn.Sequential, nn.Sequential, nn.Module]:
    """Stem, branch, and the block at the end of the global branch, of OSNet x1.0."""
    osnet = OSNet("x1_0", "plain")
    conv2, conv3 = nn.Sequential(*osnet.conv2, osnet.pool2), nn.Sequential(*osnet.conv3, osnet.pool3)
    stem = nn.Sequential(osnet.conv1, osnet.maxpool, conv2, conv3[0])
    branch = nn.Sequential(conv3[1:], osnet.conv4, osnet.conv5)
    return stem, branch, OSBlock(osnet.out_channels, osnet.out_channels, "none")


def _resnet_parts() -> tuple[nn.Sequential, nn.Sequential, nn.Module]:
    """The same of ResNet-50, whose global branch alone has a last stride of 2."""
    resnet = models.resnet50(weights=None)
    first, *others = resnet.layer3
    stem = nn.Sequential(
        resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1, resnet.layer2, first
    )
    return stem, nn.Sequential(nn.Sequential(*others), resnet.layer4), Bottleneck(2048, 512)


class LightMBN(nn.Module):
    """(B, 3, H, W) → (B, 3584), seven features of 512 in the order (512, 7).

    Args:
        backbone: "lmbn_n" is OSNet x1.0, "lmbn_r" ResNet-50.
    """

    out_channels = _REDUCED * NUM_PARTS

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.is_resnet = backbone == "lmbn_r"
        self.stem, branch, self.drop_block = _resnet_parts() if self.is_resnet else _osnet_parts()
        self.global_branch, self.partial_branch, self.channel_branch = (
            copy.deepcopy(branch) for _ in range(3)
        )
        channels = 2048 if self.is_resnet else 512
        if self.is_resnet:
            set_last_stride(self.partial_branch[1], 1)
            set_last_stride(self.channel_branch[1], 1)
        self.reductions = nn.ModuleList(nn.Linear(channels, _REDUCED, bias=False) for _ in range(5))
        self.half_channels = channels // 2
        self.shared = nn.Sequential(
            nn.Linear(self.half_channels, _REDUCED, bias=False),
            nn.BatchNorm1d(_REDUCED),
            nn.ReLU(inplace=True),
        )
        self.cut = TwoStripes()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 3584)."""
        x = self.stem(x)
        whole, partial = self.drop_block(self.global_branch(x)), self.partial_branch(x)
        channels = self.channel_branch(x)
        strongest = whole.amax((2, 3))
        upper, lower = self.cut(partial)
        pooled = (
            strongest if self.is_resnet else whole.mean((2, 3)), strongest, partial.amax((2, 3)), upper, lower,
        )  # fmt: skip
        reduced = [reduce(each) for reduce, each in zip(self.reductions, pooled, strict=True)]
        channels = channels.amax((2, 3)) if self.is_resnet else channels.mean((2, 3))
        # The first and the last channels go through the same layer, as if they were two images.
        shared = self.shared(channels.reshape(-1, self.half_channels)).reshape(-1, 2, _REDUCED)
        return torch.cat((torch.stack(reduced, 2), shared.transpose(1, 2)), 2).flatten(1)


class TwoStripes(nn.Module):
    """The means over the upper and the lower half of a map, which share the middle row of an odd number."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → (B, C) twice."""
        upper, lower = means_of_stripes(x, 2)
        return upper, lower


class UnitParts(nn.Module):
    """Gives each part of a feature unit length, as LightMBN's own evaluation does.

    Args:
        count: number of parts.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) in the order (D / count, count) → the same."""
        parts = features.reshape(-1, features.shape[1] // self.count, self.count)
        return (parts / parts.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)).flatten(1)
