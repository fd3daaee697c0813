"""The report: what it shows of which results, that it is whole, and that a browser shows it as meant."""

import copy
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.evaluation.scoring import Evaluation, evaluate
from reidexport.gallery.contact_sheets import nearest_scored
from reidexport.report import read_results, write_report
from reidexport.report.marks import Mark
from reidexport.report.page import headline
from reidexport.report.people import principal_components
from reidexport.report.plots import Dot, draw_accuracy_against_latency
from reidexport.report.results import Spread
from reidexport.report.strips import axis_heading, axis_of, log_ticks, strip
from reidexport.report.units import duration, points
from tests import ROOT
from tests.conftest import Exported, Run
from tests.reidexport.evaluation.test_scoring import Thumbnails

# In a browser: texts of plots that leave their plot or cover another, and cells of tables that leave their column.
_BADLY_PLACED = """[...document.querySelectorAll('.plot > svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(text => text.getBoundingClientRect());
    return texts.filter((_, i) =>
        boxes[i].left < frame.left - 1 || boxes[i].right > frame.right + 1 ||
        boxes[i].top < frame.top - 1 || boxes[i].bottom > frame.bottom + 1 ||
        boxes.some((box, j) => j !== i && box.left < boxes[i].right && boxes[i].left < box.right &&
            box.top < boxes[i].bottom && boxes[i].top < box.bottom));
}).concat([...document.querySelectorAll('th, td:not(.drawn)')].filter(
    cell => !cell.querySelector('.strip') && cell.scrollWidth > cell.clientWidth + 1
)).map(element => element.textContent)"""

COMMITTED = ROOT / "benchmarks" / "results"
MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "memory_mib": 24105,
    "gpus": [],
    "system": "Linux",
    "load_average": 0.1,
}
ROC = {"fpr": [0.0, 0.001, 0.01, 0.1, 1.0], "tpr": [0.2, 0.6, 0.8, 0.95, 1.0]}


def parity_row(artifact: str, backend: str, precision: str, lost: float, p50_ms: float) -> dict[str, Any]:
    """A row of a parity file, ``lost`` points of mAP below the reference."""
    return {
        "artifact": artifact,
        "manifest_sha256": "0" * 64,
        "backend": backend,
        "precision": precision,
        "runtime": f"{backend} 1.0, CPU",
        "size_mib": 0.88,
        "layer_precisions": {precision: 188},
        "rank1": 0.91,
        "rank5": 0.96,
        "rank10": 0.98,
        "mAP": 0.77 - lost / 100,
        "mINP": 0.43,
        "drops": {"rank1": 0.0, "mAP": lost} if lost else {},
        "min_cosine": 0.9999,
        "mean_cosine": 0.99999,
        "worst_queries": [
            {
                "image": "query/0002_c1s1_000451_03.jpg",
                "reference_rank": 1,
                "candidate_rank": 7,
                "ap_drop": 12.5,
            }
        ]
        if lost
        else [],
        "p50_batch1_ms": p50_ms,
        "images_per_s": 500.0,
        "operating_points": [{"fpr": 0.01, "tpr": 0.97, "threshold": 0.41, "num_false": 5301}],
        "roc": ROC,
        "warnings": ["One warning."] if lost else [],
    }


def spread(median: float) -> dict[str, float]:
    """A median with an asymmetric spread."""
    return {"median": median, "lowest": 0.9 * median, "highest": 1.3 * median}


def throughput_row(batch_size: int, images_per_s: float) -> dict[str, Any]:
    """A row of throughput.json."""
    return {
        "name": f"throughput of model.onnx, batch {batch_size}",
        "timed": "pixels in memory to features",
        "seconds": {
            "reidexport": spread(batch_size / images_per_s),
            "torch eager": spread(2.2 * batch_size / images_per_s),
        },
        "ratios": {"torch eager": spread(2.2)},
        "artifact": "model.onnx",
        "backend": "onnxruntime",
        "precision": "fp32",
        "batch_size": batch_size,
        "images_per_s": images_per_s,
        "limit_images_per_s": 900.0,
        "share_of_limit": images_per_s / 900,
    }


