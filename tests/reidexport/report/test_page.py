"""The page: what it shows of which results, that it is whole, and that nothing in it is foreign."""

import copy
import json
from pathlib import Path

import pytest

from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.evaluation.scoring import Evaluation
from reidexport.report import read_results, write_report
from reidexport.report.page import headline
from tests.conftest import Exported, Run
from tests.standins.report_results import COMMITTED, PARITY, Outline, page_of

SECTION_OF = {
    "Accuracy against latency": "parity.json",
    "Parity with the reference": "parity.json",
    "Distance thresholds": "parity.json",
    "Throughput": "throughput.json",
    "Gallery search": "gallery.json",
    "Memory": "memory.json",
    "GPU check": "gpu-check.json",
}


def test_every_section_is_there_and_the_page_is_whole(
    folder: Path, tmp_path: Path, evaluation: Evaluation
) -> None:
    """All tags close, ids are unique, nothing is loaded, and all figures are in the page."""
    page = page_of([folder, COMMITTED], tmp_path / "report.html", evaluation)
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.loads == []
    wanted = {
        *SECTION_OF,
        *("Verified against the checkpoint", "Accuracy", "Precision of layers"),
        *("Speed of the precisions", "Speed of each artifact"),
        *(
            "Ranked lists",
            "Features in two dimensions",
            "Machines and versions",
            "How each number was measured",
        ),
    }
    assert wanted <= set(outline.headings)
    for text in (
        "0002_c1s1_000451_03.jpg",
        "+12.50",
        "+0.31",
        "3.50 ×",
        "4.00 µs",
        "310 MiB",
        "One warning.",
    ):
        assert text in page
    assert "tensorrt: not run: no GPU" in page
    assert "top 100: ratios not given: other programs" in page
    assert "the machine was busy" in page
    assert len(page) < 3e6


def test_a_section_without_data_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Of one file, only its own sections; without an evaluation, no images."""
    for file in sorted(folder.iterdir()):
        headings = Outline(page_of([file], tmp_path / "report.html")).headings
        own = {title for title, name in SECTION_OF.items() if name == file.name}
        assert own <= set(headings)
        assert not (SECTION_OF.keys() - own) & set(headings)
        assert "Ranked lists" not in headings


def test_the_headline_shows_the_largest_loss_of_all_files(folder: Path) -> None:
    """Of parity, verify and precisions together, not of the first that has one."""
    precisions = COMMITTED / "amd-epyc-zen3-2-cores"
    fact = next(each for each in headline(read_results([precisions])) if "mAP drop" in each.label)
    assert (fact.value, fact.note) == ("+0.06", "osnet_x0_25_market1501.pth, int8 for CPUs")
    fact = next(each for each in headline(read_results([precisions, folder])) if "mAP drop" in each.label)
    assert (fact.value, fact.note) == ("+0.31", "model-int8.onnx, int8 · openvino")


def test_disturbed_times_are_no_headline(folder: Path) -> None:
    """Latencies of a parity file whose machine was busy are on the page with a note, and not above it."""
    calm = folder / "calm.json"
    calm.write_text(json.dumps({**PARITY, "is_busy": False}))
    labels = {fact.label: fact.value for fact in headline(read_results([folder / "parity.json"]))}
    assert "lowest median latency, one image" not in labels
    labels = {fact.label: fact.value for fact in headline(read_results([folder]))}
    assert labels["lowest median latency, one image"] == "2.10 ms"


def test_paths_of_the_machine_do_not_show(folder: Path, tmp_path: Path) -> None:
    """Neither those in the files nor those of the files."""
    page = page_of([folder], tmp_path / "report.html")
    assert "/somewhere" not in page
    assert str(tmp_path) not in page
    assert "model-int8.onnx" in page


def test_everything_from_files_is_escaped(tmp_path: Path) -> None:
    """Markup in names is text: of the file, of artifacts, in plots, in formulas that matplotlib would set."""
    odd = copy.deepcopy(PARITY)
    odd["rows"][0]["artifact"] = "<img src=x>.onnx"
    odd["rows"][0]["backend"] = "$\\frac{a}$ </text><script>alert(1)</script>"
    odd["dataset"] = '"><script>'
    file = tmp_path / "<script>.json"
    file.write_text(json.dumps(odd))
    page = page_of([file], tmp_path / "report.html")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;.json" in page
    assert Outline(page).open == []


def test_a_failed_write_leaves_the_old_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the earlier page is as it was, and nothing is left beside it."""
    out = tmp_path / "report.html"
    out.write_text("earlier")
    before = sorted(tmp_path.iterdir())

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_room)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(out, read_results([folder]))
    assert out.read_text() == "earlier"
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_embeds_and_writes(
    run: Run, exported: Exported, drawn_dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    """With --artifact and --data the page has images; it prints where it wrote."""
    out, data = tmp_path / "report.html", drawn_dataset.query[0].path.parents[1]
    done = run("report", folder, "-o", out, "--artifact", exported.onnx, "--data", data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    page = out.read_text()
    assert "data:image/jpeg;base64," in page
    assert "✓" in page and "✗" in page
    told = ["--artifact", exported.checkpoint, "--data", data, "--force", "--resize", "bicubic"]
    done = run("report", folder, "-o", out, *told)
    assert (done.returncode, "bicubic" in done.stderr) == (0, True), done.stderr
