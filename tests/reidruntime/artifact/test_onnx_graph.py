"""Reading an ONNX file's nodes and weights without the onnx package."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reidruntime.artifact.onnx_graph import read_onnx_graph
from reidruntime.errors import ArtifactError

from tests.conftest import Exported
from tests.standins.runtime_models import write_artifact


def plain(value: Any) -> Any:
    """An attribute as onnx gives it, in the types that the reader uses."""
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) or hasattr(value, "append") else value


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nodes_and_weights_are_those_that_onnx_reads(exported: Exported, precision: str) -> None:
    """Every operator, name, attribute and weight of an exported network comes back."""
    path = exported.onnx if precision == "fp32" else exported.fp16
    graph, model = read_onnx_graph(path), onnx.load(path)
    assert graph.opset == 18
    assert len(graph.nodes) == len(model.graph.node) > 40
    for found, node in zip(graph.nodes, model.graph.node, strict=True):
        assert (found.op, found.name) == (node.op_type, node.name)
        assert (found.inputs, found.outputs) == (tuple(node.input), tuple(node.output))
        assert found.attributes == {a.name: plain(helper.get_attribute_value(a)) for a in node.attribute}
    assert set(graph.constants) == {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        assert graph.constants[tensor.name].dtype == array.dtype
        assert np.array_equal(graph.constants[tensor.name], array)


@pytest.mark.parametrize(
    "array",
    [
        np.float32([[1, -2], [3.5, 0]]),
        np.int64([-1, 2**40]),
        np.int32([-7]),
        np.uint8([0, 255]),
        np.float16([0.5, -2]),
        np.float32(3),
        np.zeros((0, 3), np.float32),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_way_to_store_a_tensor(array: np.ndarray, raw: bool, tmp_path: Path) -> None:
    """Raw bytes and lists of numbers, of every type, as initializer and as the value of a Constant."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.reshape(-1).tolist()
    tensor = helper.make_tensor("w", kind, array.shape, values, raw=raw)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor),
        helper.make_node("Constant", [], ["ints"], value_ints=[1, -2]),
        helper.make_node("Constant", [], ["float"], value_float=0.5),
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor])), tmp_path / "a.onnx")
    graph = read_onnx_graph(tmp_path / "a.onnx")
    for name in ("w", "c"):
        assert graph.constants[name].dtype == array.dtype
        assert np.array_equal(graph.constants[name], array)
    assert graph.constants["ints"].tolist() == [1, -2]
    assert graph.constants["float"] == 0.5
    assert graph.nodes == ()


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    """Weights in another file, operators of other domains, subgraphs, unknown types and cut files are refused."""
    path = tmp_path / "a.onnx"

    def refused(words: str, nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> None:
        model = helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))
        path.write_bytes(model.SerializeToString())  # onnx.save would look for the other file
        with pytest.raises(
            ArtifactError, match=rf"a\.onnx: not an ONNX graph that can be read here: .*{words}"
        ):
            read_onnx_graph(path)

    outside = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    outside.data_location = TensorProto.EXTERNAL
    refused("its weights are in another file; export it as one file", [], [outside])
    refused(
        "operator Other is of the domain com.x", [helper.make_node("Other", [], ["y"], domain="com.x")], []
    )
    branch = helper.make_graph([], "branch", [], [])
    refused("attribute body holds a subgraph", [helper.make_node("Loop", [], ["y"], body=branch)], [])
    texts = helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])
    refused("a tensor of the data type 8", [], [texts])
    short = helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0\0\0\0", raw=True)
    short.dims[0] = 2
    refused(r"tensor w holds 1 numbers, expected the shape \[2\]", [], [short])
    path.write_bytes(write_artifact(tmp_path / "b.onnx").read_bytes()[:400])
    with pytest.raises(
        ArtifactError, match=r"a\.onnx: not an ONNX graph that can be read here: it ends within"
    ):
        read_onnx_graph(path)
    with pytest.raises(ArtifactError, match=r"c\.onnx: cannot be read \(No such file"):
        read_onnx_graph(tmp_path / "c.onnx")
