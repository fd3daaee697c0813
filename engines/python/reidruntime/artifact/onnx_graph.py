"""The nodes and weights of an ONNX file, read without the onnx package. Field numbers are those of ``onnx.proto``."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.onnx_metadata import DTYPES
from reidruntime.artifact.protobuf import MalformedError, Message
from reidruntime.errors import ArtifactError

Array = NDArray[np.generic]
Attribute = Any  # int, float, str, a tuple of int or of float, or an array
_EXTERNAL = 1
_OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxNode:
    """One operator: what it is called, what it reads and writes; an input that is left out is ``""``."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in an order in which they can be computed, and constants: initializers and the values of Constant nodes."""

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, Array]
    opset: int


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Read nodes and weights.

    Raises:
        ArtifactError: the file cannot be read, is not an ONNX model, keeps weights in another file, or uses
            operators of another domain, subgraphs or types that are not arrays.
    """
    try:
        return _graph(Message(path.read_bytes()))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Expected an ONNX file.") from error
    except (MalformedError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise ArtifactError(
            f"{path}: not an ONNX graph that can be read here: {error}. Use backend onnxruntime, or export it again."
        ) from error


def _graph(model: Message) -> OnnxGraph:
    """ModelProto: graph = 7, opset_import = 8 {domain = 1, version = 2}; GraphProto: node = 1, initializer = 5."""
    nodes: list[OnnxNode] = []
    constants: dict[str, Array] = {}
    for graph in model.messages(7):
        for node in map(_node, graph.messages(1)):
            if node.op == "Constant":
                constants[node.outputs[0]] = _constant(node)
            else:
                nodes.append(node)
        constants.update(map(_tensor, graph.messages(5)))
    imported = [each for each in model.messages(8) if each.text(1) in _OWN_DOMAINS]
    opsets = [version for each in imported for version in each.integers(2)]
    return OnnxGraph(tuple(nodes), constants, max(opsets, default=0))


def _node(node: Message) -> OnnxNode:
    """NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7."""
    op, domain = node.text(4), node.text(7)
    if domain not in _OWN_DOMAINS:
        raise MalformedError(f"operator {op} is of the domain {domain}, only ONNX's own are known")
    attributes = dict(map(_attribute, node.messages(5)))
    return OnnxNode(op, node.text(3), node.texts(1), node.texts(2), attributes)


def _attribute(attribute: Message) -> tuple[str, Attribute]:
    """AttributeProto: name = 1, f = 2, i = 3, s = 4, t = 5, floats = 7, ints = 8."""
    name = attribute.text(1)
    objects = (6, 9, 10, 11)  # graphs, and lists of texts, tensors and graphs
    if any(number in attribute for number in objects):
        raise MalformedError(f"attribute {name} holds a subgraph or a list of objects")
    tensors = [array for _, array in map(_tensor, attribute.messages(5))]
    single = (*attribute.floats(2), *attribute.integers(3), *attribute.texts(4), *tensors)
    return name, single[0] if single else attribute.floats(7) or attribute.integers(8)


def _tensor(tensor: Message) -> tuple[str, Array]:
    """TensorProto: dims = 1, data_type = 2, float/int32/int64_data = 4, 5, 7, name = 8, raw = 9, data_location = 14."""
    name, dims, kinds = tensor.text(8), tensor.integers(1), tensor.integers(2)
    if not kinds or kinds[0] not in DTYPES:
        raise MalformedError(f"a tensor of the data type {[*kinds, 0][0]}, which is not known")
    dtype = np.dtype(DTYPES[kinds[0]]).newbyteorder("<")
    if _EXTERNAL in tensor.integers(14):
        raise MalformedError("its weights are in another file; export it as one file")
    if raw := tensor.contents(9):
        array = np.frombuffer(raw[0], dtype)
    else:
        numbers = tensor.floats(4) or tensor.integers(5) or tensor.integers(7)
        # FP16 is there by its bits, as integers.
        array = np.array(numbers, np.uint16).view(dtype) if dtype == np.float16 else np.array(numbers, dtype)
    if array.size != np.prod(dims, dtype=np.int64):
        raise MalformedError(f"tensor {name} holds {array.size} numbers, expected the shape {list(dims)}")
    return name, array.reshape(dims)


def _constant(node: OnnxNode) -> Array:
    """The value of a Constant node, which has exactly one attribute."""
    (value,) = node.attributes.values()
    if isinstance(value, str):
        raise MalformedError(f"constant {node.outputs[0]} is a text")
    if isinstance(value, np.ndarray):
        return value
    is_float = isinstance(value, float) or (
        isinstance(value, tuple) and value and isinstance(value[0], float)
    )
    return np.array(value, np.float32 if is_float else np.int64)
