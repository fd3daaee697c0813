"""ONNX files of other programs, opened with the facts that they do not carry."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from reidruntime import ArtifactError, ImageInput, Manifest, manifest_for_foreign_onnx, open_session

from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, write_artifact, write_foreign

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


def facts(path: Path, **changes: Any) -> Manifest:
    """The manifest of a network that takes raw 0-255 floats."""
    images = ImageInput(**{"height_px": HEIGHT, "width_px": WIDTH, **RAW, **changes})
    return manifest_for_foreign_onnx(path, images)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("shape", ["flat", "pooled", "unstated"])
def test_answers_are_those_of_the_same_network_with_a_manifest(
    tmp_path: Path, batch: int | None, shape: str
) -> None:
    """Static or dynamic, (N, D), (N, D, 1, 1) or unstated output: same features as our own export."""
    first: int | str = batch or "batch"
    name = "pooled" if shape == "pooled" else "f_i"
    sizes: Any = {"flat": [first, DIM], "pooled": [first, DIM, 1, 1], "unstated": None}[shape]
    path = write_foreign(tmp_path / "f.onnx", batch, [(name, sizes)])
    images = [np.random.default_rng(i).integers(0, 256, (40, 20, 3), dtype=np.uint8) for i in range(5)]
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        expected = session.embed(images)
    with open_session(path, manifest=facts(path)) as session:
        assert np.allclose(session.embed(images), expected, rtol=1e-5, atol=1e-5)
        assert session.manifest.architecture.family == "foreign"
        assert session.manifest.architecture.stem_relu is None


def test_bgr_networks_get_bgr(tmp_path: Path) -> None:
    """BGR to a BGR network is RGB to an RGB one."""
    path = write_foreign(tmp_path / "f.onnx")
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with open_session(path, manifest=facts(path)) as rgb:
        expected = rgb.embed([image])
    with open_session(path, manifest=facts(path, channel_order="BGR")) as bgr:
        assert np.allclose(bgr.embed([image[..., ::-1]]), expected, rtol=1e-5)


def test_the_first_output_that_can_be_embeddings_is_taken(tmp_path: Path) -> None:
    """Feature maps before it are passed over."""
    shapes: Any = [
        ("positive", ["batch", DIM, 16, 8]),
        ("f_i", ["batch", DIM]),
        ("pooled", ["batch", DIM, 1, 1]),
    ]
    assert facts(write_foreign(tmp_path / "f.onnx", None, shapes)).output.name == "f_i"


def test_a_file_without_embeddings_lists_its_outputs(tmp_path: Path) -> None:
    """The message shows every output with its shape."""
    path = write_foreign(tmp_path / "f.onnx", None, [("positive", ["batch", DIM, 16, 8])])
    with pytest.raises(ArtifactError, match=r"found 'positive' float32 \[batch, 8, 16, 8\]"):
        facts(path)


@pytest.mark.parametrize(
    "changes", [{"height_px": 64}, {"layout": "NHWC"}, {"height_px": WIDTH, "width_px": HEIGHT}]
)
def test_size_and_layout_must_fit_the_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A wrong size says what the file takes and which option to correct."""
    path = write_foreign(tmp_path / "f.onnx")
    with pytest.raises(ArtifactError, match=r"has shape \[batch, 3, 32, 16\].* Correct --size"):
        facts(path, **changes)


@pytest.mark.parametrize(("dtype", "precision"), [(np.float32, "fp32"), (np.float16, "fp16")])
def test_precision_is_that_of_the_weights(tmp_path: Path, dtype: Any, precision: str) -> None:
    """Most of the floating-point initializers decide; integers and a few of another kind do not."""
    path = write_foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    stored = [np.zeros(2, np.float32), *[np.zeros(2, dtype)] * 3, *[np.zeros(2, np.int64)] * 9]
    model.graph.initializer.extend(numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(stored))
    onnx.save(model, path)
    assert facts(path).precision == precision


def test_without_facts_the_missing_ones_are_named(tmp_path: Path) -> None:
    """Opening a foreign file without a manifest says how to give the facts."""
    with pytest.raises(ArtifactError, match=r"--size HxW --mean .*manifest_for_foreign_onnx"):
        open_session(write_foreign(tmp_path / "f.onnx"))
