"""The trainer's own loop on drawn people: float32, bf16, and with the backbone compiled."""

import json
from pathlib import Path

import pytest

from reidexport.data.synthetic import draw_dataset
from tests.gpu.conftest import Judge, Setup
from train.execution import Precision
from train.recipe import load_recipe
from train.training import TrainingOptions, train


@pytest.mark.parametrize(("precision", "compiled"), [("fp32", False), ("bf16", False), ("bf16", True)])
def test_learns(precision: Precision, compiled: bool, setup: Setup, tmp_path: Path, judge: Judge) -> None:
    """The loss begins where float32's does, and falls; the last epoch's speed is measured."""
    dataset = draw_dataset(tmp_path / "drawn", num_train_pids=24, num_test_pids=4)
    changes = (
        *("synthetic.num_train_pids=0", "schedule.num_epochs=4", "evaluation.every_epochs=4"),
        *(f"model.backbone={setup.backbone}", f"model.stem_relu={str(setup.backbone == 'resnet18').lower()}"),
        *(f"images.height_px={setup.size_px[0]}", f"images.width_px={setup.size_px[1]}"),
    )
    options = TrainingOptions(init="none", precision=precision, compiled=compiled, workers=8)
    lines: list[str] = []
    train(load_recipe("smoke", changes), dataset, tmp_path / "run", options, log=lines.append)
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())
    losses, first = [epoch["loss"] for epoch in epochs], setup.folder / "first_loss.txt"
    for name, value in {"said": lines, "losses": losses, "images_per_s": epochs[-1]["images_per_s"]}.items():
        judge.record(name, value)
    if precision == "fp32":
        first.write_text(str(losses[0]))
    judge.within(0.2, first_loss_distance=abs(losses[0] / float(first.read_text()) - 1))
    judge.within(1.0, last_loss_by_first=losses[-1] / losses[0])
    assert setup.device == "cpu" or "steps: one CUDA graph each" in lines, lines
