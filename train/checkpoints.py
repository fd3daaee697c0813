"""What a run keeps on disk: checkpoints that export as they are and hold all that a run needs to be resumed."""

from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from reidexport.checkpoint.loading import imagenet_preprocess, save_weights
from reidexport.checkpoint.weights import FORMAT
from reidexport.errors import CheckpointError, InputError
from reidexport.models import BaselineArchitecture
from train.model import init_text
from train.recipe import Recipe, recipe_differences, recipe_from_dict

LAST, BEST = "last.pth", "best.pth"


def write_checkpoint(
    path: Path,
    architecture: BaselineArchitecture,
    weights: dict[str, Tensor],
    recipe: Recipe,
    run: dict[str, Any],
    state: dict[str, Any] | None,
) -> None:
    """Write a checkpoint atomically; tensors and plain data only.

    Args:
        path: where to.
        architecture: of the network.
        weights: the network's.
        recipe: kept inside, resolved.
        run: what else made the weights: first weights, data set, epoch.
        state: optimizers, centers and history, on the CPU; None in files that no run is resumed from.
    """
    extra: dict[str, object] = {"recipe": asdict(recipe), "run": run}
    if state is not None:
        extra["state"] = state
    preprocess = imagenet_preprocess(recipe.images.height_px, recipe.images.width_px)
    save_weights(path, architecture, weights, preprocess, extra)


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


def saved_run(
    out: Path, recipe: Recipe, init: str, dataset_name: str, *, resume: bool
) -> dict[str, Any] | None:
    """The run that a folder holds, to continue it; None, and the folder is made, where it holds none.

    Raises:
        InputError: the folder holds a run and ``resume`` is off, checkpoints but no ``last.pth``, or a run of another
            recipe, data set or init; or the folder cannot be made.
    """
    last = out / LAST
    if not last.exists():
        kept = sorted(path.name for path in out.glob("*.pth") if not path.name.startswith("."))
        if kept:
            raise InputError(f"{out} holds {kept[0]}, but no {LAST} to continue: choose another --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{out}: cannot make the folder ({error.strerror}). Choose another --out."
            ) from error
        return None
    if not resume:
        raise InputError(f"{out} holds a run already: pass --resume to continue it, or choose another --out")
    saved = read_training_checkpoint(last)
    differences = recipe_differences(recipe_from_dict(saved["recipe"], str(last)), recipe)
    for key, found in (("init", init_text(init)), ("dataset", dataset_name)):
        if saved["run"][key] != found:
            differences.append(f"{key}: {saved['run'][key]} and {found}")
    if differences:
        raise InputError(
            f"{last} belongs to another run: {'; '.join(differences)}. Choose another --out, or use the same settings."
        )
    return saved


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a run that was killed while it wrote a checkpoint."""
    for stem in ("last", "best", "epoch-*"):
        for path in folder.glob(f".{stem}.????????.pth"):
            path.unlink()
