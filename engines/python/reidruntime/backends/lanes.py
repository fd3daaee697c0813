"""Lanes: streams with buffers of their own, in which batches run beside each other on a GPU.

While the network answers one batch, the next is copied in and the last one out. A batch size is captured as a CUDA
graph: one call then launches all that the network enqueues.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from math import prod
from queue import Empty, SimpleQueue
from threading import Lock
from types import SimpleNamespace
from typing import Any, Protocol
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.manifest import TensorSpec
from reidruntime.backends import Answer
from reidruntime.device_memory import Bytes, DeviceMemory, MemoryName, open_device_memory
from reidruntime.errors import InputError

NUM_LANES = 2
_MAX_GRAPHS = 16
# One thread of the whole process captures: torch waits for the device before a capture, which would break another one,
# and cuDNN keeps its choice of kernels by thread, so that lanes of several threads would differ in their bits.
_capturing = ThreadPoolExecutor(1, "capturing")
Shape = tuple[int, ...]


@dataclass
class Lane:
    """A stream with buffers; one batch at a time.

    Attributes:
        memory: the stream, and who owns the buffers.
        device_in: address of the input on the GPU.
        device_out: address of the output on the GPU.
        pinned_in: page-locked memory for the largest input, from which copies are asynchronous.
        pinned_out: the same for the output.
        runs: how often a batch size ran without a graph.
        graphs: what launches a batch size that was captured.
        state: what the network keeps for this lane.
    """

    memory: DeviceMemory
    device_in: int
    device_out: int
    pinned_in: Bytes
    pinned_out: Bytes
    runs: Counter[int] = field(default_factory=Counter)
    graphs: dict[int, Callable[[], object]] = field(default_factory=dict)
    state: Any = None


class LaneNetwork(Protocol):
    """What runs in lanes.

    Attributes:
        runs_before_graph: how often a batch size runs plainly before it is captured.
    """

    runs_before_graph: int

    def new_state(self, lane: Lane) -> Any:
        """What the network needs in a new lane; its device memory comes from the lane's, and is freed with it."""
        ...

    def enqueue(self, lane: Lane, shape: Shape) -> None:
        """Enqueue the network on the lane's stream, from the lane's input to its output on the GPU."""
        ...

    def capture(self, lane: Lane, shape: Shape) -> Callable[[], object] | None:
        """Answer the batch that is in the lane, and return what launches the same as a CUDA graph, None without one."""
        ...


