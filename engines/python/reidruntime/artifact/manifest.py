"""The manifest: everything a runtime must know about an artifact before it feeds it a pixel.

In ONNX it lives in ``metadata_props`` under the key ``reidexport.manifest``; beside a TensorRT engine
it is a file of its own, ``NAME.engine.json``.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from reidruntime.errors import ArtifactError

FORMAT_VERSION: Final = 1
METADATA_KEY = "reidexport.manifest"

Feature = Literal["f_i", "f_t"]
Metric = Literal["cosine", "euclidean"]
Precision = Literal["fp32", "fp16", "int8"]
Layout = Literal["NHWC", "NCHW"]
ChannelOrder = Literal["RGB", "BGR"]
ResizeKernel = Literal["bilinear", "bicubic"]
StemPool = Literal["padded", "padded-ceil", "valid", "ceil", "2x2", "none"]
Pooling = Literal["avg", "max", "gem"]
Origin = Literal["read", "told", "tested", "assumed"]
Flavor = Literal["tensorrt", "rtx"]
QuantizationTarget = Literal["cpu", "tensorrt"]
RangeMethod = Literal["min-max", "percentile-99.99", "percentile-99.999", "least-squares"]
Channels3 = tuple[float, float, float]
IMAGENET_MEAN: Channels3 = (0.485, 0.456, 0.406)  # of its pixels in [0, 1]
IMAGENET_STD: Channels3 = (0.229, 0.224, 0.225)
PositiveInt = Annotated[int, Field(gt=0)]


VersionedModel = TypeVar("VersionedModel", bound="FrozenModel")


class FrozenModel(BaseModel):
    """Immutable, and strict about unknown keys: a typo must not become a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Fields that earlier versions did not have: left out where they are empty, so that an earlier artifact's manifest
    # keeps its hash, by which files of embeddings know it.
    later_fields: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_empty_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {name: value for name, value in content.items() if value or name not in self.later_fields}


class Producer(FrozenModel):
    """The program that wrote the artifact."""

    name: str
    version: str


