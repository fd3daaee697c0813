"""JDAI-CV/fast-reid: one backbone and one head, its MGN, and its vision transformer."""

import re
from collections.abc import Sequence

import torch

from reidexport.checkpoint.family import HALF, Family, Shapes, StateDict, candidate
from reidexport.checkpoint.projects.timm_names import (
    REGNET,
    REPVGG,
    effnet_names,
    joined,
    mobilenet_v2_names,
    renamed,
    split,
)
from reidexport.checkpoint.projects.torchreid import OSNET_NAMES
from reidexport.checkpoint.projects.transreid import TRANSREID
from reidexport.models.baseline import OSNETS, BaselineArchitecture
from reidexport.models.mgn import HEADS
from reidexport.models.vit import VITS

# Of the training splits of VeRi-776 (with and without a vehicle that has no image), VehicleID and VERI-Wild.
_NUM_VEHICLES = (575, 576, 13164, 30671)
_OSNETS = tuple(name for name in OSNETS if "_ain_" not in name)
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
# By (number of blocks, width of the first stage).
_REPVGGS = {
    (22, 48): ("repvgg_a0",),
    (22, 64): ("repvgg_a1",),
    (22, 96): ("repvgg_a2",),
    (28, 64): ("repvgg_b0",),
    (28, 128): ("repvgg_b1", "repvgg_b1g4"),
    (28, 160): ("repvgg_b2", "repvgg_b2g4"),
    (28, 192): ("repvgg_b3", "repvgg_b3g4"),
}
# By number of blocks.
_REGNETS_X = {13: "002", 22: "004", 16: "008", 18: "016", 25: "032", 23: "040", 17: "064"}
_REGNETS_Y = {13: "002", 16: "004", 14: "008", 27: "016", 21: "032", 22: "040", 25: "064"}
# By (number of blocks, width of the last layer).
_EFFNETS = {(16, 1280): 0, (23, 1280): 1, (23, 1408): 2, (26, 1536): 3, (32, 1792): 4, (39, 2048): 5}


def _converted(state_dict: StateDict) -> StateDict:
    backbone, head = split(state_dict)
    return joined(_backbone(backbone), _neck(head))


def _neck(state_dict: StateDict) -> StateDict:
    """Its neck is a Sequential of BatchNorm2d, with a 1x1 convolution before it where it reduces."""
    first = state_dict.get("neck.0.weight")
    if first is None:
        return state_dict
    if first.ndim == 4:
        return {**state_dict, "neck.0.weight": first.flatten(1)}
    return {re.sub(r"^neck\.0\.", "neck.", key): tensor for key, tensor in state_dict.items()}


def _backbone(state_dict: StateDict) -> StateDict:
    """Under torchvision's or timm's names, or this project's own."""
    if "conv1.conv.weight" in state_dict:
        return renamed(state_dict, OSNET_NAMES)
    if "features.1.conv.0.weight" in state_dict:
        return mobilenet_v2_names(state_dict)
    if "layer1.0.se.fc.0.weight" in state_dict:
        last = "bn3" if "layer1.0.bn3.weight" in state_dict else "bn2"
        pairs = ((rf"(layer\d\.\d+\.{last})\.", r"\1.bn."), (r"(layer\d\.\d+)\.se\.", rf"\1.{last}.se."))
        return renamed(state_dict, pairs)
    if "stage0.rbr_dense.conv.weight" in state_dict:
        state_dict = renamed(state_dict, REPVGG)
    elif "s1.b1.f.a.weight" in state_dict:
        state_dict = renamed(state_dict, REGNET)
    elif "s1.b1.dwise.weight" in state_dict:
        state_dict = effnet_names(state_dict)
    elif not _is_resnext(state_dict):
        return state_dict
    return {f"trunk.{key}": tensor for key, tensor in state_dict.items()}


def _is_resnext(state_dict: StateDict) -> bool:
    """Whether the tensors, which have ResNet's names, are of convolutions in groups of 4 channels."""
    weight = state_dict.get("layer1.0.conv2.weight")
    return weight is not None and weight.shape[1] == 4


def _candidates(found: Shapes) -> Sequence[BaselineArchitecture]:
    """Those of the kind that the names tell; of the kinds of many sizes, those with as many blocks."""
    if "backbone.conv1.conv.weight" in found:
        return [candidate(FAST_REID, name) for name in _OSNETS]
    if "backbone.features.0.0.weight" in found:
        return [
            BaselineArchitecture(name, None)
            for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
        ]
    if names := _timm_names(found):
        return [BaselineArchitecture(f"timm/{name}") for name in names]
    if "backbone.conv1.0.weight" in found:
        return [candidate(FAST_REID, "resnest50")]
    ibn = "_ibn_a" * ("backbone.layer1.0.bn1.IN.weight" in found)
    se = "_se" * any(".se.fc." in key for key in found)
    non_local = "backbone.NL_2.0.g.weight" in found
    names = [f"{name}{ibn}{se}" for name in _RESNETS[2 if non_local else 0 :]]
    return [candidate(FAST_REID, name + "+nl" * non_local) for name in names]


