"""fast-reid's backbones: each kind is told by its names, and its size by the number of its blocks."""

import pytest
import torch

from reidexport.checkpoint.families import backbone_shapes
from reidexport.checkpoint.family import candidates_of
from reidexport.checkpoint.projects.fast_reid import FAST_REID
from reidexport.models.baseline import BaselineArchitecture
from tests.standins import checkpoints
from tests.standins.state_dicts import Load, Weights, refusal


@pytest.mark.parametrize(
    "name", ["repvgg_a1", "regnetx_002", "regnety_008", "efficientnet_b1", "efficientnet_b2"]
)
def test_the_size_is_told_by_the_blocks(name: str) -> None:
    """One network alone is compared with, and it is the right one."""
    architecture = BaselineArchitecture(f"timm/{name}")
    assert candidates_of(FAST_REID, backbone_shapes(architecture)) == [architecture]


def test_an_unknown_size_is_refused_in_words(load: Load) -> None:
    """A RegNet of a number of blocks that none has is not taken for a ResNet."""
    weights: Weights = {
        key: tensor
        for key, tensor in checkpoints.golden_weights("fo_regnetx_400").items()
        if ".s3.b7." not in key
    }
    message = refusal(load, weights)
    assert "are those of none of its backbones that are read" in message
    assert "timm/regnetx_*" in message


def test_mgn_without_its_batchnorms_is_refused_in_words(load: Load) -> None:
    """Heads that do not end in a BatchNorm are another network."""
    shapes = {
        "backbone.0.weight": (64, 3, 7, 7),
        "b1.0.0.conv1.weight": (256, 1024, 1, 1),
        "b1_head.bottleneck.0.weight": (256, 2048, 1, 1),
    }
    message = refusal(load, {key: torch.zeros(shape) for key, shape in shapes.items()})
    assert (
        "named as fast-reid's, but are those of none of its backbones that are read: resnet50_mgn" in message
    )
