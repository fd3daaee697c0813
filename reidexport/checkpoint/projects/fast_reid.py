"""JDAI-CV/fast-reid."""

import re

from reidexport.checkpoint.family import Family, StateDict
from reidexport.models.baseline import BaselineArchitecture

# Of the training splits of VeRi-776 (with and without a vehicle that has no image), VehicleID and VERI-Wild.
_NUM_VEHICLES = (575, 576, 13164, 30671)


def _neck(state_dict: StateDict) -> StateDict:
    """Its neck is a Sequential of BatchNorm2d, with a 1x1 convolution before it where it reduces."""
    first = state_dict.get("neck.0.weight")
    if first is None:
        return state_dict
    if first.ndim == 4:
        return {**state_dict, "neck.0.weight": first.flatten(1)}
    return {re.sub(r"^neck\.0\.", "neck.", key): tensor for key, tensor in state_dict.items()}


def _size(architecture: BaselineArchitecture) -> tuple[int, int]:
    if architecture.num_classes in _NUM_VEHICLES:
        return 256, 256
    # Its SBS configurations are those with a learned pooling power, and take taller images.
    return (384, 128) if architecture.pooling == "gem" else (256, 128)


FAST_REID = Family(
    name="fast-reid",
    signature=(r"^heads\.",),
    key_map=(
        (r"^pixel_(mean|std)$", ""),
        (r"^heads\.pool_layer\.p$", "pool.p"),
        (r"^heads\.(weight|classifier\.weight)$", "classifier.weight"),
        (r"^heads\.(bnneck|bottleneck)\.", "neck."),
    ),
    convert=_neck,
    backbones=(
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnest50"),
        *("resnet50+nl", "resnet101+nl"),
        *("resnet50_ibn_a", "resnet101_ibn_a", "resnet50_ibn_a+nl", "resnet101_ibn_a+nl"),
    ),
    stem_pool="ceil",
    size=_size,
    resize="bicubic",
    lookalikes="its AGW without non-local blocks (--pooling gem), configurations that pool by the maximum "
    "(--pooling max), those of another size (--size 256x128; SBS: 384x128; for vehicles: 256x256)",
)
