"""The figures of speed in docs/benchmarks.md are those of the committed results."""

import json
from pathlib import Path

import pytest

from benchmarks.speed_table import PAGE, machine_tables, page_with_tables
from tests.standins.report_results import THROUGHPUT, spread


def write(folder: Path, question: str, rows: object) -> None:
    """A file of results."""
    (folder / f"{question}.json").write_text(json.dumps({**THROUGHPUT, "question": question, "rows": rows}))


def test_the_page_says_what_was_measured() -> None:
    """Its tables are what the committed results give now."""
    page = PAGE.read_text()
    assert page_with_tables(page) == page


def test_a_page_without_marks_is_refused() -> None:
    """The message names the lines that are missing."""
    with pytest.raises(ValueError, match="lacks the lines <!-- speed"):
        page_with_tables("# reidexport\n")


def test_tables_leave_out_nothing_and_invent_nothing(tmp_path: Path) -> None:
    """Ratios, shares, times, disturbed rows and what was not measured come out as such."""

    def row(name: str, ratios: object, **more: object) -> dict[str, object]:
        figures = dict.fromkeys(("reidexport", "torch eager", "faiss knn", "limit"), spread(0.25))
        about = {"name": name, "timed": "", "artifact": "a.onnx", "backend": "openvino", "ratios": ratios}
        return about | {"seconds": figures, "images_per_s": 40.0} | more

    ratio, disturbed = {"median": 2.04, "lowest": 1.9, "highest": 2.1}, "not given: others used 40 %"
    peak = {"reidexport": spread(311.6), "onnxruntime bare": spread(300.0)}
    written = {
        "throughput": [
            row("one", {"torch eager": ratio}, batch_size=1, share_of_limit=0.75),
            row("eight", disturbed, batch_size=8),
        ],
        "latency": [row("latency", {"torch eager": ratio})],
        "cold_start": [row("cold start", {"onnxruntime bare": ratio})],
        "memory": [row("memory", disturbed, peak_mib=peak)],
        "gallery": [row("search", {"faiss knn": ratio, "limit": ratio}), row("more", disturbed)],
    }
    for question, rows in written.items():
        write(tmp_path, question, rows)
    networks, others = machine_tables(tmp_path)
    place = f"[{tmp_path.name}](../benchmarks/results/{tmp_path.name})"
    columns = "batch 1 | batch 8 | batch 32 | latency | cold start | memory"
    assert networks.splitlines()[0] == f"| {place}: × torch eager (share of the limit; or time) | {columns} |"
    figures = "2.0 (75%) | disturbed | – | 2.0 (250.0 ms) | 0.25 s | 312 MiB"
    assert networks.splitlines()[2:] == [f"| a.onnx, openvino | {figures} |"]
    assert others.splitlines()[0] == f"| {place} | time, s | against | times as fast |"
    assert others.splitlines()[2:] == [
        "| search | 0.25 | faiss knn | 2.04 (1.9 to 2.1) |",
        "| more | 0.25 | faiss knn | disturbed |",
    ]


def test_gpus_have_columns_of_their_own(tmp_path: Path) -> None:
    """Larger batches, and a line for what was in the GPU's memory already, beside the one with copies."""
    about = {"name": "", "timed": "", "artifact": "a.onnx", "backend": "torch-cuda", "ratios": {}}
    rows = [
        about | {"batch_size": size, "seconds": {"reidexport": spread(0.1)}, "images_per_s": rate} | more
        for size, rate, more in (
            (8, 9000.0, {}),
            (256, 40000.0, {"in_memory_of": "cuda", "share_of_limit": 0.6}),
        )
    ]
    write(tmp_path, "throughput", rows)
    (networks,) = machine_tables(tmp_path)
    head, _, *lines = networks.splitlines()
    assert head.endswith("| batch 1 | batch 8 | batch 32 | batch 256 | latency | cold start | memory |")
    assert lines == [
        "| a.onnx, torch-cuda | – | 9000 images/s | – | – | – | – | – |",
        "| a.onnx, torch-cuda, from and to the GPU's memory | – | – | – | 40000 images/s (60%) | – | – | – |",
    ]
