"""Records of ``reidexport inspect``: what a file is. The kind of the record is that of the file."""

from typing import Any, ClassVar, Literal

from reidruntime.artifact.manifest import Feature, Manifest, Metric, Origin, Preprocess

from reidexport.records.base import MaybeInfinite, Record, RecordPart


class Fit(RecordPart):
    """How well a configuration of a network fits what its BatchNorms recorded.

    Attributes:
        changed: the facts that differ from what is assumed, each with the option that states it; none: as assumed.
        num_images: how many images it saw; those that are far off see fewer.
        divergence: symmetric Kullback-Leibler divergence of recorded and measured Gaussians: the median over the
            channels of a BatchNorm, the mean over all BatchNorms; 0 where they are the same.
        stem: that of the first BatchNorm.
        neck: that of the neck's; None where it has none.
    """

    changed: tuple[str, ...]
    num_images: int
    divergence: MaybeInfinite
    stem: MaybeInfinite
    neck: MaybeInfinite | None


class Evidence(RecordPart):
    """What images say of the facts that are assumed of a checkpoint.

    Attributes:
        num_images: real crops.
        fits: the configurations: first what is assumed, or what fits clearly better; then by divergence, those that saw
            all images before the others.
        warnings: that another configuration fits clearly better, or that none fits.
    """

    num_images: int
    fits: tuple[Fit, ...]
    warnings: tuple[str, ...]


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
        architecture: the fields of :class:`reidexport.models.baseline.BaselineArchitecture`.
        feature: what its project answers, behind the neck (f_i) or before it (f_t).
        facts: everything that decides its answers, in words.
        origins: where each comes from: "read" from the file, "told", "assumed" as in its project, or also "tested".
        assumed: what was assumed because the file does not show it, each with the option that sets it.
        lookalikes: other networks that have the same names and shapes.
        evidence: what images say of the assumptions, where images were given.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    family: str
    layout: str
    architecture: dict[str, Any]
    feature: Feature
    num_parameters: int
    preprocess: Preprocess
    facts: dict[str, str]
    origins: dict[str, Origin]
    assumed: tuple[str, ...]
    lookalikes: str
    evidence: Evidence | None


class OnnxDescription(FileDescription):
    """An ONNX file; its ``manifest`` is None where another exporter wrote it.

    Attributes:
        exporter: the project that it is taken for an export of, where it has no manifest and is recognized.
        images: what is then known of the images that it takes, in words.
        problems: why it cannot be opened: weights that are not beside it, nodes in training mode.
    """

    kind: Literal["onnx"] = "onnx"
    opset: int | None
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    manifest: Manifest | None
    exporter: str | None = None
    images: tuple[str, ...] = ()
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
