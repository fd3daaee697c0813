"""Whole runs of the benchmarks: what their rows hold, and what is refused."""

import json
import os
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from reidruntime.artifact.manifest import file_sha256

from benchmarks.peers.peers import num_threads
from reidexport.machine import machine_info
from tests.standins.benchmark_runs import quick_rows, run_benchmarks, strangers
from tests.standins.runtime_models import write_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of hardly any operations."""
    return write_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a quick run of the measurements of one artifact, by question."""
    files = [f"benchmarks/bench_{name}.py" for name in ("latency", "throughput", "end_to_end", "memory")]
    folder = tmp_path_factory.mktemp("benchmarks")
    return quick_rows(folder, *files, "-k", "onnxruntime", "--artifact", artifact)


def test_every_question_is_answered_with_its_circumstances(
    results: dict[str, list[dict[str, Any]]], artifact: Path
) -> None:
    """A row names its artifact, backend, threads, time and environment, and what was timed."""
    assert results.keys() == {"latency", "throughput", "end_to_end", "memory"}
    for row in chain.from_iterable(results.values()):
        assert (row["artifact"], row["artifact_sha256"]) == ("tiny.onnx", file_sha256(artifact))
        assert len(row["manifest_sha256"]) == 64
        assert (row["backend"], row["precision"]) == ("onnxruntime", "fp32")
        assert (row["threads"], row["rounds"]) == (num_threads(), 2)
        assert row["environment"].get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
        assert datetime.fromisoformat(row["measured_at"]) <= datetime.now(UTC)
        assert {"cpu_mhz", "governor", "load_average", "others_cpu_share"} <= row.keys()
        assert row["timed"]


def test_ratios_are_of_named_peers(results: dict[str, list[dict[str, Any]]]) -> None:
    """Every peer has figures of its own and a ratio with its spread, or a text says why not."""
    for rows in results.values():
        for row in rows:
            figures = row.get("seconds") or row["peak_mib"]
            assert "reidexport" in figures
            for spread in figures.values():
                assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
            if isinstance(row["ratios"], str):
                assert row["ratios"].startswith("not given: ")
            else:
                assert row["ratios"].keys() == figures.keys() - {"reidexport"} != set()
    latency = results["latency"][0]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
    assert [row["batch_size"] for row in results["throughput"]] == [1, 8]


def test_a_disturbed_row_gives_no_ratio(tmp_path: Path, artifact: Path) -> None:
    """While others keep every CPU busy, a row says so in the place of its ratios, and has no share of the limit."""
    only = "benchmarks/bench_throughput.py", "-k", "onnxruntime and 8", "--artifact", artifact
    with strangers(machine_info()["cores"], seconds=600):
        (row,) = quick_rows(tmp_path, *only)["throughput"]
    assert row["ratios"].startswith("not given: other processes used ")
    assert row["limit_images_per_s"] > 0
    assert not [key for key in row if key.startswith("share_of")]


def test_results_are_written_by_whole_runs(tmp_path: Path, artifact: Path) -> None:
    """--results writes the rows of a question to its file, and why a test has none."""
    programs = "benchmarks/bench_preprocessing.py", "benchmarks/bench_throughput.py"
    chosen = "pixels and 1 or on_the_gpu and onnxruntime and 8"
    run_benchmarks(*programs, "-k", chosen, "--artifact", artifact, "--results", tmp_path)
    result = json.loads((tmp_path / "preprocessing.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["JPEG to 256x128 pixels, 1 thread"]
    assert result["machine"].keys() == machine_info().keys()
    result = json.loads((tmp_path / "throughput.json").read_text())
    ((reason, tests),) = result["left_out"].items()
    assert reason.startswith(("sessions of onnxruntime take arrays", "needs an NVIDIA GPU"))
    assert tests == ["test_on_the_gpu[tiny.onnx-onnxruntime-8]"]
    assert result["rows"] == []


def test_an_artifact_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    """The message names the file, and nothing is written."""
    options = "--artifact", tmp_path / "typo.onnx", "--results", tmp_path / "results"
    printed = run_benchmarks("benchmarks/bench_latency.py", *options, status=1)
    assert f"{tmp_path / 'typo.onnx'}: cannot be read" in printed
    assert "skipped" not in printed
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--quick", "--results", "folder"], {}, "The figures of --quick are not results"),
        (["--quick"], {"OPENBLAS_CORETYPE": "Haswell"}, "Unset OPENBLAS_CORETYPE"),
    ],
)
def test_what_would_give_wrong_figures_is_refused(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    """Before anything is measured, with the reason."""
    assert message in run_benchmarks("benchmarks", *arguments, status=4, **environment)
