"""Rows of sessions that take tensors on a GPU, measured on the CPU."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reidruntime import SessionOptions, open_session

from benchmarks import bench_throughput
from benchmarks.bench_throughput import compare_on_device
from benchmarks.harness.gpu_limit import Rates, layers_of, limit_images_per_s
from benchmarks.harness.subjects import Subject
from benchmarks.peers import gpu_peers
from reidexport.checkpoint.loading import load_checkpoint
from tests.conftest import Exported
from tests.standins.benchmark_runs import taking_tensors, turns_of_a_test


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_row_of_a_gpu(exported: Exported, precision: str) -> None:
    """Tensors to tensors, against torch in the artifact's own precision and ONNX Runtime, with shares of the limit."""
    path = exported.fp16 if precision == "fp16" else exported.onnx
    with open_session(path, SessionOptions(backend="onnxruntime", device="cpu")) as session:
        subject = Subject(path, taking_tensors(session), load_checkpoint(exported.checkpoint))
        compare, row = turns_of_a_test()
        compare_on_device(compare, subject, 3, "cpu", None, Rates(1.0, 10.0), turn_s=0.01)
    expected = {
        "torch eager, fp32 without TF32, channels-last",
        "torch eager, fp32 with TF32, channels-last",
        "onnxruntime bare",
        *(["torch eager, fp16, channels-last"] if precision == "fp16" else []),
    }
    assert row["peers_images_per_s"].keys() == expected
    assert (row["in_memory_of"], row["batch_size"], row["not_installed"]) == ("cpu", 3, [])
    limit = limit_images_per_s(layers_of(path), Rates(1.0, 10.0), 3)
    assert row["limit_images_per_s"] == pytest.approx(limit, rel=1e-3)
    if isinstance(row["ratios"], dict):
        assert row["share_of_limit"] == pytest.approx(row["images_per_s"] / limit, rel=1e-3)
        assert row["peers_shares_of_limit"].keys() == expected


@pytest.mark.parametrize(
    ("backend", "precision", "batch_size", "outcome"),
    [
        ("torch-cuda", "fp16", 8, Rates(2.0, 3.0)),
        ("torch-cuda", "int8", 8, None),
        ("torch-cuda", "fp16", 32, "the artifact takes batches of 1 to 8"),
        ("onnxruntime", "fp16", 8, "sessions of onnxruntime take arrays"),
    ],
)
def test_what_is_measured_on_a_gpu(
    backend: str, precision: str, batch_size: int, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that take tensors, within the artifact's batches, with the rates of their precision where it has any."""
    seen: list[Any] = []
    profile = SimpleNamespace(minimum=1, maximum=8)
    session = SimpleNamespace(backend=backend, manifest=SimpleNamespace(batch_profile=profile))
    subject = SimpleNamespace(path=Path("a.onnx"), session=session, precision=precision)
    monkeypatch.setattr(bench_throughput, "_ON_GPU", True)
    monkeypatch.setattr(bench_throughput, "measured_rates", lambda *_: Rates(2.0, 3.0))
    monkeypatch.setattr(
        bench_throughput, "compare_on_device", lambda *arguments, turn_s: seen.append(arguments[5])
    )
    skips = isinstance(outcome, str)
    with pytest.raises(pytest.skip.Exception, match=outcome) if skips else nullcontext():
        bench_throughput.test_on_the_gpu(None, subject, batch_size, False, "default")  # type: ignore[arg-type]
    assert seen == ([] if skips else [outcome])


def test_a_peer_that_fails_spoils_no_row(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured, the row names it with its error, and then the test fails for it."""
    monkeypatch.setattr(gpu_peers, "_bound", lambda *_: 1 / 0)
    with open_session(exported.onnx, SessionOptions(backend="onnxruntime", device="cpu")) as session:
        subject = Subject(exported.onnx, taking_tensors(session), load_checkpoint(exported.checkpoint))
        compare, row = turns_of_a_test()
        with pytest.raises(ExceptionGroup, match="installed and fail: onnxruntime bare") as caught:
            compare_on_device(compare, subject, 1, "cpu", None, None, turn_s=0.01)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert row["failed_peers"] == {"onnxruntime bare": "ZeroDivisionError: division by zero"}
    assert row["images_per_s"] > 0
    assert len(row["peers_images_per_s"]) == 2