PARITY: dict[str, Any] = {
    "kind": "parity",
    "dataset": "market1501",
    "metric": "cosine",
    "reference": parity_row("/somewhere/model.pth", "torch", "fp32", 0, 12.0),
    "rows": [
        parity_row("/somewhere/model.onnx", "onnxruntime", "fp32", 0.01, 3.2),
        parity_row("/somewhere/model-int8.onnx", "openvino", "int8", 0.31, 2.1),
    ],
    "not_run": [{"artifact": "model.plan", "backend": "tensorrt", "reason": "no GPU"}],
    "machine": MACHINE,
    "versions": {"reidexport": "0.1.0"},
    "is_busy": True,
}
THROUGHPUT: dict[str, Any] = {
    "kind": "benchmark",
    "question": "throughput",
    "machine": MACHINE,
    "versions": {"reidexport": "0.1.0"},
    "is_busy": False,
    "rows": [throughput_row(1, 310.0), throughput_row(8, 520.0), throughput_row(32, 640.0)],
}
GALLERY: dict[str, Any] = {
    **THROUGHPUT,
    "question": "gallery",
    "rows": [
        {"name": "top 10", "timed": "features to rows", "seconds": {"reidexport": spread(0.02), "faiss": spread(0.07)},
         "ratios": {"faiss": spread(3.5)}},
        {"name": "top 100", "timed": "features to rows", "seconds": {"reidexport": spread(4e-6), "faiss": spread(2.0)},
         "ratios": "not given: other programs took 40 % of the processor"},
    ],
}  # fmt: skip
MEMORY: dict[str, Any] = {
    **THROUGHPUT,
    "question": "memory",
    "rows": [
        {
            "name": "memory of model.onnx",
            "timed": "peak",
            "peak_mib": {"reidexport": spread(310), "bare": spread(300)},
            "ratios": {"bare": spread(0.97)},
        }
    ],
}
EVALUATION: dict[str, Any] = {
    **{key: PARITY["reference"][key] for key in ("rank1", "rank5", "rank10", "mAP", "mINP", "roc")},
    "artifact": "/somewhere/alone.onnx",
    "precision": "fp32",
    "runtime": "onnxruntime 1.0, CPU",
    "dataset": "market1501",
    "metric": "cosine",
    "num_query": 3368,
    "num_gallery": 15913,
    "operating_points": [{"fpr": 0.01, "tpr": 0.8, "threshold": 0.3579, "num_false": 5301}],
    "warnings": ["Too few people."],
    "machine": MACHINE,
}
GPU_CHECK: dict[str, Any] = {
    "kind": "gpu-check",
    "passed": False,
    "failures": ["1 failed", "no time was left for torch"],
    "quick": False,
    "machine": MACHINE,
    "checks": [
        {"group": "torch_cuda", "check": "parity[fp16]", "outcome": "passed", "measured": {"max_relative_l2": 1e-3}},
        {"group": "torch_cuda", "check": "steady_memory[fp16]", "outcome": "failed", "reason": "grew by 40 MiB"},
        {"group": "torch_cuda", "check": "speed[fp16-8]", "outcome": "passed", "measured": {
            "batch_size": 8, "precision": "fp16", "caller_p50_ms": 1.5, "caller_images_per_s": 5333.0,
            "streamed_images_per_s": 9210.0, "files_images_per_s": 8765.0, "device_images_per_s": 12340.0,
            "device_share_of_limit": 0.4321}},
    ],
}  # fmt: skip
SECTION_OF = {
    "Accuracy against latency": "parity.json",
    "Parity with the reference": "parity.json",
    "Distance thresholds": "parity.json",
    "Throughput": "throughput.json",
    "Gallery search": "gallery.json",
    "Memory": "memory.json",
    "GPU check": "gpu-check.json",
}


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


