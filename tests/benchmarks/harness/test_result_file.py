"""Files of results: which rows they keep."""

import json
from pathlib import Path

import pytest

from benchmarks.harness.result_file import save_left_out, save_row
from reidexport.machine import machine_info, package_versions
from reidexport.records.speed import BenchmarkRow, Ratio


def test_rows_are_merged_by_name(tmp_path: Path) -> None:
    """A new row takes the place of the old one and leaves the others, which a busy one does not hide."""
    path, machine = tmp_path / "folder" / "latency.json", machine_info()
    for name, ratios in (
        ("a", {}),
        ("b", "not given: others"),
        ("a", {"torch eager": Ratio(median=2.0, lowest=1.9, highest=2.1)}),
    ):
        save_row(path, BenchmarkRow(name=name, timed="all", ratios=ratios), machine, "test_a")
    result = json.loads(path.read_text())
    assert (result["kind"], result["question"], result["is_busy"]) == ("benchmark", "latency", True)
    assert (result["machine"], result["versions"]) == (machine, package_versions())
    assert [(row["name"], len(row["ratios"])) for row in result["rows"]] == [("a", 1), ("b", 17)]


def test_rows_of_another_machine_are_dropped(tmp_path: Path) -> None:
    """A file has rows of one machine and the same versions, whatever the clock and the load were."""
    path, machine = tmp_path / "latency.json", machine_info()
    row = BenchmarkRow(name="a", timed="all", ratios={})
    save_row(path, row, machine, "test_a")
    machine["load_average"], machine["cpu_mhz"] = 7.0, 12
    save_row(path, row.model_copy(update={"name": "b"}), machine, "test_b")
    assert [each["name"] for each in json.loads(path.read_text())["rows"]] == ["a", "b"]
    machine["cores"] += 1
    with pytest.warns(UserWarning, match="dropped the rows of another machine or other versions"):
        save_row(path, row.model_copy(update={"name": "c"}), machine, "test_c")
    assert [each["name"] for each in json.loads(path.read_text())["rows"]] == ["c"]


def test_what_was_left_out_is_written_until_it_has_a_row(tmp_path: Path) -> None:
    """Tests that were skipped for one reason are a list; one with a row of its own is no longer left out."""
    path, machine = tmp_path / "throughput.json", machine_info()
    for test in ("test_a", "test_b", "test_a"):
        save_left_out(path, test, "no GPU", machine)
    assert json.loads(path.read_text())["left_out"] == {"no GPU": ["test_a", "test_b"]}
    for test, left in (("test_a", {"no GPU": ["test_b"]}), ("test_b", {})):
        save_row(path, BenchmarkRow(name=test, timed="all", ratios={}), machine, test)
        assert json.loads(path.read_text())["left_out"] == left


def test_a_measurement_is_not_lost_to_a_file_that_is_no_use(tmp_path: Path) -> None:
    """The rows of a file of an earlier version are dropped, with a warning that says why."""
    path = tmp_path / "latency.json"
    path.write_text('{"rows": []}')
    with pytest.warns(UserWarning, match=r'has no "kind".*Its rows are dropped'):
        save_row(path, BenchmarkRow(name="a", timed="all", ratios={}), machine_info(), "test_a")
    assert [each["name"] for each in json.loads(path.read_text())["rows"]] == ["a"]
