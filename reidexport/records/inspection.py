"""Records of ``reidexport inspect``: what a file is. The kind of the record is that of the file."""

from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Manifest, Preprocess

from reidexport.records.base import Record


class FileDescription(Record):
    """What is known of every file."""

    command: ClassVar[str] = "reidexport inspect FILE --json"

    file: str
    size_mib: float
    sha256: str


class CheckpointDescription(FileDescription):
    """A checkpoint.

    Attributes:
        family: the project whose conventions it follows.
        layout: how the file holds the weights, in words.
        backbone: this and the next eight are those of :class:`reidexport.models.baseline.BaselineArchitecture`.
        assumed: what was assumed because the weights do not show it, each with the option that sets it.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    family: str
    layout: str
    backbone: str
    last_stride: Literal[1, 2] | None
    stem_relu: bool
    stem_pool: str
    non_local: bool
    pooling: str
    neck: str
    feature_dim: int
    num_classes: int
    num_parameters: int
    preprocess: Preprocess
    assumed: tuple[str, ...]


class OnnxDescription(FileDescription):
    """An ONNX file; its ``manifest`` is None where another exporter wrote it.

    ``problems`` says why it cannot be opened: weights that are not beside it, nodes in training mode.
    """

    kind: Literal["onnx"] = "onnx"
    opset: int | None
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    manifest: Manifest | None
    problems: tuple[str, ...] = ()


class EngineDescription(FileDescription):
    """An engine; its ``manifest`` is None where none is beside it."""

    kind: Literal["engine"] = "engine"
    manifest: Manifest | None
