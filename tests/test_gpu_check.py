"""``make gpu-check``: its own logic for real, and its checks on the CPU wherever they need no GPU."""

import ctypes
import io
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reidruntime.backends import tensorrt as backend_module
from reidruntime.errors import NotInstalledError
from reidruntime.tensorrt_library import Gpu

from benchmarks.gpu_check import answers, memories, network, nvidia_smi, peaks, runtimes, speeds, training
from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.deadline import Deadline
from benchmarks.gpu_check.groups import GROUPS, Group
from benchmarks.gpu_check.growth import MemoryUse, growth, steady_memory
from benchmarks.gpu_check.outcome import Outcome, StepFailedError, StepSkippedError, within
from benchmarks.gpu_check.report import finite, line, passed, report, write_report
from benchmarks.gpu_check.settings import Settings, quick
from benchmarks.gpu_check.supervisor import run_groups
from benchmarks.gpu_check.worker import do_group, settings_from_json

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def collecting(seconds: float = 60.0) -> tuple[Bench, list[Outcome]]:
    """A bench, and the outcomes that it will have told."""
    told: list[Outcome] = []
    return Bench(Deadline(seconds), say=told.append), told


def raising(error: Exception) -> Callable[[], dict[str, Any]]:
    """Work that ends so."""

    def work() -> dict[str, Any]:
        raise error

    return work


def test_a_deadline_runs_out_and_stays_past() -> None:
    """Remaining time falls with the clock, down to zero, and a part of it never outlasts the whole."""
    clock = Clock()
    deadline = Deadline(10, clock=clock)
    assert deadline.at_most(3).remaining_s == 3
    clock.now += 8
    assert (deadline.remaining_s, deadline.has(2), deadline.has(2.1)) == (2, True, False)
    assert deadline.at_most(3).remaining_s == 2
    clock.now += 8
    assert (deadline.remaining_s, deadline.has(0)) == (0, True)


def test_what_becomes_of_a_step() -> None:
    """Every way in which a step can end has its status and its reason, and none stops the next."""
    bench, told = collecting()
    bench.check("a", "passes", 1, lambda: {"error": 0.5})
    bench.check("a", "fails", 1, lambda: within({"error": 0.5}, {"error": 0.1}))
    bench.check("a", "breaks", 1, raising(ZeroDivisionError("division by zero")))
    bench.check("a", "is not possible", 1, raising(StepSkippedError("no such thing here")))
    bench.check("a", "lacks a package", 1, raising(ModuleNotFoundError("No module", name="pycuda")))
    bench.check("a", "lacks a library", 1, raising(NotInstalledError("TensorRT is not installed")))
    bench.check("a", "comes too late", 100, dict)
    bench.measure("a", "speed", 1, lambda: {"p50_ms": 1.5})
    assert bench.opened("a", 1, lambda: 7) == 7
    assert bench.opened("a", 1, raising(OSError("disk"))) is None
    assert [(each.step, each.status, each.reason) for each in told] == [
        ("passes", "passed", ""),
        ("fails", "failed", "error is 0.5, allowed 0.1"),
        ("breaks", "failed", "ZeroDivisionError: division by zero"),
        ("is not possible", "skipped", "no such thing here"),
        ("lacks a package", "skipped", "pycuda is not installed"),
        ("lacks a library", "skipped", "TensorRT is not installed"),
        ("comes too late", "skipped", "out of time"),
        ("speed", "measured", ""),
        ("opens", "passed", ""),
        ("opens", "failed", "OSError: disk"),
    ]
    assert told[1].values == {"error": 0.5, "limits": {"error": 0.1}}


def test_not_a_number_is_above_every_limit() -> None:
    """NaN never passes."""
    with pytest.raises(StepFailedError, match="error is nan, allowed 1"):
        within({"error": float("nan")}, {"error": 1})


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (MemoryUse(1016.0, 532.0), None),
        (MemoryUse(1017.0, 500.0), r"device memory grew by 17\.0 MiB in 10 calls, allowed 16"),
        (MemoryUse(1000.0, 533.0), r"host memory grew by 33\.0 MiB in 10 calls, allowed 32"),
        (MemoryUse(None, 400.0), None),
    ],
)
def test_growth_is_judged_by_its_limits(end: MemoryUse, words: str | None) -> None:
    """Up to the limit memory may grow, beyond it the step fails; what is not told is not judged."""
    start = MemoryUse(1000.0, 500.0)
    if words is None:
        assert growth(start, end, 10)["calls"] == 10
    else:
        with pytest.raises(StepFailedError, match=words) as failed:
            growth(start, end, 10)
        assert failed.value.values["limits"] == {"device_growth_mib": 16.0, "host_growth_mib": 32.0}


