"""Device memory through cuda-python, NVIDIA's own bindings of the CUDA runtime."""

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from reidruntime.device_memory import Bytes
from reidruntime.errors import GpuError, NotInstalledError


class CudaPythonMemory:
    """See :class:`reidruntime.device_memory.DeviceMemory`."""

    def __init__(self) -> None:
        """Make the stream; raises NotInstalledError without cuda-python, GpuError where CUDA fails."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise NotInstalledError('cuda-python is not installed: pip install "reidexport[trt]"') from error
        self._cuda: Any = runtime
        (self._stream,) = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self.stream = int(self._stream)
        self._owned = ExitStack()  # freed in the reverse order, the stream last
        self._owned.callback(self._call, "cudaStreamDestroy", self._stream)

    def device_buffer(self, num_bytes: int) -> int:
        """Allocate on the GPU."""
        (address,) = self._call("cudaMalloc", num_bytes)
        self._owned.callback(self._call, "cudaFree", int(address))
        return int(address)

    def pinned_buffer(self, num_bytes: int) -> Bytes:
        """Allocate page-locked host memory."""
        (address,) = self._call("cudaMallocHost", num_bytes)
        self._owned.callback(self._call, "cudaFreeHost", int(address))
        return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(int(address)))

    def copy_in(self, pinned: Bytes, address: int) -> None:
        """Enqueue a copy to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, pinned.ctypes.data, pinned.nbytes, kind, self._stream)

    def copy_out(self, address: int, pinned: Bytes) -> None:
        """Enqueue a copy from the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", pinned.ctypes.data, address, pinned.nbytes, kind, self._stream)

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def captured(self, work: Callable[[], None]) -> Callable[[], object] | None:
        """Record what ``work`` enqueues as a CUDA graph; None where it cannot be recorded."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            with ExitStack() as recorded:
                self._call("cudaStreamBeginCapture", self._stream, mode)
                try:
                    work()
                finally:
                    (graph,) = self._call("cudaStreamEndCapture", self._stream)
                    recorded.callback(self._call, "cudaGraphDestroy", graph)
                (executable,) = self._call("cudaGraphInstantiate", graph, 0)
        except GpuError:
            return None  # run plainly, where a fault that is not the capture's shows itself
        self._owned.callback(self._call, "cudaGraphExecDestroy", executable)
        return partial(self._call, "cudaGraphLaunch", executable, self._stream)

    def close(self) -> None:
        """Free everything."""
        if self._stream is not None:
            try:
                with self._owned:
                    self.wait()
            finally:
                self._stream = None

    def _call(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        status, *values = getattr(self._cuda, function)(*arguments)
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise GpuError(
                f"{function} failed: {status.name}. Check the driver and free memory with nvidia-smi."
            )
        return tuple(values)
