"""Device memory of every library: copies, threads, CUDA graphs, and whether all of it is freed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import get_args

import numpy as np
import pytest
import torch
from reidruntime.backends.lanes import tensor_at
from reidruntime.device_memory import DeviceMemory, MemoryName, open_device_memory

from tests.gpu.conftest import MEMORY_MODULES, Judge, skip_unless_installed


@pytest.fixture(params=get_args(MemoryName))
def name(request: pytest.FixtureRequest, gpu_only: None) -> MemoryName:
    """Each library that is installed."""
    skip_unless_installed(request.param, MEMORY_MODULES[request.param])
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [1, 4096, 3 << 20])
def test_copies_come_back(size: int, name: MemoryName) -> None:
    """A whole buffer, then its first half, is not changed on the way, nor in a thread that has not used CUDA before."""

    def check(memory: DeviceMemory) -> None:
        address, there, back = memory.device_buffer(size), *(memory.pinned_buffer(size) for _ in range(2))
        there[:], back[:] = np.random.default_rng(size).integers(0, 256, size), 0
        for part in (size, max(size // 2, 1)):
            there[:part] ^= 255
            memory.copy_in(there[:part], address)
            memory.copy_out(address, back)
            memory.wait()
            assert np.array_equal(there, back), f"{part} of {size} bytes came back changed"

    with closing(open_device_memory(name)) as memory, ThreadPoolExecutor(1) as pool:
        check(memory)
        pool.submit(check, memory).result()


def test_graphs_repeat_their_work(name: MemoryName) -> None:
    """A captured addition, launched three times, adds three."""
    with closing(open_device_memory(name)) as memory:
        address, pinned = memory.device_buffer(256), memory.pinned_buffer(256)
        numbers = tensor_at(address, (256,), np.dtype(np.uint8), "cuda")

        def add_one() -> None:
            with torch.cuda.stream(torch.cuda.ExternalStream(memory.stream)):  # type: ignore[no-untyped-call]
                numbers.add_(1)

        add_one()  # loads the kernel, which a capture must not
        pinned[:] = np.arange(256)
        memory.copy_in(pinned, address)
        memory.wait()
        launch = memory.captured(add_one) or pytest.skip(f"{name} captures no CUDA graphs")
        for _ in range(3):
            launch()
        memory.copy_out(address, pinned)
        memory.wait()
        assert np.array_equal(pinned, np.arange(3, 259) % 256)


def test_everything_is_given_back(name: MemoryName, judge: Judge) -> None:
    """Memory that is opened and closed again and again does not add up."""

    def open_and_close() -> None:
        with closing(open_device_memory(name)) as memory:
            memory.device_buffer(1 << 20)
            memory.pinned_buffer(1 << 20)

    judge.steady_memory(open_and_close, 50)