def test_a_real_leak_is_found() -> None:
    """Sixty-four KiB kept by every call are seen in the process's memory; a call that keeps nothing is steady."""
    kept: list[mmap.mmap] = []

    def leak() -> None:
        kept.append(mmap.mmap(-1, 2**16))  # pages of its own: the heap may have freed ones left
        kept[-1].write(bytes([1]) * 2**16)

    with pytest.raises(StepFailedError, match="host memory grew"):
        steady_memory(leak, 1000, Deadline(60))
    assert steady_memory(lambda: bytes(1000), 1000, Deadline(60))["calls"] == 1000


def test_too_few_calls_prove_nothing() -> None:
    """When the time is over before all calls are done, the step says how many were."""
    with pytest.raises(StepSkippedError, match="out of time after 0 of 500 calls"):
        steady_memory(lambda: None, 500, Deadline(0), look=lambda: MemoryUse(None, 1.0))


def test_percentiles_of_a_known_series() -> None:
    """1 to 101 ms: the median is 51, the 99th percentile 100; images per second count every run."""
    found = speeds.summary([float(value) for value in range(1, 102)], 4)
    assert found == {
        "repeats": 101, "p50_ms": 51.0, "p90_ms": 91.0, "p99_ms": 100.0, "images_per_s": 4 * 1000 / 51,
    }  # fmt: skip


def test_times_are_those_of_the_work() -> None:
    """A call that sleeps three milliseconds takes at least three, and is repeated until the time is over."""
    times = speeds.host_times_ms(lambda: time.sleep(0.003), 0.05)
    assert min(times) >= 3
    assert sum(times) >= 50


def test_differences_of_rows() -> None:
    """The worst row counts: its relative error, and how far its cosine is from 1; not finite is infinite."""
    expected = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    found = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    assert answers.differences(found, expected) == {
        "max_relative_l2": pytest.approx(2**0.5),
        "max_cosine_distance": 1.0,
    }
    found[0, 0] = np.nan
    assert answers.differences(found, expected)["max_relative_l2"] == float("inf")
    with pytest.raises(StepFailedError, match="turn 2 is not equal bit for bit"):
        answers.check_equal_bits(np.nextafter(expected, 9), expected, "turn 2")


def test_what_nvidia_smi_does_not_tell_is_none() -> None:
    """Numbers are numbers, names are text, and [N/A] is nothing."""
    names = ("name", "driver_version", "compute_cap", "memory.total", "power.limit")
    line = "NVIDIA H100 80GB HBM3, 580.82.07, 9.0, 81559, [N/A]\n"
    assert nvidia_smi.parse(names, line) == {
        "name": "NVIDIA H100 80GB HBM3", "driver_version": "580.82.07", "compute_cap": "9.0",
        "memory.total": 81559.0, "power.limit": None,
    }  # fmt: skip


def test_the_report_is_whole_and_valid(tmp_path: Path) -> None:
    """Counts, machine, versions, every check with its reason, every measurement; infinities become null."""
    outcomes = [
        Outcome("a", "parity", "failed", 0.12345, "too far", {"error": float("inf"), "limits": {"error": 1}}),
        Outcome("a", "graphs", "skipped", reason="out of time"),
        Outcome("a", "speed at batch 1", "measured", 1.0, values={"caller": {"p50_ms": 2.0, "p99_ms": 3.0}}),
    ]
    content = report(outcomes, {"network": "tiny"}, seconds=3.14159, limit_s=10, is_quick=True)
    write_report(tmp_path / "gpu.json", content)
    read = json.loads((tmp_path / "gpu.json").read_text())
    assert (read["passed"], read["quick"], read["seconds"]) == (False, True, 3.1)
    assert read["counts"] == {"passed": 0, "failed": 1, "skipped": 1, "measured": 1}
    assert read["checks"][0] == {
        "subject": "a", "step": "parity", "status": "failed", "seconds": 0.123, "reason": "too far",
        "values": {"error": None, "limits": {"error": 1}},
    }  # fmt: skip
    assert read["checks"][1]["reason"] == "out of time"
    assert read["measurements"][0]["values"]["caller"]["p99_ms"] == 3.0
    assert read["machine"]["cores"] >= 1
    assert "numpy" in read["versions"]
    assert [line(each) for each in outcomes] == [
        "failed    a: parity: too far",
        "skipped   a: graphs: out of time",
        "measured  a: speed at batch 1  caller p50_ms 2",
    ]
    assert passed(outcomes[1:])
    assert finite([float("nan"), (1.0,)]) == [None, [1.0]]