class _Outline(html.parser.HTMLParser):
    """The headings of a page, the pairs of its tags, its ids, and what it would load."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset") and value and not value.startswith(("#", "data:"))
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def page_of(paths: list[Path], out: Path, evaluation: Evaluation | None = None) -> str:
    """The page of some results, without the places where names may break."""
    write_report(out, read_results(paths), evaluation, "model.onnx")
    return out.read_text(encoding="utf-8").replace("<wbr>", "")


def test_every_section_is_there_and_the_page_is_whole(
    folder: Path, tmp_path: Path, evaluation: Evaluation
) -> None:
    """All tags close, ids are unique, nothing is loaded, and all figures stand in the page."""
    page = page_of([folder, COMMITTED], tmp_path / "report.html", evaluation)
    outline = _Outline(page)
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
    """Of one file, only its own sections; of no evaluation, no pictures."""
    for file in sorted(folder.iterdir()):
        headings = _Outline(page_of([file], tmp_path / "report.html")).headings
        own = {title for title, name in SECTION_OF.items() if name == file.name}
        assert own <= set(headings)
        assert not (SECTION_OF.keys() - own) & set(headings)
        assert "Ranked lists" not in headings


def test_a_gpu_check_shows_what_failed_and_how_fast_it_was(folder: Path, tmp_path: Path) -> None:
    """Failed checks stand with their reasons, and what was not reached; every speed has a row."""
    page = page_of([folder / "gpu-check.json"], tmp_path / "report.html")
    assert "torch_cuda: steady_memory[fp16] failed: grew by 40 MiB" in page
    assert "no time was left for torch" in page
    for figure in ("1.50", "5333", "9210", "8765", "12340", "43.21", "torch_cuda fp16"):
        assert f">{figure}<" in page.replace("\N{THIN SPACE}", "")
    assert page.count(">torch_cuda fp16<") == 1


def test_thresholds_of_an_evaluation_are_shown(tmp_path: Path) -> None:
    """An evaluation with thresholds has its curve, its operating points and its warnings in the page."""
    (tmp_path / "eval.json").write_text(json.dumps(EVALUATION))
    page = page_of([tmp_path / "eval.json"], tmp_path / "report.html")
    assert "Distance thresholds" in _Outline(page).headings
    for text in ("alone.onnx: Too few people.", "0.3579", "receiver operating characteristic"):
        assert text in page
    assert "difference from the first" not in page


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


def test_each_question_has_one_section(folder: Path, tmp_path: Path) -> None:
    """Of two files of one machine with one table of comparisons, of two machines with one each, naming their files."""
    other_machine = {**THROUGHPUT, "machine": {**MACHINE, "cpu": "Another processor"}}
    for name, content in (("throughput-int8", THROUGHPUT), ("throughput-elsewhere", other_machine)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    page = page_of([folder], tmp_path / "report.html")
    headings = _Outline(page).headings
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


@pytest.mark.parametrize("num_dots", [1, 2, 5, 12])
@pytest.mark.parametrize("span", [0.0, 1e-4, 0.05, 3.0])
def test_no_label_of_the_scatter_covers_anything(num_dots: int, span: float) -> None:
    """Neither another label nor a mark, on the drawn figure and inside its axes, however near the points are."""
    random = np.random.default_rng(num_dots)
    dots = [
        Dot(str(i), 3 * 10 ** (span * x), 0.7 + span * y / 10, Mark(i, "o"))
        for i, (x, y) in enumerate(random.random((num_dots, 2)), 1)
    ]
    figure = draw_accuracy_against_latency([*dots, dots[0]._replace(label="same")])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    centers = axes.transData.transform([(dot.p50_ms, 100 * dot.mAP) for dot in dots])
    marks = [Bbox.from_bounds(x - 3.5, y - 3.5, 7, 7) for x, y in centers]
    assert len(texts) == num_dots + 1
    for i, text in enumerate(texts):
        assert text.count_overlaps([*texts[:i], *texts[i + 1 :], *marks]) == 0
        assert axes.bbox.containsx(text.x0) and axes.bbox.containsx(text.x1)
        assert axes.bbox.containsy(text.y0) and axes.bbox.containsy(text.y1)


def test_ticks_of_logarithmic_axes_are_few_and_inside() -> None:
    """Two to seven round numbers for every range, 1 among them where the range is around it."""
    random = np.random.default_rng(0)
    for low, span in zip(10 ** random.uniform(-6, 6, 1000), 10 ** random.uniform(0.05, 9, 1000), strict=True):
        ticks = log_ticks(low, low * span)
        assert 2 <= len(ticks) <= 7
        assert low <= min(ticks) < max(ticks) <= low * span
        assert all(float(f"{tick:.3g}") == pytest.approx(tick, rel=1e-9) for tick in ticks)
        assert 1 in ticks or not low <= 1 <= low * span or span > 1e5


def test_strips_are_on_the_axis_of_their_heading() -> None:
    """The line at 1 stands where a ratio of 1 does; medians and ends are where the logarithm says."""
    axis = axis_of([Spread(median=2, lowest=0.5, highest=8)])
    drawn = strip(axis, [("torch <eager>", Mark(0, "o"), Spread(median=2, lowest=1, highest=8))])
    one = re.findall(r'class="one" x1="([\d.]+)%"', drawn)
    left, right = re.findall(r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="50', drawn)[0]
    middle = re.findall(r'<svg x="([\d.]+)%" y="50', drawn)[0]
    assert one == [left]
    assert float(middle) - float(left) == pytest.approx((float(right) - float(left)) / 3, abs=0.02)
    assert f'x="{left}%" y="100%"' in axis_heading(axis)
    assert "torch &lt;eager&gt;: 2 × (1 to 8)" in drawn


def test_what_was_left_out_is_said(folder: Path, tmp_path: Path) -> None:
    """Batch sizes of precisions that other processes disturbed are a note; rows without ratios show their times."""
    precisions = json.loads((COMMITTED / "amd-epyc-zen3-2-cores/precisions-resnet50-seeded.json").read_text())
    reason = "other processes used 31% of the CPU time"
    (folder / "precisions.json").write_text(json.dumps({**precisions, "disturbed": {"8": reason}}))
    page = page_of([folder / "precisions.json", folder / "gallery.json"], tmp_path / "report.html")
    assert f"precisions.json: batch 8 is left out: {reason}" in page
    assert "<td>–<small>2.00 s</small></td>" in page


def test_a_ratio_of_nothing_is_refused(folder: Path) -> None:
    """It has no place on a logarithmic axis, and no measurement gives it."""
    content = copy.deepcopy(GALLERY)
    content["rows"][0]["ratios"]["faiss"]["lowest"] = 0
    (folder / "gallery.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"not a whole benchmark result: .*lowest: input should be greater than 0"
    ):
        read_results([folder / "gallery.json"])


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
    assert _Outline(page).open == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"odd\.json: is not JSON .*Expected what --json of reidexport parity"),
        ("[]", r"odd\.json: holds a list, not an object"),
        ('{"a": 1}', r"odd\.json: is not a result\. Expected what --json"),
        ('{"kind": "recipe"}', r"odd\.json: unknown kind 'recipe'\. Expected one of parity, benchmark"),
        ('{"kind": "benchmark", "question": "x"}', r"not a whole benchmark result: rows: field required"),
        (
            json.dumps({**PARITY, "metric": 3}),
            r"not a whole parity result: metric: input should be a valid string",
        ),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, run: Run, text: str, message: str) -> None:
    """With what was expected, and no page is written."""
    file = tmp_path / "odd.json"
    file.write_text(text)
    done = run("report", file, "-o", tmp_path / "report.html")
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert list(tmp_path.iterdir()) == [file]


def test_missing_and_empty_inputs_are_named(tmp_path: Path, run: Run) -> None:
    """A file that is not there, a folder without results, and an artifact without data."""
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_results([tmp_path / "none.json"])
    with pytest.raises(InputError, match=r"the folder holds no \*\.json"):
        read_results([tmp_path])
    done = run("report", tmp_path, "-o", tmp_path / "report.html", "--data", tmp_path)
    assert (done.returncode, "--artifact and --data go together" in done.stderr) == (2, True)


def test_a_failed_write_leaves_the_old_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the earlier page is as it was, and nothing lies beside it."""
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


