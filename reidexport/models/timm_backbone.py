"""Any convolutional network of timm, by its name there."""

import difflib
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from reidexport.errors import InputError

PREFIX = "timm/"
_TRIAL_PX = (256, 128)
_Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


class TimmBackbone(nn.Module):
    """(B, 3, H, W) → (B, out_channels, h, w): what timm's ``forward_features`` returns.

    Args:
        name: timm's own, such as "efficientnet_lite0".
        last_stride: 1 doubles the last map, without dilation (paper, 3.4).

    Raises:
        InputError: timm has no such network, it answers no map of channels, or it has no last stride to change.
    """

    def __init__(self, name: str, last_stride: int) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
            raise InputError(f"timm has no network {name}" + (f"; it has {', '.join(near)}" if near else ""))
        self.trunk: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        strided, parts, features = _run_once(name)
        if features.ndim != 4 or features.shape[1] <= features.shape[3]:
            raise InputError(
                f"timm's {name} gives features of shape {list(features.shape)}, expected a map [1, channels, h, w]: "
                "only convolutional networks can be backbones"
            )
        for part in [part for part, _ in self.trunk.named_children() if part not in parts]:
            # A head that only classifies: its parameters would have no gradient, and no use in a file.
            setattr(self.trunk, part, nn.Identity())
        self.out_channels = int(features.shape[1])
        if last_stride == 1:
            _set_last_stride_1(self.trunk, strided, name)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, h, w)."""
        features: Tensor = self.trunk.forward_features(x)
        return features


def _run_once(name: str) -> tuple[dict[str, int], set[str], Tensor]:
    """One image on the meta device: the input height of strided layers, the parts that ran, and the features."""
    with torch.device("meta"):
        trunk: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    heights: dict[str, int] = {}
    parts: set[str] = set()

    def note(layer: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        parts.add(layer.partition(".")[0])
        if isinstance(module, _Strided) and module.stride in (2, (2, 2)):
            heights[layer] = int(inputs[0].shape[2])

    for layer, module in trunk.named_modules():
        module.register_forward_pre_hook(partial(note, layer))
    try:
        features: Tensor = trunk.eval().forward_features(torch.empty(1, 3, *_TRIAL_PX, device="meta"))
    except (AssertionError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"timm's {name} does not take images of {_TRIAL_PX[0]}x{_TRIAL_PX[1]} px: {error}"
        ) from error
    return heights, parts, features


def _set_last_stride_1(trunk: nn.Module, heights: dict[str, int], name: str) -> None:
    """Remove the last down-sampling, on the main path and its shortcut alike."""
    if not heights:
        raise InputError(f"timm's {name} has no strided layer: its last stride cannot be set to 1")
    lowest = min(heights.values())
    for layer in (layer for layer, height in heights.items() if height == lowest):
        module: Any = trunk.get_submodule(layer)
        if module.kernel_size not in (2, (2, 2)):
            module.stride = 1 if isinstance(module.stride, int) else (1, 1)
        elif isinstance(module, nn.AvgPool2d):
            trunk.set_submodule(layer, nn.Identity())  # as timm itself does in a shortcut without stride
        else:
            raise InputError(
                f"timm's {name} down-samples its last map by 2x2 patches, which do not overlap: its last stride "
                "must stay 2"
            )
