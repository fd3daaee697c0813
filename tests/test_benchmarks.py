"""The measurements in benchmarks/ run, count right, and say so when the machine had other things to do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reidruntime import open_session
from reidruntime.preprocess import normalize
from reidruntime.resize import resize
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.operations import operations_per_image
from benchmarks.other_processes import CpuUse, cpu_use, disturbance, others_share
from benchmarks.peers import torch_network
from benchmarks.subjects import Subject, open_subject, write_seeded_checkpoint
from reidexport.checkpoint import load_checkpoint
from reidexport.graph import graph_from_checkpoint
from reidexport.machine import machine_info
from reidexport.synthetic import draw_people
from tests.conftest import Exported
from tests.reidruntime.models import write_artifact

ROOT = Path(__file__).parents[1]
_BURN = "import time; end = time.perf_counter() + {seconds}\nwhile time.perf_counter() < end: pass"


def run_benchmarks(*arguments: object) -> None:
    """Run them as a user does; fails with all that they printed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--quick",
        "-p",
        "no:cacheprovider",
        *map(str, arguments),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def strangers(count: int, seconds: float) -> Iterator[None]:
    """Processes that keep CPUs busy and, their parent having ended, are nobody's children."""
    burn = f"{sys.executable} -c '{_BURN.format(seconds=seconds)}' >&- 2>&- & echo $!"
    shells = [subprocess.run(["sh", "-c", burn], capture_output=True, check=True) for _ in range(count)]
    pids = [int(shell.stdout) for shell in shells]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, 9)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run of the measurements of one artifact wrote, by question."""
    folder = tmp_path_factory.mktemp("benchmarks")
    artifact = write_artifact(folder / "tiny.onnx")
    files = [f"benchmarks/bench_{name}.py" for name in ("latency", "throughput", "end_to_end", "memory")]
    run_benchmarks(*files, "-k", "onnxruntime", "--artifact", artifact, "--results", folder / "results")
    return {path.stem: json.loads(path.read_text()) for path in (folder / "results").iterdir()}


def test_every_question_is_answered_with_its_circumstances(results: dict[str, Any]) -> None:
    """One file a question; a row names its artifact, backend, threads, and what was timed."""
    assert results.keys() == {"latency", "throughput", "end_to_end", "memory"}
    for question, result in results.items():
        assert (result["kind"], result["question"]) == ("benchmark", question)
        assert result["machine"].keys() == machine_info().keys()
        assert isinstance(result["is_busy"], bool)
        for row in result["rows"]:
            assert row["artifact"] == "tiny.onnx"
            assert (row["backend"], row["precision"]) == ("onnxruntime", "fp32")
            assert len(row["manifest_sha256"]) == 64
            assert row["threads"] >= 1
            assert row["timed"]


def test_ratios_are_of_named_peers(results: dict[str, Any]) -> None:
    """Every peer has figures of its own and a ratio with its spread, or a text says why not."""
    for result in results.values():
        for row in result["rows"]:
            figures = row.get("seconds") or row["peak_mib"]
            assert "reidexport" in figures
            for spread in figures.values():
                assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
            if isinstance(row["ratios"], str):
                assert row["ratios"].startswith("not given: ")
                assert result["is_busy"]
            else:
                assert row["ratios"].keys() == figures.keys() - {"reidexport"} != set()
    latency = results["latency"]["rows"][0]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
    assert [row["batch_size"] for row in results["throughput"]["rows"]] == [1, 8]


def test_a_disturbed_row_gives_no_ratio(tmp_path: Path) -> None:
    """While others keep every CPU busy, a row says so in the place of its ratios."""
    with strangers(machine_info()["cores"], seconds=60):
        run_benchmarks("benchmarks/bench_ranking.py", "-k", "distance_matrix", "--results", tmp_path)
    result = json.loads((tmp_path / "ranking.json").read_text())
    assert result["is_busy"]
    assert result["rows"][0]["ratios"].startswith("not given: other processes used ")


def test_own_work_is_not_anothers() -> None:
    """A child's CPU time counts as ours, while it runs and when it has ended."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    before = cpu_use()
    child = subprocess.Popen([sys.executable, "-c", _BURN.format(seconds=0.6)])
    time.sleep(0.4)
    during = cpu_use()
    child.wait()
    after = cpu_use()
    assert before and during and after
    assert before.own < during.own < after.own
    assert after.own - before.own >= 0.2 * ticks_per_s


