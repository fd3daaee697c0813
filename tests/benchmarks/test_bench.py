"""The measurements in benchmarks/ run, count right, and say so when the machine had other things to do."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from reidgallery import Gallery
from reidruntime import Session, open_session
from reidruntime.artifact.manifest import file_sha256
from reidruntime.images.preprocess import normalize
from reidruntime.images.resize import resize
from reidruntime.threads import default_threads
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bench_throughput
from benchmarks.bench_gallery import compare_large_on_device
from benchmarks.bench_ranking import data
from benchmarks.bench_throughput import compare_on_device
from benchmarks.harness import comparison, operations, peak_kernels
from benchmarks.harness.fresh_process import peak_mib_of
from benchmarks.harness.gpu_limit import Rates, layers_of, limit_images_per_s
from benchmarks.harness.operations import Peak, operations_per_image, peak
from benchmarks.harness.result_file import save_left_out, save_row
from benchmarks.harness.subjects import Subject, open_subject, write_seeded_checkpoint
from benchmarks.peers import gpu_peers
from benchmarks.peers.peers import bare_onnxruntime, num_threads, torch_network
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.cpu_share import CpuUse, cpu_use, disturbance, others_share
from reidexport.data.synthetic import draw_people
from reidexport.export.graph import graph_from_checkpoint
from reidexport.machine import machine_info, package_versions
from tests import ROOT
from tests.conftest import Exported
from tests.standins.runtime_models import write_artifact

_BURN = "import time; end = time.perf_counter() + {seconds}\nwhile time.perf_counter() < end: pass"


def run_benchmarks(*arguments: object, status: int = 0, **environment: str) -> str:
    """Run them as a user does, and return what they print; fails unless they end with that status."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, arguments)]
    # In a worker of xdist, pytest-benchmark measures nothing.
    unwanted = "OPENBLAS_CORETYPE", "PYTEST_XDIST_WORKER"
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**inherited, **environment})
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


def quick_rows(folder: Path, *arguments: object) -> dict[str, list[dict[str, Any]]]:
    """The rows of a quick run, by question, from the file of pytest-benchmark."""
    run_benchmarks("--quick", *arguments, "--benchmark-json", folder / "benchmark.json")
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads((folder / "benchmark.json").read_text())["benchmarks"]:
        question = Path(each["fullname"].partition("::")[0]).stem.removeprefix("bench_")
        found.setdefault(question, []).append(each["extra_info"])
    return found


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


def kernels_of_this_cpu(precision: str) -> tuple[peak_kernels.Kernel, ...]:
    """All of them; skips where there are none."""
    found = peak_kernels.kernels(precision)
    if not found:
        pytest.skip(f"no peak kernel of {precision} for this CPU")
    return found


