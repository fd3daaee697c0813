"""Device memory of every library: copies, order, CUDA graphs, threads, and whether all of it is given back."""

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import get_args

import numpy as np
from reidruntime.device_memory import DeviceMemory, MemoryName, open_device_memory

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.growth import steady_memory
from benchmarks.gpu_check.outcome import StepFailedError, StepSkippedError, Values
from benchmarks.gpu_check.settings import Settings

_SIZES = (1, 4096, 3 << 20)
_OPENINGS = 50


def check_memories(bench: Bench, settings: Settings) -> None:
    """Each library on its own; the one that is not installed is skipped."""
    for name in get_args(MemoryName):
        subject = f"memory {name}"
        memory = bench.opened(subject, 1, partial(open_device_memory, name))
        if memory is None:
            continue
        bench.check(subject, "copies come back", 1, partial(copies_come_back, memory))
        bench.check(subject, "another thread may use it", 1, partial(in_a_thread, copies_come_back, memory))
        bench.check(subject, "graphs repeat their work", 1, partial(graphs_repeat, memory, settings))
        memory.close()
        many = partial(steady_memory, partial(_open_and_close, name), _OPENINGS, bench.deadline)
        bench.check(subject, "everything is given back", 2, many)


def copies_come_back(memory: DeviceMemory) -> Values:
    """Bytes go to the GPU and back unchanged: whole buffers, beginnings of buffers, and the last copy wins."""
    for size in _SIZES:
        address, there, back = (
            memory.device_buffer(size),
            memory.pinned_buffer(size),
            memory.pinned_buffer(size),
        )
        there[:] = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
        back[:] = 0
        memory.copy_in(there, address)
        memory.copy_out(address, back)
        memory.wait()
        if not np.array_equal(there, back):
            raise StepFailedError(f"{size} bytes came back changed")
        part = max(size // 2, 1)
        there[:part] ^= 255
        memory.copy_in(there[:part], address)
        memory.copy_out(address, back)
        memory.wait()
        if not np.array_equal(there, back):
            raise StepFailedError(f"{part} of {size} bytes came back changed")
    return {"bytes": list(_SIZES)}


def in_a_thread(work: Callable[[DeviceMemory], Values], memory: DeviceMemory) -> Values:
    """The same in a thread that has not used CUDA before."""
    found: list[Values] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.append(work(memory))
        except Exception as error:  # noqa: BLE001  raised again, where the step is judged
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]


def graphs_repeat(memory: DeviceMemory, settings: Settings) -> Values:
    """A captured addition, launched three times, adds three."""
    import torch

    from benchmarks.gpu_check.torch_engine import on_stream, tensor_at

    size = 4096
    address, pinned = memory.device_buffer(size), memory.pinned_buffer(size)
    numbers = tensor_at(address, (size,), torch.uint8, settings.device)

    def add_one() -> None:
        with on_stream(memory.stream, settings.device):
            numbers.add_(1)

    add_one()  # loads the kernel, which a capture must not
    pinned[:] = np.arange(size, dtype=np.uint8)
    expected = pinned + np.uint8(3)
    memory.copy_in(pinned, address)
    memory.wait()
    launch = memory.captured(add_one)
    if launch is None:
        raise StepSkippedError("it has no CUDA graphs")
    for _ in range(3):
        launch()
    memory.copy_out(address, pinned)
    memory.wait()
    if not np.array_equal(pinned, expected):
        raise StepFailedError(
            f"three launches gave {pinned[:4].tolist()}…, expected {expected[:4].tolist()}…"
        )
    return {"launches": 3}


def _open_and_close(name: MemoryName) -> None:
    memory = open_device_memory(name)
    memory.device_buffer(1 << 20)
    memory.pinned_buffer(1 << 20)
    memory.close()
