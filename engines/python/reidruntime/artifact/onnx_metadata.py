"""What an ONNX file states about itself, read without the onnx package.

The weights are stepped over: only the pages of the file that hold names, shapes and metadata are touched, however
large it is. Field numbers are those of ``onnx.proto``.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Precision, manifest_from_json
from reidruntime.artifact.protobuf import MalformedError, fields, span_of, text_of
from reidruntime.errors import ArtifactError

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
Shape = tuple[int | None, ...]


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
    except (MalformedError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path}: not an ONNX model, or not all of it ({error}). Copy or export the file again."
        ) from error


def shape_text(shape: Shape | None) -> str:
    """A shape for people: ``[batch, 3, 256, 128]``."""
    if shape is None:
        return "of unknown shape"
    sizes = ["?" if size is None else str(size) for size in shape]
    return "[" + ", ".join(["batch", *sizes[1:]] if shape[:1] == (None,) else sizes) + "]"


def manifest_from_onnx(path: str | Path) -> Manifest | None:
    """The manifest that an ONNX file carries, or None for a file that another program wrote.

    Args:
        path: the ONNX file.

    Raises:
        ArtifactError: the file is not an ONNX model, or its manifest is not valid.
    """
    text = read_onnx(Path(path)).metadata.get(METADATA_KEY)
    return None if text is None else manifest_from_json(text, str(path))


def _model(data: mmap.mmap) -> OnnxFile:
    model = list(fields(data, range(len(data))))
    graphs = [span_of(value) for number, value in model if number == 7]
    if len(graphs) != 1:
        raise MalformedError("it has no graph")
    entries = [
        {key: text_of(data, text) for key, text in fields(data, span_of(value))}
        for number, value in model
        if number == 14
    ]
    producer = {number: text_of(data, value) for number, value in model if number in (2, 3)}
    graph = list(fields(data, graphs[0]))
    stored = dict(_initializer(data, span_of(value)) for number, value in graph if number == 5)
    dtypes = list(stored.values())
    inputs = [_tensor(data, span_of(value)) for number, value in graph if number == 11]
    return OnnxFile(
        producer=(producer.get(2, ""), producer.get(3, "")),
        metadata={entry.get(1, ""): entry.get(2, "") for entry in entries},
        inputs=tuple(tensor for tensor in inputs if tensor.name not in stored),
        outputs=tuple(_tensor(data, span_of(value)) for number, value in graph if number == 12),
        precision="fp16" if dtypes.count("float16") > dtypes.count("float32") else "fp32",
    )


def _initializer(data: mmap.mmap, span: range) -> tuple[str, str]:
    """TensorProto: data_type = 2, name = 8."""
    name, dtype = "", "unknown"
    for number, value in fields(data, span):
        if number == 8:
            name = text_of(data, value)
        elif number == 2 and isinstance(value, int):
            dtype = _DTYPES.get(value, "unknown")
    return name, dtype


def _tensor(data: mmap.mmap, span: range) -> OnnxTensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    name, dtype, shape = "", "unknown", None
    for number, value in fields(data, span):
        if number == 1:
            name = text_of(data, value)
        for kind, tensor_type in fields(data, span_of(value)) if number == 2 else ():
            for part, content in fields(data, span_of(tensor_type)) if kind == 1 else ():
                if part == 1:
                    dtype = _DTYPES.get(content, "unknown") if isinstance(content, int) else "unknown"
                elif part == 2:
                    shape = tuple(_dimension(data, span_of(dim)) for _, dim in fields(data, span_of(content)))
    return OnnxTensor(name, dtype, shape)


def _dimension(data: mmap.mmap, span: range) -> int | None:
    """A fixed size; None for a named, absent or negative one."""
    sizes = [value for number, value in fields(data, span) if number == 1 and isinstance(value, int)]
    return sizes[0] if sizes and 0 < sizes[0] < 1 << 63 else None
