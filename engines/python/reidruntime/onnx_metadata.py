"""What an ONNX file says about itself, read without the onnx package.

A reader of protobuf's wire format that steps over the weights: only the pages of the file that hold names,
shapes and metadata are touched, however large it is. Field numbers are those of ``onnx.proto``.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reidruntime.errors import ArtifactError
from reidruntime.manifest import METADATA_KEY, Manifest, Precision, manifest_from_json

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
Shape = tuple[int | None, ...]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxTensor:
    """A graph input or output; a dynamic dimension is None, and so is a shape that is not stated."""

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True)
class OnnxFile:
    """The parts of an ONNX file that a runtime checks before it loads the file.

    ``precision`` is that of most of its floating-point initializers: ``"fp16"`` or ``"fp32"``.
    """

    producer: tuple[str, str]
    metadata: dict[str, str]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    precision: Precision


class _MalformedError(Exception):
    """The bytes are not protobuf, or end in the middle of a field."""


def read_onnx(path: Path) -> OnnxFile:
    """Read producer, metadata, inputs and outputs of an ONNX file; initializers are not inputs.

    Raises:
        ArtifactError: the file is missing, empty, cut, or not an ONNX model.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ArtifactError(f"{path}: the file is empty. Export it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _model(data)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Expected an ONNX file.") from error
    except (_MalformedError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path}: not an ONNX model, or not all of it ({error}). Copy or export the file again."
        ) from error


def shape_text(shape: Shape | None) -> str:
    """A shape for people: ``[batch, 3, 256, 128]``."""
    if shape is None:
        return "of unknown shape"
    sizes = ["?" if size is None else str(size) for size in shape]
    return "[" + ", ".join(["batch", *sizes[1:]] if shape[:1] == (None,) else sizes) + "]"


def metadata_from_onnx(path: Path) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX file; raises ArtifactError as :func:`read_onnx` does."""
    return read_onnx(path).metadata


def manifest_from_onnx(path: str | Path) -> Manifest | None:
    """The manifest that an ONNX file carries, or None for a file that some other program wrote.

    Raises:
        ArtifactError: the file is not an ONNX model, or its manifest is not valid.
    """
    text = metadata_from_onnx(Path(path)).get(METADATA_KEY)
    return None if text is None else manifest_from_json(text, str(path))


def _model(data: mmap.mmap) -> OnnxFile:
    fields = list(_fields(data, range(len(data))))
    graphs = [_span(value) for number, value in fields if number == 7]
    if len(graphs) != 1:
        raise _MalformedError("it holds no graph")
    entries = [_strings(data, _span(value)) for number, value in fields if number == 14]
    producer = {number: _text(data, value) for number, value in fields if number in (2, 3)}
    graph = list(_fields(data, graphs[0]))
    stored = dict(_initializer(data, _span(value)) for number, value in graph if number == 5)
    dtypes = list(stored.values())
    inputs = [_tensor(data, _span(value)) for number, value in graph if number == 11]
    return OnnxFile(
        producer=(producer.get(2, ""), producer.get(3, "")),
        metadata={entry.get(1, ""): entry.get(2, "") for entry in entries},
        inputs=tuple(tensor for tensor in inputs if tensor.name not in stored),
        outputs=tuple(_tensor(data, _span(value)) for number, value in graph if number == 12),
        precision="fp16" if dtypes.count("float16") > dtypes.count("float32") else "fp32",
    )


def _initializer(data: mmap.mmap, span: range) -> tuple[str, str]:
    """TensorProto: data_type = 2, name = 8."""
    name, dtype = "", "unknown"
    for number, value in _fields(data, span):
        if number == 8:
            name = _text(data, value)
        elif number == 2 and isinstance(value, int):
            dtype = _DTYPES.get(value, "unknown")
    return name, dtype


def _tensor(data: mmap.mmap, span: range) -> OnnxTensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    name, dtype, shape = "", "unknown", None
    for number, value in _fields(data, span):
        if number == 1:
            name = _text(data, value)
        for kind, tensor_type in _fields(data, _span(value)) if number == 2 else ():
            for part, content in _fields(data, _span(tensor_type)) if kind == 1 else ():
                if part == 1:
                    dtype = _DTYPES.get(content, "unknown") if isinstance(content, int) else "unknown"
                elif part == 2:
                    shape = tuple(_dimension(data, _span(dim)) for _, dim in _fields(data, _span(content)))
    return OnnxTensor(name, dtype, shape)


def _dimension(data: mmap.mmap, span: range) -> int | None:
    """A fixed size; None for a named, absent or negative one."""
    sizes = [value for number, value in _fields(data, span) if number == 1 and isinstance(value, int)]
    return sizes[0] if sizes and 0 < sizes[0] < 1 << 63 else None


def _strings(data: mmap.mmap, span: range) -> dict[int, str]:
    return {number: _text(data, value) for number, value in _fields(data, span)}


def _text(data: mmap.mmap, value: int | range) -> str:
    span = _span(value)
    return data[span.start : span.stop].decode()


def _span(value: int | range) -> range:
    if isinstance(value, int):
        raise _MalformedError("a number where a message is expected")
    return value


def _fields(data: mmap.mmap, span: range) -> Iterator[tuple[int, int | range]]:
    """Field number and value of every field of a message: a number, or where its bytes lie."""
    position, end = span.start, span.stop
    while position < end:
        key, position = _varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = _varint(data, position, end)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise _MalformedError(f"byte {position} is not the start of a field")
        if size > end - position:
            raise _MalformedError(f"it ends within a field, at byte {end}")
        yield number, range(position, position + size)
        position += size


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _MalformedError(f"it ends within a number, at byte {end}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError(f"byte {position} is not part of a number")
