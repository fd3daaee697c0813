"""How a run computes on its device, beside what it computes: precision, kernels, and the kind of its steps."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from reidruntime.torch_settings import exact_float32

from train.images import TrainImages
from train.learner import Learner
from train.recipe import Recipe
from train.whole_step import CudaGraphRecorder, WholeStep

Precision = Literal["auto", "fp32", "bf16"]


def chosen_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" means on a device."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" else "fp32"


def without_tf32(precision: Literal["fp32", "bf16"], device: torch.device) -> AbstractContextManager[None]:
    """Compute an fp32 run on a GPU in float32 itself, where torch's convolutions would be TF32 by default."""
    return exact_float32() if precision == "fp32" and device.type == "cuda" else nullcontext()


def steps_between_checks(device: torch.device) -> int:
    """How many steps run before their losses are checked, which makes the CPU wait for a GPU."""
    return 20 if device.type == "cuda" else 1


def whole_step(
    learner: Learner, images: TrainImages, recipe: Recipe, *, cuda_graph: bool = True
) -> WholeStep | None:
    """The step of a run on a GPU, which holds all images; recorded in a CUDA graph where that is possible.

    Returns:
        None on a CPU, where threads make the batches.
    """
    if not images.pixels.is_cuda:
        return None
    world_size = learner.processes.world_size
    why_plain = None
    if not cuda_graph:
        why_plain = "--no-cuda-graph"
    elif world_size > 1:
        why_plain = "several processes share every batch"
    size = recipe.batch.num_pids * recipe.batch.num_instances // world_size
    recorder = None if why_plain else CudaGraphRecorder()
    return WholeStep(learner, images, recipe, size, recorder=recorder, why_plain=why_plain)


def steps_text(step: WholeStep | None) -> str:
    """Which kind of steps a run has, and why not another."""
    if step is None:
        return "plain: there is no GPU"
    return f"plain: {step.why_plain}" if step.why_plain else "one CUDA graph each"
