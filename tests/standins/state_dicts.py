"""State dicts as several projects name them, and why a checkpoint of them is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor, nn

from reidexport.checkpoint.loading import Checkpoint
from reidexport.errors import CheckpointError

Weights = dict[str, Tensor]
Load = Callable[..., Checkpoint]


def refusal(load: Load, content: object, **options: Any) -> str:
    """Why a file is refused."""
    with pytest.raises(CheckpointError) as raised:
        load(content, **options)
    assert raised.value.exit_status == 2
    return str(raised.value)


def prefixed(weights: Weights, prefix: str) -> Weights:
    """The same tensors under longer names."""
    return {prefix + key: tensor for key, tensor in weights.items()}


def without(weights: Weights, *prefixes: str) -> Weights:
    """The weights but for those whose names begin so."""
    return {key: tensor for key, tensor in weights.items() if not key.startswith(prefixes)}


def fast_reid(weights: Weights) -> Weights:
    """strong-baseline's resnet18 under the names that fast-reid gives its R18."""
    heads = {"bottleneck.": "heads.bottleneck.0.", "classifier.": "heads.", "base.": "backbone."}
    renamed = {
        "pixel_mean": torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1) * 255,
        "pixel_std": torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1) * 255,
    }
    for key, tensor in weights.items():
        old = next(old for old in heads if key.startswith(old))
        renamed[heads[old] + key.removeprefix(old)] = tensor
    return renamed


def torchreid(weights: Weights) -> Weights:
    """strong-baseline's resnet18 under the names of torchreid's, which has no neck."""
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith("bottleneck.")}
    return {
        **{key.removeprefix("base."): tensor for key, tensor in kept.items()},
        "classifier.bias": torch.zeros(10),
    }


def adam_state(weights: Weights) -> dict[str, Any]:
    """What Adam's state_dict() holds after a step."""
    parameter = nn.Parameter(weights["conv1.conv.weight"].clone())
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()
