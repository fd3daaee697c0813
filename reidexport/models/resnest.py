"""ResNeSt-50 as in fast-reid (its S50), on timm's layers."""

from typing import Any

import timm
from torch import Tensor, nn


class ResNeSt50(nn.Module):
    """(B, 3, H, W) → (B, 2048, h, w).

    fast-reid reaches last stride 1 by dilating layer4. timm dilates likewise, but drops the 3×3 average
    pooling of layer4's first block and blurs its shortcut; both are put back as fast-reid has them.
    """

    out_channels = 2048

    def __init__(self, last_stride: int) -> None:
        super().__init__()
        trunk: Any = timm.create_model(
            "resnest50d", pretrained=False, num_classes=0, output_stride=16 if last_stride == 1 else 32
        )
        if last_stride == 1:
            trunk.layer4[0].avd_last = nn.AvgPool2d(3, stride=1, padding=1)
            trunk.layer4[0].downsample[0] = nn.Identity()
        self.conv1, self.bn1, self.act1, self.maxpool = trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool
        self.layer1, self.layer2 = trunk.layer1, trunk.layer2
        self.layer3, self.layer4 = trunk.layer3, trunk.layer4

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048, h, w)."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features
