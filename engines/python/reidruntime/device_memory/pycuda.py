"""Device memory through pycuda, for applications that already use it; it has no CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from reidruntime.device_memory import Bytes
from reidruntime.errors import GpuError, NotInstalledError


class PycudaMemory:
    """See :class:`reidruntime.device_memory.DeviceMemory`.

    Works in the device's primary context, the one that TensorRT uses, and makes it current for each call only.
    """

    def __init__(self) -> None:
        """Make the stream; raises NotInstalledError without pycuda or a GPU."""
        try:
            from pycuda import driver
        except ImportError as error:
            raise NotInstalledError(
                "pycuda is not installed: pip install pycuda, or choose another memory"
            ) from error
        self._driver: Any = driver
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
        except driver.Error as error:
            raise NotInstalledError(
                f"pycuda finds no GPU ({error}). Check the driver with nvidia-smi."
            ) from error
        self._device: dict[int, Any] = {}
        with self._current():
            self._stream = driver.Stream()
        self.stream = int(self._stream.handle)

    def device_buffer(self, num_bytes: int) -> int:
        """Allocate on the GPU."""
        with self._current():
            allocation = self._driver.mem_alloc(num_bytes)
        self._device[int(allocation)] = allocation
        return int(allocation)

    def pinned_buffer(self, num_bytes: int) -> Bytes:
        """Allocate page-locked host memory."""
        with self._current():
            buffer: Bytes = self._driver.pagelocked_empty(num_bytes, np.uint8)
        return buffer

    def copy_in(self, pinned: Bytes, address: int) -> None:
        """Enqueue a copy to the GPU."""
        with self._current():
            self._driver.memcpy_htod_async(address, pinned, self._stream)

    def copy_out(self, address: int, pinned: Bytes) -> None:
        """Enqueue a copy from the GPU."""
        with self._current():
            self._driver.memcpy_dtoh_async(pinned, address, self._stream)

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        with self._current():
            self._stream.synchronize()

    def captured(self, work: Callable[[], None]) -> None:
        """Not available in pycuda: the work is enqueued anew each time."""

    def close(self) -> None:
        """Free everything."""
        self.wait()
        with self._current():
            for allocation in self._device.values():
                allocation.free()
        self._device.clear()

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise GpuError(f"CUDA fails in pycuda: {error}") from error
        finally:
            self._driver.Context.pop()
