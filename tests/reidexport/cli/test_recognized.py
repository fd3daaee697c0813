"""Commands with ONNX files of other projects, which need no options where they are recognized."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from reidruntime import Manifest

from reidexport.data import Dataset
from tests.conftest import Run
from tests.standins.runtime_models import write_export

TAO = ("--size", "256x128", "--mean", "0.485,0.456,0.406", "--std", "0.226")


@pytest.fixture
def tao(tmp_path: Path) -> Path:
    """A file of the form of NVIDIA TAO's, under a name that says nothing."""
    return write_export(tmp_path / "a.onnx", "input", "fc_pred", (256, 128))


@pytest.fixture
def crops(drawn_dataset: Dataset) -> Path:
    """A folder of images."""
    return drawn_dataset.query[0].path.parent


def embedded(run: Run, file: Path, crops: Path, *options: str) -> tuple[np.ndarray, Manifest, str]:
    """Embeddings, their manifest and what was printed."""
    out = file.with_name(f"{len(list(file.parent.iterdir()))}.npz")
    done = run("embed", file, crops, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    with np.load(out) as content:
        manifest = Manifest.model_validate(json.loads(str(content["manifest"])))
        return content["embeddings"], manifest, done.stdout + done.stderr


def test_a_recognized_file_needs_no_options(run: Run, tao: Path, crops: Path) -> None:
    """It answers as with the project's options; what was assumed is printed, and kept in the manifest."""
    found, manifest, printed = embedded(run, tao, crops)
    wanted, stated, words = embedded(run, tao, crops, *TAO)
    np.testing.assert_array_equal(found, wanted)
    assert f"{tao}: taken for an export of NVIDIA TAO (ResNet)" in printed
    assert "assumed: std 0.226, 0.226, 0.226 (as in NVIDIA TAO (ResNet)'s exports; set with --std)" in printed
    assert manifest.origins["std"] == "assumed"
    assert manifest.origins["size"] == "read"
    # All told: nothing is said, and the manifest is that of earlier versions, by whose hash galleries know it.
    assert "taken for" not in words
    assert stated.origins == {}
    assert stated.sha256 == manifest.model_copy(update={"origins": {}}).sha256


def test_options_override_what_is_assumed(run: Run, tao: Path, crops: Path) -> None:
    """One alone may be given."""
    found, manifest, printed = embedded(run, tao, crops, "--std", "0.25", "--channel-order", "BGR")
    wanted, _, _ = embedded(run, tao, crops, *TAO[:4], "--std", "0.25", "--channel-order", "BGR")
    np.testing.assert_array_equal(found, wanted)
    assert (manifest.origins["std"], manifest.origins["mean"]) == ("told", "assumed")
    assert manifest.preprocess.channel_order == "BGR"
    assert "set with --std" not in printed


def test_facts_beyond_the_defaults_are_filled_in_beside_told_ones(
    run: Run, tmp_path: Path, crops: Path
) -> None:
    """fast-reid's kernel is bicubic: said so even where size, mean and std are given."""
    start = (("Sub", (123.675, 116.28, 103.53)), ("Div", (58.395, 57.12, 57.375)))
    file = write_export(tmp_path / "a.onnx", "input.1", "99", (256, 128), start=start)
    _, manifest, printed = embedded(run, file, crops, "--size", "256x128", "--mean", "0", "--std", "1/255")
    assert manifest.preprocess.resize == "bicubic"
    assert "assumed: bicubic resizing (as in fast-reid's exports; set with --resize)" in printed


def test_inspect_names_the_exporter(run: Run, tao: Path, tmp_path: Path) -> None:
    """And what is known of the images; of an unknown exporter it says nothing."""
    done = run("inspect", tao)
    assert re.search(r"^exporter +NVIDIA TAO \(ResNet\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^images +read: NCHW layout, input 256x128 px$", done.stdout, re.MULTILINE), done.stdout
    assert "assumed: std 0.226, 0.226, 0.226 (as in NVIDIA TAO (ResNet)'s exports" in done.stdout
    unknown = write_export(tmp_path / "b.onnx", "x", "y", (256, 128))
    found = json.loads(run("inspect", unknown, "--json").stdout)
    assert (found["exporter"], found["images"]) == (None, [])


def test_what_is_not_recognized_needs_its_options(run: Run, tmp_path: Path, crops: Path) -> None:
    """As ever: by names that tell nothing, and where a size is missing."""
    file = write_export(tmp_path / "a.onnx", "x", "y", (256, 128))
    done = run("embed", file, crops, "-o", tmp_path / "x.npz")
    assert done.returncode != 0
    assert "carries no manifest" in done.stderr
    done = run("embed", file, crops, "-o", tmp_path / "x.npz", "--size", "256x128")
    assert "the file carries no manifest; give --mean --std too." in done.stderr
    unsized = write_export(tmp_path / "b.onnx", "input", "fc_pred", ("h", "w"))
    done = run("embed", unsized, crops, "-o", tmp_path / "x.npz")
    assert "the file carries no manifest; give --size too." in done.stderr


def test_every_command_takes_it_so(run: Run, tao: Path, drawn_dataset: Dataset, tmp_path: Path) -> None:
    """eval, verify, bench and bundle deepstream, too."""
    data = drawn_dataset.query[0].path.parents[1]
    for command in (
        ("eval", tao, "--data", data),
        ("verify", tao, "--reference", tao),
        ("bench", tao, "--batch", "1", "--seconds", "0.1"),
        ("bundle", "deepstream", tao, "-o", tmp_path / "deepstream"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "taken for an export of NVIDIA TAO (ResNet)" in done.stderr, command