class Source(FrozenModel):
    """The checkpoint the artifact was made from: its file name and the sha256 of its bytes.

    ``weights`` is the key of the weights in it, where it holds several sets of them.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset(("weights",))

    name: str
    sha256: str
    weights: str | None = None


class CameraEmbedding(FrozenModel):
    """The camera embedding that a transformer adds to its tokens.

    Attributes:
        count: for how many cameras the network has one.
        camera: whose it adds, from 1; None: nobody's.
        weight: what it is multiplied by; None where none is added.
    """

    count: PositiveInt
    camera: PositiveInt | None = None
    weight: float | None = None


class Architecture(FrozenModel):
    """The network: what ``reidexport inspect`` prints and what a rebuild needs; None where it is not known.

    Attributes:
        stem_pool: max pooling of a ResNet's stem: 3x3 padded by 1 ("padded"; "padded-ceil" with ceil_mode), 3x3
            unpadded ("valid"; "ceil" with ceil_mode), "2x2" or "none".
        pooling: "avg", "max" or "gem"; "unknown" of a third-party file.
        gem_p: the power of "gem".
        batch_norm_eps: what all BatchNorms add to their variances; None: each what its network's code has.
        semantic_weight: of SOLIDER's semantic embedding.
        cameras: the camera embedding, of transformers that have some.
        parts: of a feature of several parts (LightMBN's): each of "unit" length, or "plain".
    """

    later_fields: ClassVar[frozenset[str]] = frozenset(
        (
            "stem_pool",
            "gem_p",
            "batch_norm_eps",
            "semantic_weight",
            "cameras",
            "parts",
        )
    )

    backbone: str
    family: str
    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None
    stem_pool: StemPool | None = None
    pooling: str
    gem_p: float | None = None
    batch_norm_eps: float | None = None
    semantic_weight: float | None = None
    cameras: CameraEmbedding | None = None
    parts: Literal["unit", "plain"] | None = None
    neck: str
    feature_dim: PositiveInt


class TensorSpec(FrozenModel):
    """One graph input or output; ``None`` in ``shape`` is the dynamic batch dimension."""

    name: str
    dtype: str
    shape: tuple[PositiveInt | None, ...]


class ImageInput(FrozenModel):
    """The images that a network takes.

    Attributes:
        height_px: height that the images are resized to; must agree with the file.
        width_px: width, likewise.
        channel_order: the order the network takes, ``"RGB"`` or ``"BGR"``.
        layout: ``"NCHW"`` or ``"NHWC"``. A uint8 input gets the pixels as they are.
        resize: the kernel of the training code.
        mean: per channel, in ``channel_order``, of pixels in [0, 1]. A network that takes raw 0-255 floats
            has mean 0 and std 1/255.
        std: per channel, in ``channel_order``, of pixels in [0, 1].
    """

    height_px: PositiveInt
    width_px: PositiveInt
    channel_order: ChannelOrder = "RGB"
    layout: Layout = "NCHW"
    resize: ResizeKernel = "bilinear"
    mean: Channels3
    std: Annotated[Channels3, Field(description="per channel, of pixels in [0, 1]")]

    @model_validator(mode="after")
    def _std_is_positive(self) -> Self:
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self


class Preprocess(ImageInput):
    """How a decoded image becomes the input tensor.

    ``mean`` and ``std`` are for pixels scaled to [0, 1]. ``in_graph`` true means that the artifact
    takes raw uint8 pixels and scales, subtracts and divides by itself; false means that the runtime does.
    """

    layout: Layout = "NHWC"
    in_graph: bool


class BatchProfile(FrozenModel):
    """Batch sizes the artifact answers: ``maximum`` None means no upper limit, min = max a static batch."""

    minimum: PositiveInt = 1
    optimum: PositiveInt | None = None
    maximum: PositiveInt | None = None

    @property
    def static(self) -> int | None:
        """The one batch size of a static artifact, or None."""
        return self.minimum if self.maximum == self.minimum else None


class LayerCounts(FrozenModel):
    """How many convolution and linear layers compute in each precision, as TensorRT itself reports it.

    ``network`` is what the parser made of the ONNX file, ``plan`` what the inspector found in the finished engine, in
    all its optimization profiles together: None where the building machine could not load it. "unproved" counts the
    layers whose precision the inspector does not report, where the build was allowed to accept them.

    ``kinds`` is the same by kind of layer, normalizations and softmaxes too, of the plan where it could be inspected,
    else of the network.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset(("kinds",))

    network: dict[str, int]
    plan: dict[str, int] | None = None
    kinds: dict[str, dict[str, int]] = {}


class Engine(FrozenModel):
    """What a TensorRT engine is tied to, and what it was built from.

    ``gpu_name``, ``compute_capability`` and ``driver_version`` are None for an RTX engine: it is finished on the GPU
    that loads it. An engine whose ``weights_stripped`` is true needs the ONNX file of ``onnx_sha256`` beside it.
    """

    flavor: Flavor
    tensorrt_version: str
    gpu_name: str | None = None
    compute_capability: str | None = None
    driver_version: str | None = None
    onnx_name: str
    onnx_sha256: str
    plan_sha256: str
    version_compatible: bool = False
    hardware_compatible: bool = False
    weights_stripped: bool = False
    layers: LayerCounts


class Quantization(FrozenModel):
    """How an INT8 network was made, and what it costs.

    ``mean_relative_l2`` is the error of the features against the float32 network's, on images that were not calibrated
    on. ``sensitivity`` is that error when only the named layer is INT8; ``float_layers`` are those left in float32.
    ``image_digits`` are the first 12 hex digits of the sha256 of each image file that it was calibrated or measured on,
    none in files of earlier versions.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset(("image_digits",))

    target: QuantizationTarget
    weight_bits: Literal[7, 8]
    range_method: RangeMethod
    num_calibrated_images: PositiveInt
    num_held_out_images: PositiveInt
    mean_relative_l2: float
    sensitivity: dict[str, float]
    float_layers: tuple[str, ...]
    image_digits: tuple[str, ...] = ()


class Parity(FrozenModel):
    """How far the artifact's answers are from its reference's, as measured when it was written or verified."""

    reference: str
    num_images: PositiveInt
    min_cosine: float
    max_relative_l2: float


class Adaptation(FrozenModel):
    """How a network's BatchNorm statistics were moved towards a site's, before they were folded.

    Attributes:
        num_crops: of the site, that statistics were measured on.
        mix: the site's share in the statistics: 0 keeps the checkpoint's, 1 takes the site's.
        statistics_sha256: of the statistics that were folded: tells two adaptations apart.
    """

    num_crops: PositiveInt
    mix: Annotated[float, Field(gt=0, le=1)]
    statistics_sha256: str


class Manifest(FrozenModel):
    """The facts about one artifact; written once with it and checked by every runtime that opens it."""

    later_fields: ClassVar[frozenset[str]] = frozenset(("origins", "adaptation", "cameras_sha256"))

    format_version: Literal[1] = FORMAT_VERSION
    producer: Producer
    source: Source
    architecture: Architecture
    input: TensorSpec
    output: TensorSpec
    preprocess: Preprocess
    feature: Feature
    normalized: bool
    flip: bool
    metric: Metric
    precision: Precision
    layer_precisions: dict[str, int] = Field(
        description="number of convolution and linear layers per precision"
    )
    batch_profile: BatchProfile
    origins: dict[str, Origin] = Field(
        default={},
        description="where each fact about the network comes from: read from the checkpoint, told by the user, "
        "assumed as in the checkpoint's project, or assumed and tested on images",
    )
    quantization: Quantization | None = None
    engine: Engine | None = None
    parity: Parity | None = None
    adaptation: Adaptation | None = None
    cameras_sha256: str | None = Field(
        default=None, description="of a session: hash of the camera profile that its features are changed by"
    )

    def to_json(self) -> str:
        """The manifest as compact JSON text."""
        return self.model_dump_json()

    @property
    def sha256(self) -> str:
        """Hash of the JSON text: ties a file of embeddings to the exact artifact that made them."""
        return content_sha256(self)


def content_sha256(content: FrozenModel) -> str:
    """Hex sha256 of the compact JSON text."""
    return hashlib.sha256(content.model_dump_json().encode()).hexdigest()


def manifest_from_json(text: str | bytes, origin: str) -> Manifest:
    """Parse and validate a manifest.

    Args:
        text: JSON as written by :meth:`Manifest.to_json`.
        origin: what to call the source in an error message.

    Raises:
        ArtifactError: it is not JSON, is of another format version, or lacks or misspells a field.
    """
    return model_from_json(Manifest, text, origin, "the manifest", "Export the artifact again")


def model_from_json(
    model: type[VersionedModel], text: str | bytes, origin: str, name: str, remedy: str
) -> VersionedModel:
    """Parse and validate the JSON of a model that has a format version.

    Args:
        model: with a ``format_version`` of one value, the default.
        text: JSON.
        origin: what to call the source in an error message.
        name: what the text is.
        remedy: what to do where it cannot be read, without a full stop.

    Raises:
        ArtifactError: it is not JSON, is of another format version, or lacks or misspells a field.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, or nested without end, too
        raise ArtifactError(f"{origin}: {name} is not JSON ({error}). {remedy}.") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != (read := model.model_fields["format_version"].default):
        raise ArtifactError(
            f"{origin}: {name} has format version {version!r:.40}, this reidruntime reads {read}. {remedy}, or install "
            "the reidexport that wrote it."
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ArtifactError(f"{origin}: {name} is not valid: {problems}. {remedy}.") from error


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def engine_manifest_path(engine: Path) -> Path:
    """The manifest file beside a TensorRT engine: ``NAME.engine`` → ``NAME.engine.json``."""
    return engine.with_name(engine.name + ".json")
