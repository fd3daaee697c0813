"""Results and an evaluation to report."""

import json
from pathlib import Path

import pytest

from reidexport.data import Dataset
from reidexport.evaluation.scoring import Evaluation, evaluate
from tests.reidexport.evaluation.test_scoring import Thumbnails
from tests.standins.report_results import GALLERY, GPU_CHECK, MEMORY, PARITY, THROUGHPUT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of hand-written results."""
    folder = tmp_path / "results"
    folder.mkdir()
    written = {
        "parity": PARITY,
        "throughput": THROUGHPUT,
        "gallery": GALLERY,
        "memory": MEMORY,
        "gpu-check": GPU_CHECK,
    }
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def evaluation(drawn_dataset: Dataset) -> Evaluation:
    """Of thumbnails as features, on drawn people."""
    return evaluate(Thumbnails(), drawn_dataset)
