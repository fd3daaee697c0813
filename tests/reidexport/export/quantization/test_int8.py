"""INT8 graphs: their form, what they answer, and which layers they leave alone."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from reidruntime import ArtifactError, InputError, SessionOptions, manifest_from_onnx, open_session
from reidruntime.artifact.manifest import Manifest

from reidexport import graph_from_checkpoint, load_checkpoint, onnx_from_graph, verify
from reidexport.data import Dataset
from reidexport.errors import ParityError
from reidexport.evaluation.scoring import calibration_warnings
from reidexport.export.graph import GraphOptions
from reidexport.export.onnx_check import open_onnx
from reidexport.export.opsets import LATEST, OLDEST_INT8
from reidexport.export.quantization import int8 as quantization
from reidexport.export.quantization.calibration import CalibrationImages
from reidexport.export.quantization.int8 import TARGET_ERROR, _num_more_to_leave_out
from reidexport.progress import no_progress_bar
from tests.conftest import Exported, Run
from tests.reidexport.tensorrt.test_build import rtx


@dataclass(frozen=True)
class Int8:
    """The INT8 file of each target, and what making it said."""

    files: dict[str, Path]
    said: dict[str, str]


@pytest.fixture(scope="module")
def int8(exported: Exported, drawn_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Int8:
    """The small ResNet-18, quantized on the drawn train split."""
    folder, made = tmp_path_factory.mktemp("int8"), Int8({}, {})
    for target in ("cpu", "tensorrt"):
        lines: list[str] = []
        made.files[target] = folder / f"{target}.onnx"
        onnx_from_graph(
            graph_from_checkpoint(load_checkpoint(exported.checkpoint)),
            made.files[target],
            precision="int8",
            calibration=root_of(drawn_dataset),
            target=target,  # type: ignore[arg-type]
            measure_speed=target == "tensorrt",
            log=lines.append,
        )
        made.said[target] = "\n".join(lines)
    return made


def root_of(dataset: Dataset) -> Path:
    """The folder of a drawn data set."""
    return dataset.train[0].path.parents[1]


def manifest_of(file: Path) -> Manifest:
    """The manifest inside a file."""
    manifest = manifest_from_onnx(file)
    assert manifest is not None
    return manifest


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The constants of a graph by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_scores_on_calibration_images_are_warned_of(int8: Int8, drawn_dataset: Dataset) -> None:
    """The manifest knows all images that were calibrated or measured on, by their content."""
    manifest = manifest_of(int8.files["cpu"])
    query, gallery, train = (
        [record.path for record in part]
        for part in (drawn_dataset.query, drawn_dataset.gallery, drawn_dataset.train)
    )
    (warning,) = calibration_warnings(manifest, query + train)
    assert warning.startswith(
        f"the INT8 artifact was calibrated on {len(train)} of these {len(query + train)} images"
    )
    assert calibration_warnings(manifest, query + gallery) == ()
    with open_session(int8.files["cpu"]) as session:
        (said,) = verify(session, session, images=train).warnings
    assert said.startswith(f"the INT8 artifact was calibrated on {len(train)} of these {len(train)} images")


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_what_the_manifest_says_of_an_int8_file(int8: Int8, target: str) -> None:
    """How it was made, on how many images, the error, and every layer's own error, worst first."""
    manifest = manifest_of(int8.files[target])
    assert manifest.precision == "int8"
    made = manifest.quantization
    assert made is not None
    assert (made.target, made.num_calibrated_images, made.num_held_out_images) == (target, 10, 2)
    assert made.weight_bits == {"cpu": 7, "tensorrt": 8}[target]
    assert 0 < made.mean_relative_l2 < TARGET_ERROR
    assert list(made.sensitivity.values()) == sorted(made.sensitivity.values(), reverse=True)
    num_convolutions = 20
    assert manifest.layer_precisions["int8"] >= num_convolutions - len(made.float_layers)
    assert onnx.load(int8.files[target]).producer_name == "reidexport"
    said = int8.said[target]
    assert f"{made.range_method} (chosen)" in said
    assert "layers that hurt most, each alone in INT8:" in said
    worst, value = next(iter(made.sensitivity.items()))
    assert re.search(rf"{value:.4f}  {worst}(  backbone\..*weight)?$", said, re.MULTILINE)
    assert "only 12 images to calibrate on" in said
    assert ("its speed is that of an engine" in said) == (target == "tensorrt")


