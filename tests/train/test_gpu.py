"""What only a GPU shows; skipped without one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reidexport.data import Dataset
from reidexport.data.synthetic import draw_dataset
from train.augmentation import augment, draw_augmentation
from train.distributed import Processes
from train.images import drawn_batch, load_train_images, plan_of_epoch
from train.learner import METRICS, Learner
from train.model import build_model
from train.recipe import Erasing, Images, Recipe, load_recipe
from train.result import HISTORY
from train.training import TrainingOptions, train
from train.whole_step import CudaGraphRecorder, WholeStep

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dozen people to train on."""
    return draw_dataset(tmp_path_factory.mktemp("gpu") / "drawn", num_train_pids=12, num_test_pids=4)


def test_augmentation_is_the_cpu_s() -> None:
    """The same draws make the same images, to float32's rounding."""
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
    options = TrainingOptions(init="none", compiled=compiled)
    result = train(recipe, dataset, tmp_path, options)
    assert result["rank1"] > 0.3
    assert result["peak_memory_mib"] > 0
    assert result["data_wait_share"] < 0.5
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert all(each.device.type == "cpu" for each in saved["state_dict"].values())
    first = next(iter(saved["state"]["learner"]["optimizer"]["state"].values()))
    assert first["exp_avg"].device.type == "cpu"
    assert result["execution"]["steps"] == "one CUDA graph each"
    assert result["execution"]["evaluation"] == "fp32, images kept on the GPU"


def losses(folder: Path) -> list[list[float]]:
    """The metrics of every epoch."""
    return [[each[name] for name in METRICS] for each in json.loads((folder / HISTORY).read_text())]


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_the_graph_learns_as_plain_steps_do(backbone: str, dataset: Dataset, tmp_path: Path) -> None:
    """In float32: the losses of two epochs with different rates agree, and the result says which kind of steps ran."""
    changes = ["synthetic.num_train_pids=0", "schedule.num_epochs=2", f"model.backbone={backbone}"]
    recipe = load_recipe("smoke", changes)
    options = TrainingOptions(init="none", precision="fp32")
    lines: list[str] = []
    graph = train(recipe, dataset, tmp_path / "graph", options, log=lines.append)
    plain = train(recipe, dataset, tmp_path / "plain", replace(options, cuda_graph=False), log=lines.append)
    assert graph["execution"]["steps"] == "one CUDA graph each"
    assert plain["execution"]["steps"] == "plain: --no-cuda-graph"
    assert [line for line in lines if line.startswith("steps")] == [
        "steps: one CUDA graph each",
        "steps: plain: --no-cuda-graph",
    ]
    np.testing.assert_allclose(losses(tmp_path / "graph"), losses(tmp_path / "plain"), rtol=0.02)


def make_step(recipe: Recipe, dataset: Dataset) -> tuple[WholeStep, Learner, list[np.ndarray]]:
    """A step in bf16 that is recorded, its learner, and the batches of an epoch."""
    device = torch.device("cuda", torch.cuda.current_device())
    images = load_train_images(dataset.train, 64, 32, device, workers=4)
    learner = Learner(
        build_model(recipe, images.num_classes),
        recipe,
        device,
        processes=Processes(),
        autocast=torch.bfloat16,
    )
    size = recipe.batch.num_pids * recipe.batch.num_instances
    step = WholeStep(learner, images, recipe, size, recorder=CudaGraphRecorder())
    return step, learner, plan_of_epoch(images, recipe, 1)


def test_a_recorded_step_waits_for_nothing(dataset: Dataset) -> None:
    """No call in filling the buffers or replaying makes the CPU wait for the GPU."""
    recipe = load_recipe("smoke")
    step, _, plan = make_step(recipe, dataset)
    batches = [drawn_batch(recipe, 1, plan, place % len(plan), 0, 1) for place in range(8)]
    for batch in batches[:5]:
        step.fill(*batch)
        step.run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[5:]:
            step.fill(*batch)
            metrics = step.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(metrics).all()


def test_the_rate_of_a_recorded_step_can_change(dataset: Dataset) -> None:
    """With a rate of 0 a replay leaves every parameter of the network as it is; with another rate it does not."""
    recipe = load_recipe("smoke")
    step, learner, plan = make_step(recipe, dataset)
    for place in range(8):
        learner.set_learning_rate(0.0 if place == 6 else 1e-3)
        before = [each.detach().clone() for each in learner.baseline.parameters()]
        step.fill(*drawn_batch(recipe, 1, plan, place % len(plan), 0, 1))
        step.run()
        unchanged = [
            torch.equal(old, new) for old, new in zip(before, learner.baseline.parameters(), strict=True)
        ]
        assert all(unchanged) == (place == 6)


def test_fp32_trains_without_tf32(dataset: Dataset, tmp_path: Path) -> None:
    """While steps run, convolutions are set to IEEE float32; afterwards the setting is what it was."""
    before, seen = torch.backends.cudnn.conv.fp32_precision, set()
    recipe = load_recipe(
        "smoke", ["synthetic.num_train_pids=0", "schedule.num_epochs=1", "schedule.warmup_epochs=1"]
    )

    def stop() -> bool:
        seen.add(torch.backends.cudnn.conv.fp32_precision)
        return False

    result = train(recipe, dataset, tmp_path, TrainingOptions(init="none", precision="fp32"), stop=stop)
    assert seen == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert result["execution"]["precision"] == "fp32"