@pytest.mark.parametrize(("others", "share"), [(0, 0.0), (4, 0.0), (104, 0.5), (1000, 1.0)])
def test_the_share_of_others(others: int, share: float) -> None:
    """One second of two CPUs is 200 ticks of 10 ms: what is not ours is others', but for the error of counting."""
    scale = os.sysconf("SC_CLK_TCK") / 100
    before = CpuUse(everyones=1000, own=100, cpus=2, at_s=5.0)
    after = CpuUse(1000 + int(scale * (90 + others)), 100 + int(scale * 90), 2, 6.0)
    assert others_share(before, after) == pytest.approx(share, abs=0.02)
    assert others_share(None, after) is None


def test_load_counts_only_where_cpu_time_is_unknown() -> None:
    """A high load before the run, which may be the run's own, does not disturb a row whose share is known."""
    machine = machine_info()
    machine["load_average"], machine["cores"] = 1.9, 2
    assert disturbance(0.05, machine) is None
    assert disturbance(0.25, machine) == "other processes used 25% of the CPU time"
    assert disturbance(None, machine) == "the load was 1.9 before the first measurement"
    machine["load_average"] = 0.1
    assert disturbance(None, machine) is None


def test_operations_are_those_that_torch_counts(exported: Exported, tmp_path: Path) -> None:
    """Convolutions and products of an exported file cost what torch's own counter says of the graph."""
    graph = graph_from_checkpoint(load_checkpoint(exported.checkpoint))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(graph.example(1))
    assert operations_per_image(exported.onnx) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert operations_per_image(exported.fp16) == operations_per_image(exported.onnx)


def test_peers_answer_as_the_artifact_does(exported: Exported) -> None:
    """Bare runtimes, torch eager and the network of the DataLoader pipeline give the artifact's features."""
    with open_session(exported.onnx, backend="onnxruntime") as session:
        subject = Subject(exported.onnx, session, load_checkpoint(exported.checkpoint))
        pixels = subject.pixels(3)
        ours = session.run(pixels)
        for embed in subject.bare_peers().values():
            subject.check(embed(subject.own_input(pixels)), ours)
        subject.check(subject.torch_peers(compiled=False)["torch eager"](pixels), ours)
        planes = session.manifest.preprocess.model_copy(update={"layout": "NCHW"})
        network = torch_network(subject.checkpoint, subject.options)
        subject.check(network(torch.from_numpy(normalize(pixels, planes))).numpy(), ours)
        with pytest.raises(ArithmeticError, match=r"differs by .* in relative L2, expected at most 0\.0001"):
            subject.check(ours[::-1], ours)


def test_an_artifact_of_another_checkpoint_is_refused(exported: Exported, tmp_path: Path) -> None:
    """Torch is a peer only with the weights that the artifact was made from."""
    write_seeded_checkpoint(tmp_path / "other.pth", "osnet_x0_25")
    with pytest.raises(ValueError, match="their hashes differ"):
        open_subject(exported.onnx, "onnxruntime", load_checkpoint(tmp_path / "other.pth"))


def test_seeded_networks_keep_their_activations_moderate(tmp_path: Path) -> None:
    """The features of drawn people are different, and in the range of a trained network's."""
    write_seeded_checkpoint(tmp_path / "seeded.pth", "osnet_x0_25")
    graph = graph_from_checkpoint(load_checkpoint(tmp_path / "seeded.pth"))
    people = np.stack([resize(image, 256, 128, "bilinear") for image in draw_people(4)])
    with torch.inference_mode():
        features = graph(torch.from_numpy(people)).numpy()
    assert 0.1 < np.abs(features).mean() < 10
    assert np.corrcoef(features).min() < 0.9
