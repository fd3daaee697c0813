"""From the names that other code gives the tensors of a well-known network to those of timm or torchvision."""

import re

from reidexport.checkpoint.family import StateDict
from reidexport.models.trunk import torchvision_names

Pairs = tuple[tuple[str, str], ...]

REPVGG: Pairs = (
    (r"^stage0\.", "stem."),
    *((rf"^stage{stage}\.", f"stages.{stage - 1}.") for stage in (1, 2, 3, 4)),
    (r"\.rbr_dense\.", ".conv_kxk."),
    (r"\.rbr_1x1\.", ".conv_1x1."),
    (r"\.rbr_identity\.", ".identity."),
)
# Those of pycls, Facebook's code for RegNet and EfficientNet.
REGNET: Pairs = (
    (r"\.f\.se\.f_ex\.0\.", ".se.fc1."),
    (r"\.f\.se\.f_ex\.2\.", ".se.fc2."),
    *((rf"\.f\.{letter}\.", f".conv{place}.conv.") for place, letter in enumerate("abc", 1)),
    *((rf"\.f\.{letter}_bn\.", f".conv{place}.bn.") for place, letter in enumerate("abc", 1)),
    (r"^(s\d\.b\d+)\.proj\.", r"\1.downsample.conv."),
    (r"^(s\d\.b\d+)\.bn\.", r"\1.downsample.bn."),
)
_EFFNET: Pairs = (
    (r"^stem\.conv\.", "conv_stem."),
    (r"^stem\.bn\.", "bn1."),
    (r"^head\.conv\.", "conv_head."),
    (r"^head\.conv_bn\.", "bn2."),
    (r"\.se\.f_ex\.0\.", ".se.conv_reduce."),
    (r"\.se\.f_ex\.2\.", ".se.conv_expand."),
)
# Those of lukemelas/EfficientNet-PyTorch, the package efficientnet_pytorch.
_EFFICIENTNET_PYTORCH: Pairs = (
    (r"^_conv_(stem|head)\.", r"conv_\1."),
    (r"^_bn0\.", "bn1."),
    (r"^_bn1\.", "bn2."),
    (r"\._se_(reduce|expand)\.", r".se.conv_\1."),
    (r"\._expand_conv\.", ".exp."),
    (r"\._bn0\.", ".exp_bn."),
    (r"\._depthwise_conv\.", ".dwise."),
    (r"\._bn1\.", ".dwise_bn."),
    (r"\._project_conv\.", ".lin_proj."),
    (r"\._bn2\.", ".lin_proj_bn."),
)
_B4_BLOCKS = (2, 4, 4, 6, 6, 8, 2)
# The layers of a block that expands its input, and of one that does not.
_EXPANDING = {
    "exp": "conv_pw",
    "exp_bn": "bn1",
    "dwise": "conv_dw",
    "dwise_bn": "bn2",
    "lin_proj": "conv_pwl",
    "lin_proj_bn": "bn3",
}
_PLAIN = {"dwise": "conv_dw", "dwise_bn": "bn1", "lin_proj": "conv_pw", "lin_proj_bn": "bn2"}


def renamed(state_dict: StateDict, pairs: Pairs) -> StateDict:
    """The same tensors, each name changed by every (pattern, replacement) that it matches, one after the other."""
    found = {}
    for key, tensor in state_dict.items():
        name = key
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def split(state_dict: StateDict) -> tuple[StateDict, StateDict]:
    """The tensors of the backbone, by their names in it, and all others."""
    prefix = "backbone."
    backbone = {
        key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)
    }
    return backbone, {key: tensor for key, tensor in state_dict.items() if not key.startswith(prefix)}


def joined(backbone: StateDict, others: StateDict) -> StateDict:
    """What :func:`split` takes apart."""
    return {f"backbone.{key}": tensor for key, tensor in backbone.items()} | others


def effnet_names(state_dict: StateDict) -> StateDict:
    """The tensors of pycls's EfficientNet under timm's names."""
    found = {}
    for key, tensor in renamed(state_dict, _EFFNET).items():
        match = re.match(r"s(\d)\.b(\d+)\.(.+)", key)
        if match is None:
            found[key] = tensor
            continue
        stage, block, (layer, _, rest) = int(match[1]), int(match[2]), match[3].partition(".")
        layers = _EXPANDING if f"s{stage}.b{block}.exp.weight" in state_dict else _PLAIN
        found[f"blocks.{stage - 1}.{block - 1}.{layers.get(layer, layer)}.{rest}"] = tensor
    return found


def efficientnet_b4_names(state_dict: StateDict) -> StateDict:
    """The tensors of efficientnet_pytorch's B4, which numbers its blocks in one row, under timm's names."""
    places = [(stage, block) for stage, count in enumerate(_B4_BLOCKS, 1) for block in range(1, count + 1)]
    row = tuple(
        (rf"^_blocks\.{number}\.", f"s{stage}.b{block}.") for number, (stage, block) in enumerate(places)
    )
    return effnet_names(renamed(state_dict, (*_EFFICIENTNET_PYTORCH, *row)))


def mobilenet_v2_names(state_dict: StateDict) -> StateDict:
    """Those of fast-reid's MobileNetV2, whose last layer is no part of ``features``, under torchvision's names."""
    return torchvision_names(renamed(state_dict, ((r"^conv\.", "features.18."),)))


def swin_names(state_dict: StateDict) -> StateDict:
    """Those of a Swin transformer of timm's before 0.9, whose stages end in a patch merging, under its later names."""
    if "layers.0.downsample.reduction.weight" not in state_dict:
        return state_dict
    later = tuple(
        (rf"^layers\.{stage}\.downsample\.", f"layers.{stage + 1}.downsample.") for stage in (2, 1, 0)
    )
    return renamed(state_dict, later)
