"""Checkpoints cut into small files, and joined again."""

import json
from pathlib import Path

import pytest
import torch

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.errors import CheckpointError
from train.checkpoints import LAST, write_checkpoint
from train.model import build_model
from train.parts import MANIFEST, join_parts, write_parts
from train.recipe import load_recipe

RECIPE = load_recipe("smoke", ["model.backbone=osnet_x0_25", "tricks.last_stride_1=false"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run after three of six epochs, with one weight too large for float16."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = build_model(RECIPE, 5)
    weights = model.state_dict()
    weights["classifier.weight"][0, 0] = 1e6
    facts = {"init": "none", "dataset": "drawn", "epoch": 3}
    state = {"learner": {}, "progress": {}}
    write_checkpoint(folder / LAST, model.architecture, weights, RECIPE, facts, state)
    (folder / "history.json").write_text("[]")
    return folder


def test_parts_join_to_the_weights_in_half_precision(run: Path, tmp_path: Path) -> None:
    """Matrices rounded to float16 where that holds them, vectors as they were; every file small, all facts there."""
    paths = write_parts(run, tmp_path / "parts", max_part_bytes=100_000)
    assert sorted(paths) == sorted((tmp_path / "parts").iterdir())
    assert max(path.stat().st_size for path in paths) <= 100_000
    assert len([path for path in paths if path.suffix == ".part"]) > 3
    manifest = join_parts(tmp_path / "parts", tmp_path / "joined.pth")
    assert (manifest.epoch, manifest.num_epochs, manifest.init, manifest.dataset) == (3, 6, "none", "drawn")
    before, after = load_checkpoint(run / LAST), load_checkpoint(tmp_path / "joined.pth")
    assert (before.architecture, before.preprocess) == (after.architecture, after.preprocess)
    for name, tensor in before.state_dict.items():
        exact = tensor.ndim < 2 or name == "classifier.weight"
        assert torch.equal(after.state_dict[name], tensor if exact else tensor.half().float()), name
    assert torch.load(tmp_path / "joined.pth", weights_only=True)["recipe"]["schedule"]["num_epochs"] == 6


def test_damage_is_found(run: Path, tmp_path: Path) -> None:
    """A changed, a missing and an exchanged part, and a manifest that is none: each message names file and cause."""
    folder, out = tmp_path / "parts", tmp_path / "joined.pth"
    write_parts(run, folder, max_part_bytes=200_000)
    first, manifest = folder / "weights-1.part", folder / MANIFEST
    whole, text = first.read_bytes(), manifest.read_text()
    first.write_bytes(whole[:-1] + b"x")
    with pytest.raises(
        CheckpointError, match=r"weights-1\.part: expected 200000 bytes with sha256 .*, found"
    ):
        join_parts(folder, out)
    first.unlink()
    with pytest.raises(
        CheckpointError, match=r"weights-1\.part: there is no such file, which manifest\.json names"
    ):
        join_parts(folder, out)
    first.write_bytes(whole)
    content = json.loads(text)
    manifest.write_text(json.dumps({**content, "parts": content["parts"][::-1]}))
    with pytest.raises(CheckpointError, match="its parts are not in order, or one is missing"):
        join_parts(folder, out)
    manifest.write_text("{}")
    with pytest.raises(CheckpointError, match=r"manifest\.json: not the manifest of a cut checkpoint"):
        join_parts(folder, out)
    with pytest.raises(CheckpointError, match=r"Pass the folder with the results of a part"):
        join_parts(tmp_path, out)
    assert not out.exists()