def test_the_form_for_cpus(int8: Int8) -> None:
    """Unsigned activations, signed weights of 7 bits per channel: two products never overflow 16 bits."""
    model = onnx.load(int8.files["cpu"])
    values = constants(model)
    weights = [values[node.input[0]] for node in model.graph.node if is_weight(node, values, np.int8)]
    assert len(weights) >= 15
    assert max(np.abs(each.astype(int)).max() for each in weights) <= 64
    assert 2 * 255 * 64 < 2**15
    zero_points = [values[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {each.dtype.name for each in zero_points} == {"uint8"}


def test_the_form_for_tensorrt(int8: Int8) -> None:
    """Everything is signed and symmetric, biases stay float32, and nothing behind a convolution is quantized twice."""
    model = onnx.load(int8.files["tensorrt"])
    values = constants(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
        if node.op_type == "QuantizeLinear":
            assert {each.op_type for each in producers(model, node.input[0])} != {"Conv"}
        if node.op_type == "Conv" and len(node.input) == 3:
            assert values[node.input[2]].dtype == np.float32


def is_weight(node: onnx.NodeProto, values: dict[str, np.ndarray], dtype: Any) -> bool:
    """Whether a node gives back a stored weight."""
    return (
        node.op_type == "DequantizeLinear"
        and node.input[0] in values
        and values[node.input[0]].dtype == dtype
    )


def producers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that give a tensor."""
    return [node for node in model.graph.node if name in node.output]


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_integer_kernels_are_as_near_as_the_definition(
    int8: Int8, exported: Exported, drawn_dataset: Dataset, target: str
) -> None:
    """A session is no further from the float network than Q/DQ computed one by one: nothing overflows."""
    paths = [record.path for record in drawn_dataset.query]
    with open_session(exported.onnx) as session:
        wanted = session.embed(paths)
    with open_session(int8.files[target], SessionOptions(backend="onnxruntime")) as session:
        assert ("as defined" in session.description) == (target == "tensorrt")
        found = session.embed(paths)
    by_definition = open_onnx(int8.files[target], by_definition=True)
    defined = by_definition(np.stack([session_pixels(path) for path in paths]))
    error, least = (
        np.mean(np.linalg.norm(each - wanted, axis=1) / np.linalg.norm(wanted, axis=1))
        for each in (found, defined)
    )
    assert 0 < error < 1.2 * least


def session_pixels(path: Path) -> np.ndarray:
    """An image at the small network's size."""
    from reidruntime.images.preprocess import image_pixels

    from tests.reidexport.export.quantization.test_calibration import PREPROCESS

    return image_pixels(path, "", PREPROCESS)


def test_the_form_for_tensorrt_never_runs_on_integer_kernels_of_a_cpu(int8: Int8) -> None:
    """OpenVINO is refused, with what to do; left to choose, a session takes ONNX Runtime."""
    with pytest.raises(InputError, match="export with --target cpu"):
        open_session(int8.files["tensorrt"], SessionOptions(backend="openvino"))
    with open_session(int8.files["tensorrt"]) as session:
        assert session.backend == "onnxruntime"


def test_layers_that_hurt_stay_float(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the error is above the target, the most sensitive layers keep their float32 weights, a quarter at most."""
    monkeypatch.setattr(quantization, "TARGET_ERROR", 1e-4)
    graph = graph_from_checkpoint(load_checkpoint(exported.checkpoint))
    manifest = onnx_from_graph(
        graph, tmp_path / "a.onnx", precision="int8", calibration=root_of(drawn_dataset), target="tensorrt"
    )
    made = manifest.quantization
    assert made is not None
    assert made.float_layers == tuple(list(made.sensitivity)[:5])
    assert manifest.layer_precisions == {"fp32": 5, "int8": 15}
    model = onnx.load(tmp_path / "a.onnx")
    values = constants(model)
    kept = {node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in values}
    assert kept == set(made.float_layers)


def test_an_application_keeps_its_log_level(exported: Exported) -> None:
    """Quantizing silences ONNX Runtime's notices only: what an application had switched off stays off."""
    model = onnx.shape_inference.infer_shapes(onnx.load(exported.onnx))
    layer = next(node for node in model.graph.node if node.op_type == "Conv")
    ranges = dict.fromkeys((*layer.input, *layer.output), (-1.0, 1.0))
    logging.disable(logging.ERROR)
    try:
        quantization._with_qdq(model, [layer.name], ranges, "tensorrt")
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)


def test_how_many_layers_to_leave_out() -> None:
    """As few as a loop over the sums of squares finds, and never more than a quarter of all."""
    errors = sorted(np.random.default_rng(0).exponential(0.0035, 100), reverse=True)
    total = float(np.sqrt(np.square(errors).sum()))
    wanted = next(n for n in range(101) if np.sqrt(np.square(errors[n:]).sum()) <= TARGET_ERROR)
    assert 0 < wanted < 25
    assert _num_more_to_leave_out(errors, 0, total) == wanted
    assert _num_more_to_leave_out(errors, 0, 100 * total) == 25
    assert _num_more_to_leave_out(errors, 25, total) == 0


def test_a_network_that_int8_destroys_is_not_written(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is an exit status of 1, with the figure, and no file."""
    monkeypatch.setattr(quantization, "REFUSED_ERROR", 1e-4)
    graph = graph_from_checkpoint(load_checkpoint(exported.checkpoint))
    with pytest.raises(ParityError, match="INT8 changes the features by") as raised:
        onnx_from_graph(graph, tmp_path / "a.onnx", precision="int8", calibration=root_of(drawn_dataset))
    assert raised.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [2, "dynamic"])
def test_float_inputs_and_static_batches(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path, batch: Any
) -> None:
    """Normalized images outside the graph are quantized from normalized images, in batches that the file takes."""
    graph = graph_from_checkpoint(
        load_checkpoint(exported.checkpoint), GraphOptions(input="float32", flip=True)
    )
    manifest = onnx_from_graph(
        graph, tmp_path / "a.onnx", batch=batch, precision="int8", calibration=root_of(drawn_dataset)
    )
    assert manifest.quantization is not None
    assert manifest.quantization.mean_relative_l2 < TARGET_ERROR
    with pytest.raises(InputError, match="the network takes batches of 9: pass more images"):
        onnx_from_graph(
            graph, tmp_path / "b.onnx", batch=9, precision="int8", calibration=root_of(drawn_dataset)
        )


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "target"), [(OLDEST_INT8, "tensorrt"), (LATEST, "cpu")])
def test_other_opsets_are_checked_as_the_default_is(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path, opset: int, target: Any
) -> None:
    """The ends of the range that INT8 has are written as asked for, within the same error; what is older is refused."""
    graph, calibration = graph_from_checkpoint(load_checkpoint(exported.checkpoint)), root_of(drawn_dataset)
    made: Any = {"precision": "int8", "calibration": calibration, "target": target}
    manifest = onnx_from_graph(graph, tmp_path / "a.onnx", opset=opset, **made)
    assert [each.version for each in onnx.load(tmp_path / "a.onnx").opset_import if not each.domain] == [
        opset
    ]
    assert manifest.quantization is not None
    assert manifest.quantization.mean_relative_l2 < TARGET_ERROR
    with pytest.raises(InputError, match="INT8 files are written in opset 13 to"):
        onnx_from_graph(graph, tmp_path / "b.onnx", opset=OLDEST_INT8 - 1, **made)


def test_the_command(exported: Exported, drawn_dataset: Dataset, tmp_path: Path, run: Run) -> None:
    """``onnx --int8`` prints findings to standard error, and to standard output what it wrote; ``verify`` takes it."""
    out = tmp_path / "int8.onnx"
    done = run("onnx", exported.checkpoint, "--int8", "--calibration", root_of(drawn_dataset), "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}" in done.stdout
    assert "layers that hurt most" in done.stderr
    assert re.search(r"  batch 8: INT8 \d+ images/s, FP32 \d+: \d+\.\d\d × its speed", done.stderr)
    assert re.search(r"  size: INT8 \d+ kB, FP32 \d+ kB", done.stderr)
    described = run("inspect", out).stdout
    assert "    sensitivity " in described
    assert " more (--json)" in described
    judged = run("verify", out, "--reference", exported.checkpoint)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "limits     of int8: cosine at least 0.6 of any image" in judged.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--int8",), "--int8 needs images to calibrate with: --calibration FOLDER"),
        (("--calibration", "."), "--calibration and --data are for --int8"),
        (("--target", "cpu"), "--target is for --int8"),
        (("--int8", "--fp16", "--calibration", "."), "--fp16 and --int8 exclude each other"),
        (("--int8", "--calibration", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_quantized(
    arguments: tuple[str, ...], words: str, exported: Exported, refuses: Callable[..., None]
) -> None:
    """Exit status 2, the reason, and no file."""
    refuses(words, "onnx", exported.checkpoint, "-o", "a.onnx", *arguments)


@rtx
def test_tensorrt_takes_its_own_form_only(int8: Int8, tmp_path: Path, run: Run) -> None:
    """An engine from the form for CPUs is refused before TensorRT sees it; from the other its precision is proved."""
    engine = tmp_path / "a.engine"
    refused = run("trt", int8.files["cpu"], "--int8", "--flavor", "rtx", "-o", engine)
    assert refused.returncode == 2
    assert "--target tensorrt" in refused.stderr
    assert not engine.exists()
    built = run("trt", int8.files["tensorrt"], "--int8", "--flavor", "rtx", "-o", engine)
    assert built.returncode == 0, built.stderr
    assert "layers of the network 20 int8" in built.stdout


def test_an_int8_file_with_another_manifest_is_refused(int8: Int8, tmp_path: Path) -> None:
    """A range method that nobody knows is a manifest from elsewhere."""
    data = int8.files["cpu"].read_bytes()
    other = tmp_path / "other.onnx"
    other.write_bytes(data.replace(b'"weight_bits":7', b'"weight_bits":6'))
    with pytest.raises(ArtifactError, match=r"quantization\.weight_bits"):
        open_session(other)


def test_transformers_are_refused_in_words() -> None:
    """A network that computes in matrix products has nothing that INT8 quantizes: said before anything is measured."""
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Conv", ["x", "w"], ["patches"], "patch_embed", kernel_shape=[4, 4], strides=[4, 4]),
        make("MatMul", ["patches", "patches"], ["logits"], "logits"),
        make("MatMul", ["logits", "patches"], ["y"], "attended"),
    ]
    weight = onnx.numpy_helper.from_array(np.ones((2, 3, 4, 4), np.float32), "w")
    tensors = [value("x", 1, ["n", 3, 8, 8])], [value("y", 1, ["n", 2, 2, 2])]
    graph = onnx.helper.make_graph(nodes, "transformer", *tensors, [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    images = CalibrationImages(*(np.zeros((4, 3, 8, 8), np.float32),) * 2, (), "")
    with pytest.raises(
        InputError, match="this is a transformer: of its 3 layers 2 are matrix products, so nothing"
    ):
        quantization.int8_model(
            model, images, target="cpu", batch=None, log=print, progress_bar=no_progress_bar
        )
