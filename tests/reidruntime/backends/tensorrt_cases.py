"""Runs engines against stand-ins of TensorRT's bindings; run by ``test_tensorrt_contract.py``."""

import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_bindings
import torch
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.manifest import BatchProfile, manifest_from_json
from reidruntime.backends import lanes as lanes_module
from reidruntime.backends import tensorrt as backend_module
from reidruntime.errors import ArtifactError, GpuError, InputError

from tests.standins.host_memory import HostMemory, tensor_at
from tests.standins.runtime_models import (
    DIM,
    HEIGHT,
    WIDTH,
)
from tests.standins.tensorrt.bindings import Bindings, StandIn
from tests.standins.tensorrt.contract import RecordingMemory, build


def test_a_session_runs_batches_in_lanes(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, run at several batch sizes, captured as graphs and closed, through calls that the bindings have."""
    memories: list[RecordingMemory] = []

    def open_memory(name: str) -> RecordingMemory:
        memories.append(RecordingMemory())
        return memories[-1]

    monkeypatch.setattr(lanes_module, "open_device_memory", open_memory)
    build(onnx_file)
    images = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in range(40)]
    with open_session(onnx_file.with_suffix(".engine")) as session:
        assert session.description.startswith(
            f"TensorRT {trt.__version__}, NVIDIA H100, fp16, memory cuda-python"
        )
        features = session.embed(images, batch_size=8)
        assert features.shape == (40, DIM)
        assert session.run(np.stack(images[:3])).shape == (3, DIM)
    assert len(memories) == 3  # two lanes, and page-locked memory that images are read to
    assert all(memory.is_closed for memory in memories)
    # Five batches of eight over two lanes: each runs one, runs and captures the second, replays the third. A run of
    # three. A graph's context is its own, and keeps its shape; all contexts of a lane share its scratch memory.
    assert trt.calls.count("IExecutionContext.execute_async_v3") == 2 + 2 * 2 + 1
    assert sum(memory.replays for memory in memories) == 1
    assert trt.calls.count("ICudaEngine.create_execution_context") == 2 + 2
    assert trt.calls.count("IExecutionContext.set_device_memory") == 2 + 2
    assert trt.calls.count("IExecutionContext.set_input_shape") == 2 + 2 + 1


class Context(StandIn):
    """An execution context that keeps its own calls."""

    def __init__(self, bindings: Bindings) -> None:
        super().__init__(bindings, tensorrt_bindings.IExecutionContext)
        self.__dict__["log"] = []

    def _call(self, key: str, doc: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.log.append((key.partition(".")[2], *arguments))
        return super()._call(key, doc, arguments, named)


def test_batches_run_in_the_narrowest_profile_that_takes_them(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small batches, captured or not, are only given to contexts of the small profile, and large ones to the first."""
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: RecordingMemory())
    build(onnx_file, batch_profile=BatchProfile(minimum=1, optimum=32, maximum=64))
    contexts: list[Context] = []

    def new_context(strategy: object) -> Context:
        contexts.append(Context(trt))
        return contexts[-1]

    trt.answers |= {
        "ICudaEngine.num_optimization_profiles": 2,
        "ICudaEngine.get_tensor_profile_shape": lambda name, profile: [
            (n, HEIGHT, WIDTH, 3) for n in ((1, 32, 64), (1, 4, 8))[profile]
        ],
        "ICudaEngine.create_execution_context": new_context,
    }
    with open_session(onnx_file.with_suffix(".engine")) as session:
        for size in (8, 9, 64, 1) * 6:
            assert session.run(np.zeros((size, HEIGHT, WIDTH, 3), np.uint8)).shape == (size, DIM)
        assert session._network.graph_sizes == (1, 8, 9, 64)
    chosen = {1: 1, 8: 1, 9: 0, 64: 0}
    used = 0
    for context in contexts:
        names = [call[0] for call in context.log]
        profile = 1 if ("set_optimization_profile_async", 1, 7) in context.log else 0
        assert names.count("set_optimization_profile_async") == profile
        assert names.index("set_tensor_address") == names.index("set_device_memory") + 1 + profile
        sizes = [call[2][0] for call in context.log if call[0] == "set_input_shape"]
        assert all(chosen[size] == profile for size in sizes)
        used += len(sizes)
    assert (
        used == 4 * 2
    )  # a size comes to one of the two lanes only: once plainly, and once before its capture


