"""Networks that answer one feature for each of several horizontal stripes of the image."""

import torch
from torch import Tensor

from reidexport.models.resnet import ResNet

_NUM_STRIPES = 6


class LayumiPCB(ResNet):
    """layumi's PCB (Sun et al., ECCV 2018): ResNet-50 and the mean of each of six stripes, each of equal length.

    (B, 3, H, W) → (B, 2048 · 6), channel by channel, of unit length: every stripe has a sixth of its square. What
    upstream trains behind it, a classifier for each stripe, its test leaves out.
    """

    def __init__(self, last_stride: int) -> None:
        super().__init__(50, last_stride)
        self.out_channels = 2048 * _NUM_STRIPES

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 12288)."""
        stripes = stripe_means(super().forward(x), _NUM_STRIPES)
        lengths = (stripes.square().sum(1, keepdim=True) * _NUM_STRIPES).sqrt()
        return (stripes / lengths.clamp(min=1e-12)).flatten(1)


def stripe_means(x: Tensor, count: int) -> Tensor:
    """:func:`means_of_stripes` in one tensor, (B, C, count)."""
    return torch.stack(means_of_stripes(x, count), 2)


def means_of_stripes(x: Tensor, count: int) -> list[Tensor]:
    """The mean of each of ``count`` horizontal stripes, as adaptive average pooling cuts them.

    Args:
        x: (B, C, H, W).
        count: number of stripes; they overlap by a row where it does not divide H.

    Returns:
        Of each stripe, from above, (B, C).
    """
    height = x.shape[2]
    bounds = [(height * index // count, -(-height * (index + 1) // count)) for index in range(count)]
    return [x[:, :, start:end].mean((2, 3)) for start, end in bounds]
