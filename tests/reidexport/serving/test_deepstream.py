"""The bundle for DeepStream: what the tracker computes from the written file is what the manifest says."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from reidruntime import (
    ImageInput,
    Manifest,
    SessionOptions,
    manifest_for_foreign_onnx,
    manifest_from_onnx,
    open_session,
)
from reidruntime.artifact.manifest import ChannelOrder, Layout
from reidruntime.images.preprocess import normalize

from reidexport import graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.errors import ArtifactError, InputError
from reidexport.export.graph import GraphOptions
from reidexport.serving.deepstream import CONFIG_NAME, tracker_input, write_deepstream_bundle
from tests.conftest import Exported, Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def manifest_of(path: Path) -> Manifest:
    """The manifest that a file carries."""
    manifest = manifest_from_onnx(path)
    assert manifest
    return manifest


def section_of(folder: Path) -> dict[str, Any]:
    """The ReID section, read back from the written file."""
    content = yaml.safe_load((folder / CONFIG_NAME).read_text())
    assert list(content) == ["ReID"]
    section: dict[str, Any] = content["ReID"]
    return section


def crops(manifest: Manifest, count: int = 4) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Seeded images of the network's size."""
    shape = (count, manifest.preprocess.height_px, manifest.preprocess.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def answers_of(section: dict[str, Any], images: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    """What the bundle's network says of images that the tracker feeds it."""
    network = onnxruntime.InferenceSession(section["onnxFile"], providers=["CPUExecutionProvider"])
    return network.run(None, {"images": tracker_input(section, images)})[0]


@pytest.fixture(scope="module")
def normalized(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with the classic normalized float32 input."""
    path = tmp_path_factory.mktemp("float") / "classic.onnx"
    graph = graph_from_checkpoint(
        load_checkpoint(exported.checkpoint), GraphOptions(input="float32", flip=True)
    )
    onnx_from_graph(graph, path)
    return path


@pytest.mark.parametrize("kind", ["uint8", "fp16", "float32"])
def test_the_tracker_computes_what_the_manifest_says(
    kind: str, exported: Exported, normalized: Path, tmp_path: Path
) -> None:
    """Pixel by pixel, the file's scheme and the factor inside the network are the manifest's normalization."""
    artifact = {"uint8": exported.onnx, "fp16": exported.fp16, "float32": normalized}[kind]
    manifest = manifest_of(artifact)
    write_deepstream_bundle(artifact, manifest, tmp_path)
    section = section_of(tmp_path)
    images = crops(manifest)
    given = tracker_input(section, images)
    inside = 1 / (255 * np.array(STD, np.float64))[:, None, None]
    wanted = manifest.preprocess.model_copy(update={"in_graph": False, "layout": "NCHW"})
    np.testing.assert_allclose(given * inside, normalize(images, wanted), rtol=0, atol=2e-6)
    obvious = (images / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(given * inside, obvious.transpose(0, 3, 1, 2), rtol=0, atol=2e-6)
    network = manifest_of(Path(section["onnxFile"]))
    np.testing.assert_allclose(given, normalize(images, network.preprocess), rtol=0, atol=1e-4)
    assert section["offsets"] == [123.675, 116.28, 103.53]
    assert section["netScaleFactor"] == 1
    assert (section["inferDims"], section["inputOrder"], section["colorFormat"]) == ([3, 64, 32], 0, 0)
    assert (section["reidFeatureSize"], section["batchSize"], section["keepAspc"]) == (512, 100, 0)
    assert (section["networkMode"], section["addFeatureNormalization"]) == (int(kind == "fp16"), 1)


@pytest.mark.parametrize("kind", ["uint8", "fp16", "float32"])
def test_the_network_answers_as_the_artifact(
    kind: str, exported: Exported, normalized: Path, tmp_path: Path
) -> None:
    """Fed by the tracker's arithmetic it emits the artifact's embeddings; so it does as an artifact itself."""
    artifact = {"uint8": exported.onnx, "fp16": exported.fp16, "float32": normalized}[kind]
    write_deepstream_bundle(artifact, manifest_of(artifact), tmp_path)
    section = section_of(tmp_path)
    images = crops(manifest_of(artifact))
    with open_session(artifact, SessionOptions(backend="onnxruntime", device="cpu")) as session:
        expected = session.embed(list(images))
    with open_session(section["onnxFile"], SessionOptions(backend="onnxruntime", device="cpu")) as session:
        as_artifact = session.embed(list(images))
    found = answers_of(section, images)
    lengths = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(found - expected, axis=1) / lengths).max() < 1e-5
    assert (np.linalg.norm(as_artifact - expected, axis=1) / lengths).max() < 1e-5


def foreign(path: Path, layout: Layout, std: tuple[float, float, float], order: ChannelOrder) -> Manifest:
    """Somebody else's network without a manifest: weighted sums of each channel's mean."""
    spatial = [2, 3] if layout == "NCHW" else [1, 2]
    shape = ["batch", 3, 6, 4] if layout == "NCHW" else ["batch", 6, 4, 3]
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["f"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array(np.array(spatial, np.int64), "axes"),
            numpy_helper.from_array(
                np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32), "weights"
            ),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    images = ImageInput(height_px=6, width_px=4, mean=MEAN, std=std, layout=layout, channel_order=order)
    return manifest_for_foreign_onnx(path, images)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("std", [STD, (0.5, 0.5, 0.5)])
def test_foreign_networks_are_fed_in_their_own_way(
    layout: Layout, order: ChannelOrder, std: tuple[float, float, float], tmp_path: Path
) -> None:
    """Layout and color order go into the file; one deviation is the scale, three go into the graph."""
    path = tmp_path / "other.onnx"
    manifest = foreign(path, layout, std, order)
    write_deepstream_bundle(path, manifest, tmp_path / "bundle")
    section = section_of(tmp_path / "bundle")
    is_one = len(set(std)) == 1
    assert section["netScaleFactor"] == pytest.approx(1 / 127.5 if is_one else 1)
    assert (section["inputOrder"], section["colorFormat"]) == (layout == "NHWC", order == "BGR")
    assert section["inferDims"] == ([3, 6, 4] if layout == "NCHW" else [6, 4, 3])
    images = crops(manifest)
    given = tracker_input(section, images)
    ordered = images if order == "RGB" else images[..., ::-1]
    if is_one:
        np.testing.assert_allclose(given, normalize(ordered, manifest.preprocess), rtol=0, atol=1e-6)
    with open_session(
        path, SessionOptions(backend="onnxruntime", device="cpu"), manifest=manifest
    ) as session:
        expected = session.embed(list(images))
    np.testing.assert_allclose(answers_of(section, images), expected, rtol=1e-4, atol=1e-5)


def test_what_the_tracker_cannot_do_is_refused(exported: Exported, tmp_path: Path) -> None:
    """INT8, another metric, a batch that does not fit and an unknown input are errors; nothing is written."""
    manifest, folder = manifest_of(exported.onnx), tmp_path / "bundle"
    int8, euclidean = (
        manifest.model_copy(update=u) for u in ({"precision": "int8"}, {"metric": "euclidean"})
    )
    with pytest.raises(
        InputError, match=r"small\.onnx is int8: DeepStream makes INT8 from a calibration table"
    ):
        write_deepstream_bundle(exported.onnx, int8, folder)
    with pytest.raises(
        InputError, match=r"is compared by euclidean, but DeepStream's tracker compares by cosine"
    ):
        write_deepstream_bundle(exported.onnx, euclidean, folder)
    profile = manifest.batch_profile.model_copy(update={"minimum": 8, "maximum": 8})
    static = manifest.model_copy(update={"batch_profile": profile})
    with pytest.raises(InputError, match="a batch of 100 does not fit: the artifact takes 8 to 8"):
        write_deepstream_bundle(exported.onnx, static, folder, batch_size=100)
    model = onnx.load(exported.onnx)
    cast = model.graph.node[0]
    model.graph.node.append(helper.make_node("Shape", [cast.input[0]], ["unused"]))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="images goes to Cast, Shape, expected one Cast"):
        write_deepstream_bundle(tmp_path / "other.onnx", manifest, folder)
    assert not folder.exists()


def test_the_command_writes_a_bundle(run: Run, exported: Exported, tmp_path: Path) -> None:
    """Paths are those of the machine that runs DeepStream; a file without manifest and an engine are refused."""
    folder = tmp_path / "bundle"
    done = run(
        *("bundle", "deepstream", exported.onnx, "-o", folder, "--tracker", "NvDCF"),
        *("--batch-size", 32, "--installed-at", "/opt/reid/"),
    )
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / CONFIG_NAME}: the ReID section for NvDCF's configuration" in done.stdout
    section = section_of(folder)
    assert (section["reidType"], section["batchSize"]) == (2, 32)
    assert section["onnxFile"] == "/opt/reid/small_deepstream.onnx"
    assert section["modelEngineFile"] == "/opt/reid/small_deepstream.onnx_b32_gpu0_fp32.engine"
    assert sorted(path.name for path in folder.iterdir()) == ["small_deepstream.onnx", CONFIG_NAME]
    assert "scales crops with a kernel of its own" in (folder / CONFIG_NAME).read_text()
    path = tmp_path / "other.onnx"
    foreign(path, "NCHW", STD, "RGB")
    done = run("bundle", "deepstream", path, "-o", tmp_path / "none")
    assert done.returncode == 2
    assert "the file carries no manifest" in done.stderr
    facts = ["--size", "6x4", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    assert run("bundle", "deepstream", path, "-o", tmp_path / "other", *facts).returncode == 0