def test_every_group_can_be_imported() -> None:
    """What the groups name exists, and the settings survive the way to the worker."""
    for group in GROUPS:
        module, _, function = group.function.partition(":")
        __import__(module)
        assert callable(getattr(sys.modules[module], function))
        assert group.least_s <= group.limit_s
    settings = quick(Settings(folder="f", device="cpu"))
    assert settings_from_json(json.dumps(settings.__dict__)) == settings


def hangs(bench: Bench, settings: Settings) -> None:
    """A group that answers once and then never again."""
    bench.check("hang", "first", 0, dict)
    bench.check("hang", "second", 0, lambda: time.sleep(1000) or {})  # type: ignore[func-returns-value]


def crashes(bench: Bench, settings: Settings) -> None:
    """A group that the operating system ends."""
    print("about to crash")
    bench.check("crash", "only", 0, lambda: os.kill(os.getpid(), signal.SIGSEGV) or {})  # type: ignore[func-returns-value]


def breaks(bench: Bench, settings: Settings) -> None:
    """A group that breaks between its steps."""
    raise RuntimeError("no steps at all")


def sees_no_gpu(bench: Bench, settings: Settings) -> None:
    """A group that may not use the GPU."""
    bench.check("hidden", "only", 0, lambda: {"gpus": len(os.environ["CUDA_VISIBLE_DEVICES"])})


