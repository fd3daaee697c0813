"""SE-ResNet, SE-ResNeXt and SENet-154 as in reid-strong-baseline, on timm's copies of the same code."""

from typing import Any

import timm

from reidexport.models.trunk import STAGES, Trunk, set_last_stride

TIMM_NAMES = {
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50": "legacy_seresnext50_32x4d",
    "se_resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
}


def senet(name: str, last_stride: int) -> Trunk:
    """(B, 3, H, W) → (B, 2048, h, w); the stem always has its ReLU and pools with ceil_mode, unpadded.

    SE-ResNet strides in conv1 of a block (Caffe's way), the others in conv2; ``last_stride`` finds either.
    """
    network: Any = timm.create_model(TIMM_NAMES[name], pretrained=False, num_classes=0)
    set_last_stride(network.layer4, last_stride)
    return Trunk(network, ("layer0", "pool0", *STAGES), 2048)
