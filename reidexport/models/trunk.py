"""Backbones that are parts of a network of timm or torchvision, with its parameter names."""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import timm
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import SqueezeExcitation

TIMM_NAMES = {
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50": "legacy_seresnext50_32x4d",
    "se_resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
}
RESNET_STEM = ("conv1", "bn1", "relu", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")
_LAST_STRIDED_BLOCK = 14  # of torchvision's MobileNetV2: the first of ``features`` with 160 channels


class _Mean(nn.Module):
    """Mean over a map, which is exported as one operator; adaptive pooling is not."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)


class Trunk(nn.Sequential):
    """Parts of a network, by their names there, one after the other: (B, 3, H, W) → (B, out_channels, h, w)."""

    def __init__(self, network: nn.Module, parts: Iterable[str], out_channels: int) -> None:
        super().__init__(OrderedDict((part, network.get_submodule(part)) for part in parts))
        self.out_channels = out_channels


def senet(name: str, last_stride: int) -> Trunk:
    """SE-ResNet, SE-ResNeXt or SENet-154 as in reid-strong-baseline; timm has copies of the same code.

    (B, 3, H, W) → (B, 2048, h, w); the stem always has its ReLU and pools with ceil_mode, unpadded. SE-ResNet strides
    in conv1 of a block (Caffe's way), the others in conv2.
    """
    network: Any = timm.create_model(TIMM_NAMES[name], pretrained=False, num_classes=0)
    set_last_stride(network.layer4, last_stride)
    return Trunk(network, ("layer0", "pool0", *STAGES), 2048)


def resnest50(last_stride: int) -> Trunk:
    """ResNeSt-50 as in fast-reid (its S50): (B, 3, H, W) → (B, 2048, h, w).

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


def mobilenet_v2(last_stride: int) -> Trunk:
    """(B, 3, H, W) → (B, 1280, H/32 or H/16, W/32 or W/16); a last stride of 1 doubles the map (paper, 3.4)."""
    network = models.mobilenet_v2(weights=None)
    set_last_stride(network.features[_LAST_STRIDED_BLOCK], last_stride)
    return Trunk(network, ["features"], 1280)


def mobilenet_v3(size: Literal["large", "small"]) -> Trunk:
    """MobileNetV3 as in fast-reid, without a last stride to choose: (B, 3, H, W) → (B, 1280 or 1024, H/32, W/32).

    It is torchvision's with the usual eps, and with a convolution for the first layer of its classifier.
    """
    network: Any = models.get_model(f"mobilenet_v3_{size}", norm_layer=partial(nn.BatchNorm2d, eps=1e-5))
    for module in network.modules():
        if isinstance(module, SqueezeExcitation):
            module.avgpool = _Mean()
    first = network.classifier[0]
    channels: int = first.out_features
    network.conv = nn.Sequential(
        nn.Conv2d(first.in_features, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    )
    return Trunk(network, ("features", "conv"), channels)


def densenet121_without_relu(last_stride: int) -> Trunk:
    """DenseNet-121 as in layumi's project, without torchvision's last ReLU.

    (B, 3, H, W) → (B, 1024, H/32, W/32), or almost (H/16, W/16) with a last stride of 1.
    """
    network = models.densenet121(weights=None)
    if last_stride == 1:
        network.features.transition3.pool.stride = 1
    return Trunk(network, ["features"], 1024)


def densenet(name: str) -> Trunk:
    """DenseNet as torchreid has it, with a ReLU at its end: (B, 3, H, W) → (B, out_channels, H/32, W/32)."""
    network = models.get_model(name, num_classes=1)
    network.relu5 = nn.ReLU(inplace=True)
    return Trunk(network, ["features", "relu5"], network.classifier.in_features)


def squeezenet(name: str) -> Trunk:
    """SqueezeNet: (B, 3, H, W) → (B, 512, h, w), about a sixteenth of the image's height and width."""
    return Trunk(models.get_model(name, num_classes=1), ["features"], 512)


def xception() -> Trunk:
    """Xception: (B, 3, H, W) → (B, 2048, H/32, W/32)."""
    network: Any = timm.create_model("legacy_xception", pretrained=False, num_classes=0)
    blocks = [f"block{number}" for number in range(1, 13)]
    entry = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
    return Trunk(network, (*entry, *blocks, "conv3", "bn3", "act3", "conv4", "bn4", "act4"), 2048)


def inception_resnet_v2() -> Trunk:
    """Inception-ResNet-v2: (B, 3, H, W) → (B, 1536, h, w)."""
    network: Any = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=0)
    parts = [
        name for name, _ in network.named_children() if name not in ("global_pool", "head_drop", "classif")
    ]
    return Trunk(network, parts, 1536)


def inception_v4() -> Trunk:
    """Inception-v4: (B, 3, H, W) → (B, 1536, h, w)."""
    return Trunk(timm.create_model("inception_v4", pretrained=False, num_classes=0), ["features"], 1536)


def set_last_stride(last_stage: nn.Module, last_stride: int) -> None:
    """Turn every stride-2 convolution of the last stage to stride 1 where ``last_stride`` is 1 (paper, 3.4)."""
    if last_stride == 1:
        for module in last_stage.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)


def torchvision_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a MobileNetV2 whose blocks number their layers flatly, under torchvision's names.

    The first public PyTorch port (tonylins/pytorch-mobilenet-v2) has ``features.2.conv.3.weight`` where torchvision
    has ``features.2.conv.1.0.weight``; other names stay as they are.
    """
    if "features.2.conv.7.weight" not in state_dict:
        return state_dict
    nested = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    first_block = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}  # it does not expand
    renamed = {}
    for key, tensor in state_dict.items():
        parts = key.split(".")
        if len(parts) == 5 and parts[2] == "conv":
            parts[3] = (first_block if parts[1] == "1" else nested)[parts[3]]
        renamed[".".join(parts)] = tensor
    return renamed
