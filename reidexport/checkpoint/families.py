"""The projects whose checkpoints are read, and which of them wrote a file."""

import re
from collections.abc import Collection
from functools import cache

import torch
from torch import nn

from reidexport.checkpoint.family import Family, Shapes
from reidexport.checkpoint.projects.clip_reid import CLIP_REID_RESNET, CLIP_REID_VIT
from reidexport.checkpoint.projects.fast_reid import FAST_REID, FAST_REID_MGN, FAST_REID_VIT
from reidexport.checkpoint.projects.layumi import LAYUMI, LAYUMI_PCB
from reidexport.checkpoint.projects.lightmbn import BOXMOT, LIGHT_MBN
from reidexport.checkpoint.projects.solider import SOLIDER
from reidexport.checkpoint.projects.strong_baseline import STRONG_BASELINE
from reidexport.checkpoint.projects.torchreid import TORCHREID
from reidexport.checkpoint.projects.transreid import TRANSREID
from reidexport.models.baseline import BaselineArchitecture, build_backbone

# The first whose signature fits counts.
FAMILIES = (
    *(TRANSREID, SOLIDER, CLIP_REID_VIT, CLIP_REID_RESNET, STRONG_BASELINE),
    *(FAST_REID_VIT, FAST_REID_MGN, FAST_REID),
    *(LAYUMI, LAYUMI_PCB, LIGHT_MBN, BOXMOT, TORCHREID),
)


def family_of(keys: Collection[str]) -> Family | None:
    """The project that wrote a state dict with these keys, or None."""
    for family in FAMILIES:
        if all(any(re.search(pattern, key) for key in keys) for pattern in family.signature):
            return family
    return None


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
