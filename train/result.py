"""What a run reports: a line for each epoch, ``history.json``, and ``result.json`` at the end."""

import json
import resource
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from reidruntime.artifact.manifest import Feature, Metric

from reidexport.data import SameCamera
from reidexport.files import replaced_when_whole
from reidexport.records.accuracy import Ranks
from reidexport.records.base import Measurement

RESULT, HISTORY = "result.json", "history.json"


class Scores(Ranks):
    """Accuracies on a data set, and what they were computed with."""

    dataset: str
    feature: Feature
    metric: Metric
    rerank: bool
    same_camera: SameCamera = "drop"


class BestEpoch(Scores):
    """The epoch with the highest mAP."""

    epoch: int


class TrainingResult(Measurement):
    """What ``result.json`` holds.

    Attributes:
        dataset: what was trained on.
        init: the first weights.
        best: None where no epoch was evaluated; then there are no scores of the last one either.
        recipe: all of its keys.
        execution: how the numbers were computed; empty in results of earlier versions.
    """

    command: ClassVar[str] = "python -m train run RECIPE --data ROOT --out DIR"

    kind: Literal["training"] = "training"
    dataset: str
    init: str
    feature: Feature | None = None
    metric: Metric | None = None
    rerank: bool | None = None
    same_camera: SameCamera | None = None
    rank1: float | None = None
    rank5: float | None = None
    rank10: float | None = None
    mAP: float | None = None
    mINP: float | None = None
    best: BestEpoch | None
    recipe: dict[str, Any]
    num_train: int
    num_train_pids: int
    seconds: float
    images_per_s: float
    data_wait_share: float
    peak_memory_mib: float
    execution: dict[str, str | bool] = Field(default_factory=dict)


class ScoredRow(Scores):
    """A row of a table; ``paper``: its rank1 and mAP there, None where the paper has none for this data set."""

    label: str
    run: str
    paper: dict[str, float] | None


class TableResult(Measurement):
    """What ``table-N.json`` holds."""

    command: ClassVar[str] = "python -m train table N --data ROOT --out DIR"

    kind: Literal["training-table"] = "training-table"
    table: int
    title: str
    trained_on: str
    scored_on: str
    changes: tuple[str, ...]
    init: str
    rows: tuple[ScoredRow, ...]


def write_measurement(path: Path, measurement: Measurement) -> dict[str, Any]:
    """Write a record of the trainer, and return what the file holds."""
    facts = {"kind": measurement.kind, "version": measurement.version}
    # What was not measured is left out of the file, not null: a run without an evaluation has no scores.
    content = facts | measurement.model_dump(mode="json", exclude_unset=True)
    write_json(path, content)
    return content


def epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    """One line about an epoch."""
    scored = record.get("evaluation")
    return (
        f"epoch {record['epoch']}/{num_epochs}  rate {record['learning_rate']:.2e}  id {record['id_loss']:.3f}  "
        f"triplet {record['triplet_loss']:.3f}  center {record['center_loss']:.1f}  "
        f"accuracy {record['accuracy']:.1%}  {record['images_per_s']:.0f} images/s  "
        f"waiting {record['data_wait_share']:.1%}"
        + (f"  rank-1 {scored['rank1']:.2%}  mAP {scored['mAP']:.2%}" if scored else "")
    )


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The epoch with the highest mAP, the first of equal ones; None where none was evaluated."""
    evaluated = [each for each in history if "evaluation" in each]
    return max(evaluated, key=lambda each: float(each["evaluation"]["mAP"]), default=None)


def costs(history: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds, images a second, the share of time spent waiting for data, and the peak of memory in MiB."""
    return {
        "seconds": sum(each["seconds"] for each in history),
        "images_per_s": _mean(history, "images_per_s"),
        "data_wait_share": _mean(history, "data_wait_share"),
        "peak_memory_mib": _peak_memory_mib(),
    }


def write_json(path: Path, content: Any) -> None:
    """Write a file of indented JSON atomically."""
    with replaced_when_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _mean(history: list[dict[str, Any]], name: str) -> float:
    """Over the epochs, weighted by the time that they took."""
    total = sum(each["seconds"] for each in history)
    return float(sum(each[name] * each["seconds"] for each in history) / total)


def _peak_memory_mib() -> float:
    """Of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
