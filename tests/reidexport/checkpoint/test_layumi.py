"""layumi's networks: what its files hold around the weights, and what is assumed of them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint
from reidexport.checkpoint.projects.layumi import LAYUMI
from reidexport.checkpoint.projects.timm_names import swin_names
from reidexport.errors import InputError
from reidexport.export.graph import graph_from_checkpoint
from tests.standins import checkpoints
from tests.standins.checkpoints import expected, golden_images, normalized, relative_l2
from tests.standins.state_dicts import Load, prefixed


def test_an_average_of_snapshots_is_read(load: Load) -> None:
    """A file of torch.optim.swa_utils has a counter, and DataParallel's prefix."""
    weights = checkpoints.golden_weights("la_dense")
    checkpoint = load({"n_averaged": torch.tensor(9), **prefixed(weights, "module.")})
    assert (checkpoint.family, checkpoint.architecture.backbone) == ("layumi", "densenet121_without_relu")
    images = normalized(golden_images("la_dense"))
    with torch.inference_mode():
        _, found = model_from_checkpoint(checkpoint)(images)
    assert relative_l2(found, expected("la_dense", "f_i")) < 1e-4


def test_the_last_stride_is_assumed_and_can_be_told(load: Load) -> None:
    """It is 2 unless its training was told otherwise, which changes the answer and no weight."""
    weights = checkpoints.golden_weights("la_dense")
    images = normalized(golden_images("la_dense"))
    assumed, told = load(weights), load(weights, last_stride=1)
    assert "last stride 2 (as in layumi; set with --last-stride)" in assumed.assumed
    with torch.inference_mode():
        two, one = (model_from_checkpoint(each)(images)[1] for each in (assumed, told))
    assert relative_l2(one, two) > 0.01


def test_the_linear_layer_s_bias_goes_into_the_mean() -> None:
    """Without it, and with the BatchNorm's mean less by it, the neck answers the same."""
    theirs = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    theirs[1].running_mean = torch.randn(4)
    ours = LAYUMI.convert({f"neck.{key}": value for key, value in theirs.state_dict().items()})
    assert "neck.0.bias" not in ours
    neck = nn.Sequential(nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4)).eval()
    neck.load_state_dict({key.removeprefix("neck."): value for key, value in ours.items()})
    features = torch.randn(3, 6)
    torch.testing.assert_close(neck(features), theirs(features))


def test_patch_merging_of_older_timm_is_moved() -> None:
    """Until 0.9 a stage of its Swin ended with it; since then the next one begins with it."""
    old = {f"layers.{stage}.downsample.reduction.weight": torch.full((1,), stage) for stage in range(3)}
    moved = swin_names({**old, "layers.3.blocks.0.norm1.weight": torch.zeros(1)})
    assert {key: int(value) for key, value in moved.items()} == {
        "layers.1.downsample.reduction.weight": 0,
        "layers.2.downsample.reduction.weight": 1,
        "layers.3.downsample.reduction.weight": 2,
        "layers.3.blocks.0.norm1.weight": 0,
    }
    assert swin_names(moved) == moved


@pytest.mark.slow
def test_a_transformer_says_which_size_it_takes(tmp_path: Path) -> None:
    """Its windows are cut for one size of images: another one is refused in words."""
    path = tmp_path / "net_last.pth"
    torch.save(checkpoints.golden_weights("la_swin"), path)
    checkpoint = load_checkpoint(path, CheckpointChoices(size=(256, 128)))
    with pytest.raises(InputError, match=r"cannot take images of 256x128 px: .*224.*Choose another --size"):
        graph_from_checkpoint(checkpoint)
