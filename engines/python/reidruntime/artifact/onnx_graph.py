"""The nodes and weights of an ONNX file, read without the onnx package. Field numbers are those of ``onnx.proto``."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.onnx_metadata import DTYPES
from reidruntime.artifact.protobuf import (
    Fields,
    MalformedError,
    contents,
    fields,
    floats,
    integers,
    messages,
    text,
    texts,
)
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
        data = path.read_bytes()
        return _model(data)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Expected an ONNX file.") from error
    except (MalformedError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise ArtifactError(
            f"{path}: not an ONNX graph that can be read here: {error}. Use backend onnxruntime, or export it again."
        ) from error


def _model(data: bytes) -> OnnxGraph:
    """ModelProto: graph = 7, opset_import = 8 {domain = 1, version = 2}; GraphProto: node = 1, initializer = 5."""
    model = fields(data, range(len(data)))
    nodes: list[OnnxNode] = []
    constants: dict[str, Array] = {}
    for graph in messages(data, model[7]):
        for node in (_node(data, found) for found in messages(data, graph[1])):
            if node.op == "Constant":
                constants[node.outputs[0]] = _constant(node)
            else:
                nodes.append(node)
        constants.update(_tensor(data, found) for found in messages(data, graph[5]))
    opsets = [
        version
        for imported in messages(data, model[8])
        if text(data, imported[1]) in _OWN_DOMAINS
        for version in integers(data, imported[2])
    ]
    return OnnxGraph(tuple(nodes), constants, max(opsets, default=0))


def _node(data: bytes, found: Fields) -> OnnxNode:
    """NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7."""
    op, domain = text(data, found[4]), text(data, found[7])
    if domain not in _OWN_DOMAINS:
        raise MalformedError(f"operator {op} is of the domain {domain}, only ONNX's own are known")
    attributes = dict(_attribute(data, each) for each in messages(data, found[5]))
    return OnnxNode(op, text(data, found[3]), texts(data, found[1]), texts(data, found[2]), attributes)


def _attribute(data: bytes, found: Fields) -> tuple[str, Attribute]:
    """AttributeProto: name = 1, f = 2, i = 3, s = 4, t = 5, floats = 7, ints = 8."""
    name = text(data, found[1])
    if found.keys() & {6, 9, 10, 11}:  # graphs, and lists of texts, tensors and graphs
        raise MalformedError(f"attribute {name} holds a subgraph or a list of objects")
    single = (
        *floats(data, found[2]),
        *integers(data, found[3]),
        *texts(data, found[4]),
        *(_tensor(data, each)[1] for each in messages(data, found[5])),
    )
    return name, single[0] if single else floats(data, found[7]) or integers(data, found[8])


def _tensor(data: bytes, found: Fields) -> tuple[str, Array]:
    """TensorProto: dims = 1, data_type = 2, float/int32/int64_data = 4, 5, 7, name = 8, raw = 9, data_location = 14."""
    name, dims, kinds = text(data, found[8]), integers(data, found[1]), integers(data, found[2])
    if not kinds or kinds[0] not in DTYPES:
        raise MalformedError(f"a tensor of the data type {[*kinds, 0][0]}, which is not known")
    dtype = np.dtype(DTYPES[kinds[0]]).newbyteorder("<")
    if _EXTERNAL in integers(data, found[14]):
        raise MalformedError("its weights are in another file; export it as one file")
    if raw := contents(data, found[9]):
        array = np.frombuffer(raw[0], dtype)
    else:
        numbers = floats(data, found[4]) or integers(data, found[5]) or integers(data, found[7])
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