def as_factors(integers: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Small integers in the type of a peak kernel's ones; bfloat16 is the upper half of a float32."""
    if ones.dtype == np.uint16:
        return (integers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return integers.astype(ones.dtype)


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
    with strangers(machine_info()["cores"], seconds=60):
        (row,) = quick_rows(tmp_path, *only)["throughput"]
    assert row["ratios"].startswith("not given: other processes used ")
    assert row["limit_images_per_s"] > 0
    assert not [key for key in row if key.startswith("share_of")]


def test_rows_are_merged_by_name(tmp_path: Path) -> None:
    """A new row takes the place of the old one and leaves the others, which a busy one does not hide."""
    path, machine = tmp_path / "folder" / "latency.json", machine_info()
    for name, ratios in (("a", {}), ("b", "not given: others"), ("a", {"torch eager": {"median": 2.0}})):
        save_row(path, {"name": name, "timed": "all", "ratios": ratios}, machine, "test_a")
    result = json.loads(path.read_text())
    assert (result["kind"], result["question"], result["is_busy"]) == ("benchmark", "latency", True)
    assert (result["machine"], result["versions"]) == (machine, package_versions())
    assert [(row["name"], len(row["ratios"])) for row in result["rows"]] == [("a", 1), ("b", 17)]


def test_rows_of_another_machine_are_dropped(tmp_path: Path) -> None:
    """A file has rows of one machine and the same versions, whatever the clock and the load were."""
    path, machine = tmp_path / "latency.json", machine_info()
    row = {"name": "a", "timed": "all", "ratios": {}}
    save_row(path, row, machine, "test_a")
    machine["load_average"], machine["cpu_mhz"] = 7.0, 12
    save_row(path, row | {"name": "b"}, machine, "test_b")
    assert [each["name"] for each in json.loads(path.read_text())["rows"]] == ["a", "b"]
    machine["cores"] += 1
    with pytest.warns(UserWarning, match="dropped the rows of another machine or other versions"):
        save_row(path, row | {"name": "c"}, machine, "test_c")
    assert [each["name"] for each in json.loads(path.read_text())["rows"]] == ["c"]


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
        (["--quick", "--results", "folder"], {}, "The figures of --quick are no results"),
        (["--quick"], {"OPENBLAS_CORETYPE": "Haswell"}, "Unset OPENBLAS_CORETYPE"),
    ],
)
def test_what_would_give_wrong_figures_is_refused(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    """Before anything is measured, with the reason."""
    assert message in run_benchmarks("benchmarks", *arguments, status=4, **environment)


def test_ranking_is_not_compared_with_other_numbers_of_threads() -> None:
    """Where OMP_NUM_THREADS is not the number of CPUs, the run fails and says what to set."""
    arguments = "benchmarks/bench_ranking.py", "--quick", "-k", "distance_matrix"
    printed = run_benchmarks(*arguments, status=1, OMP_NUM_THREADS=str(default_threads() + 1))
    assert "unset that, or choose as many CPUs with taskset" in printed


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("4,2", 4), ("", default_threads()), ("0", default_threads())]
)
def test_threads_are_those_of_the_outermost_region(
    value: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OMP_NUM_THREADS may be a list, one number for each level; none: the CPUs of the process."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert num_threads() == threads


def test_a_failed_child_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    """What a fresh process says on stderr before it fails is shown."""
    with pytest.raises(subprocess.CalledProcessError):
        peak_mib_of("raise ValueError('what went wrong')")
    assert "ValueError: what went wrong" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_device_than_the_one_asked_for_is_refused(exported: Exported) -> None:
    """ONNX Runtime without CUDA runs on the CPU instead, which is no measurement of a GPU."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(RuntimeError, match="on CPUExecutionProvider, not on CUDAExecutionProvider"):
        bare_onnxruntime(exported.onnx, "cuda")


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


def turns_of_a_test() -> tuple[Any, dict[str, Any]]:
    """What the fixture ``compare`` is to a measurement, quick, and the row that it fills."""

    def pedantic(target: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> None:
        for _ in range(rounds):
            setup()
            target()

    benchmark = SimpleNamespace(pedantic=pedantic, extra_info={})
    return partial(comparison.compare, benchmark, machine=machine_info(), quick=True), benchmark.extra_info


def taking_tensors(session: Session) -> Any:
    """A stand-in for a session that takes tensors: what it answers is the real session's."""
    return SimpleNamespace(
        manifest=session.manifest,
        backend="torch-cuda",
        description="a stand-in",
        run=session.run,
        run_tensor=lambda images: torch.from_numpy(session.run(images.numpy())),
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_row_of_a_gpu(exported: Exported, precision: str) -> None:
    """Tensors to tensors, against torch in the artifact's own precision and ONNX Runtime, with shares of the limit."""
    path = exported.fp16 if precision == "fp16" else exported.onnx
    with open_session(path, backend="onnxruntime", device="cpu") as session:
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
    monkeypatch.setattr(bench_throughput, "compare_on_device", lambda *given, turn_s: seen.append(given[5]))
    skips = isinstance(outcome, str)
    with pytest.raises(pytest.skip.Exception, match=outcome) if skips else nullcontext():
        bench_throughput.test_on_the_gpu(None, subject, batch_size, False, "default")  # type: ignore[arg-type]
    assert seen == ([] if skips else [outcome])


def test_a_peer_that_fails_spoils_no_row(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured, the row names it with its error, and then the test fails for it."""
    monkeypatch.setattr(gpu_peers, "_bound", lambda *_: 1 / 0)
    with open_session(exported.onnx, backend="onnxruntime", device="cpu") as session:
        subject = Subject(exported.onnx, taking_tensors(session), load_checkpoint(exported.checkpoint))
        compare, row = turns_of_a_test()
        with pytest.raises(ExceptionGroup, match="installed and fail: onnxruntime bare") as caught:
            compare_on_device(compare, subject, 1, "cpu", None, None, turn_s=0.01)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert row["failed_peers"] == {"onnxruntime bare": "ZeroDivisionError: division by zero"}
    assert row["images_per_s"] > 0
    assert len(row["peers_images_per_s"]) == 2


def test_peers_of_a_gpu_are_compiled_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs are captured as for every side; a batch size that would not be compiled any more is an error."""
    asked: list[dict[str, Any]] = []

    def compile_(network: Any, **options: Any) -> Any:
        asked.append(options)

        def run(images: torch.Tensor) -> torch.Tensor:
            config = torch._dynamo.config
            assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == (64, True)
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    network, images = torch.nn.Identity(), torch.zeros(2)
    for mode in ("max-autotune", "default"):
        assert gpu_peers._compiled(network, mode)(images) is images
    assert asked == [
        {"dynamic": False, "mode": "max-autotune-no-cudagraphs"},
        {"dynamic": False, "mode": "default"},
    ]


def test_torch_is_as_it_was_behind_its_best() -> None:
    """TF32 and cuDNN's search are on while a peer is made ready, and what they were before behind it."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.allow_tf32
    for tf32, precision in ((True, "high"), (False, "highest")):
        with gpu_peers._torch_at_its_best(tf32=tf32):
            assert (cudnn.benchmark, cudnn.allow_tf32) == (True, tf32)
            assert torch.get_float32_matmul_precision() == precision
    assert (torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.allow_tf32) == before


def test_a_search_on_a_device_is_compared_with_the_cpus_bits(tmp_path: Path) -> None:
    """Queries a second, how many answers were compared to the bit, and which peers are not there."""
    given = data(500, 60)
    gallery = Gallery(2048)
    gallery.add(given.g_feats)
    gallery.save(tmp_path / "small.gallery")
    compare, row = turns_of_a_test()
    compare_large_on_device(compare, tmp_path / "small.gallery", given.q_feats, "cpu")
    seconds = row["seconds"]["reidexport"]["median"]
    assert row["queries_per_s"] == pytest.approx(60 / seconds, rel=1e-3)
    assert row["num_bit_equal_to_the_cpu"] == 40
    assert row["seconds"].keys() == {"reidexport", "limit"}


def test_what_was_left_out_is_written_until_it_has_a_row(tmp_path: Path) -> None:
    """Tests that were skipped for one reason are a list; one with a row of its own is no longer left out."""
    path, machine = tmp_path / "throughput.json", machine_info()
    for test in ("test_a", "test_b", "test_a"):
        save_left_out(path, test, "no GPU", machine)
    assert json.loads(path.read_text())["left_out"] == {"no GPU": ["test_a", "test_b"]}
    for test, left in (("test_a", {"no GPU": ["test_b"]}), ("test_b", {})):
        save_row(path, {"name": test, "timed": "all", "ratios": {}}, machine, test)
        assert json.loads(path.read_text())["left_out"] == left


def test_operations_are_those_that_torch_counts(exported: Exported, tmp_path: Path) -> None:
    """Convolutions and products of an exported file cost what torch's own counter says of the graph."""
    graph = graph_from_checkpoint(load_checkpoint(exported.checkpoint))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(graph.example(1))
    assert operations_per_image(exported.onnx) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert operations_per_image(exported.fp16) == operations_per_image(exported.onnx)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_peak_kernels_multiply_and_add(precision: str) -> None:
    """Every sum of a peak kernel is that of as many multiply-adds in plain NumPy, of groups that fill 32 bits."""
    rng = np.random.default_rng(0)
    for kernel in kernels_of_this_cpu(precision):
        left, right = rng.integers(0, 8, kernel.ones[0].size), rng.integers(-8, 8, kernel.ones[1].size)
        sums = kernel.run(
            1000, *(as_factors(values, ones) for values, ones in zip((left, right), kernel.ones, strict=True))
        )
        products = (left * right).reshape(sums.shape[1], -1).sum(axis=1)
        expected = np.zeros(sums.shape, sums.dtype)
        for _ in range(1000):
            expected += products.astype(sums.dtype)
        np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_peak_kernels_do_as_many_operations_as_they_say(precision: str) -> None:
    """Where all factors are one, each multiply-add adds one, and counts as two operations."""
    for kernel in kernels_of_this_cpu(precision):
        assert 2 * kernel.run(1000, *kernel.ones).sum() == 1000 * kernel.operations_per_round


def test_peaks_are_of_all_threads_at_once() -> None:
    """No thread's burst ends before all others have begun, and the caller keeps its CPUs."""
    together, cpus = threading.Barrier(3), os.sched_getaffinity(0)

    def run(rounds: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        together.wait(timeout=30)
        return left

    kernel = peak_kernels.Kernel("waits", 2, (np.ones(1), np.ones(1)), run)
    assert peak_kernels.gop_per_s(kernel, 3) > 0
    assert os.sched_getaffinity(0) == cpus


def test_vectors_are_no_limit_where_tiles_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX has no peak kernel of int8 and bf16."""
    features = dict.fromkeys(("amx-int8", "amx-bf16", "avx512vnni", "avx512bf16"), True)
    monkeypatch.setattr(peak_kernels.llvm, "get_host_cpu_features", lambda: features)
    assert peak_kernels.kernels.__wrapped__("int8") == peak_kernels.kernels.__wrapped__("bf16") == ()


def test_the_peak_is_the_greatest(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library's product and no kernel was ever faster than the peak, whose name is that of the fastest."""
    kernel = peak_kernels.Kernel("multiply-add", 2, (np.ones(1), np.ones(1)), lambda *_: np.ones(1))
    monkeypatch.setattr(operations, "_highest", {})
    monkeypatch.setattr(operations, "kernels", lambda _: (kernel,))
    monkeypatch.setattr(operations, "num_threads", lambda: 3)
    monkeypatch.setattr(operations, "_gop_per_s", lambda _: 2.0)
    for of_the_kernel, expected in [
        (1.0, Peak(2.0, "numpy.matmul float32")),
        (3.0, Peak(3.0, "multiply-add, 3 threads")),
        (1.0, Peak(3.0, "multiply-add, 3 threads")),
    ]:
        monkeypatch.setattr(operations, "gop_per_s", lambda *_, value=of_the_kernel: value)
        assert peak("fp16") == expected


def test_peers_answer_as_the_artifact_does(exported: Exported) -> None:
    """Bare runtimes, torch eager and the network of the DataLoader pipeline give the artifact's features."""
    with open_session(exported.onnx, backend="onnxruntime") as session:
        subject = Subject(exported.onnx, session, load_checkpoint(exported.checkpoint))
        pixels = subject.pixels(3)
        ours = session.run(pixels)
        for embed in subject.bare_peers().values():
            subject.check(embed(subject.own_input(pixels)), ours)
        subject.check(subject.torch_sides(pixels, compile_mode=None)["torch eager"](), ours)
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
