"""Device memory without a GPU: the CUDA runtime and torch's streams are stand-ins that record what is asked of them."""

import re
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from reidruntime.device_memory.cuda_python import CudaPythonMemory
from reidruntime.device_memory.torch import TorchMemory
from reidruntime.errors import GpuError

Status = Enum("cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2})


VALUES: dict[str, tuple[Any, ...]] = {
    "cudaStreamCreateWithFlags": (7,),
    "cudaStreamEndCapture": ("graph",),
    "cudaGraphInstantiate": ("executable",),
}


class Runtime(ModuleType):
    """The module ``cuda.bindings.runtime``: every call is recorded, and those named in ``failing`` fail.

    Attributes:
        calls: name and arguments, in order.
        failing: names of functions.
    """

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.failing: set[str] = set()
        self.cudaError_t = Status
        self.cudaStreamNonBlocking = 1
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def function(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, arguments))
            values = VALUES.get(name, ())
            if name in self.failing:
                return (Status.cudaErrorMemoryAllocation, *(None for _ in values))
            return (Status.cudaSuccess, *values)

        return function

    def count(self, name: str) -> int:
        """How often a function was called."""
        return sum(called == name for called, _ in self.calls)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The stand-in in place of cuda-python."""
    made = Runtime()
    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = made
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    return made


def test_memory_is_freed_once_even_if_the_gpu_fails(runtime: Runtime) -> None:
    """Where waiting for the GPU fails, everything is freed all the same, and not again by another close."""
    memory = CudaPythonMemory()
    runtime.failing.add("cudaStreamSynchronize")
    with pytest.raises(GpuError, match="cudaStreamSynchronize failed"):
        memory.close()
    memory.close()
    assert runtime.count("cudaStreamDestroy") == runtime.count("cudaStreamSynchronize") == 1


def test_a_captured_graph_is_launched_and_freed(runtime: Runtime) -> None:
    """What was recorded is instantiated once, launched as often as asked, and destroyed with the memory."""
    memory = CudaPythonMemory()
    launch = memory.captured(lambda: None)
    assert launch is not None
    launch()
    launch()
    memory.close()
    assert runtime.count("cudaGraphLaunch") == 2
    assert runtime.calls.count(("cudaGraphDestroy", ("graph",))) == 1
    assert runtime.calls.count(("cudaGraphExecDestroy", ("executable",))) == 1


@pytest.mark.parametrize(
    "failing", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"]
)
def test_a_graph_that_cannot_be_made_is_no_error(runtime: Runtime, failing: str) -> None:
    """The batch has run already, so that the answer is None; a capture that was ended leaves no graph behind."""
    memory = CudaPythonMemory()
    runtime.failing.add(failing)
    assert memory.captured(lambda: None) is None
    assert runtime.count("cudaGraphDestroy") == (failing == "cudaGraphInstantiate")
    memory.close()
    assert runtime.count("cudaGraphExecDestroy") == 0


@pytest.mark.parametrize("error", [GpuError, KeyError])
def test_work_that_fails_leaves_no_graph(runtime: Runtime, error: type[Exception]) -> None:
    """The capture is ended and what it recorded is destroyed; only an error of the GPU means "run plainly"."""
    memory = CudaPythonMemory()

    def work() -> None:
        raise error("while capturing")

    if error is GpuError:
        assert memory.captured(work) is None
    else:
        with pytest.raises(error, match="while capturing"):
            memory.captured(work)
    assert runtime.count("cudaStreamEndCapture") == 1
    assert runtime.calls.count(("cudaGraphDestroy", ("graph",))) == 1


def test_calls_fit_cuda_python(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recorded function exists in the real bindings, with as many parameters."""
    memory = CudaPythonMemory()
    launch = memory.captured(lambda: None)
    assert launch is not None
    launch()
    memory.close()
    monkeypatch.undo()
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    for name, arguments in runtime.calls:
        signature = re.match(rf"{name}\((.*)\)", getattr(real, name).__doc__)
        assert signature is not None, name
        assert len([each for each in signature[1].split(",") if each]) == len(arguments), name


class TorchStreams:
    """Which of torch's streams is current, on a machine without any."""

    def __init__(self) -> None:
        self.current: Any = self.stream("the application's")

    @staticmethod
    def stream(name: str = "the memory's") -> Any:
        """A stream on the only device."""
        return SimpleNamespace(name=name, device="cuda:0", cuda_stream=7, synchronize=lambda: None)

    def set(self, stream: Any) -> None:
        """Make a stream current."""
        self.current = stream


class TorchGraph:
    """``torch.cuda.CUDAGraph`` whose capture fails where a test wants it to."""

    failing = ""

    def capture_begin(self, *pool: Any, **options: Any) -> None:
        """Begin."""
        self._fail("capture_begin")

    def capture_end(self) -> None:
        """End."""
        self._fail("capture_end")

    def _fail(self, step: str) -> None:
        if self.failing == step:
            raise RuntimeError(f"CUDA error in {step}")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> TorchStreams:
    """Torch's own ``graph`` and ``stream``, on streams and graphs that are stand-ins."""
    made = TorchStreams()
    for name, stand_in in {
        "is_available": lambda: True,
        "Stream": made.stream,
        "CUDAGraph": TorchGraph,
        "set_stream": made.set,
        "current_stream": lambda device=None: made.current,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "_get_device_index": lambda device, optional: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    return made


@pytest.mark.parametrize("failing", ["", "capture_begin", "capture_end"])
def test_torch_s_current_stream_is_the_application_s_again(
    streams: TorchStreams, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a capture ends, the stream that the application works on is the one it was."""
    monkeypatch.setattr(TorchGraph, "failing", failing)
    memory, before = TorchMemory(), streams.current
    seen: list[str] = []
    launch = memory.captured(lambda: seen.append(streams.current.name))
    assert (launch is None) == bool(failing)
    assert seen == ([] if failing == "capture_begin" else ["the memory's"])
    assert streams.current is before


def test_work_that_fails_in_torch_s_capture(streams: TorchStreams) -> None:
    """It means "run plainly", and the application's stream is current again."""
    memory, before = TorchMemory(), streams.current

    def work() -> None:
        raise GpuError("while capturing")

    assert memory.captured(work) is None
    assert streams.current is before
