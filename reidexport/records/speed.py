"""Records about time and memory."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PositiveFloat

from reidexport.records.accuracy import Ranks
from reidexport.records.base import Measurement, RecordPart


class Spread(RecordPart):
    """The median of several rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float


class Ratio(Spread):
    """A spread that has a place on a logarithmic axis."""

    median: PositiveFloat
    lowest: PositiveFloat
    highest: PositiveFloat


class BatchTiming(RecordPart):
    """The network alone, pixels in memory to features: percentiles over ``repeats`` runs of a batch."""

    batch_size: int
    repeats: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float


class EndToEnd(RecordPart):
    """From image files to features, beside the network alone at the same batch size."""

    num_images: int
    batch_size: int
    seconds: float
    images_per_s: float
    net_images_per_s: float
    share_of_net: float


class BenchReport(Measurement):
    """How fast a session answers; ``warnings`` names what makes the figures doubtful.

    Attributes:
        artifact: its path; empty where only its session is known.
        session: its description.
        end_to_end: None without files, and on a busy machine, where a warning reports what was measured.
    """

    command: ClassVar[str] = "reidexport bench ARTIFACT --images DIR --json FILE"
    timed_region: ClassVar[str] = (
        "the network alone: from pixels in memory to features; end to end: from image files to features"
    )

    kind: Literal["bench"] = "bench"
    artifact: str = ""
    session: str
    batches: tuple[BatchTiming, ...]
    end_to_end: EndToEnd | None
    warnings: tuple[str, ...]


