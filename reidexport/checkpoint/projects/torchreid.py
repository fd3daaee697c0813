"""KaiyangZhou/deep-person-reid (torchreid), whose networks boxmot has too, under the same names."""

from collections.abc import Sequence

import torch

from reidexport.checkpoint.family import Family, Shapes, StateDict, candidate
from reidexport.errors import CheckpointError
from reidexport.models.baseline import OSNETS, RESNETS, BaselineArchitecture
from reidexport.models.catalogue import DENSENETS, PCBS, RESNEXTS, SHUFFLENETS_V2, SQUEEZENETS
from reidexport.models.hacnn import HEIGHT_PX, WIDTH_PX
from reidexport.models.mobilenetv2 import WIDTHS

# Plain OSNet names the scales of its blocks with letters; AIN numbers them.
OSNET_SCALES = (
    (r"\.conv2a\.", ".conv2.0.layers.0."),
    (r"\.conv2b\.", ".conv2.1.layers."),
    (r"\.conv2c\.", ".conv2.2.layers."),
    (r"\.conv2d\.(?=\d)", ".conv2.3.layers."),  # Inception-ResNet has a convolution of this name
)
# And its transition is the third block of a stage.
OSNET_NAMES = ((r"^(backbone\.|)conv([23])\.2\.0\.", r"\1pool\2.0."), *OSNET_SCALES)
# The first of these tensors that a checkpoint has tells which backbones it can be.
_MARKS: dict[str, tuple[str, ...]] = {
    "conv2.0.dwconv2.conv.weight": tuple(WIDTHS),
    "conv1.conv.weight": OSNETS,
    "feature.0.fm_conv1.weight": ("mlfn",),
    "ha1.hard_attn.fc.weight": ("hacnn",),
    "fc_fusion.0.weight": ("resnet50mid",),
    "layer1.0.se_module.fc1.weight": ("se_resnet50", "se_resnet101", "se_resnext50", "se_resnext101"),
    "layer1.0.conv1.weight": (*RESNETS, *RESNEXTS, "resnet50_ibn_a", "resnet50_ibn_b"),
    "features.denseblock1.denselayer1.conv1.weight": DENSENETS,
    "features.3.squeeze.weight": SQUEEZENETS,
    "stage2.0.branch1.0.weight": SHUFFLENETS_V2,
    "stage2.0.conv1.weight": ("shufflenet",),
    "block1.rep.0.conv1.weight": ("xception",),
    "mixed_5b.branch0.conv.weight": ("inceptionresnetv2",),
    "features.3.conv.conv.weight": ("inceptionv4",),
}


def _count_parts(state_dict: StateDict) -> StateDict:
    """The number of PCB's parts as a tensor: only its classifiers show it, which are used in training alone."""
    unused = ("part_classifiers.", "backbone.conv5.")
    kept = {key: tensor for key, tensor in state_dict.items() if not key.startswith(unused)}
    if "backbone.layer1.0.conv1.weight" not in kept or len(kept) == len(state_dict):
        return state_dict
    num_parts = sum(key.startswith("part_classifiers.") and key.endswith(".weight") for key in state_dict)
    if not num_parts:
        raise CheckpointError(
            "it is a torchreid PCB without its classifiers, whose number is that of its parts. Pass the whole "
            "checkpoint, with classifier.0.weight and so on."
        )
    return {**kept, "backbone.part": torch.zeros(num_parts)}


def _candidates(found: Shapes) -> Sequence[BaselineArchitecture]:
    marks = {"part": tuple(PCBS), **_MARKS}
    named = next((names for mark, names in marks.items() if f"backbone.{mark}" in found), TORCHREID.backbones)
    return [candidate(TORCHREID, name) for name in named]


def _size(architecture: BaselineArchitecture) -> tuple[int, int]:
    return (HEIGHT_PX, WIDTH_PX) if architecture.backbone == "hacnn" else (256, 128)


TORCHREID = Family(
    name="torchreid",
    signature=("^(" + "|".join(mark.replace(".", r"\.") for mark in _MARKS) + ")$",),
    key_map=(
        (r"^fc\.", "neck."),
        (r"^classifier_(global|local)\..*", ""),  # HACNN's
        (r"^classifier\.(?=\d)", "part_classifiers."),  # PCB's
        (r"^(?!backbone\.|neck\.|classifier\.|part_classifiers\.|$)", "backbone."),
        *OSNET_NAMES,
    ),
    convert=_count_parts,
    backbones=(*(name for names in _MARKS.values() for name in names), *PCBS),
    candidates=_candidates,
    last_stride=2,
    size=_size,
    lookalikes="any network with torchvision's names, such as layumi's with a last stride of 1 (--last-stride 1)",
)
