"""Records of ``reidexport inspect``: what a file is. The kind of the record is that of the file."""

from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Manifest, Metric, Origin, Preprocess

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
        backbone: this and the next nine are those of :class:`reidexport.models.baseline.BaselineArchitecture`.
        origins: where each fact comes from: "read" from the file, "told", or "assumed" as in its project.
        assumed: what was assumed because the file does not show it, each with the option that sets it.
        lookalikes: other networks that have the same names and shapes.
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
    batch_norm_eps: float | None
    num_parameters: int
    preprocess: Preprocess
    origins: dict[str, Origin]
    assumed: tuple[str, ...]
    lookalikes: str


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


class GalleryDescription(FileDescription):
    """Embeddings: a gallery, a ``.npz`` or a Parquet file.

    Attributes:
        num_rows: embeddings.
        dim: numbers in each.
        metric: how they are compared.
        num_persons: different persons, junk and distractors left out.
        num_cameras: different cameras.
        num_unnamed: embeddings whose person is not known.
        num_timed: embeddings whose time is known.
        manifest_sha256: of the artifact that made them; None where that is not known.
    """

    kind: Literal["gallery"] = "gallery"
    num_rows: int
    dim: int
    metric: Metric
    num_persons: int
    num_cameras: int
    num_unnamed: int
    num_timed: int
    manifest_sha256: str | None
