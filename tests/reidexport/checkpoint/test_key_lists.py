"""Names and shapes of public networks: each ends in its right name or in an honest refusal, never in a wrong network.

No tensor has memory: every value of one is the same number.
"""

import re
from pathlib import Path

import pytest
import timm
import torch
from torchvision import models

from reidexport.checkpoint import loading
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.checkpoint.weights import Weights
from reidexport.errors import CheckpointError
from tests.standins.checkpoints import golden_cases

Shapes = dict[str, tuple[int, ...]]
REFUSALS = (
    *("not supported yet", "no known project names its tensors", "ImageNet classifier"),
    *("are those of none of its", "First difference: backbone.layer1.0.se.fc1.weight"),
)
TORCHVISION = """
alexnet vgg16 vgg16_bn googlenet inception_v3 densenet121 densenet161 squeezenet1_1 mnasnet1_0 mobilenet_v2
mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x1_0 resnet18 resnet50 resnext50_32x4d wide_resnet50_2
efficientnet_b0 efficientnet_v2_s convnext_tiny swin_t swin_v2_t vit_b_16 vit_b_32 maxvit_t
"""
DETECTORS_AND_SEGMENTERS = """
fasterrcnn_resnet50_fpn keypointrcnn_resnet50_fpn retinanet_resnet50_fpn ssd300_vgg16 deeplabv3_resnet50
fcn_resnet50 lraspp_mobilenet_v3_large
"""
TIMM = """
vit_tiny_patch16_224 vit_base_patch16_224 vit_small_patch14_dinov2 deit_small_patch16_224
deit_base_distilled_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 vit_base_patch16_clip_224
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 pvt_v2_b0 tiny_vit_5m_224 levit_128s mixer_s16_224
convnext_nano convnextv2_atto resnet50 resnet26d seresnet50 resnest50d efficientnet_b1 efficientnet_lite0
mobilenetv3_large_100 ghostnet_100 repvgg_b0 regnety_008 hrnet_w18_small dla34 res2net50_26w_4s darknet53
cspresnet50 legacy_xception nfnet_l0 poolformer_s12 edgenext_small mobilevit_s fastvit_t8 repghostnet_050
xcit_nano_12_p16_224 cait_xxs24_224 coat_tiny crossvit_9_240 maxvit_nano_rw_256 gcvit_xxtiny davit_tiny
"""


def shapes_of_torchvision(name: str) -> Shapes:
    """Of a network with its usual head."""
    with torch.device("meta"):
        kwargs = {"weights": None} | (
            {"weights_backbone": None} if name in DETECTORS_AND_SEGMENTERS.split() else {}
        )
        return {
            key: tuple(value.shape) for key, value in models.get_model(name, **kwargs).state_dict().items()
        }


def shapes_of_timm(name: str, num_classes: int) -> Shapes:
    """Of a network with a head of as many classes, or without one."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def answer(shapes: Shapes, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """What a file with such tensors is taken for, or why it is refused."""
    weights = Weights({key: torch.ones(()).expand(shape) for key, shape in shapes.items()}, "state dict")
    path = folder / "model.pth"
    path.write_bytes(b"")
    monkeypatch.setattr(loading, "read_weights", lambda *_: weights)
    monkeypatch.setattr(loading, "_finite", dict)  # nothing is allocated
    try:
        return load_checkpoint(path).summary
    except CheckpointError as error:
        return str(error)


@pytest.mark.parametrize("name", [*TORCHVISION.split(), *DETECTORS_AND_SEGMENTERS.split()])
def test_torchvisions_networks_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A network that never learned to tell persons apart is not read, and no nearest backbone is named."""
    said = answer(shapes_of_torchvision(name), monkeypatch, tmp_path)
    assert "earest" not in said
    assert any(text in said for text in REFUSALS), said


@pytest.mark.parametrize("num_classes", [1000, 0])
@pytest.mark.parametrize("name", TIMM.split())
def test_timms_networks_are_refused(
    name: str, num_classes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether as classifiers of ImageNet or as bare features; a bare ResNet-50 is the network that torchreid has."""
    said = answer(shapes_of_timm(name, num_classes), monkeypatch, tmp_path)
    if num_classes == 0 and name in ("resnet50", "legacy_xception"):
        assert said.startswith(f"torchreid {name.removeprefix('legacy_')}, neck none")
    else:
        assert any(text in said for text in REFUSALS), said


# One case of each project's tensors, which are put together and taken apart in the project's own way.
CHANGED = """
tn_vit_base_sie_jpm_stride12 cl_vit_b16_sie cl_rn50 so_swin_t_fcneck la_ft_net la_efficient fo_mgn_r50_ibn
lm_lmbn_n
"""


@pytest.mark.parametrize("name", CHANGED.split())
def test_files_of_known_projects_that_lack_something_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tensor of the head or of the first layers that is missing, or a plain list, is an error in words."""
    shapes = {key: tuple(shape) for key, shape in golden_cases()[name]["shapes"].items()}
    heads = re.compile("bottleneck|embed|reduction|neck|add_block|stem|attnpool.pos|b21_head|sie")
    odd = [key for key in shapes if heads.search(key) and not key.endswith("num_batches_tracked")][:8]
    whole = answer(shapes, monkeypatch, tmp_path)
    for key in odd:
        for changed in (
            {each: shape for each, shape in shapes.items() if each != key},
            shapes | {key: (5,)},
            shapes | {key: ()},
        ):
            said = answer(changed, monkeypatch, tmp_path)  # anything but a CheckpointError fails here
            assert "model.pth: " in said or said == whole or "classes" in said
