"""What a project's checkpoints have in common: how it names its tensors, and what its weights do not show."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Channels3, Feature, StemPool
from torch import Tensor

from reidexport.errors import CheckpointError
from reidexport.models.baseline import RESNET_STEMS, WITHOUT_LAST_STRIDE, BaselineArchitecture
from reidexport.models.catalogue import VECTORS

Shapes = dict[str, tuple[int, ...]]
StateDict = dict[str, Tensor]

HALF = (0.5, 0.5, 0.5)


def _as_it_is(state_dict: StateDict) -> StateDict:
    return state_dict


def _size_256x128(_: BaselineArchitecture) -> tuple[int, int]:
    return 256, 128


@dataclass(frozen=True)
class Family:
    """One project's conventions.

    Attributes:
        name: the project.
        signature: regular expressions, each found in the name of some tensor of its checkpoints and of no others'.
        key_map: (pattern, replacement) pairs that turn its tensor names into this project's; an empty result
            drops the tensor.
        convert: what names alone do not do, to tensors under this project's names.
        backbones: the backbones it has, or where there are ``candidates``, as messages list them; a name with "+nl"
            has fast-reid's non-local blocks.
        candidates: what they can be, given names and shapes under this project's names, where that is more than a
            list of backbones.
        silent_stem: backbones without a ReLU after the stem's bn1.
        stem_pool: how its ResNets pool after the stem.
        last_stride: what its published configurations use.
        feature: what its published configurations answer: behind the neck (f_i), or before it (f_t).
        size: (height, width) in pixels of its published configurations.
        resize: the kernel it resizes test images with.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
        lookalikes: other networks with the same names and shapes, each with the options that state it.
    """

    name: str
    signature: tuple[str, ...]
    key_map: tuple[tuple[str, str], ...]
    backbones: tuple[str, ...] = ()
    convert: Callable[[StateDict], StateDict] = _as_it_is
    candidates: Callable[[Shapes], Sequence[BaselineArchitecture]] | None = None
    silent_stem: tuple[str, ...] = ()
    stem_pool: StemPool = "padded"
    last_stride: Literal[1, 2] | None = 1
    feature: Feature = "f_i"
    size: Callable[[BaselineArchitecture], tuple[int, int]] = _size_256x128
    resize: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Channels3 = IMAGENET_MEAN
    std: Channels3 = IMAGENET_STD
    lookalikes: str = ""


def rename_keys(state_dict: StateDict, family: Family) -> StateDict:
    """The same tensors under this project's names, without those that inference and training do not use.

    Raises:
        CheckpointError: two tensors that differ get the same name.
    """
    renamed: StateDict = {}
    origins: dict[str, str] = {}
    for key, tensor in state_dict.items():
        name = key
        for pattern, replacement in family.key_map:
            name = re.sub(pattern, replacement, name)
        if name and not name.endswith(("num_batches_tracked", "relative_position_index")):
            if name in renamed and not torch.equal(renamed[name], tensor):
                raise CheckpointError(
                    f"its tensors {origins[name]} and {key} differ, and both are {name} of a {family.name} network. "
                    "The file may hold two networks: save the state dict of the one to export."
                )
            renamed[name], origins[name] = tensor, key
    return family.convert(renamed)


def candidates_of(family: Family, found: Shapes) -> Sequence[BaselineArchitecture]:
    """Every architecture of a family that tensors of these names and shapes may belong to, the likeliest first."""
    if family.candidates is not None:
        return family.candidates(found)
    return [candidate(family, name) for name in family.backbones]


def candidate(family: Family, backbone: str) -> BaselineArchitecture:
    """The :class:`BaselineArchitecture` of one of the family's backbones, its neck and classifier still open."""
    name = backbone.removesuffix("+nl")
    return BaselineArchitecture(
        backbone=name,
        last_stride=None if name in WITHOUT_LAST_STRIDE else family.last_stride,
        stem_relu=name not in family.silent_stem,
        stem_pool=family.stem_pool if name in RESNET_STEMS else "padded",
        non_local=backbone.endswith("+nl"),
        pooling="none" if name in VECTORS else "avg",
    )
