"""The README's figures of speed are those of the committed results."""

import json
from pathlib import Path

import pytest

from benchmarks.speed_table import README, machine_tables, readme_with_tables


def test_the_readme_says_what_was_measured() -> None:
    """Its tables are what the committed results give now."""
    readme = README.read_text()
    assert readme_with_tables(readme) == readme


def test_a_readme_without_marks_is_refused() -> None:
    """The message names the lines that are missing."""
    with pytest.raises(ValueError, match="lacks the lines <!-- speed"):
        readme_with_tables("# reidexport\n")


def test_tables_leave_out_nothing_and_invent_nothing(tmp_path: Path) -> None:
    """Ratios, shares, disturbed rows and batch sizes that were not measured come out as such."""

    def row(name: str, batch_size: int, ratios: object) -> dict[str, object]:
        return {
            "name": name,
            "artifact": "a.onnx",
            "backend": "openvino",
            "batch_size": batch_size,
            "images_per_s": 40.0,
            "share_of_limit": 0.75,
            "seconds": {"reidexport": {"median": 0.25}},
            "ratios": ratios,
        }

    ratio = {"median": 2.04, "lowest": 1.9, "highest": 2.1}
    rows = [row("one", 1, {"torch eager": ratio}), row("eight", 8, "not given: others used 40 %")]
    machine = {"cpu": "A CPU", "cores": 2}
    (tmp_path / "throughput.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    search = {"machine": machine, "rows": [row("search", 1, {"faiss knn": ratio, "limit": ratio})]}
    (tmp_path / "gallery.json").write_text(json.dumps(search))
    networks, others = machine_tables(tmp_path)
    place = f"A CPU, 2 cores ([JSON](benchmarks/results/{tmp_path.name}))"
    assert networks.startswith(
        f"| {place}: × torch eager (share of the limit) | batch 1 | batch 8 | batch 32 |"
    )
    assert networks.splitlines()[2] == "| a.onnx, openvino | 2.0 (75%) | disturbed | – |"
    assert others.splitlines()[2:] == ["| search | 0.25 | faiss knn | 2.04 (1.9 to 2.1) |"]
