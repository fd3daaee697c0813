"""ResNet-18 to -152, their IBN-a and SE variants and fast-reid's non-local blocks, on torchvision's blocks.

Parameter names are torchvision's, so strong-baseline, fast-reid, torchreid and ImageNet weights load as they are.
"""

from collections import OrderedDict

import torch
from reidruntime.artifact.manifest import StemPool
from torch import Tensor, nn
from torchvision import models

from reidexport.models.trunk import set_last_stride

# fast-reid puts this many non-local blocks at the end of each stage.
NON_LOCAL_BLOCKS: dict[int, tuple[int, int, int, int]] = {50: (0, 2, 3, 0), 101: (0, 2, 9, 0)}


def stem_pooling(stem_pool: StemPool) -> nn.Module:
    """The max pooling that a :data:`StemPool` names, of stride 2 but for "none"."""
    if stem_pool == "none":
        return nn.Identity()
    if stem_pool == "2x2":
        return nn.MaxPool2d(2)
    padding = 1 if stem_pool.startswith("padded") else 0
    return nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=stem_pool.endswith("ceil"))


class IBN(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the others (IBN-Net, Pan et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.BN: nn.Module = nn.BatchNorm2d(channels - self.num_instance)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return torch.cat((self.IN(x[:, : self.num_instance]), self.BN(x[:, self.num_instance :])), 1)


class SqueezeExcitation(nn.Module):
    """fast-reid's channel attention: two linear layers without biases behind the mean over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, inner = channels, channels // 16
        self.fc = nn.Sequential(
            nn.Linear(channels, inner, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(inner, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        gates = torch.sigmoid(self.fc(x.mean((2, 3))))
        return x * gates.reshape(-1, self.channels, 1, 1)


class NonLocal(nn.Module):
    """fast-reid's non-local block: dot-product attention through a single channel, divided by H·W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, 1, 1)
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape; with one channel, theta·(phi·g) needs no H·W × H·W matrix."""
        phi_g = (self.phi(x) * self.g(x)).mean((2, 3), keepdim=True)
        attended: Tensor = self.W(self.theta(x) * phi_g)
        return x + attended


class ResNet(nn.Module):
    """A ResNet without its classifier: (B, 3, H, W) → (B, out_channels, H/32 or H/16, W/32 or W/16).

    Args:
        depth: 18, 34, 50, 101 or 152.
        last_stride: stride of the first block of layer4; 1 keeps the map twice as large (paper, 3.4).
        stem_relu: False for reid-strong-baseline, whose code has none after bn1.
        stem_pool: its max pooling; "padded" in torchvision, "ceil" in fast-reid.
        ibn: IBN-a: layers 1 to 3 get :class:`IBN` as their first norm.
        se: every block gets a :class:`SqueezeExcitation` behind its last norm.
        non_local: fast-reid's non-local blocks (SBS and AGW).
    """

    def __init__(
        self,
        depth: int,
        last_stride: int,
        *,
        stem_relu: bool = True,
        stem_pool: StemPool = "padded",
        ibn: bool = False,
        se: bool = False,
        non_local: bool = False,
    ) -> None:
        super().__init__()
        trunk = models.get_model(f"resnet{depth}", num_classes=1)
        self.out_channels = trunk.fc.in_features
        self.conv1, self.bn1 = trunk.conv1, trunk.bn1
        self.relu = nn.ReLU(inplace=True) if stem_relu else nn.Identity()
        self.maxpool = stem_pooling(stem_pool)
        self.layer1, self.layer2 = trunk.layer1, trunk.layer2
        self.layer3, self.layer4 = trunk.layer3, trunk.layer4
        set_last_stride(self.layer4, last_stride)
        for layer in (self.layer1, self.layer2, self.layer3) if ibn else ():
            for first in layer:
                first.bn1 = IBN(first.bn1.num_features)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4) if se else ():
            for block in layer:
                place = "bn3" if hasattr(block, "bn3") else "bn2"
                norm = getattr(block, place)
                excitation = SqueezeExcitation(norm.num_features)
                setattr(block, place, nn.Sequential(OrderedDict(bn=norm, se=excitation)))
        counts = NON_LOCAL_BLOCKS[depth] if non_local else (0, 0, 0, 0)
        for stage, count in enumerate(counts, start=1):
            channels = self.out_channels >> (len(counts) - stage)
            setattr(self, f"NL_{stage}", nn.ModuleList(NonLocal(channels) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, h, w)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (1, 2, 3, 4):
            blocks = list(self.get_submodule(f"layer{stage}").children())
            attentions = list(self.get_submodule(f"NL_{stage}").children())
            # The last blocks of a stage are each followed by a non-local block.
            for place, block in enumerate(blocks, start=len(attentions) - len(blocks)):
                x = attentions[place](block(x)) if place >= 0 else block(x)
        return x