class Stream:
    """A stream of torch's, which notes what it waits for."""

    def __init__(self, name: object, log: list[tuple[object, ...]]) -> None:
        self.name, self._log = name, log

    def wait_stream(self, other: "Stream") -> None:
        """Note it."""
        self._log.append((self.name, "waits for", other.name))


@pytest.fixture
def tensors(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[backend_module.TensorRtBackend, list[tuple[object, ...]]]]:
    """A backend on host memory whose network writes each image's first bytes, and the log of what happens in order."""
    log: list[tuple[object, ...]] = []
    memories: dict[int, HostMemory] = {}

    class Memory(HostMemory):
        def __init__(self) -> None:
            super().__init__()
            self.stream = 7 + len(memories)
            memories[self.stream] = self

        def wait(self) -> None:
            log.append((self.stream, "is waited for"))

    def network(stream: int) -> bool:
        images, features, *_ = memories[stream].buffers
        rows = images.reshape(-1, HEIGHT * WIDTH * 3)[:, :DIM].astype(np.float32)
        features.view(np.float32)[:] = rows.reshape(-1)
        log.append((stream, "runs"))
        return True

    def new_context(strategy: object) -> StandIn:
        context = StandIn(trt, tensorrt_bindings.IExecutionContext)
        weakref.finalize(context, log.append, ("a context is freed",))
        return context

    build(onnx_file)
    trt.answers |= {
        "IExecutionContext.execute_async_v3": network,
        "ICudaEngine.create_execution_context": new_context,
    }
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: Memory())
    monkeypatch.setattr(lanes_module, "tensor_at", tensor_at)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("caller", log))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle: Stream(handle, log))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    engine = onnx_file.with_suffix(".engine")
    manifest = manifest_from_json(engine.with_name("model.engine.json").read_text(), "")
    yield backend_module.TensorRtBackend(engine, manifest), log


def shifted_images(size: int, seed: int) -> torch.Tensor:
    """Images that begin at an odd address, as a view may."""
    pixels = np.random.default_rng(seed).integers(0, 256, size * HEIGHT * WIDTH * 3 + 1, dtype=np.uint8)
    return torch.from_numpy(pixels)[1:].view(size, HEIGHT, WIDTH, 3)


def test_tensors_run_in_lanes_and_in_graphs(
    trt: Bindings, tensors: tuple[backend_module.TensorRtBackend, list[tuple[object, ...]]]
) -> None:
    """Views at any address are answered, captured and replayed; lane and caller wait for each other."""
    backend, log = tensors
    for seed in range(6):
        images = shifted_images(3, seed)
        log.clear()
        features = backend.run_tensor(images)
        assert torch.equal(features, images.reshape(3, -1)[:, :DIM].float())
        lane = log[0][0]
        assert [each for each in log if each != (lane, "runs")] == [
            (lane, "waits for", "caller"), ("caller", "waits for", lane),
        ]  # fmt: skip
        assert log[1] == (lane, "runs")
    assert backend.graph_sizes == (3,)
    assert trt.calls.count("IExecutionContext.set_input_shape") == 2 + 2
    assert trt.calls.count("IExecutionContext.set_tensor_address") == 2 * (2 + 2)