class BenchmarkRow(RecordPart):
    """One comparison with peers. A row may hold more figures, of its question alone.

    Attributes:
        name: what was measured, in words.
        timed: what is inside the times.
        seconds: of each side; or
        peak_mib: of each side.
        ratios: how many times ours each peer takes, or a text that says why that is not given.
        artifact: its file's name, where the row is about one; so are the other fields from here on.
        in_memory_of: the device that pixels and features are on, where they are not copied.
        limit_images_per_s: what the machine's arithmetic would allow.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    timed: str
    seconds: dict[str, Spread] = Field(default_factory=dict)
    peak_mib: dict[str, Spread] = Field(default_factory=dict)
    ratios: dict[str, Ratio] | str
    artifact: str | None = None
    backend: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    in_memory_of: str | None = None
    images_per_s: float | None = None
    limit_images_per_s: float | None = None
    share_of_limit: float | None = None


class Benchmark(Measurement):
    """The rows of one question.

    Attributes:
        is_busy: whether a row has no ratios, as other programs disturbed it.
        left_out: the tests that were skipped, by the reason.
    """

    command: ClassVar[str] = "pytest benchmarks --artifact FILE --data ROOT --results DIR"

    kind: Literal["benchmark"] = "benchmark"
    question: str
    is_busy: bool = False
    left_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    rows: tuple[BenchmarkRow, ...] = ()

    @property
    def timed_regions(self) -> tuple[str, ...]:
        """Those of its rows."""
        return tuple(dict.fromkeys(row.timed for row in self.rows))


class PrecisionScores(Ranks):
    """Accuracies of one precision on a data set; ``drops`` of rank1 and mAP against torch, in percentage points."""

    dataset: str
    runtime: str
    drops: dict[str, float]


class ExportedPrecision(RecordPart):
    """One precision of a checkpoint, with ``scores`` where a data set was given."""

    name: str
    size_mib: float
    layer_precisions: dict[str, int]
    quantization: dict[str, Any] | None
    scores: PrecisionScores | None = None


class PrecisionSpeed(RecordPart):
    """One precision on one runtime at one batch size; ``times_torch``: how many times as fast as torch eager."""

    batch_size: int
    precision: str
    runtime: str
    p50_ms: float
    images_per_s: float
    times_torch: Ratio


class PrecisionsRecord(Measurement):
    """What each precision costs and gains; ``disturbed`` says why batch sizes are left out of ``speed``."""

    command: ClassVar[str] = (
        "python -m benchmarks.precisions CHECKPOINT --calibration DIR --data ROOT --json FILE"
    )
    timed_region: ClassVar[str] = (
        "Session.run: uint8 pixels in memory to float32 features, without decoding and resizing"
    )

    kind: Literal["precisions"] = "precisions"
    checkpoint: str
    architecture: str
    precisions: tuple[ExportedPrecision, ...]
    speed: tuple[PrecisionSpeed, ...]
    disturbed: dict[int, str]


class ZooNetwork(RecordPart):
    """One network of a project, as it is exported.

    Attributes:
        project: whose checkpoints it is in.
        case: the golden vectors that it is checked against (tests/golden).
        backbone: its name here.
        feature: that its project's test code takes.
        feature_dim: of that feature.
        size_mib: of the FP32 file.
        gflop: operations of an image, two for each multiply-add, in 1e9.
        images_per_s: of each precision, in batches of ``batch_size``.
        refused: why a precision is missing.
    """

    project: str
    case: str
    backbone: str
    height_px: int
    width_px: int
    feature: str
    feature_dim: int
    size_mib: float
    gflop: float
    batch_size: int
    images_per_s: dict[str, float]
    refused: dict[str, str]


class ZooRecord(Measurement):
    """Networks that are read, with weights drawn for the purpose: speed and size do not depend on them."""

    command: ClassVar[str] = "python -m benchmarks.zoo FILE"
    timed_region: ClassVar[str] = PrecisionsRecord.timed_region

    kind: Literal["zoo"] = "zoo"
    networks: tuple[ZooNetwork, ...]


class OverheadRecord(Measurement):
    """The C++ runtime beside the bare network; ``overhead`` is a share of the bare call."""

    command: ClassVar[str] = "reid_overhead ARTIFACT --onnxruntime LIB --json FILE"
    timed_region: ClassVar[str] = (
        "the same prepared input through the bare network and through the C++ runtime, in turns"
    )

    kind: Literal["overhead"] = "overhead"
    artifact: str
    session: str
    batch_size: int
    rounds: int
    pairs_per_round: int
    bare_p50_ms: float
    reid_embed_p50_ms: float
    overhead: float
    overhead_of_rounds: tuple[float, ...]


class RequestSpeed(RecordPart):
    """What one side of a comparison answered, in all its turns."""

    batch_size: int
    num_answered: int
    p50_ms: float
    p99_ms: float
    images_per_s: Spread


class RequestAnswers(RecordPart):
    """What became of the requests, and how far the answers are from the session's own."""

    num_requests: int
    num_answered: int
    failures: tuple[str, ...]
    num_bit_equal: int
    max_difference: float
    max_relative_l2: float


class ServingRecord(Measurement):
    """A server under load, beside the session without it.

    Attributes:
        batch_size: images in a request.
        max_batch: images that the server runs together.
        instances: batches that the server runs at a time.
        seconds: for the clients, in all turns together.
        direct: the session, with batches of the requests' size; ``direct_at_max_batch``: of the server's.
        others_cpu_share: what other processes took of the CPU time, where the system says it.
    """

    command: ClassVar[str] = "python -m benchmarks.serving ARTIFACT --json FILE"
    timed_region: ClassVar[str] = (
        "pixels in memory to features in memory, by gRPC on the same machine, and by Session.run"
    )

    kind: Literal["serving"] = "serving"
    artifact: str
    artifact_sha256: str | None
    manifest_sha256: str
    runtime: str
    num_clients: int
    batch_size: int
    max_batch: int
    instances: int
    seconds: float
    direct: RequestSpeed
    direct_at_max_batch: RequestSpeed
    served: RequestSpeed
    share_of_direct: Spread
    share_of_direct_at_max_batch: Spread
    answers: RequestAnswers
    others_cpu_share: float | None
