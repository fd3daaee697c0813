"""The trainer's step on this device: does bf16 learn what float32 learns, and how fast?"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.outcome import StepFailedError, Values, within
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speeds import device_times_ms, summary

if TYPE_CHECKING:
    from torch import Tensor

_NUM_INSTANCES, _STEPS = 4, 8
_LEARNING_RATE = 3.5e-4
_FIRST_LOSS_LIMIT = 0.05


def check_training(bench: Bench, settings: Settings) -> None:
    """One batch, learned again and again."""
    subject = "trainer"
    bench.check(subject, "bf16 learns as float32", 15, lambda: _losses(settings))
    bench.measure(subject, "speed of a step in bf16", 10, lambda: _speed(settings))


def _losses(settings: Settings) -> Values:
    """The loss of a first step is float32's, and falls."""
    bf16, fp32 = _learn(settings, bf16=True), _learn(settings, bf16=False)
    distance = abs(bf16[0] - fp32[0]) / abs(fp32[0])
    values = within({"first_loss_distance": distance}, {"first_loss_distance": _FIRST_LOSS_LIMIT})
    values |= {"bf16_losses": bf16, "fp32_losses": fp32}
    for name, losses in (("bf16", bf16), ("fp32", fp32)):
        if not all(map(math.isfinite, losses)) or not losses[-1] < losses[0]:
            raise StepFailedError(f"the {name} loss went from {losses[0]:.4g} to {losses[-1]:.4g}", values)
    return values


def _learn(settings: Settings, *, bf16: bool) -> list[float]:
    step = _step(settings, bf16=bf16)
    return [float(step()[0]) for _ in range(_STEPS)]


def _speed(settings: Settings) -> Values:
    size = settings.num_train_pids * _NUM_INSTANCES
    times = device_times_ms(_step(settings, bf16=True), settings.seconds_per_speed, settings.device)
    return {"batch_size": size, **summary(times, size)}


def _step(settings: Settings, *, bf16: bool) -> "Callable[[], Tensor]":
    """A learner with its one batch of noise, which every identity colours in its own way."""
    import torch

    from train.distributed import Processes
    from train.learner import Learner
    from train.model import build_model
    from train.recipe import load_recipe

    relu = [] if settings.backbone == "resnet50" else ["model.stem_relu=true"]
    recipe = load_recipe("strong-baseline", [f"model.backbone={settings.backbone}", *relu])
    generator = torch.Generator().manual_seed(0)
    shape = (settings.num_train_pids * _NUM_INSTANCES, 3, settings.height_px, settings.width_px)
    labels = torch.arange(settings.num_train_pids).repeat_interleave(_NUM_INSTANCES)
    colours = torch.randn((settings.num_train_pids, 3, 1, 1), generator=generator)[labels]
    images = (torch.randn(shape, generator=generator) + colours).to(settings.device)
    device = torch.device(settings.device)
    learner = Learner(
        build_model(recipe, settings.num_train_pids),
        recipe,
        device,
        processes=Processes(),
        autocast=torch.bfloat16 if bf16 else None,
    )
    labels = labels.to(device)
    return lambda: learner.learn(images, labels, _LEARNING_RATE)
