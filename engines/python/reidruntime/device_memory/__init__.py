"""Device memory, pinned memory and a stream: one small interface, one file per library that provides them."""

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from reidruntime.errors import InputError

MemoryName = Literal["cuda-python", "torch", "pycuda"]
Bytes = NDArray[np.uint8]


class DeviceMemory(Protocol):
    """Buffers on the GPU, and one stream that orders what is done with them.

    Attributes:
        stream: the CUDA stream's handle.
    """

    stream: int

    def device_buffer(self, num_bytes: int) -> int:
        """Allocate on the GPU; returns the address. Freed by :meth:`close`."""
        ...

    def pinned_buffer(self, num_bytes: int) -> Bytes:
        """Allocate page-locked host memory, from and to which copies are asynchronous; uint8, (num_bytes,)."""
        ...

    def copy_in(self, pinned: Bytes, address: int) -> None:
        """Enqueue a copy of a pinned buffer, this memory's or another's, or of a part of one to the GPU."""
        ...

    def copy_out(self, address: int, pinned: Bytes) -> None:
        """Enqueue a copy from the GPU into a pinned buffer, or its beginning."""
        ...

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        ...

    def captured(self, work: Callable[[], None]) -> Callable[[], object] | None:
        """Record what ``work`` enqueues as a CUDA graph; returns what launches it, None where that cannot be done."""
        ...

    def close(self) -> None:
        """Free the stream and every buffer."""
        ...


def open_device_memory(name: MemoryName) -> DeviceMemory:
    """A stream with its buffers, by the library of that name.

    Raises:
        InputError: no library has that name.
        NotInstalledError: it is not installed, or no GPU was found.
        GpuError: CUDA fails.
    """
    if name == "cuda-python":
        from reidruntime.device_memory.cuda_python import CudaPythonMemory

        return CudaPythonMemory()
    if name == "torch":
        from reidruntime.device_memory.torch import TorchMemory

        return TorchMemory()
    if name == "pycuda":
        from reidruntime.device_memory.pycuda import PycudaMemory

        return PycudaMemory()
    raise InputError(f"There is no memory {name!r}. Expected one of: {', '.join(get_args(MemoryName))}.")
