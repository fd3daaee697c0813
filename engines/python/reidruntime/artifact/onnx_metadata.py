"""What an ONNX file states about itself, read without the onnx package.

The weights are stepped over: only the pages of the file that hold names, shapes and metadata are touched, however
large it is. Field numbers are those of ``onnx.proto``.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Precision, manifest_from_json
from reidruntime.artifact.onnx_hazards import external_files, training_nodes
from reidruntime.artifact.onnx_start import Step, first_arithmetic
from reidruntime.artifact.protobuf import MalformedError, Message
from reidruntime.errors import ArtifactError

# TensorProto's data types.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
}  # fmt: skip
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

    ``precision`` is that of most of its floating-point initializers: ``"fp16"`` or ``"fp32"``. ``external`` names the
    files beside it that hold weights, with the bytes that each must have; ``training`` names the nodes that compute as
    in training.
    """

    producer: tuple[str, str]
    metadata: dict[str, str]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    precision: Precision
    external: dict[str, int]
    training: tuple[str, ...]
    operators: frozenset[str] = frozenset()
    start: tuple[Step, ...] = ()


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
                return _file(Message(data))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Expected an ONNX file.") from error
    except (MalformedError, UnicodeDecodeError) as error:
        if _looks_like_a_checkpoint(path):
            raise ArtifactError(
                f"{path}: this is a checkpoint, not an ONNX model. Export it first: reidexport onnx {path}"
            ) from error
        raise ArtifactError(
            f"{path}: not an ONNX model, or not all of it ({error}). Copy or export the file again."
        ) from error


def _looks_like_a_checkpoint(path: Path) -> bool:
    """Whether a file begins as those of ``torch.save`` (zip, pickle) or safetensors do."""
    with path.open("rb") as file:
        head = file.read(10)
    return head.startswith((b"PK\x03\x04", b"\x80\x02")) or head[8:] == b'{"'


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


def _file(model: Message) -> OnnxFile:
    """ModelProto: producer_name = 2, producer_version = 3, graph = 7, metadata_props = 14 {key = 1, value = 2}."""
    graphs = model.messages(7)
    if len(graphs) != 1:
        raise MalformedError("it has no graph")
    # TensorProto: data_type = 2, name = 8.
    stored = {tensor.text(8): _dtype(tensor, 2) for tensor in graphs[0].messages(5)}
    dtypes = list(stored.values())
    inputs = tuple(tensor for tensor in map(_tensor, graphs[0].messages(11)) if tensor.name not in stored)
    return OnnxFile(
        producer=(model.text(2), model.text(3)),
        metadata={each.text(1): each.text(2) for each in model.messages(14)},
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in graphs[0].messages(12)),
        precision="fp16" if dtypes.count("float16") > dtypes.count("float32") else "fp32",
        external=external_files(model),
        training=training_nodes(model),
        operators=frozenset(node.text(4) for node in graphs[0].messages(1)),
        start=first_arithmetic(graphs[0], inputs[0].name) if len(inputs) == 1 else (),
    )


def _tensor(value: Message) -> OnnxTensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    dtype, shape = "unknown", None
    for about in value.messages(2):
        for tensor_type in about.messages(1):
            dtype = _dtype(tensor_type, 1)
            for dims in tensor_type.messages(2):
                shape = tuple(_dimension(dim) for dim in dims.messages(1))
    return OnnxTensor(value.text(1), dtype, shape)


def _dtype(message: Message, number: int) -> str:
    return DTYPES.get(next(iter(message.integers(number)), 0), "unknown")


def _dimension(dim: Message) -> int | None:
    """A fixed size; None for a named, absent or negative one."""
    return next((size for size in dim.integers(1) if size > 0), None)
