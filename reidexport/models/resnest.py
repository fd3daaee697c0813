"""ResNeSt-50 as in fast-reid (its S50), on timm's layers."""

from typing import Any

import timm
from torch import nn

from reidexport.models.trunk import STAGES, Trunk


def resnest50(last_stride: int) -> Trunk:
    """(B, 3, H, W) → (B, 2048, h, w).

    fast-reid reaches last stride 1 by dilating layer4. timm dilates likewise, but drops the 3×3 average
    pooling of layer4's first block and blurs its shortcut; both are put back as fast-reid has them.
    """
    network: Any = timm.create_model(
        "resnest50d", pretrained=False, num_classes=0, output_stride=16 if last_stride == 1 else 32
    )
    if last_stride == 1:
        network.layer4[0].avd_last = nn.AvgPool2d(3, stride=1, padding=1)
        network.layer4[0].downsample[0] = nn.Identity()
    return Trunk(network, ("conv1", "bn1", "act1", "maxpool", *STAGES), 2048)