def test_groups_that_hang_crash_or_break_end_alone(tmp_path: Path) -> None:
    """The step under way has failed, with the reason; what came before it counts, and the other groups go on."""
    here = "tests.test_gpu_check"
    groups = (
        Group("hang", f"{here}:hangs", least_s=1, limit_s=25),
        Group("crash", f"{here}:crashes", least_s=1, limit_s=60),
        Group("break", f"{here}:breaks", least_s=1, limit_s=60),
        Group("hidden", f"{here}:sees_no_gpu", least_s=1, limit_s=60, uses_gpu=False),
        Group("late", f"{here}:hangs", least_s=1000, limit_s=2000),
    )
    told: list[Outcome] = []
    outcomes = run_groups(Settings(folder=str(tmp_path)), Deadline(300), groups=groups, say=told.append)
    assert told == outcomes
    assert [(each.subject, each.step, each.status) for each in outcomes] == [
        ("hang", "first", "passed"),
        ("hang", "second", "failed"),
        ("hang", "later steps", "skipped"),
        ("crash", "only", "failed"),
        ("crash", "later steps", "skipped"),
        ("break", "all steps", "failed"),
        ("hidden", "only", "passed"),
        ("late", "all steps", "skipped"),
    ]
    assert outcomes[1].reason == "did not end within 25 s"
    assert outcomes[3].reason == "its process ended with status -11: about to crash"
    assert outcomes[5].reason == "RuntimeError: no steps at all"
    assert outcomes[6].values == {"gpus": 0}
    assert outcomes[7].reason == "out of time"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A tiny network on the CPU, prepared."""
    folder = tmp_path_factory.mktemp("gpu-check")
    settings = replace(
        quick(Settings(folder=str(folder), device="cpu")),
        height_px=32,
        width_px=16,
        seconds_per_speed=0.02,
        matrix_size=64,
        growth_calls=5,
        num_train_pids=2,
    )
    bench, told = collecting(600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        network.prepare(bench, settings)
    assert [each.status for each in told] == ["passed"] * 3, told
    return settings


def test_the_reference_counts_the_network_s_operations(settings: Settings) -> None:
    """Two for each of about 20 million multiply-adds, which a ResNet-18 takes for 32x16 px."""
    flop = network.flop_per_image(settings)
    assert flop is not None
    assert 3e7 < flop < 8e7
    assert network.images_of(settings).shape == (8, 32, 16, 3)
    assert network.answers_of(settings, "network").shape == (8, 512)


def test_peaks_are_kept_for_the_other_groups(settings: Settings) -> None:
    """Every product and every copy is measured, and read back."""
    bench, told = collecting(600)
    peaks.measure_peaks(bench, settings)
    assert {each.status for each in told} == {"measured"}
    found = peaks.peaks_of(settings)
    assert found.fp32 == pytest.approx(
        next(e for e in told if e.step.startswith("fp32")).values["tflop_per_s"]
    )
    assert found.host_to_device is not None
    assert peaks.peaks_of(replace(settings, folder="nowhere")) == peaks.Peaks()


def test_torch_s_networks_answer_on_the_cpu(settings: Settings) -> None:
    """Float32 and half pass every check and are measured; CUDA graphs are skipped with the reason."""
    lines = io.StringIO()
    do_group("torch", "benchmarks.gpu_check.torch_networks:check_torch", 600, settings, lines)
    content = [json.loads(text) for text in lines.getvalue().splitlines()]
    outcomes = [Outcome(**each["outcome"]) for each in content if "outcome" in each]
    by_step = {(each.subject, each.step): each for each in outcomes}
    for subject in ("torch fp32", "torch fp16"):
        assert by_step[subject, "parity"].status == "passed", by_step[subject, "parity"]
        assert by_step[subject, "batch consistency"].status == "passed"
        speed = by_step[subject, "speed at batch 4"]
        assert speed.values["device"]["images_per_s"] > 0
        assert speed.values["caller"]["p50_ms"] <= speed.values["caller"]["p99_ms"]
    assert by_step["torch fp16, CUDA graphs", "opens"].reason == "CUDA graphs need a GPU"
    assert not [each for each in outcomes if each.status == "failed"]


def test_onnx_runtime_is_checked_on_the_cpu(settings: Settings) -> None:
    """Both exported files pass, and threads get their own answers."""
    bench, told = collecting(600)
    runtimes.check_onnxruntime(bench, settings)
    assert {each.status for each in told} == {"passed", "measured"}, told
    steps = [each.step for each in told if each.subject == "ONNX Runtime fp16"]
    assert steps == [
        "opens", "parity", "batch consistency", "threads get their own answers", "speed at batch 1",
        "speed at batch 4", "memory is steady",
    ]  # fmt: skip


def test_a_wrong_answer_fails_parity(settings: Settings) -> None:
    """A reference that is off by three per cent is told from the network's answers."""
    session = runtimes._opened_onnx(settings, "fp16", "onnxruntime")
    images, expected = network.images_of(settings), network.answers_of(settings, "network")
    with pytest.raises(StepFailedError, match=r"max_relative_l2 is 0\.0\d+, allowed 0\.02"):
        answers.parity(session, images, expected * np.float32(1.03))


class HostMemory:
    """Device memory in host memory, at its real addresses; a graph is the work itself."""

    def __init__(self) -> None:
        self.stream, self._buffers = 0, {}

    def device_buffer(self, num_bytes: int) -> int:
        """The address of some memory."""
        buffer = np.zeros(num_bytes, np.uint8)
        self._buffers[buffer.ctypes.data] = buffer
        return int(buffer.ctypes.data)

    def pinned_buffer(self, num_bytes: int) -> np.ndarray:
        """Plain memory."""
        return np.zeros(num_bytes, np.uint8)

    def copy_in(self, pinned: np.ndarray, address: int) -> None:
        """Copy at once."""
        ctypes.memmove(address, pinned.ctypes.data, pinned.nbytes)

    def copy_out(self, address: int, pinned: np.ndarray) -> None:
        """Copy at once."""
        ctypes.memmove(pinned.ctypes.data, address, pinned.nbytes)

    def wait(self) -> None:
        """Nothing to wait for."""

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """A capture does nothing yet, a launch does all of it."""
        return work

    def close(self) -> None:
        """Free everything."""
        self._buffers.clear()


def open_host_memory(name: str) -> HostMemory:
    """In place of cuda-python only."""
    if name != "cuda-python":
        raise NotInstalledError(f"{name} is not here")
    return HostMemory()


