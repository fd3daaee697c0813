"""Networks that are not read are named as what they are, and those that are read are never taken for them."""

import re

import pytest
import torch

from reidexport.checkpoint.other_networks import refuse_known_kinds, refuse_other_networks
from reidexport.errors import CheckpointError
from tests.standins import checkpoints
from tests.standins.state_dicts import Load, Weights, prefixed, refusal, torchreid

Shapes = dict[str, tuple[int, ...]]
VIT: Shapes = {
    "cls_token": (1, 1, 768),
    "patch_embed.proj.weight": (768, 3, 16, 16),
    "blocks.0.attn.qkv.weight": (9, 3),
}
RESNET: Shapes = {
    "conv1.weight": (64, 3, 7, 7),
    "layer1.0.conv1.weight": (64, 64, 1, 1),
    "layer4.0.conv1.weight": (9, 9),
}


def under(prefix: str, shapes: Shapes) -> Shapes:
    """The same tensors under longer names."""
    return {prefix + name: shape for name, shape in shapes.items()}


# A few names of each network, as its project has them, and what it must be called.
OTHERS: dict[str, Shapes] = {
    "a vision transformer (ViT-B/16)": VIT,
    "a vision transformer (ViT-S/14)": {"a.cls_token": (1, 1, 384), "a.patch_embed.proj.weight": (384, 3, 14, 14)},
    "a Swin transformer": {"layers.0.blocks.0.attn.relative_position_bias_table": (169, 3)},
    "a TinyViT": {"patch_embed.seq.0.c.weight": (32, 3, 3, 3)},
    "a fast-reid RepVGG whose branches are merged": {
        "backbone.stage0.fused_weight": (48, 3, 3, 3), "heads.weight": (9, 1280)
    },
    "a fast-reid ShuffleNet": {"backbone.first_conv.0.weight": (24, 3, 3, 3), "heads.weight": (9, 1024)},
    "layumi's ft_net with its attention USAM": (
        under("model.", RESNET) | {"classifier.add_block.0.weight": (512, 2048), "usam_1.weight": (1, 1, 3, 3)}
    ),
    "layumi's ft_net_NAS": {
        "model.cell_stem_0.conv_1x1.conv.weight": (42, 96, 1, 1), "classifier.add_block.0.weight": (512, 4032)
    },
    "an AGW of ReID-Survey": under("base.", RESNET) | {"base.NL_2.0.g.weight": (9, 9), "global_pool.p": (1,)},
    "a network of open-reid, SpCL or one of their kin": {"base.0.weight": (64, 3, 7, 7), "feat_bn.weight": (2048,)},
    "the network of deep_sort_pytorch": {"conv.0.weight": (64, 3, 3, 3), "layer1.0.conv1.weight": (64, 64, 3, 3)},
    "a NASNet, as torchreid's": {"conv0.conv.weight": (32, 3, 3, 3), "cell_stem_0.conv_1x1.conv.weight": (9, 9)},
    "a torchreid MuDeep": {"block1.conv1.conv.weight": (48, 3, 3, 3), "block2.stream1.0.conv.weight": (96, 96, 1, 1)},
    "a CSL-TinyViT of boxmot": {
        "patch_embed.seq.0.c.weight": (32, 3, 3, 3), "head.bn_part0.reduction.weight": (512, 448, 1, 1)
    },
    "a MobileNetV4 of boxmot": {
        "backbone.conv_stem.weight": (32, 3, 3, 3), "head.bn_global.reduction.weight": (512, 960, 1, 1)
    },
    "a HiAFA of boxmot": {"stem.0.conv.weight": (64, 3, 7, 7), "bn_necks.0.bn.weight": (512,)},
    "a file of MoCo pre-training": {"encoder_q.conv1.weight": (64, 3, 7, 7)},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_other_networks_are_named(what: str) -> None:
    """Each network that people have and that is not read is named, with the way through its own code."""
    with pytest.raises(CheckpointError) as raised:
        refuse_other_networks(OTHERS[what])
        refuse_known_kinds(OTHERS[what])
    message = str(raised.value)
    assert message.startswith(f"this is {what}"), message
    assert (
        "not supported yet. Export it with its own code (torch.onnx.export) and use the ONNX file, with"
        in message
    )


def test_a_refused_transformer_says_nothing_of_resnets(load: Load) -> None:
    """Loading a transformer names it, and neither a nearest ResNet nor --arch."""
    weights = {name: torch.zeros(shape) for name, shape in under("module.encoder.", VIT).items()}
    message = refusal(load, {"model": weights})
    assert "this is a vision transformer (ViT-B/16): not supported yet" in message
    assert "earest" not in message
    assert "--arch" not in message


@pytest.mark.parametrize("name", checkpoints.golden_cases())
def test_networks_that_are_read_are_not_refused(name: str) -> None:
    """No network of the known projects is taken for one of those that are not read."""
    shapes = checkpoints.golden_cases()[name]["shapes"]
    refuse_other_networks({key: tuple(shape) for key, shape in shapes.items()})


def test_imagenet_classifiers_are_named(load: Load, resnet18: Weights) -> None:
    """Torchvision's network for ImageNet was not trained for re-identification, although its backbone would fit."""
    weights = {key: tensor for key, tensor in torchreid(resnet18).items() if not key.startswith("classifier")}
    message = refusal(load, {**weights, "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)})
    assert re.search(r"this is an ImageNet classifier.*: fc.weight has 1000 classes", message)
    assert "Pass a checkpoint that was, or train one" in message


def test_a_far_network_names_no_nearest(load: Load, resnet18: Weights) -> None:
    """Where most tensors differ, the backbones that are read are listed in place of a nearest one."""
    weights = {
        key: torch.ones(tensor.shape[:1]) for key, tensor in resnet18.items() if key.startswith("base.")
    }
    message = refusal(load, {key: torch.ones(7) for key in weights})
    assert "are those of none of its backbones that are read: resnet18, resnet34, resnet50" in message
    assert "Export it with its own code (torch.onnx.export)" in message
    assert "earest" not in message
    assert load(prefixed(resnet18, "module.")).architecture.backbone == "resnet18"
