"""Results as the commands write them, written by hand; and the report of some, as its tests read it."""

import html.parser
from pathlib import Path
from typing import Any

from reidexport.evaluation.scoring import Evaluation
from reidexport.report import read_results, write_report
from tests import ROOT

COMMITTED = ROOT / "benchmarks" / "results"
MACHINE = {
    "cpu": "A processor",
    "cpu_mhz": None,
    "governor": None,
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
    "kind": "eval",
    "artifact": "/somewhere/alone.onnx",
    "manifest_sha256": "0" * 64,
    "precision": "fp32",
    "feature": "f_i",
    "runtime": "onnxruntime 1.0, CPU",
    "dataset": "market1501",
    "metric": "cosine",
    "rerank": False,
    "num_query": 3368,
    "num_query_without_match": 0,
    "num_gallery": 15913,
    "num_distractor": 2798,
    "num_junk": 3819,
    "operating_points": [{"fpr": 0.01, "tpr": 0.8, "threshold": 0.3579, "num_false": 5301}],
    "warnings": ["Too few people."],
    "machine": MACHINE,
    "versions": {"reidexport": "0.1.0"},
}


GPU_CHECK: dict[str, Any] = {
    "kind": "gpu-check",
    "passed": False,
    "failures": ["1 failed", "no time was left for torch"],
    "not_run": ["torch"],
    "device": "cuda",
    "quick": False,
    "only": [],
    "seconds": 530.0,
    "gpus": [],
    "machine": MACHINE,
    "versions": {"reidexport": "0.1.0"},
    "checks": [
        {"group": "torch_cuda", "check": "parity[fp16]", "outcome": "passed", "measured": {"max_relative_l2": 1e-3}},
        {"group": "torch_cuda", "check": "steady_memory[fp16]", "outcome": "failed", "reason": "grew by 40 MiB"},
        {"group": "torch_cuda", "check": "speed[fp16-8]", "outcome": "passed", "measured": {
            "batch_size": 8, "precision": "fp16", "caller_p50_ms": 1.5, "caller_images_per_s": 5333.0,
            "streamed_images_per_s": 9210.0, "files_images_per_s": 8765.0, "device_images_per_s": 12340.0,
            "device_share_of_limit": 0.4321}},
    ],
}  # fmt: skip


class Outline(html.parser.HTMLParser):
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
        """Note its id and what it loads, and that it is open."""
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset") and value and not value.startswith(("#", "data:"))
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One that closes itself."""
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """It closes the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text of a heading."""
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def page_of(paths: list[Path], out: Path, evaluation: Evaluation | None = None) -> str:
    """The page of some results, without the places where names may break."""
    write_report(out, read_results(paths), evaluation, "model.onnx")
    return out.read_text(encoding="utf-8").replace("<wbr>", "")
