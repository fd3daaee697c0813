"""Records about answers: scores, verification, parity. Accuracies are fractions, drops are percentage points."""

from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Feature, Metric, Precision

from reidexport.records.base import MaybeInfinite, Measurement, RecordPart

# A file's precision, or that of a backend which computes every file in its own.
ComputedPrecision = Precision | Literal["bf16"]


class Ranks(RecordPart):
    """Accuracies."""

    rank1: float
    rank5: float
    rank10: float
    mAP: float
    mINP: float

    def drops_from(self, reference: "Ranks") -> dict[str, float]:
        """What each is below a reference's, in percentage points."""
        return {name: 100 * (getattr(reference, name) - getattr(self, name)) for name in Ranks.model_fields}


class OperatingPoint(RecordPart):
    """A threshold and what passes it.

    Attributes:
        fpr: the share of impostors that may pass.
        tpr: the share of genuine pairs that do.
        threshold: the largest distance that passes; no larger one keeps within ``fpr``.
        num_false: impostors that pass; equal distances pass together or not at all, so it can be less than allowed.
    """

    fpr: float
    tpr: float
    threshold: float
    num_false: int


class Roc(RecordPart):
    """The shares of impostors and of genuine pairs that pass one threshold after another."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class EvaluationRecord(Ranks, Measurement):
    """The scores of one artifact on one data set.

    Attributes:
        artifact: its path, as it was given.
        runtime: the session's description.
        rerank: whether by k-reciprocal neighbors.
        same_camera: whether gallery images of a query's person by the query's own camera were dropped or kept.
        num_query_without_match: of the queries; they count in no score.
        num_distractor: of the gallery.
        num_junk: images of the gallery that were left out.
        operating_points: with ``--thresholds``; so is ``roc``, see
            :class:`reidexport.metrics.thresholds.VerificationRoc`.
        warnings: what makes the scores or the thresholds doubtful.
    """

    command: ClassVar[str] = "reidexport eval ARTIFACT --data ROOT --json FILE"

    kind: Literal["eval"] = "eval"
    artifact: str
    manifest_sha256: str
    precision: Precision
    feature: Feature
    runtime: str
    dataset: str
    metric: Metric
    rerank: bool
    same_camera: Literal["drop", "keep"] = "drop"
    num_query: int
    num_query_without_match: int
    num_gallery: int
    num_distractor: int
    num_junk: int
    operating_points: tuple[OperatingPoint, ...] = ()
    roc: Roc | None = None
    warnings: tuple[str, ...] = ()


class WorstImage(RecordPart):
    """An image and the cosine between its two features."""

    image: str
    cosine: float


class VerificationLimits(RecordPart):
    """What a candidate may lose.

    Attributes:
        precision: that the candidate computes in, whose limits these are where no other was chosen.
        min_cosine: of any image.
        min_mean_cosine: of all images.
        max_rank1_drop: percentage points.
        max_map_drop: percentage points.
        max_batch_change: relative L2 by which a row may differ between batches: kernels differ by batch size in their
            rounding.
    """

    precision: ComputedPrecision
    min_cosine: float
    min_mean_cosine: float
    max_rank1_drop: float
    max_map_drop: float
    max_batch_change: float


class Verification(Measurement):
    """What was compared and found; ``failures`` is empty when the candidate passes.

    Attributes:
        artifact: the candidate's path; empty where only its session is known.
        reference_file: the reference's, likewise.
        candidate: the session's description.
        reference: likewise.
        measured_on: which images; empty in records of earlier versions.
        max_relative_l2: infinite where a feature is not finite, or only the reference's is of zeros; so are
            ``max_abs_error`` and ``batch_consistency``.
        batch_consistency: largest relative L2 difference of a row between being alone and being
            ``duplicated``, ``permuted`` and in a ``full_batch``.
        top1_agreement: share of queries whose nearest neighbor is the same.
        top10_agreement: mean overlap of the ten nearest neighbors.
        candidate_ranks: rank1, rank5, rank10, mAP, mINP of the candidate; None without a data set.
        reference_ranks: the same of the reference.
        drops: reference minus candidate, for every accuracy; empty without a data set.
        same_camera: as in an evaluation; of the ranks.
        limits: what was allowed; None in records of earlier versions.
        warnings: what the verdict does not say.
        causes: of a failure: what the two files and the figures show of it, and what to do.
    """

    command: ClassVar[str] = "reidexport verify ARTIFACT --reference CHECKPOINT --data ROOT --json FILE"

    kind: Literal["verify"] = "verify"
    artifact: str = ""
    reference_file: str = ""
    candidate: str
    reference: str
    num_images: int
    measured_on: str = ""
    min_cosine: float
    mean_cosine: float
    max_abs_error: MaybeInfinite
    max_relative_l2: MaybeInfinite
    worst: tuple[WorstImage, ...]
    batch_consistency: dict[str, MaybeInfinite]
    top1_agreement: float
    top10_agreement: float
    metric: Metric
    dataset: str | None
    same_camera: Literal["drop", "keep"] = "drop"
    candidate_ranks: Ranks | None
    reference_ranks: Ranks | None
    drops: dict[str, float]
    limits: VerificationLimits | None = None
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    passed: bool = True


class WorstQuery(RecordPart):
    """A query that lost average precision.

    Attributes:
        image: its path in the data set.
        reference_rank: of its first match, from 1.
        candidate_rank: likewise.
        ap_drop: percentage points.
    """

    image: str
    reference_rank: int
    candidate_rank: int
    ap_drop: float


class ParityRow(Ranks):
    """One artifact on one backend.

    Attributes:
        artifact: its path, as it was given.
        artifact_sha256: of the file itself; None in tables of earlier versions, which did not keep it.
        precision: what its backend computes in: the file's, or bf16.
        runtime: the session's description.
        drops: of rank1 to mINP, the reference's less this one's; none in the reference.
        min_cosine: of any image's feature with the reference's.
        mean_cosine: of all images.
        worst_queries: those that lost most average precision, if any lost some.
        p50_batch1_ms: the network alone.
        images_per_s: from files to features, during the evaluation.
        operating_points: see :class:`reidexport.metrics.thresholds.VerificationRoc`; ``roc`` and ``warnings``, too.
    """

    artifact: str
    artifact_sha256: str | None = None
    manifest_sha256: str
    backend: str
    precision: ComputedPrecision
    runtime: str
    size_mib: float
    layer_precisions: dict[str, int]
    drops: dict[str, float]
    min_cosine: float
    mean_cosine: float
    worst_queries: tuple[WorstQuery, ...]
    p50_batch1_ms: float
    images_per_s: float
    operating_points: tuple[OperatingPoint, ...]
    roc: Roc
    warnings: tuple[str, ...]


class NotRun(RecordPart):
    """An artifact that a backend cannot run, and why."""

    artifact: str
    backend: str
    reason: str


class ParityTable(Measurement):
    """Every artifact on every backend; ``is_busy``: other programs were running, so its speeds are doubtful.

    ``same_camera`` is as in an evaluation, of ranks and thresholds.
    """

    command: ClassVar[str] = "reidexport parity REFERENCE ARTIFACT… --data ROOT --json FILE"
    timed_region: ClassVar[str] = (
        "latency: the network alone at batch 1; images/s: from files to features, during the evaluation"
    )

    kind: Literal["parity"] = "parity"
    dataset: str
    metric: Metric
    same_camera: Literal["drop", "keep"] = "drop"
    reference: ParityRow
    rows: tuple[ParityRow, ...]
    not_run: tuple[NotRun, ...]
    is_busy: bool

    @property
    def all_rows(self) -> tuple[ParityRow, ...]:
        """The reference, then the artifacts."""
        return (self.reference, *self.rows)
