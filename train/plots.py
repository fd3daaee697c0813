"""Plots of a run: its schedule, erased samples, its curves, and its features in two dimensions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Feature
from reidruntime.images.preprocess import image_pixels

from reidexport.checkpoint.loading import Checkpoint, imagenet_preprocess
from reidexport.data import Dataset, ImageRecord
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.export.graph import GraphOptions
from reidexport.files import replaced_when_whole
from train.augmentation import Draws, augment, draw_boxes
from train.recipe import Recipe
from train.schedule import learning_rate

Floats = NDArray[np.float32]
# Okabe and Ito's palette, which color-blind people can tell apart, and two more for ten identities.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#000000", "#8C6D31", "#7A5195", "#9A9A9A"),
)
_NUM_SAMPLES, _NUM_DRAWS = 8, 3
_NUM_PIDS, _IMAGES_PER_PID = 10, 12
_DPI = 130


def write_plots(
    out: Path, recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, history: Sequence[dict[str, Any]]
) -> list[Path]:
    """Draw everything into ``out/pictures``, each file atomically.

    Args:
        out: the run's folder.
        recipe: the run's.
        dataset: samples come from its training split, projected features from its test split.
        checkpoint: of the trained network.
        history: the records of ``history.json``.

    Returns:
        The files: erased samples only with random erasing, features only with a neck and a test split.
    """
    figures = {"learning-rate": learning_rate_plot(recipe), "curves": curves_plot(history)}
    if recipe.tricks.random_erasing:
        figures["random-erasing"] = erasing_sheet(_samples(dataset, recipe), recipe)
    if checkpoint.architecture.neck != "none" and dataset.query:
        records = _records_of_some(dataset)
        f_t, f_i = _features(checkpoint, records, "f_t"), _features(checkpoint, records, "f_i")
        figures["features"] = features_plot(f_t, f_i, [record.pid for record in records])
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        with replaced_when_whole(paths[-1]) as temporary:
            figure.savefig(temporary, dpi=_DPI)
    return paths


def learning_rate_plot(recipe: Recipe) -> Figure:
    """The learning rate over the epochs, with and without warm-up (paper, fig. 3)."""
    figure, (axes,) = _figure(6.4, 3.8)
    epochs = range(1, recipe.schedule.num_epochs + 1)
    for warmup, style in ((False, "--"), (True, "-")):
        name = ("with" if warmup else "without") + " warm-up"
        name += ", this run" if warmup == recipe.tricks.warmup else ""
        rates = [learning_rate(epoch, recipe.schedule, warmup=warmup) for epoch in epochs]
        axes.plot(epochs, rates, style, color=COLORS[0 if warmup else 1], label=name, drawstyle="steps-mid")
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log", title="Learning rate (paper, eq. 1)")
    axes.legend(frameon=False)
    return figure


def erasing_sheet(images: NDArray[np.uint8], recipe: Recipe) -> Figure:
    """Samples of random erasing: images, and below each the same image erased (paper, fig. 4).

    Args:
        images: uint8 (N, height_px, width_px, 3), at the recipe's size.
        recipe: its erasing settings; every sample is erased, whatever the probability.
    """
    count, height, width = images.shape[:3]
    rows = [images, *(erased_images(images, recipe, seed) for seed in range(_NUM_DRAWS))]
    gap = max(2, height // 40)
    sheet = np.full((len(rows) * (height + gap), count * (width + gap), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = image
    figure, (axes,) = _figure(6.4, 0.5 + 6.4 * sheet.shape[0] / sheet.shape[1])
    axes.imshow(sheet)
    axes.set(xticks=[], yticks=[], title="Training images, and random erasing of them (paper, 3.2)")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def erased_images(images: NDArray[np.uint8], recipe: Recipe, seed: int) -> NDArray[np.uint8]:
    """Every image with a rectangle erased, by the trainer's own augmentation, as pixels again."""
    count, height, width = images.shape[:3]
    always = replace(recipe.erasing, probability=1.0)
    boxes = draw_boxes(np.random.default_rng(seed), count, height, width, always)
    untouched = torch.zeros((count, 2), dtype=torch.int64)
    draws = Draws(torch.zeros(count, dtype=torch.bool), untouched, torch.from_numpy(boxes))
    store = torch.from_numpy(images)
    normalized = augment(store, torch.arange(count), draws, 0, recipe.erasing).permute(0, 2, 3, 1).numpy()
    pixels = (normalized * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)) * 255
    erased: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return erased


