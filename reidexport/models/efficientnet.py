"""EfficientNet-B4 as the package efficientnet_pytorch has it, for layumi's project, with timm's parameter names."""

from typing import Any

import timm
from torch import nn

from reidexport.models.trunk import Trunk

_IMAGE_PX = 380  # the images that its paddings are computed for, whatever images come


def efficientnet_b4() -> Trunk:
    """(B, 3, H, W) → (B, 1792, H/32, W/32).

    TensorFlow pads a strided layer more at the bottom and right, by an amount that depends on the size of its input.
    timm looks at the images that come; here the amounts are those of images of 380x380 px. Where they are uneven, the
    kernel has one more row and column, of zeros, at its top and left: padding is then even, which all backends take.
    """
    network: Any = timm.create_model("tf_efficientnet_b4", pretrained=False, num_classes=0)
    size = _IMAGE_PX
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            kernel, smaller = layer.kernel_size[0], (size + 1) // 2
            padded = 2 * (smaller - 1) + kernel - size
            kernel += padded % 2
            evenly_padded = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                kernel,
                2,
                (padded + 1) // 2,
                groups=layer.groups,
                bias=False,
            )
            network.set_submodule(name, evenly_padded)
            size = smaller
    return Trunk(network, ("conv_stem", "bn1", "blocks", "conv_head", "bn2"), 1792)
