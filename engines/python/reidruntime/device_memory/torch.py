"""Device memory through torch, which then counts and pools it together with the application's own tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from reidruntime.device_memory import Bytes
from reidruntime.errors import GpuError, NotInstalledError

# Torch's allocator may ask the graph of a failed capture about streams as long as the process lives.
_failed_graphs: list[Any] = []


class TorchMemory:
    """See :class:`reidruntime.device_memory.DeviceMemory`."""

    def __init__(self) -> None:
        """Make the stream; raises NotInstalledError without torch or without a GPU that it can use."""
        try:
            import torch
        except ImportError as error:
            raise NotInstalledError(
                "torch is not installed: pip install torch, or choose another memory"
            ) from error
        if not torch.cuda.is_available():
            raise NotInstalledError("torch finds no GPU. Check the driver with nvidia-smi.")
        self._torch: Any = torch
        self._stream: Any = self._torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)
        self._device: dict[int, Any] = {}
        self._pinned: list[Any] = []
        self._pool: Any = self._torch.cuda.graph_pool_handle()  # graphs of one stream never run at once

    def device_buffer(self, num_bytes: int) -> int:
        """Allocate on the GPU, in this stream: torch hands freed memory on in the order of the stream it is for."""
        with self._on_stream():
            buffer = self._torch.empty(num_bytes, dtype=self._torch.uint8, device="cuda")
        self._device[buffer.data_ptr()] = buffer
        return int(buffer.data_ptr())

    def pinned_buffer(self, num_bytes: int) -> Bytes:
        """Allocate page-locked host memory."""
        with self._on_stream():
            buffer = self._torch.empty(num_bytes, dtype=self._torch.uint8, pin_memory=True)
        self._pinned.append(buffer)
        view: Bytes = np.asarray(buffer.numpy())
        return view

    def copy_in(self, pinned: Bytes, address: int) -> None:
        """Enqueue a copy to the GPU; torch asks CUDA whether the memory is page-locked."""
        with self._on_stream():
            self._device[address][: pinned.nbytes].copy_(self._torch.from_numpy(pinned), non_blocking=True)

    def copy_out(self, address: int, pinned: Bytes) -> None:
        """Enqueue a copy from the GPU."""
        with self._on_stream():
            self._torch.from_numpy(pinned).copy_(self._device[address][: pinned.nbytes], non_blocking=True)

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        with self._on_stream():
            self._stream.synchronize()

    def captured(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Record what ``work`` enqueues as a CUDA graph; None where it cannot be recorded."""
        cuda = self._torch.cuda
        graph = cuda.CUDAGraph()
        try:
            # torch.cuda.graph leaves its own stream current where a capture cannot be ended.
            with (
                self._on_stream(),
                cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                work()
        except GpuError:
            _failed_graphs.append(graph)
            return None  # run plainly, where a fault that is not the capture's shows itself
        return self._on_stream()(lambda: graph.replay())

    def close(self) -> None:
        """Free everything."""
        self.wait()
        self._device.clear()
        self._pinned.clear()

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        try:
            with self._torch.cuda.stream(self._stream):
                yield
        except RuntimeError as error:  # torch's errors of CUDA and of memory are its subclasses
            raise GpuError(f"CUDA fails in torch: {error}") from error
