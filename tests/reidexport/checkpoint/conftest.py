"""Weights of two projects, and a way to load what was saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint
from tests.standins import checkpoints
from tests.standins.state_dicts import Weights


@pytest.fixture(scope="module")
def osnet() -> Weights:
    """Torchreid's osnet_x0_25, 10 classes, fc neck."""
    return checkpoints.golden_weights("tr_osnet_x0_25")


@pytest.fixture(scope="module")
def resnet18() -> Weights:
    """strong-baseline's resnet18, 10 classes, BNNeck."""
    return checkpoints.golden_weights("sb_resnet18")


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write anything with torch.save and load it."""

    def write_and_load(content: object, **options: Any) -> Checkpoint:
        path = tmp_path / "model.pth"
        torch.save(content, path)
        return load_checkpoint(path, CheckpointChoices(**options))

    return write_and_load
