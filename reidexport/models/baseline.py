"""The model of the paper: backbone, global pooling to f_t, neck to f_i, classifier (paper, Fig. 2b and 5b)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import timm
import torch
from reidruntime.artifact.manifest import Pooling, StemPool
from torch import Tensor, nn

from reidexport.models.catalogue import CATALOGUE, FIXED_STRIDES, MAPS, Catalogued, catalogued
from reidexport.models.clip import CLIP_ENCODERS, ClipResNet, ClipVisionTransformer
from reidexport.models.efficientnet import efficientnet_b4
from reidexport.models.lightmbn import NUM_PARTS, UnitParts
from reidexport.models.mgn import MGN
from reidexport.models.osnet import OSNet, Variant
from reidexport.models.parts import LayumiPCB
from reidexport.models.pooling import GeneralizedMeanPooling, GlobalAveragePooling, GlobalMaxPooling
from reidexport.models.resnet import ResNet
from reidexport.models.swin import SWINS, SwinTransformer
from reidexport.models.timm_backbone import PREFIX, TimmBackbone, TimmEmbedder
from reidexport.models.timm_transformer import TRANSFORMERS_PX, TimmTransformer
from reidexport.models.trunk import (
    TIMM_NAMES,
    Trunk,
    densenet121_without_relu,
    mobilenet_v2,
    mobilenet_v3,
    resnest50,
    senet,
)
from reidexport.models.vit import VITS, TokenOptions, VisionTransformer

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
Backbone = (
    ResNet
    | OSNet
    | TimmBackbone
    | TimmEmbedder
    | Trunk
    | VisionTransformer
    | SwinTransformer
    | ClipVisionTransformer
    | ClipResNet
    | MGN
    | TimmTransformer
    | Catalogued
)
Neck = Literal["bnneck", "reduction-bnneck", "fc", "none"]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IBN_RESNETS = ("resnet18_ibn_a", "resnet34_ibn_a", "resnet50_ibn_a", "resnet101_ibn_a")
SE_RESNETS = tuple(f"{name}_se" for name in (*RESNETS[:4], *IBN_RESNETS))  # fast-reid's
# Those whose stem's ReLU and pooling differ between projects.
RESNET_STEMS = (*RESNETS, *IBN_RESNETS, *SE_RESNETS)
OSNETS = (
    *(f"osnet_{width}" for width in ("x1_0", "x0_75", "x0_5", "x0_25")),
    "osnet_ibn_x1_0",
    *(f"osnet_ain_{width}" for width in ("x1_0", "x0_75", "x0_5", "x0_25")),
)
BACKBONES = (*RESNETS, *IBN_RESNETS, *TIMM_NAMES, "resnest50", "mobilenet_v2", *OSNETS, *MAPS)
WITHOUT_LAST_STRIDE = (*OSNETS, *FIXED_STRIDES)  # to choose
# Builders of backbones that a last stride alone describes. Those that are not in BACKBONES only checkpoints have.
_STRIDED: dict[str, Callable[[int], Backbone]] = {
    **{name: partial(senet, name) for name in TIMM_NAMES},
    "resnest50": resnest50,
    "mobilenet_v2": mobilenet_v2,
    "densenet121_without_relu": densenet121_without_relu,
    "resnet50_pcb": LayumiPCB,
    "resnet50_mgn": partial(MGN, ibn=False),
    "resnet50_ibn_a_mgn": partial(MGN, ibn=True),
}
# And of those that have none, either.
_UNSTRIDED: dict[str, Callable[[], Backbone]] = {
    "efficientnet_b4": efficientnet_b4,
    "mobilenet_v3_large": partial(mobilenet_v3, "large"),
    "mobilenet_v3_small": partial(mobilenet_v3, "small"),
    **{name: partial(TimmTransformer, name) for name in TRANSFORMERS_PX},
}


@dataclass(frozen=True)
class BaselineArchitecture:
    """Everything that decides which numbers come out for some weights.

    Attributes:
        backbone: a name in ``BACKBONES``, "timm/" and a network of timm, or one that only checkpoints have.
        last_stride: stride of the backbone's last stage (paper, 3.4); None where there is none to choose.
        stem_relu: whether a ReLU follows the stem's bn1. False for reid-strong-baseline's plain ResNets.
        stem_pool: max pooling of a ResNet's stem: "padded" (torchvision), "ceil" (fast-reid) or another.
        non_local: fast-reid's non-local blocks.
        pooling: global average or maximum, or generalized mean with the power ``pool.p`` of the state dict; "none"
            where the backbone itself answers f_t.
        neck: "bnneck" (BatchNorm), "reduction-bnneck" (Linear, BatchNorm), "fc" (Linear, BatchNorm, ReLU), "none".
        feature_dim: dimension of f_i.
        num_classes: rows of the classifier, 0 when the checkpoint holds none.
        batch_norm_eps: what every BatchNorm adds to its variances; None: what the backbone's own code has.
        tokens: how a transformer makes its tokens; None for networks that have none.
        jpm: TransReID's jigsaw branch.
        semantic_weight: of SOLIDER's semantic embedding; None of networks that have none.
        reduced: a linear layer without bias before the neck, whose answer is f_t (SOLIDER's and PersonViT's fcneck).
        unit_parts: whether each of the parts of f_i has unit length (LightMBN's seven).
    """

    backbone: str
    last_stride: Literal[1, 2] | None = 1
    stem_relu: bool = True
    stem_pool: StemPool = "padded"
    non_local: bool = False
    pooling: Pooling | Literal["none"] = "avg"
    neck: Neck = "bnneck"
    feature_dim: int = 2048
    num_classes: int = 0
    batch_norm_eps: float | None = None
    tokens: TokenOptions | None = None
    jpm: bool = False
    semantic_weight: float | None = None
    reduced: bool = False
    unit_parts: bool = False


_POOLINGS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "avg": GlobalAveragePooling,
    "max": GlobalMaxPooling,
    "gem": GeneralizedMeanPooling,
}


class Baseline(nn.Module):
    """Backbone + pooling + neck + classifier; forward returns (f_t, f_i).

    BNNeck's shift is frozen at zero and the classifier has no bias (paper, 3.5); upstream weights with a
    trained shift load all the same.
    """

    def __init__(self, architecture: BaselineArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(architecture)
        self.pool = _POOLINGS[architecture.pooling]()
        dim = self.backbone.out_channels
        self.reduction: nn.Module = nn.Identity()
        if architecture.reduced:
            self.reduction = nn.Linear(dim, architecture.feature_dim, bias=False)
            dim = architecture.feature_dim
        self.neck = _build_neck(architecture.neck, dim, architecture.feature_dim)
        self.parts = UnitParts(NUM_PARTS) if architecture.unit_parts else nn.Identity()
        self.classifier: nn.Linear | None = None
        if architecture.num_classes:
            self.classifier = nn.Linear(architecture.feature_dim, architecture.num_classes, bias=False)
        if architecture.batch_norm_eps is not None:
            for norm in batch_norms(self).values():
                norm.eps = architecture.batch_norm_eps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalized images → f_t of shape (B, :func:`f_t_dim`), f_i of shape (B, feature_dim)."""
        f_t = self.reduction(self.pool(self.backbone(images)))
        return f_t, self.parts(self.neck(f_t))


def batch_norms(module: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorms of a network by their names, in the order of its code."""
    return {name: part for name, part in module.named_modules() if isinstance(part, BatchNorm)}


def f_t_dim(architecture: BaselineArchitecture) -> int:
    """The dimension of f_t."""
    return architecture.feature_dim if architecture.reduced else backbone_channels(architecture)


@cache
def backbone_channels(architecture: BaselineArchitecture) -> int:
    """The dimension of what a backbone gives."""
    with torch.device("meta"):
        return build_backbone(architecture).out_channels


def is_backbone(name: str) -> bool:
    """Whether a backbone of this name exists."""
    return name in BACKBONES or (name.startswith(PREFIX) and timm.is_model(name.removeprefix(PREFIX)))


def build_backbone(architecture: BaselineArchitecture) -> Backbone:
    """The backbone that a :class:`BaselineArchitecture` names, with fresh weights.

    Raises:
        InputError: it names a network that timm does not have, or that cannot be a backbone.
    """
    name, last_stride = architecture.backbone, architecture.last_stride or 2
    if name.startswith(PREFIX) and architecture.pooling == "none":
        return TimmEmbedder(name.removeprefix(PREFIX))
    if name.startswith(PREFIX):
        return TimmBackbone(name.removeprefix(PREFIX), last_stride)
    if name in VITS and architecture.tokens is not None:
        return VisionTransformer(VITS[name], architecture.tokens, jpm=architecture.jpm)
    if name in CATALOGUE:
        return catalogued(name, last_stride)
    if name in CLIP_ENCODERS and architecture.tokens is not None:
        return CLIP_ENCODERS[name](architecture.tokens)
    if name in SWINS:
        return SwinTransformer(SWINS[name], architecture.semantic_weight)
    if name in _STRIDED:
        return _STRIDED[name](last_stride)
    if name in _UNSTRIDED:
        return _UNSTRIDED[name]()
    if name in OSNETS:
        variant: Variant = "ain" if "_ain_" in name else "ibn" if "_ibn_" in name else "plain"
        return OSNet(name[name.rindex("x") :], variant)
    depth, _, extras = name.removeprefix("resnet").partition("_")
    return ResNet(
        int(depth),
        last_stride,
        stem_relu=architecture.stem_relu,
        stem_pool=architecture.stem_pool,
        ibn=extras.startswith("ibn_a"),
        se=extras.endswith("se"),
        non_local=architecture.non_local,
    )


def _build_neck(neck: Neck, in_features: int, feature_dim: int) -> nn.Module:
    if neck == "none":
        return nn.Identity()
    if neck == "bnneck":
        norm = nn.BatchNorm1d(in_features)
        norm.bias.requires_grad_(False)
        return norm
    linear = nn.Linear(in_features, feature_dim, bias=neck == "fc")
    relu = [nn.ReLU(inplace=True)] if neck == "fc" else []
    return nn.Sequential(linear, nn.BatchNorm1d(feature_dim), *relu)
