"""The section about GPU checks."""

from pathlib import Path

from tests.standins.report_results import page_of


def test_a_gpu_check_shows_what_failed_and_how_fast_it_was(folder: Path, tmp_path: Path) -> None:
    """Failed checks are shown with their reasons, and what was not reached; every speed has a row."""
    page = page_of([folder / "gpu-check.json"], tmp_path / "report.html")
    assert "torch_cuda: steady_memory[fp16] failed: grew by 40 MiB" in page
    assert "no time was left for torch" in page
    for figure in ("1.50", "5333", "9210", "8765", "12340", "43.21", "torch_cuda fp16"):
        assert f">{figure}<" in page.replace("\N{THIN SPACE}", "")
    assert page.count(">torch_cuda fp16<") == 1
