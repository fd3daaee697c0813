"""Precision is a property of the graph, never a flag of a builder: FP32 ONNX → FP16 ONNX."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from reidexport.errors import InputError

# Elementwise and pooling operations that compute in FP16 where one of their inputs is FP16. Whatever sums over a map
# (means, norms), powers, and everything behind the last map stays in float32. A softmax sums numbers up to 1.
_FOLLOWS = {
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu"),
    *("Add", "Sub", "Mul", "Div", "MaxPool", "AveragePool", "Concat", "Split", "Slice", "Pad"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Softmax"),
}
_CONVOLUTIONS = {"Conv", "ConvTranspose"}


def fp16_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the convolutions of a network, and what is between them, to FP16.

    Convolutions and linear layers over maps or tokens compute in FP16 with FP16 weights, and attention does between
    them. Pooling, BNNeck, L2 and the outputs stay float32, and so do instance and layer norms and every mean over a
    map: a map has thousands of pixels, and the sum of squares of 2048 features, or of a transformer's outliers,
    overflows FP16. Inputs keep their dtypes.

    Args:
        model: an FP32 network with one domain and no subgraphs, weights inside.

    Returns:
        A new model; node names stay, casts are added where precisions meet.

    Raises:
        InputError: the network holds no float32 convolution, or a weight is too large for FP16.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {
        value.name: value.type.tensor_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    is_float = {name for name, each in types.items() if each.elem_type == TensorProto.FLOAT}
    is_map = {name for name, each in types.items() if len(each.shape.dim) > 2}
    in_fp16 = _fp16_tensors(model, weights, is_map)
    if not in_fp16:
        raise InputError("the network has no float32 convolution to convert")
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        wants_fp16 = not in_fp16.isdisjoint(node.output)
        for place, name in enumerate(node.input):
            if name in weights and wants_fp16:
                node.input[place] = _fp16_weight(weights[name], graph, made)
            elif name in is_float and wants_fp16 != (name in in_fp16):
                node.input[place] = _cast(name, wants_fp16, nodes, made)
        nodes.append(node)
    for name in (output.name for output in graph.output if output.name in in_fp16):
        # It is cast back to float32 under its own name.
        inner = f"{name}_before_cast"
        rename_tensor(nodes, name, inner)
        nodes.append(helper.make_node("Cast", [inner], [name], name=f"cast_{name}", to=TensorProto.FLOAT))
    replace_nodes(graph, nodes)
    del graph.value_info[:]  # they state the old types; shape inference makes them anew
    return onnx.shape_inference.infer_shapes(converted, check_type=True, strict_mode=True)


def _fp16_tensors(model: onnx.ModelProto, weights: Collection[str], is_map: Collection[str]) -> set[str]:
    """Names of the tensors that are computed in FP16."""
    found: set[str] = set()
    for node in model.graph.node:
        over_map = node.op_type == "MatMul" and node.input[1] in weights and node.input[0] in is_map
        is_attention = node.op_type == "MatMul" and found.issuperset(node.input)
        is_convolution = node.op_type in _CONVOLUTIONS and node.input[1] in weights
        follows = node.op_type in _FOLLOWS and not found.isdisjoint(node.input)
        if over_map or is_attention or is_convolution or follows:
            found.update(node.output)
    return found


def _fp16_weight(weight: TensorProto, graph: onnx.GraphProto, made: set[str]) -> str:
    """Name of the FP16 copy of a weight, made on first use."""
    name = f"{weight.name}_fp16"
    if name not in made:
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            converted = values.astype(np.float16)
        if not np.array_equal(np.isfinite(converted), np.isfinite(values)):
            raise InputError(
                f"weight {weight.name} reaches {np.abs(values).max():.3g}, more than FP16 can hold (65504): keep FP32"
            )
        graph.initializer.append(numpy_helper.from_array(converted, name))
        made.add(name)
    return name


def _cast(name: str, to_fp16: bool, nodes: list[onnx.NodeProto], made: set[str]) -> str:
    """Name of a tensor's cast copy; the Cast is inserted on first use."""
    copy = f"{name}_{'fp16' if to_fp16 else 'fp32'}"
    if copy not in made:
        kind = TensorProto.FLOAT16 if to_fp16 else TensorProto.FLOAT
        nodes.append(helper.make_node("Cast", [name], [copy], name=f"cast_{copy}", to=kind))
        made.add(copy)
    return copy


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put nodes in the place of a graph's own, and leave out the initializers that none of them takes."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def rename_tensor(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    """Let nodes read and write a tensor under another name."""
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [new if each == old else each for each in names]
