"""Syliz517/CLIP-ReID, a child of TransReID with CLIP's image encoders: a vision transformer or a ResNet."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from reidexport.checkpoint.family import HALF, Family, Shapes, StateDict
from reidexport.checkpoint.projects.patches import layout_of, size_of
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.clip import CLIP_RESNET, CLIP_VIT
from reidexport.models.vit import PATCH_PX, STRIDES_PX

_SIZES = ((256, 128), (256, 256), (384, 128), (224, 224))
_HEAD = (
    (r"^(text_encoder|prompt_learner)\..*", ""),  # what training alone uses
    (r"^classifier(_proj)?\..*", ""),
    (r"^bottleneck(_proj)?\.", r"neck\1."),
    (r"\.positional_embedding$", ".pos_embed"),
)


def _one_neck(state_dict: StateDict) -> StateDict:
    """The BatchNorms of the feature and of its projection as one over both."""
    if "neck_proj.weight" not in state_dict:
        return state_dict
    kept = {key: tensor for key, tensor in state_dict.items() if not key.startswith("neck")}
    for name in ("weight", "bias", "running_mean", "running_var"):
        kept[f"neck.{name}"] = torch.cat([state_dict[f"neck.{name}"], state_dict[f"neck_proj.{name}"]])
    return kept


def _convert_vit(state_dict: StateDict) -> StateDict:
    """One neck, embeddings with a batch as timm's, and the projection as a linear layer's weight."""
    kept = _one_neck(state_dict)
    for key, tensor in kept.items():
        if key in ("backbone.pos_embed", "backbone.cls_token"):
            kept[key] = tensor.reshape(1, -1, tensor.shape[-1])
        if key == "backbone.proj.weight":
            kept[key] = tensor.T.contiguous()
    return kept


def _convert_resnet(state_dict: StateDict) -> StateDict:
    """One neck, and position embeddings with a batch."""
    return {
        key: tensor[None] if key == "backbone.attnpool.pos_embed" else tensor
        for key, tensor in _one_neck(state_dict).items()
    }


def _vits(found: Shapes) -> Sequence[BaselineArchitecture]:
    """The transformer of the found number of tokens."""
    layout = layout_of(found.get("backbone.pos_embed", (1, 129))[1] - 1, _SIZES, STRIDES_PX)
    tokens = replace(layout, num_cameras=found.get("backbone.sie_embed", (0,))[0])
    return [BaselineArchitecture(CLIP_VIT, None, pooling="none", tokens=tokens)]


def _resnets(found: Shapes) -> Sequence[BaselineArchitecture]:
    """The ResNet of the found number of places, of which its last map has one for every 16x16 pixels."""
    num_places = found.get("backbone.attnpool.pos_embed", (1, 129))[1] - 1
    tokens = replace(layout_of(num_places, _SIZES, (PATCH_PX,)), conv_stem=True)
    return [BaselineArchitecture(CLIP_RESNET, None, pooling="none", tokens=tokens)]


def _size(architecture: BaselineArchitecture) -> tuple[int, int]:
    return size_of(architecture.tokens, _SIZES)


CLIP_REID_VIT = Family(
    name="CLIP-ReID",
    signature=(r"^image_encoder\.class_embedding$",),
    key_map=(
        *_HEAD,
        (r"^cv_embed$", "backbone.sie_embed"),
        (r"^image_encoder\.(transformer\.)?", "backbone."),
        (r"\.class_embedding$", ".cls_token"),
        (r"\.conv1\.", ".patch_embed."),
        (r"\.ln_pre\.", ".norm_pre."),
        (r"\.ln_post\.", ".norm."),
        (r"\.resblocks\.", ".blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.in_proj_", ".qkv."),
        (r"\.out_proj\.", ".proj."),
        (r"\.c_fc\.", ".fc1."),
        (r"\.c_proj\.", ".fc2."),
        (r"\.proj$", ".proj.weight"),
    ),
    convert=_convert_vit,
    backbones=(CLIP_VIT,),
    candidates=_vits,
    last_stride=None,
    feature="f_t",
    size=_size,
    mean=HALF,
    std=HALF,
)
CLIP_REID_RESNET = Family(
    name="CLIP-ReID",
    signature=(r"^image_encoder\.attnpool\.",),
    key_map=(
        *_HEAD,
        (r"^cv_embed$", ""),  # its ResNet has no tokens to add it to
        (r"^image_encoder\.", "backbone."),
        (r"\.downsample\.0\.", ".downsample.conv."),
        (r"\.downsample\.1\.", ".downsample.bn."),
    ),
    convert=_convert_resnet,
    backbones=(CLIP_RESNET,),
    candidates=_resnets,
    last_stride=None,
    feature="f_t",
    size=_size,
)
