"""Networks of timm, by their names there: convolutional ones as backbones, any as what gives a whole embedding."""

import difflib
from functools import partial
from types import MethodType
from typing import Any

import timm
import torch
from timm.layers import attention
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from reidexport.errors import InputError
from reidexport.models.vit import Attention, Dimensions

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
        _check_name(name)
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


class TimmEmbedder(nn.Module):
    """(B, 3, H, W) → (B, out_channels): what timm's network answers without its classifier, pooled as its head does.

    Args:
        name: timm's own, such as "vit_tiny_patch16_224"; one of a fixed size takes images of no other.

    Raises:
        InputError: timm has no such network, it answers no vector, or it takes the image in several places.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        _check_name(name)
        self.trunk: Any = timm.create_model(name, pretrained=False, num_classes=0)
        _simplify(self.trunk)
        self.out_channels = _vector_size(name)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels)."""
        vectors: Tensor = self.trunk(images)
        return vectors


class _KeptMean(nn.Module):
    """(B, C, h, w) → (B, C, 1, 1): the mean over the map."""

    def forward(self, maps: Tensor) -> Tensor:
        """The mean over the map."""
        return maps.mean((2, 3), keepdim=True)


class _PlainAttention(Attention):
    """timm's attention with neither norms nor gate, without masks, which no network uses for images."""

    def forward(  # type: ignore[override]  # called as timm's blocks do
        self, tokens: Tensor, attn_mask: None = None, is_causal: bool = False
    ) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        del attn_mask, is_causal
        return super().forward(tokens)


def _simplify(trunk: nn.Module) -> None:
    """Let parts of a network compute the same without asking for the size of the batch, which torch would export."""
    for part, module in list(trunk.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            # In channels_last torch exports it as a gathering of strides.
            trunk.set_submodule(part, _KeptMean())
        elif type(module) is attention.Attention and module.gate is None:
            width = module.qkv.in_features
            has_norms = any(list(norm.parameters()) for norm in (module.q_norm, module.k_norm, module.norm))
            if has_norms or module.attn_dim != width or module.proj.bias is None:
                continue
            dimensions = Dimensions(width, num_heads=module.num_heads, qkv_bias=module.qkv.bias is not None)
            trunk.set_submodule(part, _PlainAttention(dimensions))
    if type(trunk) is VisionTransformer and not trunk.dynamic_img_size and not trunk.no_embed_class:
        changed: Any = trunk
        if trunk.cls_token is not None and trunk.reg_token is None and trunk.pos_embed is not None:
            changed._pos_embed = MethodType(_with_positions, trunk)
        if trunk.global_pool == "token":
            changed.pool = MethodType(_class_token, trunk)


def _with_positions(trunk: Any, patches: Tensor) -> Tensor:
    """(B, N, D) → (B, 1 + N, D): the class token, which comes out of the padding, and the embeddings of positions."""
    num_patches = trunk.pos_embed.shape[1] - 1
    added: Tensor = trunk.pos_embed + functional.pad(trunk.cls_token, (0, 0, 0, num_patches))
    return functional.pad(patches, (0, 0, 1, 0)) + added


def _class_token(_: Any, tokens: Tensor, pool_type: None = None) -> Tensor:
    """(B, N, D) → (B, D)."""
    del pool_type
    return tokens[:, :1].flatten(1)


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        raise InputError(f"timm has no network {name}" + (f"; it has {', '.join(near)}" if near else ""))


def _vector_size(name: str) -> int:
    """How many numbers a network gives for an image of its own size, on the meta device.

    Its first convolution, of one branch or of several that are merged, must be all that takes the image: pixels are
    scaled there.
    """
    with torch.device("meta"):
        trunk: Any = timm.create_model(name, pretrained=False, num_classes=0)
    taking: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4 and inputs[0].shape[1] == 3:
            taking.append(module)

    for module in trunk.modules():
        if not list(module.children()) and list(module.parameters()):
            module.register_forward_pre_hook(note)
    size = trunk.pretrained_cfg.get("input_size", (3, *_TRIAL_PX))
    try:
        vectors: Tensor = trunk.eval()(torch.empty(1, *size, device="meta"))
    except (AssertionError, RuntimeError, AttributeError) as error:
        raise InputError(f"timm's {name} cannot be run to see what it gives: {error}") from error
    if not isinstance(vectors, Tensor) or vectors.ndim != 2:
        raise InputError(f"timm's {name} gives no vector for an image: it cannot be an embedder")
    first: nn.Module | None = next((part for part in trunk.modules() if isinstance(part, nn.Conv2d)), None)
    merged = [block for block in trunk.modules() if isinstance(block, RepVggBlock | MobileOneBlock)]
    owners: dict[nn.Module | None, nn.Module] = {part: block for block in merged for part in block.modules()}
    if {owners.get(module, module) for module in taking} != {owners.get(first, first)}:
        raise InputError(f"timm's {name} does not take its images by one convolution, as exporting needs")
    return int(vectors.shape[1])


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
