"""ONNX files of other programs, opened with the facts that they do not carry."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from reidruntime import ArtifactError, ImageInput, Manifest, manifest_for_foreign_onnx, open_session

from reidexport.export.fp16 import rename_tensor
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


def test_feature_maps_beside_the_embedding_are_passed_over(tmp_path: Path) -> None:
    """Of a map and one batch of embeddings the latter is taken, without being named."""
    shapes: Any = [("positive", ["batch", DIM, 16, 8]), ("f_i", ["batch", DIM])]
    assert facts(write_foreign(tmp_path / "f.onnx", None, shapes)).output.name == "f_i"


@pytest.mark.parametrize("stated", [True, False])
def test_several_outputs_that_can_be_embeddings_are_listed(tmp_path: Path, stated: bool) -> None:
    """Each is named with dtype and shape, stated in the file or not; none is taken by its place."""
    shapes: Any = [("pooled", ["batch", DIM, 1, 1]), ("f_i", ["batch", DIM] if stated else None)]
    path = write_foreign(tmp_path / "f.onnx", None, shapes)
    listed = r"'pooled' float32 \[batch, 8, 1, 1\], 'f_i' float32 \[batch, 8\]\..*--output-name .*output_name"
    with pytest.raises(ArtifactError, match=f"2 outputs can be the embedding: {listed}"):
        facts(path)


@pytest.mark.parametrize("name", ["pooled", "f_i"])
def test_the_named_output_is_the_embedding(tmp_path: Path, name: str) -> None:
    """It is what a session answers with."""
    shapes: Any = [("pooled", ["batch", DIM, 1, 1]), ("f_i", ["batch", DIM])]
    path = write_foreign(tmp_path / "f.onnx", None, shapes)
    images = ImageInput(height_px=HEIGHT, width_px=WIDTH, **RAW)
    manifest = manifest_for_foreign_onnx(path, images, output_name=name)
    assert manifest.output.name == name
    with open_session(path, manifest=manifest) as session:
        assert session.embed([np.zeros((HEIGHT, WIDTH, 3), np.uint8)]).shape == (1, DIM)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logits", r"no output is called 'logits'; found 'positive' .*, 'f_i' float32 \[batch, 8\]"),
        ("positive", r"no output is a batch of embeddings, .* found 'positive' float32 \[batch, 8, 16, 8\]"),
    ],
)
def test_a_named_output_must_be_a_batch_of_embeddings(tmp_path: Path, name: str, message: str) -> None:
    """One that is not there, and a map, are refused with what is there."""
    shapes: Any = [("positive", ["batch", DIM, 16, 8]), ("f_i", ["batch", DIM])]
    path = write_foreign(tmp_path / "f.onnx", None, shapes)
    images = ImageInput(height_px=HEIGHT, width_px=WIDTH, **RAW)
    with pytest.raises(ArtifactError, match=message):
        manifest_for_foreign_onnx(path, images, output_name=name)


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


TRAINING_NORM = helper.make_node(
    "BatchNormalization", ["in", "one", "zero", "zero", "one"], ["out"], name="bn1", training_mode=1
)
OLD_TRAINING_NORM = helper.make_node(
    "BatchNormalization", ["in", "one", "zero", "zero", "one"], ["out", "m", "v", "sm", "sv"], name="bn1"
)
TRAINING_DROPOUT = helper.make_node("Dropout", ["in", "ratio", "true"], ["out"], name="drop")


@pytest.mark.parametrize(
    ("node", "opset", "named"),
    [
        (TRAINING_NORM, 15, "BatchNormalization 'bn1'"),
        (OLD_TRAINING_NORM, 11, "BatchNormalization 'bn1'"),
        (TRAINING_DROPOUT, 13, "Dropout 'drop'"),
    ],
)
def test_training_mode_is_refused_by_name(
    tmp_path: Path, node: onnx.NodeProto, opset: int, named: str
) -> None:
    """The node that computes as in training is named, in every opset's way of saying it, and what to do."""
    path = write_with(tmp_path / "f.onnx", [node], opset)
    with pytest.raises(ArtifactError, match=rf"exported in training mode: {named}\. .*model\.eval\(\)"):
        facts(path)


