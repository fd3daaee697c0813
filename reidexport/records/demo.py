"""The record of ``reidexport demo``."""

from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Precision

from reidexport.records.accuracy import EvaluationRecord, Ranks, Verification
from reidexport.records.base import Record, RecordPart
from reidexport.records.speed import BenchReport


class DemoData(RecordPart):
    """The numbers of drawn images and people."""

    num_train: int
    num_train_pids: int
    num_query: int
    num_query_pids: int
    num_gallery: int


class DemoTraining(RecordPart):
    """How the network was trained."""

    backbone: str
    height_px: int
    width_px: int
    num_epochs: int
    batch_size: int
    seconds: float


class DemoArtifact(RecordPart):
    """One exported file, and the records of ``eval``, ``verify`` and ``bench`` on it."""

    artifact: str
    precision: Precision
    size_mib: float
    eval: EvaluationRecord
    verify: Verification
    bench: BenchReport


class DemoSummary(Record):
    """What the demo found.

    Attributes:
        passed: whether both files passed ``verify``.
        raw_pixels: the scores of the pixels' cosines instead of the features': what a network must beat.
    """

    command: ClassVar[str] = "reidexport demo"

    kind: Literal["demo"] = "demo"
    passed: bool
    dataset: DemoData
    training: DemoTraining
    raw_pixels: Ranks
    artifacts: tuple[DemoArtifact, ...]
    seconds: float
