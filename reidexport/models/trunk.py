"""What backbones made of another library's network have in common."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

STAGES = ("layer1", "layer2", "layer3", "layer4")


class Trunk(nn.Sequential):
    """Parts of a network, by their names there, one after the other: (B, 3, H, W) → (B, out_channels, h, w)."""

    def __init__(self, network: nn.Module, parts: Iterable[str], out_channels: int) -> None:
        super().__init__(OrderedDict((part, network.get_submodule(part)) for part in parts))
        self.out_channels = out_channels


def set_last_stride(last_stage: nn.Module, last_stride: int) -> None:
    """Turn every stride-2 convolution of the last stage to stride 1 where ``last_stride`` is 1 (paper, 3.4)."""
    if last_stride == 1:
        for module in last_stage.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
