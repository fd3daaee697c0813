"""What only a GPU shows; skipped without one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from reidexport.datasets import Dataset
from reidexport.synthetic import draw_dataset
from train.augmentation import augment, draw_augmentation
from train.recipe import Erasing, Images, load_recipe
from train.training import RunOptions, train

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dozen people to train on."""
    return draw_dataset(tmp_path_factory.mktemp("gpu") / "drawn", num_train_pids=12, num_test_pids=4)


def test_augmentation_is_the_cpu_s() -> None:
    """The same draws give the same images, to float32's rounding."""
    store = torch.randint(0, 256, (16, 64, 32, 3), dtype=torch.uint8)
    draws = draw_augmentation(np.random.default_rng(0), 16, Images(height_px=64, width_px=32), Erasing())
    indices = torch.arange(16)
    on_gpu = augment(store.cuda(), indices.cuda(), draws, 10, Erasing())
    torch.testing.assert_close(
        on_gpu.cpu(), augment(store, indices, draws, 10, Erasing()), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_learns_in_bf16(compiled: bool, dataset: Dataset, tmp_path: Path) -> None:
    """The loss falls, images come from GPU memory, and the result says what that took."""
    recipe = load_recipe("smoke", ["synthetic.num_train_pids=0", "schedule.num_epochs=4"])
    options = RunOptions(init="none", compiled=compiled)
    result = train(recipe, dataset, tmp_path, options)
    assert result["rank1"] > 0.3
    assert result["peak_memory_mib"] > 0
    assert result["data_wait_share"] < 0.5
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert all(each.device.type == "cpu" for each in saved["state_dict"].values())
    first = next(iter(saved["state"]["learner"]["optimizer"]["state"].values()))
    assert first["exp_avg"].device.type == "cpu"