def _timm_names(found: Shapes) -> Sequence[str]:
    if "backbone.trunk.layer1.0.conv1.weight" in found:
        return "resnext50_32x4d", "resnext101_32x4d"
    if num_blocks := _count(found, r"conv_kxk\.conv\.weight$"):
        width = found.get("backbone.trunk.stages.0.0.conv_kxk.conv.weight", (0,))[0]
        return _REPVGGS.get((num_blocks, width), ())
    if num_blocks := _count(found, r"\.b\d+\.conv1\.conv\.weight$"):
        has_se = "backbone.trunk.s1.b1.se.fc1.weight" in found
        letter, sizes = ("y", _REGNETS_Y) if has_se else ("x", _REGNETS_X)
        return [f"regnet{letter}_{sizes[num_blocks]}"] if num_blocks in sizes else ()
    width = found.get("backbone.trunk.conv_head.weight", (0,))[0]
    size = _EFFNETS.get((_count(found, r"\.conv_dw\.weight$"), width))
    return () if size is None else [f"efficientnet_b{size}"]


def _count(found: Shapes, pattern: str) -> int:
    return sum(re.search(pattern, key) is not None for key in found)


def _size(architecture: BaselineArchitecture) -> tuple[int, int]:
    if architecture.num_classes in _NUM_VEHICLES:
        return 256, 256
    # Its SBS configurations are those with a learned pooling power, and take taller images.
    return (384, 128) if architecture.pooling == "gem" else (256, 128)


def _mgn(state_dict: StateDict) -> StateDict:
    """The BatchNorms of its eight heads as one over the concatenated feature."""
    found = {
        key: tensor.flatten(1) if key.startswith("backbone.reductions.") else tensor
        for key, tensor in state_dict.items()
        if not key.startswith("necks.")
    }
    for name in ("weight", "bias", "running_mean", "running_var"):
        parts = [part for head in HEADS if (part := state_dict.get(f"necks.{head}.{name}")) is not None]
        if len(parts) == len(HEADS):
            found[f"neck.{name}"] = torch.cat(parts)
    return found


def _mgn_candidates(found: Shapes) -> Sequence[BaselineArchitecture]:
    ibn = "_ibn_a" * ("backbone.trunk.4.0.bn1.IN.weight" in found)
    return [BaselineArchitecture(f"resnet50{ibn}_mgn", pooling="none")]


_HEAD = (
    (r"^pixel_(mean|std)$", ""),
    (r"^heads\.pool_layer\.p$", "pool.p"),
    (r"^heads\.(weight|classifier\.weight)$", "classifier.weight"),
    (r"^heads\.(bnneck|bottleneck)\.", "neck."),
)
FAST_REID = Family(
    name="fast-reid",
    signature=(r"^heads\.",),
    key_map=_HEAD,
    convert=_converted,
    backbones=(
        *(*_RESNETS, "resnet*_ibn_a", "resnet*_se", "resnest50", *_OSNETS),
        *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "timm/resnext*_32x4d"),
        *("timm/repvgg_*", "timm/regnetx_*", "timm/regnety_*", "timm/efficientnet_b*"),
    ),
    candidates=_candidates,
    stem_pool="ceil",
    size=_size,
    resize="bicubic",
    lookalikes="its AGW without non-local blocks (--pooling gem), configurations that pool by the maximum "
    "(--pooling max), those of another size (--size 256x128; SBS: 384x128; for vehicles: 256x256)",
)
FAST_REID_VIT = Family(
    name="fast-reid",
    signature=(r"^backbone\.cls_token$", r"^heads\."),
    key_map=_HEAD,
    convert=_neck,
    backbones=tuple(VITS),
    candidates=TRANSREID.candidates,
    last_stride=None,
    size=TRANSREID.size,
    resize="bicubic",
    mean=HALF,
    std=HALF,
)
FAST_REID_MGN = Family(
    name="fast-reid",
    signature=(r"^backbone\.", r"^b1_head\."),
    key_map=(
        (r"^pixel_(mean|std)$", ""),
        (r"^b\d+_head\.(weight|classifier\.weight)$", ""),
        (r"^backbone\.", "backbone.trunk."),
        (r"^(b[123])\.", r"backbone.\1."),
        (r"^(b\d+)_head\.pool_layer\.", r"backbone.pools.\1."),
        (r"^(b\d+)_head\.bottleneck\.0\.", r"backbone.reductions.\1."),
        (r"^(b\d+)_head\.bottleneck\.1\.", r"necks.\1."),
    ),
    convert=_mgn,
    backbones=("resnet50_mgn", "resnet50_ibn_a_mgn"),
    candidates=_mgn_candidates,
    size=lambda _: (384, 128),
    resize="bicubic",
)
