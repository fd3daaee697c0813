"""Device memory that is the host's: copies are done at once, and a graph is the work that it was recorded from."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from reidruntime.device_memory import Bytes


class HostMemory:
    """See :class:`reidruntime.device_memory.DeviceMemory`.

    Attributes:
        copied_in: addresses on the host that copies to the "device" came from.
        buffers: all memory that was asked for, in that order.
        is_closed: whether the memory was given back.
    """

    def __init__(self, *, has_graphs: bool = True) -> None:
        self.stream, self.copied_in, self.is_closed = 0, [], False
        self._has_graphs = has_graphs
        self.buffers: list[Bytes] = []

    def device_buffer(self, num_bytes: int) -> int:
        """Memory of the host, by its address."""
        return int(self.pinned_buffer(num_bytes).ctypes.data)

    def pinned_buffer(self, num_bytes: int) -> Bytes:
        """Memory of the host."""
        self.buffers.append(np.zeros(num_bytes, np.uint8))
        return self.buffers[-1]

    def copy_in(self, pinned: Bytes, address: int) -> None:
        """Copy at once."""
        self.copied_in.append(pinned.ctypes.data)
        at(address, pinned.nbytes)[:] = pinned

    def copy_out(self, address: int, pinned: Bytes) -> None:
        """Copy at once."""
        pinned[:] = at(address, pinned.nbytes)

    def wait(self) -> None:
        """Everything is done."""

    def captured(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """The work itself."""
        return work if self._has_graphs else None

    def close(self) -> None:
        """Remember that it was asked."""
        self.is_closed = True


def at(address: int, num_bytes: int) -> Bytes:
    """The bytes that lie there."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))


def tensor_at(address: int, shape: tuple[int, ...], dtype: "np.dtype[Any]", device: object) -> torch.Tensor:
    """As :func:`reidruntime.backends.lanes.tensor_at`, in the host's memory."""
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(at(address, num_bytes).view(dtype).reshape(shape))