class Lanes:
    """Some lanes, and more when more batches are under way; any number of threads may call it at once.

    Attributes:
        graphs_allowed: False where the network cannot be captured; it then runs plainly.
    """

    def __init__(
        self,
        network: LaneNetwork,
        input_spec: TensorSpec,
        output_spec: TensorSpec,
        *,
        largest_batch: int,
        memory: MemoryName,
        name: str,
        graphs_allowed: bool = True,
    ) -> None:
        """Make the first lanes, with buffers for ``largest_batch`` images; ``name`` is the artifact's, for messages."""
        self._network, self._input, self._output = network, input_spec, output_spec
        self._largest_batch, self._memory_name, self._name = largest_batch, memory, name
        self.graphs_allowed = graphs_allowed
        self._host_memory: DeviceMemory | None = None  # opened for the first host array
        self._host_buffers: set[int] = set()  # addresses of page-locked memory
        # Those that nobody holds, by their number of rows.
        self._free_buffers: defaultdict[int, SimpleQueue[Bytes]] = defaultdict(SimpleQueue)
        self._making = Lock()  # a host buffer is found or made by one thread at a time
        self._is_closed = False
        self._idle: SimpleQueue[Lane] = SimpleQueue()
        self._lanes: list[Lane] = []
        for _ in range(NUM_LANES):
            self._idle.put(self._new_lane())

    def submit(self, batch: NDArray[Any], *, padded: int | None = None) -> Answer:
        """Enqueue the copy in, the network and the copy out; what is returned waits for the answer, once.

        Args:
            batch: in the network's own input type and layout, at most ``largest_batch`` rows.
            padded: run the network on that many rows; what the rows beyond the batch hold does not matter.
        """
        lane = self._free_lane()
        try:
            pixels = np.ascontiguousarray(batch).reshape(-1).view(np.uint8)
            if pixels.ctypes.data not in self._host_buffers:  # the GPU copies from page-locked memory only
                lane.pinned_in[: pixels.nbytes] = pixels
                pixels = lane.pinned_in[: pixels.nbytes]
            lane.memory.copy_in(pixels, lane.device_in)
            self._compute(lane, (padded or len(batch), *batch.shape[1:]))
            shape = (len(batch), *row_shape(self._output))
            answered = lane.pinned_out[: _num_bytes(len(batch), self._output)]
            lane.memory.copy_out(lane.device_out, answered)
        except BaseException:
            self._idle.put(lane)
            raise
        held = [batch]  # what the GPU copies from, until it has

        def answer() -> NDArray[Any]:
            if self._is_closed:
                raise InputError(
                    f"{self._name}: the session was closed before the answer of this batch was fetched."
                )
            try:
                lane.memory.wait()
                return answered.view(self._output.dtype).reshape(shape).copy()
            finally:
                held.clear()
                self._idle.put(lane)

        return answer

    def host_array(self, num_rows: int) -> NDArray[Any]:
        """Page-locked memory for at most ``largest_batch`` rows, which :meth:`submit` does not copy on the host.

        It is of the network's own input type and layout, and is reused when nobody holds the array.
        """
        size = min(1 << (num_rows - 1).bit_length(), self._largest_batch)  # so that buffers fit again
        shape = (num_rows, *row_shape(self._input))
        with self._making:
            if self._is_closed:
                return np.empty(shape, self._input.dtype)
            free = self._free_buffers[size]
            if free.empty():
                self._host_memory = self._host_memory or open_device_memory(self._memory_name)
                buffer = self._host_memory.pinned_buffer(_num_bytes(size, self._input))
                self._host_buffers.add(buffer.ctypes.data)
            else:
                buffer = free.get_nowait()
        # A view keeps alive the array at the root of its views, which is this one: it is no view of an array.
        contents = np.frombuffer(buffer.data, np.uint8)
        finalize(contents, free.put, buffer).atexit = False
        return contents[: _num_bytes(num_rows, self._input)].view(self._input.dtype).reshape(shape)

    def run_tensor(self, images: Any, *, padded: int | None = None) -> Any:
        """Answer a torch tensor on the GPU with another, ready in the order of torch's current stream.

        The images are copied into a lane, and the answer out of it, which takes a thousandth of the network's time: a
        CUDA graph reads from one address, and TensorRT from aligned ones, which views do not have. The arguments are
        those of :meth:`submit`.

        Raises:
            InputError: the images are on another GPU than the network.
            GpuError: the GPU fails.
        """
        import torch

        caller = torch.cuda.current_stream()
        shape = (len(images), *row_shape(self._output))
        features = torch.empty(shape, dtype=getattr(torch, self._output.dtype), device=images.device)
        lane = self._free_lane()
        try:
            stream = torch.cuda.ExternalStream(lane.memory.stream)  # type: ignore[no-untyped-call]
            stream.wait_stream(caller)
            try:
                with torch.cuda.stream(stream):
                    self._lane_tensor(lane.device_in, self._input, images).copy_(images.detach())
                self._compute(lane, (padded or len(images), *images.shape[1:]))
                with torch.cuda.stream(stream):
                    features.copy_(self._lane_tensor(lane.device_out, self._output, features))
            finally:
                # Also for torch's allocator, which reuses the memory of a tensor in the order of the caller's stream.
                caller.wait_stream(stream)
        finally:
            self._idle.put(lane)
        return features

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """The batch sizes that have a CUDA graph in some lane."""
        return tuple(sorted({size for lane in list(self._lanes) for size in list(lane.graphs)}))

    def close(self) -> None:
        """Wait for what is under way, and free the lanes."""
        self._is_closed = True
        for lane in self._lanes:
            lane.memory.wait()
            lane.graphs.clear()
            lane.state = None
            lane.memory.close()
        self._lanes.clear()
        self._idle = SimpleQueue()
        with self._making:
            num_free = sum(free.qsize() for free in self._free_buffers.values())
            # An array that somebody still writes to keeps its memory until the process ends.
            if self._host_memory is not None and num_free == len(self._host_buffers):
                self._host_memory.close()

    def _compute(self, lane: Lane, shape: Shape) -> None:
        """Enqueue the network: as a CUDA graph where the batch size has one, which it gets when it comes again."""
        size = shape[0]
        if launch := lane.graphs.get(size):
            launch()
        elif (
            self.graphs_allowed
            and lane.runs[size] >= self._network.runs_before_graph
            and len(lane.graphs) < _MAX_GRAPHS
        ):
            capturing = _capturing.submit(self._network.capture, lane, shape)
            try:
                captured = capturing.result()
            finally:
                wait([capturing])  # also after Ctrl-C: the lane must not be used before
            if captured is None:
                self.graphs_allowed = False
            else:
                lane.graphs[size] = captured
        else:
            self._network.enqueue(lane, shape)
            lane.runs[size] += 1

    def _free_lane(self) -> Lane:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._new_lane()

    def _new_lane(self) -> Lane:
        memory = open_device_memory(self._memory_name)
        size_in, size_out = (_num_bytes(self._largest_batch, spec) for spec in (self._input, self._output))
        try:
            lane = Lane(
                memory,
                device_in=memory.device_buffer(size_in),
                device_out=memory.device_buffer(size_out),
                pinned_in=memory.pinned_buffer(size_in),
                pinned_out=memory.pinned_buffer(size_out),
            )
            lane.state = self._network.new_state(lane)
        except BaseException:
            memory.close()
            raise
        self._lanes.append(lane)
        return lane

    def _lane_tensor(self, address: int, spec: TensorSpec, like: Any) -> Any:
        """The beginning of a lane's buffer, as a torch tensor in the shape and on the device of another."""
        found = tensor_at(address, tuple(like.shape), np.dtype(spec.dtype), like.device)
        if found.data_ptr() != address:  # torch has moved it to the other's device
            raise InputError(
                f"{self._name}: the tensor is on {like.device}, the network on another GPU. Move the tensor there."
            )
        return found


def tensor_at(address: int, shape: Shape, dtype: "np.dtype[Any]", device: Any) -> Any:
    """Memory of a GPU that somebody else owns, as a torch tensor."""
    import torch

    interface = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device=device)


def row_shape(spec: TensorSpec) -> Shape:
    """The shape of one row of a tensor."""
    return tuple(size or 1 for size in spec.shape[1:])


def _num_bytes(num_rows: int, spec: TensorSpec) -> int:
    return num_rows * prod(row_shape(spec)) * np.dtype(spec.dtype).itemsize
