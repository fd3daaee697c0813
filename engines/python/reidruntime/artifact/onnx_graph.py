"""The nodes and weights of an ONNX file, read without the onnx package. Field numbers are those of ``onnx.proto``."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.protobuf import MalformedError, fields, span_of, text_of, varint
from reidruntime.errors import ArtifactError

Array = NDArray[np.generic]
Attribute = Any  # int, float, str, a tuple of int or of float, or an array
_DTYPES: dict[int, str] = {
    1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
}  # fmt: skip
_EXTERNAL = 1


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
    except (MalformedError, UnicodeDecodeError, struct.error) as error:
        raise ArtifactError(
            f"{path}: not an ONNX graph that can be read here: {error}. Use backend onnxruntime, or export it again."
        ) from error


def _model(data: bytes) -> OnnxGraph:
    """ModelProto: graph = 7, opset_import = 8 {domain = 1, version = 2}; GraphProto: node = 1, initializer = 5."""
    nodes: list[OnnxNode] = []
    constants: dict[str, Array] = {}
    opset = 0
    for number, value in fields(data, range(len(data))):
        if number == 8:
            imported = dict(fields(data, span_of(value)))
            domain, version = imported.get(1), imported.get(2)
            if (domain is None or text_of(data, domain) in ("", "ai.onnx")) and isinstance(version, int):
                opset = version
        for kind, content in fields(data, span_of(value)) if number == 7 else ():
            if kind == 1:
                node = _node(data, span_of(content))
                if node.op == "Constant":
                    constants[node.outputs[0]] = _constant(node)
                else:
                    nodes.append(node)
            elif kind == 5:
                name, array = _tensor(data, span_of(content))
                constants[name] = array
    return OnnxGraph(tuple(nodes), constants, opset)


def _node(data: bytes, span: range) -> OnnxNode:
    """NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7."""
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    for number, value in fields(data, span):
        if number in texts:
            texts[number].append(text_of(data, value))
        elif number == 5:
            name, attribute = _attribute(data, span_of(value))
            attributes[name] = attribute
    op, domain = "".join(texts[4]), "".join(texts[7])
    if domain not in ("", "ai.onnx"):
        raise MalformedError(f"operator {op} is of the domain {domain}, only ONNX's own are known")
    return OnnxNode(op, "".join(texts[3]), tuple(texts[1]), tuple(texts[2]), attributes)


def _attribute(data: bytes, span: range) -> tuple[str, Attribute]:
    """AttributeProto: name = 1, f = 2, i = 3, s = 4, t = 5, floats = 7, ints = 8."""
    name = ""
    single: Attribute | None = None
    floats: list[float] = []
    ints: list[int] = []
    for number, value in fields(data, span):
        if number == 1:
            name = text_of(data, value)
        elif number == 2:
            single = _floats(data, span_of(value))[0]
        elif number == 3 and isinstance(value, int):
            single = _signed(value)
        elif number == 4:
            single = text_of(data, value)
        elif number == 5:
            single = _tensor(data, span_of(value))[1]
        elif number == 7:
            floats += _floats(data, span_of(value))
        elif number == 8:
            ints += _ints(data, value)
        elif number in (6, 9, 10, 11):  # graphs, and lists of texts, tensors and graphs
            raise MalformedError(f"attribute {name} holds a subgraph or a list of objects")
    return name, tuple(floats) or tuple(ints) if single is None else single


def _tensor(data: bytes, span: range) -> tuple[str, Array]:
    """TensorProto: dims = 1, data_type = 2, float/int32/int64_data = 4, 5, 7, name = 8, raw = 9, data_location = 14."""
    name, dtype = "", np.dtype("V1")
    dims: list[int] = []
    numbers: list[float] = []
    raw: bytes | None = None
    for number, value in fields(data, span):
        if number == 1:
            dims += _ints(data, value)
        elif number == 2 and isinstance(value, int):
            if value not in _DTYPES:
                raise MalformedError(f"a tensor of the data type {value}, which is not known")
            dtype = np.dtype(_DTYPES[value])
        elif number == 4:
            numbers += _floats(data, span_of(value))
        elif number in (5, 7):
            numbers += _ints(data, value)
        elif number == 8:
            name = text_of(data, value)
        elif number == 9:
            raw = data[span_of(value).start : span_of(value).stop]
        elif number == 14 and value == _EXTERNAL:
            raise MalformedError("its weights are in another file; export it as one file")
    if raw is None and dtype == np.float16:  # its bits, as integers
        raw = np.array(numbers, np.uint16).tobytes()
    array = np.array(numbers, dtype) if raw is None else np.frombuffer(raw, dtype)
    if array.size != np.prod(dims, dtype=np.int64):
        raise MalformedError(f"tensor {name} holds {array.size} numbers, expected the shape {dims}")
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


def _floats(data: bytes, span: range) -> list[float]:
    """One float, or many packed."""
    return list(struct.unpack(f"<{len(span) // 4}f", data[span.start : span.stop]))


def _ints(data: bytes, value: int | range) -> list[int]:
    """One number, or many packed."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], value.start
    while position < value.stop:
        number, position = varint(data, position, value.stop)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
