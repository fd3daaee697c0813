"""A stand-in for TensorRT that computes with torch, so that the runtime's lanes can be checked without it.

It has what ``reidruntime.backends.tensorrt`` uses of the module ``tensorrt``. A context works as TensorRT's does: on
memory and on a stream that it is given as numbers, enqueued and not waited for. Copies, streams, CUDA graphs and
threads are so the runtime's own; only the network inside is torch's.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from reidruntime.manifest import (
    BatchProfile,
    Engine,
    LayerCounts,
    Manifest,
    engine_manifest_path,
    file_sha256,
)
from reidruntime.tensorrt_library import Gpu
from torch import Tensor

from benchmarks.gpu_check.settings import Device

VERSION = "10.99.0"
_TYPESTRINGS = {torch.uint8: "|u1", torch.float32: "<f4"}


class TorchEngine:
    """As ``ICudaEngine``: names, types and batch sizes of one input and one output."""

    num_io_tensors = 2
    num_optimization_profiles = 1
    device_memory_size_v2 = 256

    def __init__(self, answer: Callable[[Tensor], Tensor], manifest: Manifest, device: Device) -> None:
        self.answer, self.manifest, self.device = answer, manifest, device
        self._specs = {spec.name: spec for spec in (manifest.input, manifest.output)}

    def get_tensor_name(self, index: int) -> str:
        """The input's, then the output's."""
        return list(self._specs)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        """Of numpy, as the stand-in's ``nptype`` gives back what it gets."""
        return np.dtype(self._specs[name].dtype)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int | None, ...]]:
        """Smallest, best and largest."""
        sizes = self.manifest.batch_profile
        return [
            (size, *self._specs[name].shape[1:]) for size in (sizes.minimum, sizes.optimum, sizes.maximum)
        ]

    def create_execution_context(self, strategy: object = None) -> "TorchContext":
        """A new one."""
        return TorchContext(self)


class TorchContext:
    """As ``IExecutionContext``."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._views: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        """Not needed: torch has memory of its own."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """For the next runs."""
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        """For the next runs."""
        self._addresses[name] = address
        self._views.clear()
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue the network on a stream."""
        engine = self._engine
        with torch.inference_mode(), on_stream(stream, engine.device):
            images, features = self._tensors()
            features.copy_(engine.answer(images))
        return True

    def _tensors(self) -> tuple[Tensor, Tensor]:
        """The caller's memory as tensors; kept, as asking where memory lies is not for a capture."""
        if self._shape not in self._views:
            manifest, device = self._engine.manifest, self._engine.device
            out_shape = (self._shape[0], *(size or 1 for size in manifest.output.shape[1:]))
            self._views[self._shape] = (
                tensor_at(self._addresses[manifest.input.name], self._shape, torch.uint8, device),
                tensor_at(self._addresses[manifest.output.name], out_shape, torch.float32, device),
            )
        return self._views[self._shape]


def tensor_at(address: int, shape: tuple[int, ...], dtype: torch.dtype, device: Device) -> Tensor:
    """Memory that somebody else owns, as a tensor."""
    if device == "cpu":
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))
        return torch.from_numpy(memory).view(dtype).reshape(shape)
    interface = {"data": (address, False), "shape": shape, "typestr": _TYPESTRINGS[dtype], "version": 3}
    found: Tensor = torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device=device)
    return found


def write_torch_plan(path: Path, manifest: Manifest, gpu: Gpu, largest: int) -> Manifest:
    """A plan that only the stand-in loads, with its manifest beside it."""
    path.write_bytes(b"torch")
    engine = Engine(
        flavor="tensorrt",
        tensorrt_version=VERSION,
        gpu_name=gpu.name,
        compute_capability=gpu.compute_capability,
        driver_version=gpu.driver_version,
        onnx_name="none",
        onnx_sha256="0" * 64,
        plan_sha256=file_sha256(path),
        layers=LayerCounts(network={}),
    )
    profile = BatchProfile(minimum=1, optimum=largest, maximum=largest)
    written = manifest.model_copy(update={"engine": engine, "batch_profile": profile})
    engine_manifest_path(path).write_text(written.to_json())
    return written


@contextmanager
def torch_in_place_of_tensorrt(
    answer: Callable[[Tensor], Tensor], manifest: Manifest, device: Device
) -> Iterator[None]:
    """While the block runs, ``import tensorrt`` gives the stand-in."""
    module: Any = ModuleType("tensorrt")
    module.__version__ = VERSION
    module.ILogger = type("ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)})
    module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    module.nptype = lambda dtype: dtype
    module.Runtime = lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda plan: TorchEngine(answer, manifest, device)
    )
    before = sys.modules.get("tensorrt")
    sys.modules["tensorrt"] = module
    try:
        yield
    finally:
        del sys.modules["tensorrt"]
        if before is not None:
            sys.modules["tensorrt"] = before


def on_stream(stream: int, device: Device) -> AbstractContextManager[object]:
    """Torch works on a stream that somebody else made."""
    if device == "cpu":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.ExternalStream(stream))  # type: ignore[no-untyped-call]