def test_ranked_lists_leave_junk_out(drawn_dataset: Dataset, evaluation: Evaluation) -> None:
    """As a loop over all gallery images says it."""
    distances = np.random.default_rng(0).random(len(evaluation.gallery))
    for query in evaluation.query[:5]:
        expected: list[int] = []
        for row in sorted(range(len(distances)), key=lambda row: distances[row]):
            image = evaluation.gallery[row]
            if not (image.pid == query.pid and image.camid == query.camid) and len(expected) < 10:
                expected.append(row)
        assert nearest_scored(query, evaluation.gallery, distances, 10) == expected


def test_components_are_those_of_the_covariance() -> None:
    """Projected variances are the two largest eigenvalues, and shares are of the trace."""
    feats = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    places, shares = principal_components(feats)
    values = np.linalg.eigvalsh(np.cov(feats.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())


def test_numbers_are_written_with_their_units() -> None:
    """Drops carry a sign unless they round to nothing; durations choose their unit."""
    assert [points(drop) for drop in (0.314, -0.314, 0.001, -0.001, None)] == [
        "+0.31",
        "−0.31",
        "0.00",
        "0.00",
        "–",
    ]
    assert [duration(seconds) for seconds in (2.5, 0.0125, 3e-6, 5e-8)] == [
        "2.50 s",
        "12.5 ms",
        "3.00 µs",
        "50.0 ns",
    ]


def test_the_command_embeds_and_writes(
    run: Run, exported: Exported, drawn_dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    """With --artifact and --data the page has pictures; it prints where it wrote."""
    out, data = tmp_path / "report.html", drawn_dataset.query[0].path.parents[1]
    done = run("report", folder, "-o", out, "--artifact", exported.onnx, "--data", data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    page = out.read_text()
    assert "data:image/jpeg;base64," in page
    assert "✓" in page and "✗" in page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [390, 1280])
def test_a_browser_shows_the_page(
    browser: Any, folder: Path, tmp_path: Path, evaluation: Evaluation, width_px: int, theme: str
) -> None:
    """No message, no request, all pictures there, nothing wider than the window, no text cut off or on another."""
    out = tmp_path / "report.html"
    page_of([folder, COMMITTED], out, evaluation)
    context = browser.new_context(viewport={"width": width_px, "height": 800}, color_scheme=theme)
    page = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(out.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [out.as_uri()]
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert widths and min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    assert page.evaluate(
        "[...document.querySelectorAll('.plot > svg')].every(svg => svg.getBBox().width > 100)"
    )
    assert page.evaluate(_BADLY_PLACED) == []
    if width_px == 1280:
        beside = page.eval_on_selector_all(
            ".plot:not(:only-child)",
            "plots => plots.map(plot => plot.nextElementSibling.offsetTop - plot.offsetTop)",
        )
        assert beside and max(map(abs, beside)) < 100
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    is_dark_ground = sum(map(int, ground[4:-1].split(","))) < 3 * 128
    is_dark_ink = sum(map(int, ink[4:-1].split(","))) < 3 * 128
    assert (is_dark_ground, is_dark_ink) == (theme == "dark", theme == "light")
    labels = page.eval_on_selector_all("svg text", "texts => texts.map(text => getComputedStyle(text).fill)")
    assert ink in labels
    context.close()


def test_all_committed_results_are_read(tmp_path: Path) -> None:
    """Every file in benchmarks/results makes a report, the figures of a server under load among them."""
    results = read_results([COMMITTED])
    write_report(tmp_path / "report.html", results)
    page = (tmp_path / "report.html").read_text()
    assert "A server under load, beside the session without it" in page
    assert "python -m benchmarks.serving ARTIFACT" in page
