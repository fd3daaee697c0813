"""Networks that were trained for it: their BatchNorms tell how."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint
from reidexport.evaluation.evidence import check_assumptions, read_crops


def with_nothing_read(path: Path, **wrong: Any) -> Checkpoint:
    """A checkpoint of this project as if its file told the backbone only, some facts of it assumed wrong."""
    checkpoint = load_checkpoint(path, CheckpointChoices(**wrong))
    facts = (
        replace(fact, origin="read" if fact.name == "backbone" else "assumed") for fact in checkpoint.facts
    )
    return replace(checkpoint, facts=tuple(facts))


@pytest.mark.slow
@pytest.mark.parametrize("trained", [(1, True), (1, False), (2, True)], ids=str)
def test_trained_strong_baselines_are_recognized(trained: tuple[int, bool], tmp_path: Path) -> None:
    """Trained without erasing and padding, each is recognized from its right configuration and from wrong ones."""
    last_stride, stem_relu = trained
    settings = [
        f"model.stem_relu={str(stem_relu).lower()}",
        f"tricks.last_stride_1={str(last_stride == 1).lower()}",
        "tricks.random_erasing=false",
        "images.pad_px=0",
    ]
    command = [sys.executable, "-m", "train", "run", "smoke", "--out", str(tmp_path / "run")]
    command += [part for setting in settings for part in ("--set", setting)]
    subprocess.run(command, check=True, env=os.environ)
    images = read_crops(sorted(map(str, tmp_path.glob("run/data/bounding_box_train/*.jpg"))))
    path = tmp_path / "run/last.pth"
    _, evidence = check_assumptions(with_nothing_read(path), images)
    assert len(evidence.fits) >= 25
    assert evidence.fits[0].changed == ()
    assert evidence.warnings == ()
    for name, wrong in (
        ("last_stride", 3 - last_stride),
        ("stem_relu", not stem_relu),
        ("channel_order", "BGR"),
    ):
        _, evidence = check_assumptions(with_nothing_read(path, **{name: wrong}), images)
        words = {
            "last_stride": f"last stride {last_stride} (--last-stride)",
            "stem_relu": f"{'a' if stem_relu else 'no'} ReLU after the stem (--stem-relu)",
            "channel_order": "RGB channels (--channel-order)",
        }
        assert evidence.fits[0].changed == (words[name],)
        assert "fits" in evidence.warnings[0]
