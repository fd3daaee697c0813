"""The sections about answers."""

import json
from pathlib import Path

from tests.standins.report_results import EVALUATION, Outline, page_of


def test_thresholds_of_an_evaluation_are_shown(tmp_path: Path) -> None:
    """An evaluation with thresholds has its curve, its operating points and its warnings in the page."""
    (tmp_path / "eval.json").write_text(json.dumps(EVALUATION))
    page = page_of([tmp_path / "eval.json"], tmp_path / "report.html")
    assert "Distance thresholds" in Outline(page).headings
    for text in ("alone.onnx: Too few people.", "0.3579", "receiver operating characteristic"):
        assert text in page
    assert "difference from the first" not in page
