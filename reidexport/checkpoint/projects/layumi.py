"""layumi/Person_reID_baseline_pytorch: networks of torchvision and timm under ``model``, and PCB."""

from collections.abc import Sequence

from torch.nn import functional

from reidexport.checkpoint.family import Family, Shapes, StateDict
from reidexport.checkpoint.projects.timm_names import (
    efficientnet_b4_names,
    joined,
    renamed,
    split,
    swin_names,
)
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.timm_transformer import TRANSFORMERS_PX

# By a tensor that no other of its networks has; all others are ResNet-50. Where a last stride can be chosen, it is 2.
_BACKBONES = {
    "features.conv0.weight": BaselineArchitecture("densenet121_without_relu", 2),
    "conv_stem.weight": BaselineArchitecture("efficientnet_b4", None),
    "trunk.stage2.0.branches.0.0.conv1.weight": BaselineArchitecture("timm/hrnet_w18", None),
    "trunk.stages.0.blocks.0.gamma": BaselineArchitecture("timm/convnext_base", None),
    "trunk.layers.0.blocks.0.attn.relative_position_bias_table": BaselineArchitecture(
        "swin_base_patch4_window7_224", None, pooling="none"
    ),
    "trunk.layers.0.blocks.0.attn.logit_scale": BaselineArchitecture(
        "swinv2_base_window8_256", None, pooling="none"
    ),
    "trunk.reg_token": BaselineArchitecture("vit_base_patch16_dinov3", None, pooling="none"),
}
_RESNETS = (BaselineArchitecture("resnet50", 2), BaselineArchitecture("resnet50_ibn_a", 2))
# The layers of EfficientNet-B4 that pad more at the bottom and right.
_UNEVENLY_PADDED = ("conv_stem.weight", *(f"blocks.{stage}.0.conv_dw.weight" for stage in (1, 3, 5)))


def _converted(state_dict: StateDict) -> StateDict:
    backbone, head = split(state_dict)
    return joined(_backbone(backbone), _head(head))


def _backbone(state_dict: StateDict) -> StateDict:
    if "_conv_stem.weight" in state_dict:
        found = efficientnet_b4_names(state_dict)
        return found | {
            key: functional.pad(found[key], (1, 0, 1, 0)) for key in _UNEVENLY_PADDED if key in found
        }
    if "features.conv0.weight" in state_dict or "layer4.0.conv1.weight" in state_dict:
        return state_dict
    return {f"trunk.{key}": tensor for key, tensor in swin_names(state_dict).items()}


def _head(state_dict: StateDict) -> StateDict:
    """Its linear layer has a bias: a BatchNorm behind it takes it from the mean that it subtracts."""
    mean, bias = state_dict.get("neck.1.running_mean"), state_dict.get("neck.0.bias")
    if mean is None:  # no linear layer, the BatchNorm is the first
        return renamed(state_dict, ((r"^neck\.0\.", "neck."),))
    if bias is None or bias.shape != mean.shape:
        return state_dict
    others = {key: tensor for key, tensor in state_dict.items() if key != "neck.0.bias"}
    return {**others, "neck.1.running_mean": (mean.double() - bias.double()).float()}


def _candidates(found: Shapes) -> Sequence[BaselineArchitecture]:
    named = [each for name, each in _BACKBONES.items() if f"backbone.{name}" in found]
    return named or _RESNETS


def _size(architecture: BaselineArchitecture) -> tuple[int, int]:
    return TRANSFORMERS_PX.get(architecture.backbone, (256, 128))


_KEY_MAP = (
    (r"^model\.(_?fc|classifier)\..*", ""),  # ImageNet's, unused
    (r".*\.(attn_mask|relative_coords_table)$", ""),  # computed, not learned
    (r"^model\.", "backbone."),
    (r"^classifier\.add_block\.", "neck."),
    (r"^classifier\.classifier\.0\.", "classifier."),
    (r"^classifier\d\..*", ""),  # PCB's, which its test leaves out
)
LAYUMI = Family(
    name="layumi",
    signature=(r"^model\.", r"^classifier\.add_block\."),
    key_map=_KEY_MAP,
    convert=_converted,
    backbones=tuple(each.backbone for each in (*_RESNETS, *_BACKBONES.values())),
    candidates=_candidates,
    last_stride=2,
    size=_size,
    resize="bicubic",
    lookalikes="those trained with its --stride 1 (--last-stride 1)",
)
LAYUMI_PCB = Family(
    name="layumi",
    signature=(r"^model\.", r"^classifier0\.add_block\."),
    key_map=_KEY_MAP,
    backbones=("resnet50_pcb",),
    candidates=lambda _: [BaselineArchitecture("resnet50_pcb", pooling="none")],
    feature="f_t",
    size=lambda _: (384, 192),
    resize="bicubic",
)
