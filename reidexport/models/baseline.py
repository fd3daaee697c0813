"""The model of the paper: backbone, global pooling to f_t, neck to f_i, classifier (paper, Fig. 2b and 5b)."""

from dataclasses import dataclass
from typing import Literal

import timm
import torch
from reidruntime.artifact.manifest import Pooling, StemPool
from torch import Tensor, nn

from reidexport.models.catalogue import CATALOGUE, FIXED_STRIDES, MAPS, Catalogued, catalogued
from reidexport.models.lightmbn import NUM_PARTS, UnitParts
from reidexport.models.osnet import OSNet, Variant
from reidexport.models.resnet import ResNet
from reidexport.models.timm_backbone import PREFIX, TimmBackbone
from reidexport.models.trunk import TIMM_NAMES, Trunk, mobilenet_v2, resnest50, senet
from reidexport.models.vit import VITS, TokenOptions, VisionTransformer

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
Neck = Literal["bnneck", "reduction-bnneck", "fc", "none"]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IBN_RESNETS = ("resnet50_ibn_a", "resnet101_ibn_a")
RESNET_STEMS = (*RESNETS, *IBN_RESNETS)  # those whose stem's ReLU and pooling differ between projects
OSNETS = (
    *(f"osnet_{width}" for width in ("x1_0", "x0_75", "x0_5", "x0_25")),
    "osnet_ibn_x1_0",
    *(f"osnet_ain_{width}" for width in ("x1_0", "x0_75", "x0_5", "x0_25")),
)
BACKBONES = (*RESNETS, *IBN_RESNETS, *TIMM_NAMES, "resnest50", "mobilenet_v2", *OSNETS, *MAPS)
WITHOUT_LAST_STRIDE = (*OSNETS, *FIXED_STRIDES)  # to choose


@dataclass(frozen=True)
class BaselineArchitecture:
    """Everything that decides which numbers come out for some weights.

    Attributes:
        backbone: a name in ``BACKBONES``, or "timm/" and a network of timm.
        last_stride: stride of the backbone's last stage (paper, 3.4); None for OSNet, which has no such stage.
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
    reduced: bool = False
    unit_parts: bool = False


class GeneralizedMeanPooling(nn.Module):
    """GeM (Radenovic et al., 2018) with fast-reid's clamp at 1e-6; p is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1.0 / self.p)


class GlobalAveragePooling(nn.Module):
    """Mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.mean((2, 3))


class GlobalMaxPooling(nn.Module):
    """Maximum over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.amax((2, 3))


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


def backbone_channels(architecture: BaselineArchitecture) -> int:
    """The dimension of what a backbone gives."""
    with torch.device("meta"):
        return build_backbone(architecture).out_channels


def is_backbone(name: str) -> bool:
    """Whether a backbone of this name exists."""
    return name in BACKBONES or (name.startswith(PREFIX) and timm.is_model(name.removeprefix(PREFIX)))


def build_backbone(
    architecture: BaselineArchitecture,
) -> ResNet | OSNet | TimmBackbone | Trunk | VisionTransformer | Catalogued:
    """The backbone that a :class:`BaselineArchitecture` names, with fresh weights.

    Raises:
        InputError: it names a network that timm does not have, or that cannot be a backbone.
    """
    name, last_stride = architecture.backbone, architecture.last_stride or 2
    if name.startswith(PREFIX):
        return TimmBackbone(name.removeprefix(PREFIX), last_stride)
    if name in VITS and architecture.tokens is not None:
        return VisionTransformer(VITS[name], architecture.tokens, jpm=architecture.jpm)
    if name in CATALOGUE:
        return catalogued(name, last_stride)
    if name in TIMM_NAMES:
        return senet(name, last_stride)
    if name == "resnest50":
        return resnest50(last_stride)
    if name == "mobilenet_v2":
        return mobilenet_v2(last_stride)
    if name in OSNETS:
        variant: Variant = "ain" if "_ain_" in name else "ibn" if "_ibn_" in name else "plain"
        return OSNet(name[name.rindex("x") :], variant)
    ibn = name in IBN_RESNETS
    depth = int(name.removesuffix("_ibn_a").removeprefix("resnet"))
    return ResNet(
        depth, last_stride, architecture.stem_relu, architecture.stem_pool, ibn, architecture.non_local
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