def curves_plot(history: Sequence[dict[str, Any]]) -> Figure:
    """Losses, training accuracy, and rank-1 and mAP on the test split, over the epochs."""
    figure, (losses, accuracy) = _figure(9.6, 3.8, columns=2)
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) < 20 else None
    names = {"id_loss": "ID loss", "triplet_loss": "triplet loss", "center_loss": "center loss, without β"}
    for color, (key, name) in zip(COLORS, names.items(), strict=False):
        values = [record[key] for record in history]
        if any(values):
            losses.plot(epochs, values, marker=marker, markersize=3, color=color, label=name)
    losses.set(xlabel="epoch", title="Losses, mean of each epoch", yscale="log")
    losses.legend(frameon=False)
    values = [100 * record["accuracy"] for record in history]
    accuracy.plot(epochs, values, marker=marker, markersize=3, color=COLORS[5], label="training accuracy")
    evaluated = [record for record in history if "evaluation" in record]
    for color, (key, name) in zip(COLORS, {"rank1": "test rank-1", "mAP": "test mAP"}.items(), strict=False):
        values = [100 * record["evaluation"][key] for record in evaluated]
        accuracy.plot([record["epoch"] for record in evaluated], values, "-s", color=color, label=name)
    accuracy.set(xlabel="epoch", ylabel="%", ylim=(0, 100), title="Accuracy")
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def features_plot(f_t: Floats, f_i: Floats, pids: Sequence[int]) -> Figure:
    """f_t and f_i in two dimensions, colored by identity (paper, fig. 6).

    The projection is the principal components': linear, so that points close together in the plot differ little in
    those directions, and nothing is pulled apart that was not.

    Args:
        f_t: float32 (N, D), in front of the neck.
        f_i: float32 (N, D'), behind it.
        pids: of the N images, of at most ten identities.
    """
    figure, panels = _figure(9.6, 4.6, columns=2)
    for axes, features, name in zip(
        panels, (f_t, f_i), ("f_t, in front of BNNeck", "f_i, behind it"), strict=True
    ):
        points, share = principal_components(features)
        for color, pid in zip(COLORS, sorted(set(pids)), strict=False):
            chosen = np.array(pids) == pid
            axes.scatter(
                points[chosen, 0],
                points[chosen, 1],
                s=18,
                color=color,
                label=f"{pid}",
                alpha=0.85,
                linewidths=0,
            )
        axes.axhline(0, color="#888888", linewidth=0.6)
        axes.axvline(0, color="#888888", linewidth=0.6)
        axes.set(
            title=name,
            xlabel=f"first component ({share[0]:.0%} of the variance)",
            ylabel=f"second ({share[1]:.0%})",
        )
        axes.set_aspect("equal", "datalim")
    panels[1].legend(title="identity", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def principal_components(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, D) → the first two components of every row, (N, 2), and the share of the variance of each."""
    centered = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    variance = singular**2
    return left[:, :2] * singular[:2], variance[:2] / variance.sum()


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for axes in panels:
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _samples(dataset: Dataset, recipe: Recipe) -> NDArray[np.uint8]:
    """Training images of different people, spaced evenly over the pids."""
    first_of = {record.pid: record for record in reversed(dataset.train)}
    people = sorted(first_of)
    chosen = [people[place * len(people) // _NUM_SAMPLES] for place in range(_NUM_SAMPLES)]
    preprocess = imagenet_preprocess(recipe.images.height_px, recipe.images.width_px)
    paths = [first_of[pid].path for pid in chosen]
    return np.stack([image_pixels(path, str(path), preprocess) for path in paths])


def _records_of_some(dataset: Dataset) -> list[ImageRecord]:
    """Test images of the identities that have the most, a few of each."""
    images: dict[int, list[ImageRecord]] = {}
    for record in (*dataset.query, *dataset.gallery):
        if record.pid > 0:
            images.setdefault(record.pid, []).append(record)
    most = sorted(images, key=lambda pid: (-min(len(images[pid]), _IMAGES_PER_PID), pid))[:_NUM_PIDS]
    return [record for pid in sorted(most) for record in images[pid][:_IMAGES_PER_PID]]


def _features(checkpoint: Checkpoint, records: Sequence[ImageRecord], feature: Feature) -> Floats:
    options = GraphOptions(feature=feature)
    with session_from_checkpoint(checkpoint, options, threads=torch.get_num_threads()) as session:
        return session.embed([record.path for record in records])
