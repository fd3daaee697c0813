"""The sections about time that need no peers."""

import json
from pathlib import Path

from tests.standins.report_results import COMMITTED, page_of


def test_what_was_left_out_is_said(folder: Path, tmp_path: Path) -> None:
    """Batch sizes of precisions that other processes disturbed are a note; rows without ratios show their times."""
    precisions = json.loads((COMMITTED / "amd-epyc-zen3-2-cores/precisions-resnet50-seeded.json").read_text())
    reason = "other processes used 31% of the CPU time"
    (folder / "precisions.json").write_text(json.dumps({**precisions, "disturbed": {"8": reason}}))
    page = page_of([folder / "precisions.json", folder / "gallery.json"], tmp_path / "report.html")
    assert f"precisions.json: batch 8 is left out: {reason}" in page
    assert "<td>–<small>2.00 s</small></td>" in page
