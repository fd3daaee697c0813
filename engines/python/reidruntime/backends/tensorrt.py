"""TensorRT: an engine, and lanes in which batches run beside each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.checks import check_engine
from reidruntime.artifact.manifest import Engine, Manifest, file_sha256
from reidruntime.backends import Answer, PipelinedBackend
from reidruntime.backends.lanes import NUM_LANES, Lane, Lanes, Shape
from reidruntime.device_memory import MemoryName
from reidruntime.errors import ArtifactError, GpuError, NotInstalledError
from reidruntime.tensorrt_library import first_gpu, import_tensorrt, make_logger


@dataclass(frozen=True)
class _Contexts:
    """What a lane keeps: scratch memory, and the execution contexts that share it."""

    scratch: int
    by_profile: list[Any]
    of_graphs: list[Any] = field(default_factory=list)


class TensorRtBackend(PipelinedBackend):
    """A deserialized engine; any number of threads may call it at once, each batch runs in a lane of its own.

    A batch size that comes again is captured as a CUDA graph. A graph is tied to the state of the context that it was
    captured from, so that the shape of that context must not change any more: every graph has a context of its own.
    The contexts of a lane never run at once, and share its scratch memory.
    """

    in_flight = NUM_LANES
    runs_before_graph = 1
    tensor_device = "cuda"

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        memory: MemoryName = "cuda-python",
        allow_host_code: bool = False,
    ) -> None:
        """Check the engine against this machine, and load it; raises what ``open_session`` does."""
        flavor = manifest.engine.flavor if manifest.engine else "tensorrt"
        trt = import_tensorrt(flavor)
        gpu = first_gpu()
        if gpu is None:
            raise NotInstalledError(
                f"{path}: a TensorRT engine needs an NVIDIA GPU, and none was found. Check with nvidia-smi."
            )
        facts = check_engine(manifest, path, trt.__version__, gpu, allow_host_code=allow_host_code)
        self._path, self._manifest = path, manifest
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = allow_host_code
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ArtifactError(f"{path}: TensorRT {trt.__version__} cannot load it: {self._errors()}")
        if facts.weights_stripped:
            self._refit(trt, facts)
        self._check_tensors(trt)
        self._user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._making = Lock()  # one context is made at a time
        self._lanes = Lanes(
            self,
            manifest.input,
            manifest.output,
            largest_batch=manifest.batch_profile.maximum or 1,
            memory=memory,
            name=str(path),
            graphs_allowed=flavor == "tensorrt",  # TensorRT for RTX captures graphs by itself
        )
        self._description = f"TensorRT {trt.__version__}, {gpu.name}, {manifest.precision}, memory {memory}"

    def submit(self, batch: NDArray[Any]) -> Answer:
        """Enqueue the copy in, the network and the copy out of a batch, which must be within the batch profile."""
        return self._lanes.submit(batch)

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor on the GPU with another; see :meth:`reidruntime.backends.lanes.Lanes.run_tensor`."""
        return self._lanes.run_tensor(images)

    def host_array(self, num_rows: int) -> NDArray[Any]:
        """Page-locked memory for a batch."""
        return self._lanes.host_array(num_rows)

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """The batch sizes that have a CUDA graph in some lane."""
        return self._lanes.graph_sizes

    def describe(self) -> str:
        """Version, GPU, precision, library of the device memory."""
        return self._description

    def close(self) -> None:
        """Free the lanes and the engine."""
        self._lanes.close()
        self._engine = None

    def new_state(self, lane: Lane) -> _Contexts:
        """For the lanes: contexts, and what they compute in."""
        scratch = lane.memory.device_buffer(self._scratch_bytes)
        contexts = [self._new_context(lane, scratch, profile) for profile in range(len(self._profiles))]
        return _Contexts(scratch, contexts)

    def enqueue(self, lane: Lane, shape: Shape) -> None:
        """For the lanes: the network."""
        self._execute(lane.state.by_profile[self._profile_of(shape[0])], lane, shape)

    def capture(self, lane: Lane, shape: Shape) -> Callable[[], object] | None:
        """For the lanes: answer a batch in a context of its own, and keep what that enqueued as a graph.

        TensorRT does what a new shape needs in the first run, where nothing is captured yet.
        """
        context = self._new_context(lane, lane.state.scratch, self._profile_of(shape[0]))
        self._execute(context, lane, shape)
        launch = lane.memory.captured(lambda: self._execute(context, lane, shape, new_shape=False))
        if launch is None:
            lane.memory.wait()  # the batch still runs in the context that is dropped here
        else:
            lane.state.of_graphs.append(context)
        return launch

    def _execute(self, context: Any, lane: Lane, shape: Shape, *, new_shape: bool = True) -> None:
        if new_shape:
            self._check(context.set_input_shape(self._manifest.input.name, shape), shape[0])
        self._check(context.execute_async_v3(lane.memory.stream), shape[0])

    def _profile_of(self, batch_size: int) -> int:
        """The narrowest optimization profile that takes a batch; the first one takes them all."""
        fitting = [
            (largest, index)
            for index, (smallest, largest) in enumerate(self._profiles)
            if smallest <= batch_size <= largest
        ]
        return min(fitting, default=(0, 0))[1]

    def _check(self, done: bool, batch_size: int) -> None:
        if not done:
            raise GpuError(f"{self._path}: TensorRT fails on a batch of {batch_size}: {self._errors()}")

    def _new_context(self, lane: Lane, scratch: int, profile: int) -> Any:
        largest = self._profiles[profile][1]
        with self._making:
            context = self._engine.create_execution_context(self._user_managed)
        if context is None:
            raise GpuError(
                f"{self._path}: no execution context, usually for lack of memory: {self._errors()}"
            )
        context.set_device_memory(scratch, self._scratch_bytes)
        if profile:  # a new context has the first one
            self._check(context.set_optimization_profile_async(profile, lane.memory.stream), largest)
        for spec, address in (
            (self._manifest.input, lane.device_in),
            (self._manifest.output, lane.device_out),
        ):
            self._check(context.set_tensor_address(spec.name, address), largest)
        return context

    @property
    def _scratch_bytes(self) -> int:
        """What a context computes in; at least a byte, as there are no empty buffers."""
        return max(int(self._engine.device_memory_size_v2), 1)

    def _refit(self, trt: Any, facts: Engine) -> None:
        """Put the weights back that were left out of the engine, from the ONNX file it was built from."""
        onnx = self._path.with_name(facts.onnx_name)
        if not onnx.is_file() or file_sha256(onnx) != facts.onnx_sha256:
            raise ArtifactError(
                f"{self._path}: built without weights, which come from {onnx} (sha256 {facts.onnx_sha256[:12]}…): that "
                "file is missing or another one. Copy it there, or build without --strip-weights."
            )
        refitter = trt.Refitter(self._engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            messages = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise ArtifactError(
                f"{self._path}: the weights of {onnx} do not fit: {messages or self._errors()}"
            )

    def _check_tensors(self, trt: Any) -> None:
        """Compare the engine's own names, types and batch sizes with the manifest's."""
        engine, manifest = self._engine, self._manifest
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if names != {manifest.input.name, manifest.output.name}:
            raise ArtifactError(
                f"{self._path}: the manifest names {manifest.input.name} and {manifest.output.name}, the engine has "
                f"{sorted(names)}. Build it again."
            )
        for spec in (manifest.input, manifest.output):
            found = np.dtype(trt.nptype(engine.get_tensor_dtype(spec.name))).name
            if found != spec.dtype:
                raise ArtifactError(
                    f"{self._path}: {spec.name} is {found} in the engine, {spec.dtype} in the manifest. Build it again."
                )
        shapes = [
            engine.get_tensor_profile_shape(manifest.input.name, index)
            for index in range(engine.num_optimization_profiles)
        ]
        self._profiles = [(smallest[0], largest[0]) for smallest, _, largest in shapes]
        (smallest, largest), profile = self._profiles[0], manifest.batch_profile
        if (smallest, largest) != (profile.minimum, profile.maximum):
            raise ArtifactError(
                f"{self._path}: the engine takes batches of {smallest} to {largest}, the manifest says "
                f"{profile.minimum} to {profile.maximum}. Build it again."
            )

    def _errors(self) -> str:
        return "; ".join(self._logger.errors) or "it gave no reason"
