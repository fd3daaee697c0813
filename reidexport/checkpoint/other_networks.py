"""Networks that people have and that are not read, known by names of their tensors: a refusal says which it is."""

import re

from reidexport.checkpoint.family import Shapes
from reidexport.errors import CheckpointError

_USE_ONNX = (
    "not supported yet. Export it with its own code (torch.onnx.export) and use the ONNX file, with --size, --mean "
    "and --std as its project normalizes images"
)
# The last layers of torchvision's and timm's networks; re-identification projects name theirs otherwise.
_IMAGENET_HEADS = (
    *("fc.weight", "classifier.1.weight", "classifier.3.weight", "classifier.6.weight"),
    *("head.weight", "head.fc.weight", "heads.head.weight"),
)
_VIT_SIZES = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H"}
# (regular expressions, what the network is): each expression must be found in the name of some tensor. The first row
# that fits counts; "{vit}" stands for the vision transformer's size and patch.
_SIGNATURES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r"^backbone\..*fused_weight$", r"^heads\."), "a fast-reid RepVGG whose branches are merged"),
    ((r"^backbone\.first_conv\.", r"^heads\."), "a fast-reid ShuffleNet"),
    ((r"^usam_1\.", r"^classifier\.add_block\."), "layumi's ft_net with its attention USAM"),
    ((r"^model\.cell_stem_0\.", r"^classifier\.add_block\."), "layumi's ft_net_NAS"),
    ((r"^base\.NL_\d\.",), "an AGW of ReID-Survey, with non-local blocks"),
    ((r"^base\.\d+\.", r"^feat(_bn)?\."), "a network of open-reid, SpCL or one of their kin"),
    ((r"^base\.", r"^local_conv_list\."), "a PCB of beyond-part-models, a network of several branches"),
    ((r"^base\.", r"^local_(conv|bn)\."), "an AlignedReID, a network of two branches"),
    ((r"^back(b)?one\.", r"^p3\."), "an MGN, a network of several branches"),
    ((r"^conv\.0\.weight$", r"^layer1\.0\.conv1\."), "the network of deep_sort_pytorch (ckpt.t7)"),
    ((r"^cell_stem_0\.",), "a NASNet, as torchreid's"),
    ((r"^block1\.conv1\.conv\.", r"^block2\.stream1\."), "a torchreid MuDeep, a network of several branches"),
    ((r"^patch_embed\.seq\.0\.c\.", r"^head\.bn_\w+\.reduction\."), "a CSL-TinyViT of boxmot"),
    ((r"^backbone\.conv_stem\.", r"^head\.bn_\w+\.reduction\."), "a MobileNetV4 of boxmot"),
    ((r"^stem\.0\.conv\.", r"^bn_necks\.0\."), "a HiAFA of boxmot, a network of several branches"),
    ((r"^backbone_appearance_feature_extractor\.",), "a BPBReID or KPR, a network of several branches"),
    ((r"^(module\.)?encoder_q\.",), "a file of MoCo pre-training, without a re-identification head"),
)
# Networks that no project names: only what no known project wrote is compared with these.
_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r"(^|\.)patch_embed\.seq\.0\.c\.weight$",), "a TinyViT"),
    ((r"relative_position_bias_table$",), "a Swin transformer"),
    ((r"(^|\.)(cls_token|class_embedding|class_token)$",), "a vision transformer ({vit})"),
    ((r"(^|\.)(patch_embed\.|attn\.qkv\.|self_attn\.)",), "a transformer"),
    ((r"\.rbr_(dense|reparam|1x1)\.",), "a RepVGG"),
)


def refuse_other_networks(found: Shapes) -> None:
    """Refuse a network that is known and not read, by its name.

    Args:
        found: name, as in the file, and shape of every tensor.

    Raises:
        CheckpointError: one of the known ones has such tensors; the message says which, and what to do.
    """
    heads = [*_IMAGENET_HEADS]
    if any(name.startswith("features.") for name in found):
        heads.append("classifier.weight")  # torchvision's DenseNets; others have it behind a neck
    if imagenet := next((name for name in heads if found.get(name, ())[:1] == (1000,)), None):
        raise CheckpointError(
            f"this is an ImageNet classifier, as torchvision and timm publish them: {imagenet} has 1000 classes. It "
            "was not trained to tell persons apart. Pass a checkpoint that was, or train one: see docs/train.md."
        )
    _refuse_first(_SIGNATURES, found)


def refuse_known_kinds(found: Shapes) -> None:
    """Refuse a network that no known project wrote by its kind, such as a vision transformer.

    Args:
        found: name, as in the file, and shape of every tensor.

    Raises:
        CheckpointError: it is of a known kind; the message says which, and what to do.
    """
    _refuse_first(_KINDS, found)


def _refuse_first(rows: tuple[tuple[tuple[str, ...], str], ...], found: Shapes) -> None:
    for patterns, what in rows:
        if all(any(re.search(pattern, name) for name in found) for pattern in patterns):
            raise CheckpointError(f"this is {what.format(vit=_vit(found))}: {_USE_ONNX}.")


def _vit(found: Shapes) -> str:
    """Such as "ViT-B/16": width and patch of a vision transformer, from its first convolution."""
    for name, shape in found.items():
        if len(shape) == 4 and re.search(r"patch_embed\.(proj|conv)|(^|\.)(conv1|conv_proj)\.weight$", name):
            return f"ViT-{_VIT_SIZES.get(shape[0], shape[0])}/{shape[2]}"
    return "ViT"
