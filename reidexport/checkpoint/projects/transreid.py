"""damo-cv/TransReID and hustvl/PersonViT, children of reid-strong-baseline with vision transformers."""

import re
from collections.abc import Iterator
from dataclasses import replace

import torch

from reidexport.checkpoint.family import HALF, Family, Shapes, StateDict
from reidexport.checkpoint.projects.patches import layout_of, size_of
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.vit import STRIDES_PX, VITS

# Of its configurations, first those of persons: 192 patches are 384x128, and not 256x192.
_SIZES = ((256, 128), (384, 128), (256, 256), (224, 224), (384, 384), (256, 192))
_SIE_WEIGHT = 3.0  # SIE_COE of all of its configurations
_NUM_PARTS = 4


def _necks(state_dict: StateDict) -> StateDict:
    """The five BatchNorms of JPM as one over the concatenated feature, whose parts it divides by 4."""
    if "neck_1.weight" not in state_dict:
        return state_dict
    # The last block and its norm lie in b1 and b2; upstream keeps unused copies.
    last = max(int(key.split(".")[2]) for key in state_dict if key.startswith("backbone.blocks."))
    unused = re.compile(rf"backbone\.(norm\.|blocks\.{last}\.)|neck(_\d)?\.|classifier\.")
    kept = {key: tensor for key, tensor in state_dict.items() if not unused.match(key)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        parts = [state_dict[f"neck{part}.{name}"] for part in ("", "_1", "_2", "_3", "_4")]
        # What is divided by 4 before the BatchNorm instead of after it has a mean of a quarter, and the BatchNorm's
        # own bias is divided; its weight over its deviation stays.
        divisor = _NUM_PARTS if name in ("bias", "running_mean") else 1
        kept[f"neck.{name}"] = torch.cat((parts[0], *(part / divisor for part in parts[1:])))
    return kept


def _candidates(found: Shapes) -> Iterator[BaselineArchitecture]:
    """The transformers of the found number of tokens, in its configurations' sizes and strides."""
    num_patches = found.get("backbone.pos_embed", (1, 129, 0))[1] - 1
    num_cameras = found.get("backbone.sie_embed", (0,))[0]
    layout = layout_of(num_patches, _SIZES, STRIDES_PX)
    tokens = replace(
        layout,
        num_cameras=num_cameras,
        camera_weight=_SIE_WEIGHT,
        conv_stem="backbone.patch_embed.conv.0.weight" in found,
    )
    for backbone in VITS:
        yield BaselineArchitecture(
            backbone, None, pooling="none", tokens=tokens, jpm="backbone.b1.0.norm1.weight" in found
        )


TRANSREID = Family(
    name="TransReID",
    signature=(r"^base\.(cls_token|patch_embed\.proj)", r"^base\.blocks\."),
    key_map=(
        (r"^base\.fc\..*", ""),  # ImageNet's, unused
        (r"^classifier_\d\..*", ""),
        (r"^base\.", "backbone."),
        (r"^(b[12])\.", r"backbone.\1."),
        (r"^bottleneck(_\d)?\.", r"neck\1."),
        (r"^fcneck\.", "reduction."),
    ),
    convert=_necks,
    backbones=tuple(VITS),
    candidates=lambda found: list(_candidates(found)),
    last_stride=None,
    feature="f_t",
    size=lambda architecture: size_of(architecture.tokens, _SIZES),
    mean=HALF,
    std=HALF,
    lookalikes="PersonViT with another pooling than the class token, which is not read",
)
