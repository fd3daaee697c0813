"""A network that was trained for it: moved to other cameras, it is adapted; at home it is left alone."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from reidruntime import open_session
from reidruntime.artifact.camera_profile import camera_profile_path

from benchmarks.planted_sites import Change, changed_dataset, other_light, unchanged
from reidexport.adaptation.adapt import AdaptationOptions, adapt
from reidexport.adaptation.crops import find_site_crops
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint
from reidexport.data import Dataset, load_dataset
from reidexport.evaluation.scoring import evaluate
from reidexport.records.adaptation import AdaptationRecord

# Random erasing makes what BatchNorms record unlike any crops.
SETTINGS = ("images.height_px=64", "images.width_px=32", "tricks.random_erasing=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Dataset]:
    """The smoke recipe's network, and the people that it was trained and is tested on."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "train", "run", "smoke", "--out", str(folder)]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    subprocess.run(command, check=True, env=os.environ, stdout=subprocess.DEVNULL)
    return load_checkpoint(folder / "best.pth"), load_dataset(folder / "data")


def moved(dataset: Dataset, folder: Path, change: Change) -> tuple[Dataset, Path]:
    """The same people under other cameras; and the folder of a site's crops, without boxes that miss people."""
    changed = changed_dataset(replace(dataset, gallery=dataset.scored_gallery), folder, change)
    return changed, folder / "gallery"


def adapted(
    checkpoint: Checkpoint, site: tuple[Dataset, Path], output: Path, options: AdaptationOptions | None = None
) -> tuple[AdaptationRecord, float]:
    """What was found out, and the mAP of what was written, in points."""
    dataset, folder = site
    found = adapt(checkpoint, find_site_crops(folder), output, options)
    with open_session(output, cameras=camera_profile_path(output)) as session:
        return found, 100 * evaluate(session, dataset).metrics.ranks.mAP


def test_drawn_people_under_other_cameras_gain(trained: tuple[Checkpoint, Dataset], tmp_path: Path) -> None:
    """Under other light, tint and focus the advice gains 5 points of mAP or more; at home it is to change nothing."""
    checkpoint, dataset = trained
    as_it_is = AdaptationOptions(mix=0, standardize=False)
    away = moved(dataset, tmp_path / "away", other_light)
    _, before = adapted(checkpoint, away, tmp_path / "before.onnx", as_it_is)
    found, after = adapted(checkpoint, away, tmp_path / "after.onnx")
    assert found.is_needed
    assert after >= before + 5
    assert found.pairs is not None
    assert found.pairs.separations["as it is"] < found.pairs.separations["adapted"]
    home = moved(dataset, tmp_path / "home", unchanged)
    _, before = adapted(checkpoint, home, tmp_path / "plain.onnx", as_it_is)
    found, after = adapted(checkpoint, home, tmp_path / "home.onnx")
    assert not found.is_needed
    assert found.advice[0].startswith("Not needed")
    assert after == before