def test_norms_and_dropouts_of_inference_are_not_refused(tmp_path: Path) -> None:
    """BatchNormalization without training_mode, and Dropout whose input says false, answer as always."""
    norm = helper.make_node("BatchNormalization", ["in", "one", "zero", "zero", "one"], ["n"])
    dropout = helper.make_node("Dropout", ["n", "ratio", "false"], ["out"])
    path = write_with(tmp_path / "f.onnx", [norm, dropout], 15)
    with open_session(path, manifest=facts(path)) as session:
        assert np.isfinite(session.embed([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])).all()


BATCH_MEAN = [
    helper.make_node("ReduceMean", ["in"], ["m"], axes=[0], keepdims=1),
    helper.make_node("Sub", ["in", "m"], ["out"]),
]
ONE_ROW = [helper.make_node("ReduceMean", ["in"], ["out"], axes=[0], keepdims=1)]
ONLY_ONE = [
    helper.make_node("Reshape", ["in", "single"], ["s"]),
    helper.make_node("Add", ["s", "zero"], ["out"]),
]


@pytest.mark.parametrize("batch", [None, 4])
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path, batch: int | None) -> None:
    """Training mode that is written as arithmetic shows in the answers, at any batch size and at one."""
    path = write_with(tmp_path / "f.onnx", BATCH_MEAN, 13, batch)
    with pytest.raises(ArtifactError, match=r"in a batch otherwise than alone: relative L2 .* allowed 1e-03"):
        open_session(path, manifest=facts(path))


def test_a_batch_of_one_that_is_fixed_needs_no_second_image(tmp_path: Path) -> None:
    """A network for one image at a time is opened whatever it would do with more."""
    path = write_with(tmp_path / "f.onnx", ONLY_ONE, 13, 1)
    with open_session(path, manifest=facts(path)) as session:
        assert session.embed([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 2).shape == (2, DIM)


@pytest.mark.parametrize("nodes", [ONLY_ONE, ONE_ROW])
def test_a_batch_without_a_row_for_each_image_is_refused(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    """A layer for one image only, and one row for the whole batch, are told before any image is lost."""
    path = write_with(tmp_path / "f.onnx", nodes, 13)
    with pytest.raises(
        ArtifactError, match=r"answers one image, but not a batch of 3\. .*dynamic in every layer"
    ):
        open_session(path, manifest=facts(path))


def test_missing_and_cut_external_data_are_named(tmp_path: Path) -> None:
    """The file that is wanted is named with its place, or with its size where it is too short."""
    path = write_foreign(tmp_path / "f.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="f.data", size_threshold=0)
    with open_session(path, manifest=facts(path)) as session:
        assert session.embed([np.zeros((HEIGHT, WIDTH, 3), np.uint8)]).shape == (1, DIM)
    manifest, data = facts(path), tmp_path / "f.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    wanted = rf"weights are in another file, {data}, which is cut: expected {len(whole)} bytes or more, found"
    with pytest.raises(ArtifactError, match=wanted):
        open_session(path, manifest=manifest)
    data.unlink()
    with pytest.raises(
        ArtifactError, match=rf"{data}, which is missing\. Copy both files to the same folder"
    ):
        facts(path)


def test_external_data_of_endless_length_is_refused(tmp_path: Path) -> None:
    """A length of more digits than Python turns into a number is damage, not a crash."""
    path = write_foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="f.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "9" * 5000 if entry.key == "length" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="external data of more bytes than a file can have"):
        facts(path)


def write_with(path: Path, nodes: list[onnx.NodeProto], opset: int, batch: int | None = None) -> Path:
    """:func:`write_foreign`'s network with nodes between the feature, ``in``, and the output, ``out``."""
    write_foreign(path, batch, [("out", [batch or "batch", DIM])])
    model = onnx.load(path)
    rename_tensor(model.graph.node, "f_i", "in")
    model.graph.node.extend(nodes)
    arrays = {
        "one": np.ones(DIM, np.float32),
        "zero": np.zeros(DIM, np.float32),
        "ratio": np.float32(0.5),
        "true": np.array(True),
        "false": np.array(False),
        "single": np.array([1, DIM], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    model.opset_import[0].version = opset
    onnx.save(model, path)
    return path
