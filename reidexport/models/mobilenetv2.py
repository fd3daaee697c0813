"""MobileNetV2 (Sandler et al., CVPR 2018) as torchreid has it, with its parameter names.

Unlike torchvision's, its first block expands too, and the channels of width 1.4 are not rounded to multiples of 8.
"""

from collections import OrderedDict

from torch import Tensor, nn

WIDTHS = {"mobilenetv2_x1_0": 1.0, "mobilenetv2_x1_4": 1.4}
# Of each stage: expansion, channels at width 1, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU6(inplace=True)))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, reduce; added to the input where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        mid_channels = in_channels * expansion
        self.is_residual = stride == 1 and in_channels == out_channels
        self.conv1 = _conv_norm(in_channels, mid_channels)
        self.dwconv2 = _conv_norm(mid_channels, mid_channels, 3, stride, groups=mid_channels)
        self.conv3 = nn.Sequential(
            nn.Conv2d(mid_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        reduced: Tensor = self.conv3(self.dwconv2(self.conv1(x)))
        return x + reduced if self.is_residual else reduced


class MobileNetV2(nn.Sequential):
    """(B, 3, H, W) → (B, out_channels, H/32, W/32).

    Args:
        width: of all layers but the last, which narrower networks do not narrow.
    """

    def __init__(self, width: float) -> None:
        channels = int(32 * width)
        super().__init__(OrderedDict(conv1=_conv_norm(3, channels, 3, 2)))
        self.out_channels = int(1280 * max(width, 1.0))
        for place, (expansion, base, num_blocks, stride) in enumerate(_STAGES, start=2):
            stage = nn.Sequential()
            for block in range(num_blocks):
                stage.append(InvertedResidual(channels, int(base * width), expansion, 1 if block else stride))
                channels = int(base * width)
            self.add_module(f"conv{place}", stage)
        self.conv9 = _conv_norm(channels, self.out_channels)
