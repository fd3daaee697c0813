"""The table of :mod:`reidexport.evaluation.parity`, and the file that it is kept in."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from reidruntime.artifact.manifest import Metric, Precision

from reidexport.errors import InputError
from reidexport.metrics.thresholds import OperatingPoint


class _ParityRecord(BaseModel):
    """A part of the file that a table is kept in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WorstQuery(_ParityRecord):
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


class ParityRow(_ParityRecord):
    """One artifact on one backend; accuracies are fractions.

    Attributes:
        artifact: its path, as it was given.
        artifact_sha256: of the file itself; None in tables of earlier versions, which did not keep it.
        precision: what its backend computes in: the file's, or bf16.
        runtime: the session's description.
        drops: of rank1 to mINP, the reference's less this one's, in percentage points; none in the reference.
        min_cosine: of any image's feature with the reference's.
        mean_cosine: of all images.
        worst_queries: those that lost most average precision, if any lost some.
        p50_batch1_ms: the network alone.
        images_per_s: from files to features, during the evaluation.
        operating_points: see :class:`reidexport.metrics.thresholds.VerificationRoc`.
        roc: ``fpr`` and ``tpr`` of it.
        warnings: of it.
    """

    artifact: str
    artifact_sha256: str | None = None
    manifest_sha256: str
    backend: str
    precision: Precision | Literal["bf16"]
    runtime: str
    size_mib: float
    layer_precisions: dict[str, int]
    rank1: float
    rank5: float
    rank10: float
    mAP: float
    mINP: float
    drops: dict[str, float]
    min_cosine: float
    mean_cosine: float
    worst_queries: tuple[WorstQuery, ...]
    p50_batch1_ms: float
    images_per_s: float
    operating_points: tuple[OperatingPoint, ...]
    roc: dict[Literal["fpr", "tpr"], tuple[float, ...]]
    warnings: tuple[str, ...]


class NotRun(_ParityRecord):
    """An artifact that a backend cannot run, and why."""

    artifact: str
    backend: str
    reason: str


class ParityTable(_ParityRecord):
    """The table; ``is_busy``: other programs were running, so its speeds are doubtful."""

    kind: Literal["parity"] = "parity"
    dataset: str
    metric: Metric
    reference: ParityRow
    rows: tuple[ParityRow, ...]
    not_run: tuple[NotRun, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    is_busy: bool


def parity_from_json(path: Path) -> ParityTable:
    """Read the table that ``reidexport parity --json`` keeps.

    Raises:
        InputError: the file holds something else.
    """
    try:
        return ParityTable.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a table of this version of reidexport parity. Start anew without --resume."
        ) from error
