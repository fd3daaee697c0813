"""What a run reports: a line for each epoch, ``history.json``, and ``result.json`` at the end."""

import json
import resource
from pathlib import Path
from typing import Any

import torch

from reidexport.files import replaced_when_whole

RESULT, HISTORY = "result.json", "history.json"


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
