"""MobileNetV2 on torchvision's layers, with its parameter names, so that ImageNet weights load as they are."""

from torch import Tensor
from torchvision import models

from reidexport.models.trunk import Trunk, set_last_stride

_LAST_STRIDED_BLOCK = 14  # of torchvision's ``features``: the first with 160 channels


def mobilenet_v2(last_stride: int) -> Trunk:
    """(B, 3, H, W) → (B, 1280, H/32 or H/16, W/32 or W/16); a last stride of 1 doubles the map (paper, 3.4)."""
    network = models.mobilenet_v2(weights=None)
    set_last_stride(network.features[_LAST_STRIDED_BLOCK], last_stride)
    return Trunk(network, ["features"], 1280)


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
