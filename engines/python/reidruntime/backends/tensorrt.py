"""TensorRT: a plan, and lanes in which batches run beside each other."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.backends import Answer
from reidruntime.device_memory import Bytes, DeviceMemory, MemoryName, open_device_memory
from reidruntime.engine_checks import check_engine
from reidruntime.errors import ArtifactError, GpuError, InputError, NotInstalledError
from reidruntime.manifest import Engine, Manifest, file_sha256
from reidruntime.tensorrt_library import first_gpu, import_tensorrt, make_logger

# Two: while the network answers one batch, the next is copied in and the last one out.
_NUM_LANES = 2
_RUNS_BEFORE_GRAPH = 1
_MAX_GRAPHS = 16


@dataclass
class _Lane:
    """A stream with buffers, and the execution contexts that take turns in it; one batch at a time.

    A CUDA graph is tied to the state of the context that it was captured from, so that the shape of that context must
    not change any more: every graph has a context of its own, and ``contexts``, one for each optimisation profile of
    the plan, take all other batches. They never run at once, and share the scratch memory.
    """

    memory: DeviceMemory
    device_in: int
    device_out: int
    scratch: int
    pinned_in: Bytes
    pinned_out: Bytes
    contexts: list[Any] = field(default_factory=list)
    runs: Counter[int] = field(default_factory=Counter)
    graphs: dict[int, "_Graph"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Graph:
    """A captured batch size."""

    context: Any
    launch: Callable[[], None]


def tensor_at(address: int, like: Any) -> Any:
    """Device memory that somebody else owns, as a torch tensor of the type, shape and device of another."""
    import torch

    dtype = np.dtype(str(like.dtype).removeprefix("torch."))
    interface = {"data": (address, False), "shape": tuple(like.shape), "typestr": dtype.str, "version": 3}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device=like.device)


class TensorRtBackend:
    """A deserialised plan; any number of threads may call it at once, each batch runs in a lane of its own.

    Lanes are made when the plan is opened, and more when more batches are under way than there are lanes. A batch size
    that comes again is captured as a CUDA graph.
    """

    in_flight = _NUM_LANES

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        memory: MemoryName = "cuda-python",
        allow_host_code: bool = False,
    ) -> None:
        """Check the plan against this machine, and load it.

        Raises:
            NotInstalledError: TensorRT, the memory's library or the GPU is missing.
            ArtifactError: the plan does not fit this machine or its manifest, or TensorRT refuses it.
            GpuError: CUDA fails.
        """
        flavor = manifest.engine.flavor if manifest.engine else "tensorrt"
        trt = import_tensorrt(flavor)
        gpu = first_gpu()
        if gpu is None:
            raise NotInstalledError(
                f"{path}: a TensorRT engine needs an NVIDIA GPU, none is here (nvidia-smi)."
            )
        facts = check_engine(manifest, path, trt.__version__, gpu, allow_host_code=allow_host_code)
        self._path, self._manifest, self._memory_name = path, manifest, memory
        self._messages: list[str] = []
        self._logger = make_logger(
            trt, lambda text, is_error: self._messages.append(text) if is_error else None
        )
        self._runtime = trt.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = allow_host_code
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ArtifactError(f"{path}: TensorRT {trt.__version__} cannot load it: {self._said()}")
        if facts.weights_stripped:
            self._refit(trt, facts)
        self._check_tensors(trt)
        self._graphs_allowed = flavor == "tensorrt"  # TensorRT for RTX captures graphs by itself
        self._user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._making = Lock()  # one context, and one graph, is made at a time
        self._idle: SimpleQueue[_Lane] = SimpleQueue()
        self._lanes: list[_Lane] = []
        for _ in range(_NUM_LANES):
            self._idle.put(self._new_lane())
        self._description = f"TensorRT {trt.__version__}, {gpu.name}, {manifest.precision}, memory {memory}"

    def submit(self, batch: NDArray[Any]) -> Answer:
        """Enqueue the copy in, the network and the copy out of a batch, which must be within the batch profile."""
        lane = self._free_lane()
        started = False
        try:
            self._enqueue(lane, batch)
            started = True
        finally:
            if not started:
                self._idle.put(lane)

        def answer() -> NDArray[Any]:
            try:
                lane.memory.wait()
                shape = (len(batch), *self._row(self._manifest.output.shape))
                size = prod(shape) * np.dtype(self._manifest.output.dtype).itemsize
                return lane.pinned_out[:size].view(self._manifest.output.dtype).reshape(shape).copy()
            finally:
                self._idle.put(lane)

        return answer

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; raises GpuError where CUDA or TensorRT fails."""
        return self.submit(batch)()

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor on the GPU, in the order of torch's current stream.

        The images are copied into a lane and the answer out of it, within the GPU's memory: a CUDA graph reads from one
        address only, and TensorRT from aligned ones, which views need not have. The answer is a torch tensor on the
        GPU, ready in stream order.

        Raises:
            InputError: the images are on another GPU than the plan.
            GpuError: the GPU fails.
        """
        import torch

        caller = torch.cuda.current_stream()
        output = self._manifest.output
        shape = (len(images), *self._row(output.shape))
        features = torch.empty(shape, dtype=getattr(torch, output.dtype), device=images.device)
        lane = self._free_lane()
        stream = torch.cuda.ExternalStream(lane.memory.stream)  # type: ignore[no-untyped-call]
        try:
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                self._lane_tensor(lane.device_in, images).copy_(images.detach())
            self._compute(lane, tuple(images.shape))
            with torch.cuda.stream(stream):
                features.copy_(self._lane_tensor(lane.device_out, features))
        finally:
            # Also for torch's allocator, which reuses the memory of a tensor in the order of the caller's stream.
            caller.wait_stream(stream)
            self._idle.put(lane)
        return features

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """The batch sizes that have a CUDA graph in some lane."""
        return tuple(sorted({size for lane in self._lanes for size in lane.graphs}))

    def describe(self) -> str:
        """Version, GPU, precision, library of the device memory."""
        return self._description

    def close(self) -> None:
        """Free the lanes and the plan."""
        for lane in self._lanes:
            lane.memory.wait()
            lane.graphs.clear()
            lane.contexts.clear()
            lane.memory.close()
        self._lanes.clear()
        self._engine = None

    def _enqueue(self, lane: _Lane, batch: NDArray[Any]) -> None:
        size = batch.nbytes
        lane.pinned_in[:size] = np.ascontiguousarray(batch).reshape(-1).view(np.uint8)
        lane.memory.copy_in(lane.pinned_in[:size], lane.device_in)
        self._compute(lane, batch.shape)
        rows = len(batch) * prod(self._row(self._manifest.output.shape))
        out_size = rows * np.dtype(self._manifest.output.dtype).itemsize
        lane.memory.copy_out(lane.device_out, lane.pinned_out[:out_size])

    def _compute(self, lane: _Lane, shape: tuple[int, ...]) -> None:
        """Enqueue the network: as a CUDA graph where the batch size has one, which it gets when it comes again."""
        size = shape[0]
        if graph := lane.graphs.get(size):
            graph.launch()
        elif (
            self._graphs_allowed and lane.runs[size] >= _RUNS_BEFORE_GRAPH and len(lane.graphs) < _MAX_GRAPHS
        ):
            self._run_and_capture(lane, shape)
        else:
            self._execute(lane.contexts[self._profile_of(size)], lane, shape)
            lane.runs[size] += 1

    def _run_and_capture(self, lane: _Lane, shape: tuple[int, ...]) -> None:
        """Answer a batch, and keep what that enqueued as a graph.

        TensorRT does what a new shape needs in the first run, where nothing is captured yet.
        """
        context = self._new_context(lane, self._profile_of(shape[0]))
        self._execute(context, lane, shape)
        with self._making:  # torch waits for the device before a capture, which would break another one
            launch = lane.memory.captured(lambda: self._execute(context, lane, shape, new_shape=False))
        if launch is None:
            self._graphs_allowed = False
            lane.memory.wait()  # the batch still runs in the context that is dropped here
        else:
            lane.graphs[shape[0]] = _Graph(context, launch)

    def _execute(self, context: Any, lane: _Lane, shape: tuple[int, ...], *, new_shape: bool = True) -> None:
        if new_shape:
            self._accepted(context.set_input_shape(self._manifest.input.name, shape), shape[0])
        self._accepted(context.execute_async_v3(lane.memory.stream), shape[0])

    def _profile_of(self, batch_size: int) -> int:
        """The narrowest optimisation profile that takes a batch; the first one takes them all."""
        fitting = [
            (largest, index)
            for index, (smallest, largest) in enumerate(self._profiles)
            if smallest <= batch_size <= largest
        ]
        return min(fitting, default=(0, 0))[1]

    def _lane_tensor(self, address: int, like: Any) -> Any:
        """The beginning of a lane's buffer, as a torch tensor of the type and shape of another."""
        found = tensor_at(address, like)
        if found.data_ptr() != address:  # torch has moved it to the other's device
            raise InputError(
                f"{self._path}: the tensor is on {like.device}, the plan on another GPU. Move the tensor there."
            )
        return found

    def _accepted(self, done: bool, batch_size: int) -> None:
        if not done:
            raise GpuError(f"{self._path}: TensorRT fails on a batch of {batch_size}: {self._said()}")

    def _free_lane(self) -> _Lane:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._new_lane()

    def _new_lane(self) -> _Lane:
        memory = open_device_memory(self._memory_name)
        largest = self._manifest.batch_profile.maximum or 1
        size_in, size_out = (
            largest * prod(self._row(spec.shape)) * np.dtype(spec.dtype).itemsize
            for spec in (self._manifest.input, self._manifest.output)
        )
        opened = False
        try:
            lane = _Lane(
                memory,
                device_in=memory.device_buffer(size_in),
                device_out=memory.device_buffer(size_out),
                scratch=memory.device_buffer(self._scratch_bytes),
                pinned_in=memory.pinned_buffer(size_in),
                pinned_out=memory.pinned_buffer(size_out),
            )
            lane.contexts = [self._new_context(lane, index) for index in range(len(self._profiles))]
            opened = True
        finally:
            if not opened:
                memory.close()
        self._lanes.append(lane)
        return lane

    def _new_context(self, lane: _Lane, profile: int) -> Any:
        largest = self._profiles[profile][1]
        with self._making:
            context = self._engine.create_execution_context(self._user_managed)
        if context is None:
            raise GpuError(
                f"{self._path}: no execution context, as a rule for lack of memory: {self._said()}"
            )
        context.set_device_memory(lane.scratch, self._scratch_bytes)
        if profile:  # a new context has the first one
            self._accepted(context.set_optimization_profile_async(profile, lane.memory.stream), largest)
        for spec, address in (
            (self._manifest.input, lane.device_in),
            (self._manifest.output, lane.device_out),
        ):
            self._accepted(context.set_tensor_address(spec.name, address), largest)
        return context

    @property
    def _scratch_bytes(self) -> int:
        """What a context computes in; at least a byte, as there are no empty buffers."""
        return max(int(self._engine.device_memory_size_v2), 1)

    def _refit(self, trt: Any, facts: Engine) -> None:
        """Put the weights back that were left out of the plan, from the ONNX file it was built from."""
        onnx = self._path.with_name(facts.onnx_name)
        if not onnx.is_file() or file_sha256(onnx) != facts.onnx_sha256:
            raise ArtifactError(
                f"{self._path}: built without weights, which come from {onnx} (sha256 {facts.onnx_sha256[:12]}…): that "
                "file is missing or another one. Copy it there, or build without --strip-weights."
            )
        refitter = trt.Refitter(self._engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise ArtifactError(f"{self._path}: the weights of {onnx} do not fit: {said or self._said()}")

    def _check_tensors(self, trt: Any) -> None:
        """Compare the plan's own names, types and batch sizes with the manifest's."""
        engine, manifest = self._engine, self._manifest
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if names != {manifest.input.name, manifest.output.name}:
            raise ArtifactError(
                f"{self._path}: the manifest names {manifest.input.name} and {manifest.output.name}, the plan has "
                f"{sorted(names)}. Build it again."
            )
        for spec in (manifest.input, manifest.output):
            found = np.dtype(trt.nptype(engine.get_tensor_dtype(spec.name))).name
            if found != spec.dtype:
                raise ArtifactError(
                    f"{self._path}: {spec.name} is {found} in the plan, {spec.dtype} in the manifest. Build it again."
                )
        shapes = [
            engine.get_tensor_profile_shape(manifest.input.name, index)
            for index in range(engine.num_optimization_profiles)
        ]
        self._profiles = [(smallest[0], largest[0]) for smallest, _, largest in shapes]
        (smallest, largest), profile = self._profiles[0], manifest.batch_profile
        if (smallest, largest) != (profile.minimum, profile.maximum):
            raise ArtifactError(
                f"{self._path}: the plan takes batches of {smallest} to {largest}, the manifest says "
                f"{profile.minimum} to {profile.maximum}. Build it again."
            )

    def _said(self) -> str:
        return "; ".join(self._messages) or "it gave no reason"

    @staticmethod
    def _row(shape: tuple[int | None, ...]) -> tuple[int, ...]:
        return tuple(size or 1 for size in shape[1:])
