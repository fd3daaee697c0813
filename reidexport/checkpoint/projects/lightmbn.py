"""jixunbo/LightMBN, and boxmot's copy, which does not give each of the seven features unit length."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from reidexport.checkpoint.family import Family, Shapes, StateDict, candidate
from reidexport.checkpoint.projects.torchreid import OSNET_SCALES
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.catalogue import LIGHTMBNS

# In the order of the concatenated feature. ResNet-50's has another name for the second.
_REDUCTIONS = ("reduction_0", "reduction_(?:4|drop)", "reduction_1", "reduction_2", "reduction_3")
_NECKS = (*_REDUCTIONS, "reduction_ch_0", "reduction_ch_1")
_KEY_MAP = (
    (r".*\.classifier\..*", ""),
    (r"^backb?one\.(?=\d)", "backbone.stem."),
    (r"^((?:global|partial|channel)_branch|shared)\.", r"backbone.\1."),
    (r"^batch_drop_block\.drop_batch_bottleneck\.", "backbone.drop_block."),
    *((rf"^{name}\.reduction\.", f"backbone.reductions.{place}.") for place, name in enumerate(_REDUCTIONS)),
    *((rf"^{name}\.bn\.", f"necks.{place}.") for place, name in enumerate(_NECKS)),
    *OSNET_SCALES,
)


def _convert(state_dict: StateDict) -> StateDict:
    """One BatchNorm over the features in the order (512, 7), and 1x1 convolutions of pooled maps as matrices."""
    converted = {}
    for key, tensor in state_dict.items():
        if key.startswith(("backbone.reductions.", "backbone.shared.0.")):
            converted[key] = tensor.flatten(1)
        elif not key.startswith("necks."):
            converted[key] = tensor
    for name in ("weight", "bias", "running_mean", "running_var"):
        parts = [state_dict.get(f"necks.{place}.{name}") for place in range(len(_NECKS))]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts):  # else it says below which tensor is missing
            converted[f"neck.{name}"] = torch.stack(found, 1).flatten()
    return converted


def _candidates(_: Shapes) -> Sequence[BaselineArchitecture]:
    return [candidate(BOXMOT, name) for name in LIGHTMBNS]


def _with_unit_parts(found: Shapes) -> Sequence[BaselineArchitecture]:
    return [replace(each, unit_parts=True) for each in _candidates(found)]


def _size(_: BaselineArchitecture) -> tuple[int, int]:
    return 384, 128


BOXMOT = Family(
    name="boxmot",
    signature=(r"^backbone\.0\.", r"^reduction_ch_0\."),
    key_map=_KEY_MAP,
    convert=_convert,
    backbones=LIGHTMBNS,
    candidates=_candidates,
    size=_size,
)
LIGHT_MBN = replace(
    BOXMOT,
    name="LightMBN",
    signature=(r"^backone\.0\.", r"^reduction_ch_0\."),
    candidates=_with_unit_parts,
    lookalikes="boxmot's lmbn_n up to version 20, which does not give each part unit length (--no-unit-parts)",
)
