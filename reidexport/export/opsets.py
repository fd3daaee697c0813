"""A network in another ONNX opset than the default: later ones the exporter writes, earlier ones are rewritten here.

Runtimes read the opsets of their time; what is rewritten is what opsets 12 to 18 changed of the operators that
convolutional networks use. ONNX's checker and the answers decide whether it is right.
"""

from collections.abc import Iterable

import onnx
from onnx import helper, numpy_helper
from reidruntime.artifact.manifest import Precision

from reidexport.errors import InputError
from reidexport.export.fp16 import replace_nodes

OPSET = 18
OLDEST, LATEST = 11, min(25, onnx.defs.onnx_opset_version())
OLDEST_INT8 = 13  # the first in which QuantizeLinear has a scale for each channel
# Since which opset an operator has its second input, which was an attribute before.
_INPUT_SINCE = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum", "Split"), 13),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"), 18),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"), 18),
}
# Attributes that only say what earlier opsets do anyway: for every batch but an empty one, Reshape's too.
_IMPLIED = {("Reshape", "allowzero"): 14, ("Split", "num_outputs"): 18} | {
    (op, "noop_with_empty_axes"): since for op, since in _INPUT_SINCE.items()
}
_PART_OF_SHAPE = 15  # Shape's start and end
_SOFTMAXES = ("Softmax", "LogSoftmax")
_SOFTMAX_BY_AXIS = 13  # before, it flattened the axes behind


def check_opset(opset: int, precision: Precision) -> None:
    """Check that a file of this precision can be asked for in an opset.

    Raises:
        InputError: it cannot; the message names the range.
    """
    oldest = OLDEST_INT8 if precision == "int8" else OLDEST
    if not oldest <= opset <= LATEST:
        raise InputError(
            f"opset {opset}: {precision.upper()} files are written in opset {oldest} to {LATEST} ({OPSET} by default)"
            + (", FP32 and FP16 files from 11 on" if oldest > OLDEST else "")
            + "."
        )


def in_older_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Rewrite a network of opset 18 in an earlier one.

    Args:
        model: of opset 18, without subgraphs; it is not changed.
        opset: 11 to 17.

    Returns:
        A new model, of the oldest IR version that has the opset.

    Raises:
        InputError: an operator of the network is not in that opset; the message names the opsets that have them all.
    """
    rewritten = _rewritten(model, opset)
    if problem := _problem(rewritten):
        oldest = next((n for n in range(opset + 1, OPSET) if not _problem(_rewritten(model, n))), OPSET)
        raise InputError(
            f"opset {opset} cannot represent this network, opset {oldest} to {LATEST} can: {problem} Choose one of "
            "these with --opset."
        )
    return rewritten


def _rewritten(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, constants = changed.graph, {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if opset < _INPUT_SINCE.get(node.op_type, 0) and len(node.input) > 1 and node.input[1] in constants:
            values = numpy_helper.to_array(constants[node.input.pop(1)]).reshape(-1).tolist()
            name = "split" if node.op_type == "Split" else "axes"
            node.attribute.append(helper.make_attribute(name, values))
        _drop_attributes(
            node, (name for (op, name), since in _IMPLIED.items() if op == node.op_type and opset < since)
        )
        if node.op_type in _SOFTMAXES and opset < _SOFTMAX_BY_AXIS and not node.attribute:
            node.attribute.append(helper.make_attribute("axis", -1))  # the default was 1
        nodes += _shape_in_two(node, graph) if node.op_type == "Shape" and opset < _PART_OF_SHAPE else [node]
    replace_nodes(graph, nodes)
    changed.opset_import[0].version = opset
    changed.ir_version = helper.find_min_ir_version_for(changed.opset_import)
    return changed


def _drop_attributes(node: onnx.NodeProto, names: Iterable[str]) -> None:
    dropped = set(names)
    kept = [attribute for attribute in node.attribute if attribute.name not in dropped]
    del node.attribute[:]
    node.attribute.extend(kept)


def _shape_in_two(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Part of a shape, as the whole shape and a slice of it."""
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    if not ends:
        return [node]
    whole, result = f"{node.output[0]}_whole", node.output[0]
    names = [whole]
    for name, value in (("start", ends.get("start", 0)), ("end", ends.get("end", 2**31 - 1))):
        names.append(f"{result}_{name}")
        graph.initializer.append(helper.make_tensor(names[-1], onnx.TensorProto.INT64, [1], [value]))
    return [
        helper.make_node("Shape", [node.input[0]], [whole], name=f"{node.name}_whole"),
        helper.make_node("Slice", names, [result], name=node.name),
    ]


def _problem(model: onnx.ModelProto) -> str:
    """What of a network is not in its opset, in a line; empty where all is."""
    opset = model.opset_import[0].version
    try:
        onnx.checker.check_model(model, full_check=True)
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"{' '.join(str(error).split())}."
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim) for value in (*typed.value_info, *typed.output)
    }
    for node in model.graph.node if opset < _SOFTMAX_BY_AXIS else ():
        if node.op_type in _SOFTMAXES:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
            if axis not in (-1, ranks.get(node.output[0], 0) - 1):
                return f"{node.op_type} {node.name!r} is over axis {axis}, before opset 13 it was over all behind it."
    return ""
