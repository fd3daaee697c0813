"""The projects whose checkpoints people have: how each names its tensors, and what its weights do not show."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from reidruntime.artifact.manifest import StemPool
from torch import Tensor, nn

from reidexport.models.baseline import (
    BACKBONES,
    OSNETS,
    RESNET_STEMS,
    RESNETS,
    BaselineArchitecture,
    build_backbone,
)
from reidexport.models.trunk import TIMM_NAMES

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """One project's conventions.

    Attributes:
        name: the project.
        key_map: (pattern, replacement) pairs that turn its tensor names into this project's; an empty result
            drops the tensor.
        backbones: the backbones it has; a name with "+nl" has fast-reid's non-local blocks.
        silent_stem: backbones without a ReLU after the stem's bn1.
        stem_pool: how its ResNets pool after the stem.
        last_stride: what its published configurations use.
        resize: the kernel it resizes test images with.
        lookalikes: other networks with the same names and shapes, each with the options that state it.
    """

    name: str
    key_map: tuple[tuple[str, str], ...]
    backbones: tuple[str, ...]
    last_stride: Literal[1, 2]
    silent_stem: tuple[str, ...] = ()
    stem_pool: StemPool = "padded"
    resize: Literal["bilinear", "bicubic"] = "bilinear"
    lookalikes: str = ""


STRONG_BASELINE = Family(
    name="reid-strong-baseline",
    # ResNet_IBN keeps ImageNet's fc, which its forward never uses.
    key_map=(
        (r"^base\.fc\..*", ""),
        (r"^base\.", "backbone."),
        (r"^bottleneck\.", "neck."),
        (r"^(gap|gem|global_pool)\.p$", "pool.p"),  # its forks with GeM
    ),
    backbones=(*RESNETS, "resnet50_ibn_a", *TIMM_NAMES),
    last_stride=1,
    silent_stem=RESNETS,
    lookalikes="person-reid-tiny-baseline (--no-stem-relu --stem-pool 2x2); forks that put torchvision's ReLU and "
    "pooling back (--stem-relu), that pool with a fixed GeM (--pooling gem) or by the maximum (--pooling max)",
)
FAST_REID = Family(
    name="fast-reid",
    key_map=(
        (r"^pixel_(mean|std)$", ""),
        (r"^heads\.pool_layer\.p$", "pool.p"),
        (r"^heads\.(weight|classifier\.weight)$", "classifier.weight"),
        (r"^heads\.(bnneck|bottleneck)\.", "neck."),
    ),
    backbones=(
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnest50"),
        *("resnet50+nl", "resnet101+nl"),
        *("resnet50_ibn_a", "resnet101_ibn_a", "resnet50_ibn_a+nl", "resnet101_ibn_a+nl"),
    ),
    last_stride=1,
    stem_pool="ceil",
    resize="bicubic",
    lookalikes="its AGW without non-local blocks (--pooling gem), configurations that pool by the maximum "
    "(--pooling max), those of another size (--size 256x128; SBS: 384x128; for vehicles: 256x256)",
)
_TORCHREID_HEAD = ((r"^fc\.", "neck."), (r"^(conv\d|bn1|layer\d|pool\d)\.", r"backbone.\1."))
TORCHREID = Family(
    name="torchreid",
    key_map=(
        *_TORCHREID_HEAD,
        # Plain OSNet numbers its transition as the third block and its scales with letters; AIN does not.
        (r"^(backbone\.)conv([23])\.2\.0\.", r"\1pool\2.0."),
        (r"\.conv2a\.", ".conv2.0.layers.0."),
        (r"\.conv2b\.", ".conv2.1.layers."),
        (r"\.conv2c\.", ".conv2.2.layers."),
        (r"\.conv2d\.", ".conv2.3.layers."),
    ),
    backbones=(*OSNETS, *RESNETS),
    last_stride=2,
    lookalikes="any network with torchvision's names, such as layumi's with a last stride of 1 (--last-stride 1)",
)
REIDEXPORT = Family(name="reidexport", key_map=(), backbones=BACKBONES, last_stride=1)


def family_of(keys: set[str]) -> Family | None:
    """The project that wrote a state dict with these keys, or None."""
    if any(key.startswith("base.") for key in keys):
        return STRONG_BASELINE
    if any(key.startswith("heads.") for key in keys):
        return FAST_REID
    if "conv1.conv.weight" in keys or {"conv1.weight", "layer1.0.conv1.weight"} <= keys:
        return TORCHREID
    return None


def rename_keys(state_dict: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The same tensors under this project's names, without those that inference and training do not use."""
    renamed = {}
    for key, tensor in state_dict.items():
        name = key
        for pattern, replacement in family.key_map:
            name = re.sub(pattern, replacement, name)
        if name and not name.endswith("num_batches_tracked"):
            renamed[name] = tensor
    # fast-reid's neck is a Sequential of BatchNorm2d, with a 1×1 convolution before it where it reduces.
    first = renamed.get("neck.0.weight")
    if first is not None and first.ndim == 4:
        renamed["neck.0.weight"] = first.flatten(1)
    if first is not None and first.ndim == 1:
        renamed = {re.sub(r"^neck\.0\.", "neck.", key): tensor for key, tensor in renamed.items()}
    return renamed


def candidate(family: Family, backbone: str) -> BaselineArchitecture:
    """The :class:`BaselineArchitecture` of one of the family's backbones, its neck and classifier still open."""
    name = backbone.removesuffix("+nl")
    return BaselineArchitecture(
        backbone=name,
        last_stride=None if name in OSNETS else family.last_stride,
        stem_relu=name not in family.silent_stem,
        stem_pool=family.stem_pool if name in RESNET_STEMS else "padded",
        non_local=backbone.endswith("+nl"),
    )


@cache
def backbone_shapes(architecture: BaselineArchitecture) -> Shapes:
    """Name and shape of every tensor of a backbone, without allocating it."""
    with torch.device("meta"):
        backbone = build_backbone(architecture)
    return {f"backbone.{key}": shape for key, shape in shapes_of(backbone).items()}


def shapes_of(module: nn.Module) -> Shapes:
    """Name and shape of every tensor of a network that inference uses: not the counters of its batch norms."""
    tensors = module.state_dict().items()
    return {key: tuple(tensor.shape) for key, tensor in tensors if not key.endswith("num_batches_tracked")}
