"""Halving a network: what becomes FP16, what stays float32, and how far the answers move."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from reidexport.checkpoint.loading import imagenet_preprocess, load_checkpoint, save_checkpoint
from reidexport.errors import InputError
from reidexport.export.fp16 import fp16_model
from reidexport.export.graph import GraphOptions, graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.models.baseline import BaselineArchitecture, backbone_channels
from tests.standins.checkpoints import drawn_model, relative_l2

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def network(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], features: int) -> onnx.ModelProto:
    """A model from float32 ``x`` (N, 3, 8, 4) to ``y`` (N, features)."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, ("batch", 3, 8, 4))],
            [helper.make_tensor_value_info("y", FLOAT, ("batch", features))],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def gated_network(scale: float = 1.0) -> onnx.ModelProto:
    """Convolution, a gate of two linear layers on the map's mean, a linear layer over the map, pooling, neck."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "w": drawn(6, 3, 3, 3) * np.float32(scale), "b": drawn(6), "gate_w": drawn(6, 6), "linear_w": drawn(6, 5),
        "neck_w": drawn(5), "map_axes": np.array([2, 3]), "gate_shape": np.array([-1, 6, 1, 1]), "axis": np.array([1]),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], "relu"),
        make("ReduceMean", ["r", "map_axes"], ["m"], "squeeze", keepdims=0),
        make("Gemm", ["m", "gate_w"], ["g"], "gate_fc"),
        make("Sigmoid", ["g"], ["s"], "gate_sigmoid"),
        make("Reshape", ["s", "gate_shape"], ["s4"], "gate_map"),
        make("Mul", ["r", "s4"], ["e"], "excite"),
        make("Transpose", ["e"], ["t"], "channels_last", perm=[0, 2, 3, 1]),
        make("MatMul", ["t", "linear_w"], ["l"], "linear"),
        make("ReduceMean", ["l", "axis"], ["p1"], "pool_rows", keepdims=0),
        make("ReduceMean", ["p1", "axis"], ["p"], "pool", keepdims=0),
        make("Mul", ["p", "neck_w"], ["y"], "neck"),
    ]
    return network(nodes, weights, 5)


def dtypes(model: onnx.ModelProto) -> dict[str, int]:
    """Dtype of what each named node gives."""
    shown = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*shown.value_info, *shown.output)}
    return {node.name: types[node.output[0]] for node in model.graph.node}


def answers(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers for x."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_maps_are_half_and_sums_over_them_float32() -> None:
    """Convolution, activation, gating and linear layers over maps are FP16; means, gate and neck are not."""
    model = fp16_model(gated_network())
    onnx.checker.check_model(model, full_check=True)
    found = {name: dtype for name, dtype in dtypes(model).items() if not name.startswith("cast_")}
    converted = {name for name, dtype in found.items() if dtype == HALF}
    assert converted == {"conv", "relu", "excite", "channels_last", "linear"}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {name for name, dtype in stored.items() if dtype == HALF} == {"w_fp16", "b_fp16", "linear_w_fp16"}
    assert {name for name, dtype in stored.items() if dtype == FLOAT} == {"gate_w", "neck_w"}


def test_answers_stay_close_and_the_source_as_it_was() -> None:
    """The converted network answers in float32 to a thousandth, and the network it was made from is not changed."""
    model = gated_network()
    before = model.SerializeToString()
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 4)).astype(np.float32)
    found = answers(fp16_model(model), x)
    assert found.dtype == np.float32
    assert 0 < relative_l2(found, answers(model, x)) < 2e-3
    assert model.SerializeToString() == before


def test_half_output_is_cast_back() -> None:
    """An output that an FP16 node computes is float32 all the same, under its old name."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["c"], "conv"),
        make("Reshape", ["c", "shape"], ["y"], "flat"),
    ]
    weights = {"w": np.ones((2, 3, 8, 4), np.float32), "shape": np.array([-1, 2])}
    model = fp16_model(network(nodes, weights, 2))
    onnx.checker.check_model(model, full_check=True)
    x = np.full((1, 3, 8, 4), 0.5, np.float32)
    np.testing.assert_allclose(answers(model, x), [[48.0, 48.0]])


def test_weight_too_large_for_half() -> None:
    """A weight beyond 65504 would become infinite: it is named, with its size."""
    with pytest.raises(
        InputError, match=r"weight w reaches .*e\+0\d, more than FP16 can hold \(65504\): keep FP32"
    ):
        fp16_model(gated_network(scale=1e6))


def test_network_without_convolutions() -> None:
    """A network that has nothing to convert is refused, and not called FP16."""
    make = helper.make_node
    nodes = [make("Flatten", ["x"], ["f"], "flat"), make("Gemm", ["f", "w"], ["y"], "fc")]
    with pytest.raises(InputError, match="the network has no float32 convolution to convert"):
        fp16_model(network(nodes, {"w": np.ones((96, 4), np.float32)}, 4))


@pytest.mark.parametrize(
    ("backbone", "stride"), [("timm/convnext_atto", 2), ("timm/mobilenetv3_small_050", 1), ("se_resnet50", 1)]
)
def test_every_convolution_of_a_backbone_is_half(backbone: str, stride: int, tmp_path: Path) -> None:
    """Exported with FP16, no convolution or linear layer over a map computes in float32, and parity holds."""
    architecture = BaselineArchitecture(backbone, last_stride=1 if stride == 1 else 2, num_classes=5)
    model = drawn_model(replace(architecture, feature_dim=backbone_channels(architecture)))
    save_checkpoint(tmp_path / "model.pth", model, imagenet_preprocess(64, 32))
    graph = graph_from_checkpoint(load_checkpoint(tmp_path / "model.pth"), GraphOptions())
    manifest = onnx_from_graph(graph, tmp_path / "model.onnx", precision="fp16")
    found = dtypes(onnx.load(tmp_path / "model.onnx"))
    float_convolutions = [
        node.name
        for node in onnx.load(tmp_path / "model.onnx").graph.node
        if node.op_type in ("Conv", "MatMul") and found[node.name] != HALF
    ]
    assert not float_convolutions
    assert manifest.layer_precisions["fp16"] > 10
