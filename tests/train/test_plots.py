"""The trainer's plots show what their titles promise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.data import Dataset
from tests.conftest import Exported
from train.plots import (
    curves_plot,
    erased_images,
    erasing_sheet,
    learning_rate_plot,
    principal_components,
    write_plots,
)
from train.recipe import load_recipe
from train.schedule import learning_rate

SETTINGS = ["images.height_px=64", "images.width_px=32"]
HISTORY = [
    {"epoch": 1, "id_loss": 4.0, "triplet_loss": 1.0, "center_loss": 0.0, "accuracy": 0.1},
    {
        "epoch": 2,
        "id_loss": 3.0,
        "triplet_loss": 0.5,
        "center_loss": 0.0,
        "accuracy": 0.4,
        "evaluation": {"rank1": 0.9, "mAP": 0.7},
    },
]


def test_the_schedule_s_line_is_the_schedule() -> None:
    """One value per epoch, with and without warm-up, the run's own named."""
    recipe = load_recipe("strong-baseline")
    without, with_warmup = learning_rate_plot(recipe).axes[0].lines
    for line, warmup in ((without, False), (with_warmup, True)):
        expected = [learning_rate(epoch, recipe.schedule, warmup=warmup) for epoch in range(1, 121)]
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert with_warmup.get_label() == "with warm-up, this run"


def test_erased_samples_differ_in_one_rectangle() -> None:
    """Inside the fill, outside the image itself; every sample is erased."""
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 32, 3), np.uint8)
    for before, after in zip(images, erased_images(images, load_recipe("strong-baseline"), 0), strict=True):
        changed = (before != after).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == box[0, 0]).all()
        assert 0.01 < changed.mean() < 0.45


def test_the_sheet_s_first_row_is_the_images() -> None:
    """Unchanged, side by side."""
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 32, 3), np.uint8)
    (drawn,) = erasing_sheet(images, load_recipe("strong-baseline")).axes[0].images
    sheet = np.asarray(drawn.get_array())
    np.testing.assert_array_equal(sheet[:64, :32], images[0])
    np.testing.assert_array_equal(sheet[:64, 34:66], images[1])


def test_curves_show_every_epoch_and_evaluation() -> None:
    """Losses that are zero throughout are left out; percentages for accuracies."""
    losses, accuracy = curves_plot(HISTORY).axes
    assert [line.get_label() for line in losses.lines] == ["ID loss", "triplet loss"]
    assert np.asarray(losses.lines[0].get_ydata()).tolist() == [4.0, 3.0]
    shown = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in accuracy.lines}
    assert shown == {"training accuracy": [10.0, 40.0], "test rank-1": [90.0], "test mAP": [70.0]}


def test_principal_components_are_the_covariance_s_eigenvectors() -> None:
    """Equal to the slow version up to the sign of each component."""
    features = np.random.default_rng(2).normal(size=(30, 7)).astype(np.float32)
    points, share = principal_components(features)
    values, vectors = np.linalg.eigh(np.cov(features.astype(np.float64).T))
    centered = features - features.mean(0)
    for component in (0, 1):
        expected = centered @ vectors[:, -1 - component]
        assert abs(points[:, component] @ expected) == pytest.approx(expected @ expected, rel=1e-5)
        assert share[component] == pytest.approx(values[-1 - component] / values.sum(), rel=1e-5)


def test_every_picture_is_written(drawn_dataset: Dataset, exported: Exported, tmp_path: Path) -> None:
    """Four readable PNG files with a BNNeck and erasing; without erasing three; nothing else."""
    checkpoint = load_checkpoint(exported.checkpoint)
    names = {"learning-rate.png", "curves.png", "random-erasing.png", "features.png"}
    for recipe, expected in (
        ("strong-baseline", names),
        ("strong-baseline-no-rea", names - {"random-erasing.png"}),
    ):
        out = tmp_path / recipe
        out.mkdir()
        paths = write_plots(out, load_recipe(recipe, SETTINGS), drawn_dataset, checkpoint, HISTORY)
        assert (
            {path.name for path in paths} == {path.name for path in (out / "pictures").iterdir()} == expected
        )
        for path in paths:
            with Image.open(path) as image:
                assert min(image.size) > 300
                image.verify()
