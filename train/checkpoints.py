"""What a run keeps on disk: checkpoints that export as they are and hold all that a run needs to go on."""

from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from reidexport.checkpoint import imagenet_preprocess, save_checkpoint
from reidexport.errors import CheckpointError
from reidexport.models import Baseline
from reidexport.weights import FORMAT
from train.recipe import Recipe

LAST, BEST = "last.pth", "best.pth"


def write_checkpoint(
    path: Path, model: Baseline, recipe: Recipe, run: dict[str, Any], state: dict[str, Any] | None
) -> None:
    """Write a checkpoint atomically; tensors and plain data only.

    Args:
        path: where to.
        model: its weights.
        recipe: kept inside, resolved.
        run: what else made the weights: first weights, data set, epoch, scores.
        state: optimizers, centers and history; None in files that nobody goes on from.
    """
    extra: dict[str, object] = {"recipe": asdict(recipe), "run": run}
    if state is not None:
        extra["state"] = _on_cpu(state)
    preprocess = imagenet_preprocess(recipe.images.height_px, recipe.images.width_px)
    save_checkpoint(path, model, preprocess, extra)


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint that :func:`write_checkpoint` made, with all that it holds; no code of the file runs.

    Raises:
        CheckpointError: it is something else, or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of the trainer ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "recipe" not in content:
        raise CheckpointError(f"{path}: not a checkpoint of the trainer: it holds no recipe")
    return content


def _on_cpu(value: Any) -> Any:
    """Nested plain data with its tensors on the CPU, so that a machine without a GPU can read them."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(each) for key, each in value.items()}
    return [_on_cpu(each) for each in value] if isinstance(value, list) else value
