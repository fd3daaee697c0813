"""SE-ResNet, SE-ResNeXt and SENet-154 as in reid-strong-baseline, on timm's copies of the same code."""

from typing import Any

import timm
from torch import Tensor, nn

from reidexport.models.resnet import set_last_stride

TIMM_NAMES = {
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50": "legacy_seresnext50_32x4d",
    "se_resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
}


class SENet(nn.Module):
    """(B, 3, H, W) → (B, 2048, h, w); the stem always has its ReLU and pools with ceil_mode, unpadded.

    SE-ResNet strides in conv1 of a block (Caffe's way), the others in conv2; ``last_stride`` finds either.
    """

    out_channels = 2048

    def __init__(self, name: str, last_stride: int) -> None:
        super().__init__()
        trunk: Any = timm.create_model(TIMM_NAMES[name], pretrained=False, num_classes=0)
        self.layer0, self.pool0 = trunk.layer0, trunk.pool0
        self.layer1, self.layer2 = trunk.layer1, trunk.layer2
        self.layer3, self.layer4 = trunk.layer3, trunk.layer4
        set_last_stride(self.layer4, last_stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048, h, w)."""
        x = self.pool0(self.layer0(x))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features
