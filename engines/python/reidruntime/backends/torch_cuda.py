"""An ONNX file on an NVIDIA GPU with nothing but torch: fused convolutions, channels last, CUDA graphs."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reidruntime.backends import Answer, Network, PipelinedBackend, failed_run
from reidruntime.backends.lanes import NUM_LANES, Lane, Lanes, Shape, row_shape, tensor_at
from reidruntime.backends.torch_network import TorchNetwork
from reidruntime.errors import GpuError, NotInstalledError
from reidruntime.tensorrt_library import default_batch_size, first_gpu
from reidruntime.torch_settings import exact_float32, fastest_convolutions

# What batches are padded to: few enough to capture all, and at most half as much again. Larger ones run in parts.
_BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class TorchCudaBackend(PipelinedBackend):
    """A network in torch; any number of threads may call it at once.

    Each batch is padded to one of a few sizes, each of which is captured as a CUDA graph when it comes first. On a CPU,
    where it is meant for comparison, the same graph runs without lanes.
    """

    in_flight = NUM_LANES
    runs_before_graph = 0

    def __init__(
        self,
        network: Network,
        *,
        device: Literal["cpu", "cuda"],
        threads: int,
        in_lanes: bool = False,
    ) -> None:
        """Load a network in FP32 or FP16, and answer one image.

        ``threads`` are those of torch on a CPU, where batches run in lanes only if ``in_lanes``.
        """
        on_gpu = device == "cuda"
        if on_gpu and not torch.cuda.is_available():
            raise NotInstalledError(
                f"{network.path}: torch {torch.__version__} finds no NVIDIA GPU. Check with nvidia-smi, and that "
                "torch.version.cuda is not None."
            )
        self._network = network
        self._device = torch.device(device, torch.cuda.current_device() if on_gpu else 0)
        self._static = network.input.shape[0]
        self._largest = self._static or _BATCH_SIZES[-1]
        self._torch_network = TorchNetwork(
            network.path, network.input.name, network.output.name, self._device
        )
        if on_gpu:
            torch.cuda.synchronize()  # the lanes' streams read the weights, which this one has laid out
        else:
            torch.set_num_threads(threads)
        self.tensor_device = device
        self.preferred_batch = default_batch_size(first_gpu() if on_gpu else None)
        self._lanes: Lanes | None = None
        if on_gpu or in_lanes:
            self._lanes = Lanes(
                self,
                network.input,
                network.output,
                largest_batch=self._largest,
                memory="torch",
                name=str(network.path),
            )
        self.run(np.zeros((self._static or 1, *row_shape(network.input)), network.input.dtype))
        place = torch.cuda.get_device_name() if on_gpu else f"CPU, {threads} threads"
        self._description = f"torch {torch.__version__}, {place}, {network.precision}"
        if on_gpu:
            graphs = "" if self.graph_sizes else ", without CUDA graphs"
            self._description += f", {self._torch_network.fusion_summary()}{graphs}"

    def submit(self, batch: NDArray[Any]) -> Answer:
        """Start a batch; one that is larger than the lanes are is answered in parts, all but the last at once."""
        if self._lanes is None:
            try:
                features: NDArray[Any] = self._computed(torch.from_numpy(batch)).numpy()
            except RuntimeError as error:
                raise failed_run(self._network, len(batch), "torch", error) from error
            return lambda: features
        *first, last = (batch[start : start + self._largest] for start in range(0, len(batch), self._largest))
        answered = [self._lanes.submit(part, padded=self._padded(len(part)))() for part in first]
        answer = self._lanes.submit(last, padded=self._padded(len(last)))
        return lambda: np.concatenate([*answered, answer()]) if answered else answer()

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor on the network's device with another; nothing passes through the host."""
        if self._lanes is None:
            return self._computed(images)
        parts = [
            self._lanes.run_tensor(part, padded=self._padded(len(part)))
            for part in images.split(self._largest)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def host_array(self, num_rows: int) -> NDArray[Any]:
        """Memory for a batch, from which copying to the GPU is fastest."""
        if self._lanes is None or num_rows > self._largest:
            return np.empty((num_rows, *row_shape(self._network.input)), self._network.input.dtype)
        return self._lanes.host_array(num_rows)

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """The batch sizes that have a CUDA graph in some lane."""
        return self._lanes.graph_sizes if self._lanes else ()

    def describe(self) -> str:
        """Version, device, precision, fused convolutions."""
        return self._description

    def close(self) -> None:
        """Free the lanes."""
        if self._lanes is not None:
            self._lanes.close()

    def new_state(self, lane: Lane) -> None:
        """For the lanes: this network keeps nothing in them."""

    def enqueue(self, lane: Lane, shape: Shape) -> None:
        """For the lanes: the network, from a lane's input to its output."""
        self._work(lane, shape)()

    def capture(self, lane: Lane, shape: Shape) -> Callable[[], object] | None:
        """For the lanes: answer plainly, while cuDNN chooses its kernels, then record the same."""
        work = self._work(lane, shape)
        with fastest_convolutions():
            work()
        return lane.memory.captured(work)

    def _work(self, lane: Lane, shape: Shape) -> Callable[[], None]:
        """What enqueues the network; the lane's memory becomes tensors here, as that is not allowed in a capture."""
        specs = self._network.input, self._network.output
        images, features = (
            tensor_at(address, (shape[0], *row_shape(spec)), np.dtype(spec.dtype), self._device)
            for address, spec in zip((lane.device_in, lane.device_out), specs, strict=True)
        )
        # With its device, as the thread that captures may have another one.
        stream = torch.cuda.ExternalStream(lane.memory.stream, device=self._device)  # type: ignore[no-untyped-call]

        def work() -> None:
            try:
                with torch.cuda.stream(stream):
                    features.copy_(self._computed(images).reshape(features.shape))
            except RuntimeError as error:  # torch's errors of CUDA and of memory are its subclasses
                raise GpuError(
                    f"{self._network.path}: torch fails on a batch of {shape[0]}: {error}"
                ) from error

        return work

    def _padded(self, num_rows: int) -> int:
        """The batch size to run for a batch."""
        return self._static or next(size for size in _BATCH_SIZES if size >= num_rows)

    def _computed(self, images: torch.Tensor) -> torch.Tensor:
        with exact_float32():
            return self._torch_network(images)
