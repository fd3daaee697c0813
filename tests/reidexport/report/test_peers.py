"""The sections of the benchmarks: one for each question, throughput beside its limit."""

import json
import re
from pathlib import Path

from tests.standins.report_results import MACHINE, THROUGHPUT, Outline, page_of, throughput_row


def test_each_question_has_one_section(folder: Path, tmp_path: Path) -> None:
    """Of two files of one machine with one table of comparisons, of two machines with one each, naming their files."""
    other_machine = {**THROUGHPUT, "machine": {**MACHINE, "cpu": "Another processor"}}
    for name, content in (("throughput-int8", THROUGHPUT), ("throughput-elsewhere", other_machine)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    page = page_of([folder], tmp_path / "report.html")
    headings = Outline(page).headings
    assert len(headings) == len(set(headings))
    section = page.partition("Throughput</h2>")[2].partition("</section>")[0]
    assert re.findall(r"<b>How many times as fast as each peer</b> \((.*?)\)", section) == [
        "throughput-elsewhere.json, machine 2",
        "throughput-int8.json, throughput.json, machine 1",
    ]
    assert section.count("<small>fp32 · onnxruntime\nthroughput-int8.json</small>") == 1 + 3


def test_a_limit_is_drawn_once_for_each_precision(folder: Path, tmp_path: Path) -> None:
    """Dashed, as the highest that was measured at each batch size, and named in the table beside the plot."""
    rows = [
        {
            **throughput_row(batch, 300.0),
            "backend": backend,
            "precision": precision,
            "limit_images_per_s": limit,
        }
        for backend, precision, limit in (
            ("onnxruntime", "fp32", 400.0),
            ("openvino", "fp32", 410.0),
            ("openvino", "int8", 1600.0),
        )
        for batch in (1, 8)
    ]
    (folder / "throughput.json").write_text(json.dumps({**THROUGHPUT, "rows": rows}))
    page = page_of([folder / "throughput.json"], tmp_path / "report.html")
    plot, _, key = page.partition('<figure class="plot">')[2].partition("</figure>")
    assert len(re.findall(r"stroke-dasharray: [\d.]+,", plot)) == 2
    limits = re.findall(r"limit of (\w+)<small>model.onnx</small></span></th>\s*<td>([^<]+)", key)
    assert [(name, value.strip()) for name, value in limits] == [
        ("fp32", "410"),
        ("int8", "1\N{THIN SPACE}600"),
    ]