def test_a_tensor_on_another_gpu_is_refused(
    tensors: tuple[backend_module.TensorRtBackend, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch would copy the lane's memory there, and the network would never see the images."""
    monkeypatch.setattr(lanes_module, "tensor_at", lambda address, shape, dtype, device: torch.empty(shape))
    with pytest.raises(
        InputError, match=r"the tensor is on cpu, the network on another GPU. Move the tensor there"
    ):
        tensors[0].run_tensor(shifted_images(1, 0))


def test_a_tensor_that_fails_leaves_its_lane(
    trt: Bindings, tensors: tuple[backend_module.TensorRtBackend, list[tuple[object, ...]]]
) -> None:
    """The caller's stream waits for what was enqueued, and the lane answers the next tensor."""
    backend, log = tensors
    network = trt.answers["IExecutionContext.execute_async_v3"]
    trt.answers["IExecutionContext.execute_async_v3"] = False
    for _ in range(3):
        with pytest.raises(GpuError, match="TensorRT fails on a batch of 2"):
            backend.run_tensor(shifted_images(2, 0))
        assert log[-1][:2] == ("caller", "waits for")
    trt.answers["IExecutionContext.execute_async_v3"] = network
    images = shifted_images(2, 1)
    assert torch.equal(backend.run_tensor(images), images.reshape(2, -1)[:, :DIM].float())
    assert trt.calls.count("ICudaEngine.create_execution_context") == 2


def test_closing_waits_for_tensors_under_way(
    tensors: tuple[backend_module.TensorRtBackend, list[tuple[object, ...]]],
) -> None:
    """No context is freed before everything that was enqueued in its lane is done."""
    backend, log = tensors
    backend.run_tensor(shifted_images(1, 0))
    log.clear()
    backend.close()
    freed = ("a context is freed",)
    assert log == [(7, "is waited for"), freed, (8, "is waited for"), freed]


def test_what_cannot_be_captured_is_run_plainly(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory or a network without CUDA graphs is tried once, and answers every batch."""
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: RecordingMemory())
    tries: list[int] = []
    monkeypatch.setattr(RecordingMemory, "captured", lambda self, work: tries.append(1))
    build(onnx_file)
    with open_session(onnx_file.with_suffix(".engine")) as session:
        for _ in range(6):
            assert session.run(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)).shape == (2, DIM)
    assert len(tries) == 1
    assert trt.calls.count("IExecutionContext.execute_async_v3") == 6


def test_a_lane_that_cannot_be_made_leaves_nothing(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for a context the buffers are given back, and the message says so."""
    memory = RecordingMemory()
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: memory)
    build(onnx_file)
    trt.answers["ICudaEngine.create_execution_context"] = lambda strategy: None
    with pytest.raises(GpuError, match="no execution context, usually for lack of memory"):
        open_session(onnx_file.with_suffix(".engine"))
    assert memory.is_closed


def test_a_stripped_plan_is_refitted(trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights come from the ONNX file beside the plan, and from that very file only."""
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: RecordingMemory())
    manifest = build(onnx_file, strip_weights=True)
    assert manifest.engine is not None
    assert manifest.engine.weights_stripped
    open_session(onnx_file.with_suffix(".engine")).close()
    assert "OnnxParserRefitter.refit_from_file" in trt.calls
    assert "Refitter.refit_cuda_engine" in trt.calls
    onnx_file.write_bytes(onnx_file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="that file is missing or another one"):
        open_session(onnx_file.with_suffix(".engine"))


def test_a_version_compatible_plan_needs_consent(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It carries code: it is loaded only when the caller says that code may run."""
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: RecordingMemory())
    build(onnx_file, version_compatible=True)
    engine = onnx_file.with_suffix(".engine")
    with pytest.raises(ArtifactError, match="allow_host_code=True"):
        open_session(engine)
    open_session(engine, SessionOptions(allow_host_code=True)).close()
    assert trt.assigned["Runtime.engine_host_code_allowed"] is True


@pytest.mark.parametrize(
    ("member", "answer", "words"),
    [
        ("Runtime.deserialize_cuda_engine", lambda plan: None, "cannot load it"),
        ("ICudaEngine.num_io_tensors", 1, r"the engine has \['images'\]"),
        (
            "ICudaEngine.get_tensor_dtype",
            tensorrt_bindings.DataType.HALF,
            "images is float16 in the engine, uint8",
        ),
        ("ICudaEngine.get_tensor_profile_shape", [(1,), (1,), (1,)], "the engine takes batches of 1 to 1"),
    ],
)
def test_a_plan_that_is_not_what_its_manifest_says(
    trt: Bindings, onnx_file: Path, member: str, answer: Any, words: str
) -> None:
    """What the plan itself tells is compared with the manifest before the first batch."""
    build(onnx_file)
    trt.answers[member] = answer
    with pytest.raises(ArtifactError, match=words):
        open_session(onnx_file.with_suffix(".engine"))


def test_a_run_that_fails_is_an_error(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False from TensorRT raises, and the session can be used again."""
    monkeypatch.setattr(lanes_module, "open_device_memory", lambda name: RecordingMemory())
    build(onnx_file)
    batch = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    with open_session(onnx_file.with_suffix(".engine")) as session:
        trt.answers["IExecutionContext.execute_async_v3"] = False
        for _ in range(5):
            with pytest.raises(GpuError, match="TensorRT fails on a batch of 2"):
                session.run(batch)
        trt.answers["IExecutionContext.execute_async_v3"] = True
        assert session.run(batch).shape == (2, DIM)
    assert trt.calls.count("ICudaEngine.create_execution_context") == 2