def test_the_lanes_answer_with_torch_in_tensorrt_s_place(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime's lanes, graphs and threads give the reference's answers; what needs a GPU says so."""
    gpu = Gpu("a GPU", "9.0", "580.1")
    for module in (backend_module, runtimes):
        monkeypatch.setattr(module, "first_gpu", lambda: gpu)
    monkeypatch.setattr(backend_module, "open_device_memory", open_host_memory)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    bench, told = collecting(600)
    runtimes.check_lanes(bench, replace(settings, batch_sizes=(1, 8)))
    assert "tensorrt" not in sys.modules
    found = {(each.subject.rpartition(" ")[2], each.step): each for each in told}
    for step in ("parity", "batch consistency", "replays equal plain runs", "threads get their own answers"):
        assert found["cuda-python", step].status == "passed", found["cuda-python", step]
    assert set(found["cuda-python", "replays equal plain runs"].values["captured_batch_sizes"]) >= {1, 3, 8}
    assert found["cuda-python", "memory is steady"].status == "passed"
    assert found["cuda-python", "speed at batch 8"].status == "measured"
    tensors = found["cuda-python", "tensors are answered without copies"]
    assert (tensors.status, tensors.reason) == ("skipped", "tensors on a GPU need a GPU")
    assert found["pycuda", "opens"].reason == "pycuda is not here"


def test_a_graph_that_repeats_old_work_is_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that does nothing leaves the last batch's answer, which is another's."""
    gpu = Gpu("a GPU", "9.0", "580.1")
    for module in (backend_module, runtimes):
        monkeypatch.setattr(module, "first_gpu", lambda: gpu)
    monkeypatch.setattr(backend_module, "open_device_memory", open_host_memory)
    monkeypatch.setattr(HostMemory, "captured", lambda self, work: lambda: None)
    bench, told = collecting(600)
    runtimes.check_lanes(bench, replace(settings, batch_sizes=(1, 8)))
    failed = {each.step for each in told if each.status == "failed"}
    assert "replays equal plain runs" in failed


def test_device_memory_is_checked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies, threads and graphs pass on memory that works; a copy that loses a byte is found."""
    monkeypatch.setattr(memories, "open_device_memory", open_host_memory)
    bench, told = collecting(600)
    memories.check_memories(bench, settings)
    assert [each.status for each in told] == ["passed"] * 5 + ["skipped"] * 2, told

    def lossy(self: HostMemory, address: int, pinned: np.ndarray) -> None:
        ctypes.memmove(pinned.ctypes.data, address, pinned.nbytes - 1)

    monkeypatch.setattr(HostMemory, "copy_out", lossy)
    with pytest.raises(StepFailedError, match="came back changed"):
        memories.in_a_thread(memories.copies_come_back, HostMemory())


def test_the_trainer_learns_on_the_cpu(settings: Settings) -> None:
    """The loss of bf16 starts where float32's does, and both fall."""
    values = training._losses(settings)
    assert values["bf16_losses"][-1] < values["bf16_losses"][0]
    assert values["first_loss_distance"] <= values["limits"]["first_loss_distance"]


def test_an_artifact_takes_the_place_of_the_export(settings: Settings, tmp_path: Path) -> None:
    """Its reference is ONNX Runtime on the CPU, so that no exporter is needed."""
    given = replace(settings, folder=str(tmp_path), artifact=str(settings.file("fp16.onnx")))
    bench, told = collecting(600)
    bench.check("ONNX artifact", "answers", 1, lambda: network._take_artifact(given))
    assert told[0].status == "passed", told
    assert network.onnx_of(given, "fp16").is_file()
    with pytest.raises(StepSkippedError, match="there is no fp32 ONNX file"):
        network.onnx_of(given, "fp32")
    assert network.answers_of(given, "fp16").shape == (8, 512)


def run_gpu_check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As in a bare checkout."""
    command = (sys.executable, "-m", "benchmarks.gpu_check", *arguments)
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    """Exit status 3, and what to look at."""
    done = run_gpu_check("--json", str(tmp_path / "gpu.json"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 3
    assert done.stderr.startswith("gpu-check needs an NVIDIA GPU, and this process finds none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--checkpoint", "missing.pth"), "missing.pth: there is no such file"),
        (("--limit", "0"), "expected a positive number of seconds, got 0.0"),
        (("--batches", "1"), "unrecognized arguments"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], words: str) -> None:
    """Exit status 2, and what is wrong."""
    done = run_gpu_check(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.gpu
def test_everything_passes_on_a_gpu(tmp_path: Path) -> None:
    """The quick run: nothing fails, and the file says what was found and what was skipped, and why."""
    done = run_gpu_check("--quick", "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["passed"]
    assert content["counts"]["measured"] > 10
    assert all(check.get("reason") for check in content["checks"] if check["status"] == "skipped")
