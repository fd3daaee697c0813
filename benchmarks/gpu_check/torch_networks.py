"""The inference graph in torch: float32, half, half as CUDA graphs, half compiled."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.session import Session
from torch import Tensor, nn

from benchmarks.gpu_check import answers
from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.growth import steady_memory
from benchmarks.gpu_check.network import answers_of, checkpoint_of, images_of
from benchmarks.gpu_check.outcome import StepSkippedError, Values
from benchmarks.gpu_check.settings import Device, Settings
from benchmarks.gpu_check.speeds import TensorAnswer, measure_speeds
from reidexport.checkpoint import load_checkpoint
from reidexport.graph import InferenceGraph, graph_from_checkpoint, manifest_of_graph

_WARM_UP_RUNS = 3
_COMPILED_BATCHES = (8, 32)


class GraphBackend:
    """What a session asks: arrays in, arrays out, through a function of tensors."""

    def __init__(self, answer: TensorAnswer, device: Device, what: str) -> None:
        self._answer, self._device, self._what = answer, device, what

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 (B, H, W, 3) → float32 (B, D)."""
        features: NDArray[np.float32] = self._answer(torch.from_numpy(batch).to(self._device)).cpu().numpy()
        return features

    def describe(self) -> str:
        """Version, device, what runs."""
        return f"torch {torch.__version__} on {self._device}, {self._what}"


class HalfBackbone(nn.Module):
    """A backbone whose convolutions compute in half, channels last; float32 maps in and out."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.inner = backbone.to(torch.float16, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, 3, H, W) → float32 (B, C, h, w)."""
        maps: Tensor = self.inner(x.half().contiguous(memory_format=torch.channels_last))
        return maps.float()


class CapturedAnswer:
    """One CUDA graph per batch size, with an input and an output of its own."""

    def __init__(self, answer: TensorAnswer) -> None:
        self._answer = answer
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """The features, which the next call with this batch size overwrites."""
        if len(images) not in self._graphs:
            self._graphs[len(images)] = self._capture(images)
        graph, own_images, features = self._graphs[len(images)]
        own_images.copy_(images)
        graph.replay()
        return features

    def _capture(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        own_images = images.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):  # libraries choose and allocate what must not happen in a capture
                self._answer(own_images)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            features = self._answer(own_images)
        return graph, own_images, features


def check_torch(bench: Bench, settings: Settings) -> None:
    """Float32, half, and half as CUDA graphs."""
    graph = bench.opened("torch", 5, lambda: _graph(settings))
    if graph is None:
        return
    device = settings.device
    full, half = float32_answer(graph, device), half_answer(graph, device)
    for subject, answer, precision in (("torch fp32", full, "fp32"), ("torch fp16", half, "fp16")):
        _check(bench, subject, _session(graph, answer, device, precision), answer, settings)  # type: ignore[arg-type]
    subject = "torch fp16, CUDA graphs"
    captured = bench.opened(subject, 10, lambda: _captured(half, settings))
    if captured is not None:
        session = _session(graph, captured, device, "fp16")
        bench.check(subject, "replays equal plain runs", 5, lambda: _same_bits(half, captured, settings))
        _check(bench, subject, session, captured, settings)
        alone = images_of(settings)[:1]
        bench.check(
            subject,
            "memory is steady",
            5,
            lambda: steady_memory(lambda: session.run(alone), settings.growth_calls, bench.deadline),
        )


def check_compiled(bench: Bench, settings: Settings) -> None:
    """Half, compiled by inductor for single batch sizes."""
    subject = "torch fp16, compiled"
    graph = bench.opened(subject, 40, lambda: _graph(settings))
    if graph is None:
        return
    answer = _compiled_answer(graph, settings.device)
    session = _session(graph, answer, settings.device, "fp16")
    images, expected = images_of(settings), answers_of(settings, "network")
    bench.check(subject, "parity", 40, lambda: answers.parity(session, images, expected))
    sizes = tuple(size for size in settings.batch_sizes if size in _COMPILED_BATCHES)
    for size in sizes:
        if bench.deadline.has(30):  # each size is compiled anew
            measure_speeds(bench, subject, session, _only(settings, size), answer)


def float32_answer(graph: InferenceGraph, device: Device) -> TensorAnswer:
    """The graph with cuDNN's and cuBLAS's TF32 off, which cuDNN's is not by itself."""
    moved = copy.deepcopy(graph).to(device)
    _settle(device)

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features: Tensor = moved(images)
        return features

    return answer


def half_answer(graph: InferenceGraph, device: Device) -> TensorAnswer:
    """The graph as an FP16 artifact computes it: the backbone in half; mean, pooling and neck in float32."""
    moved = _half(graph, device)

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode():
            features: Tensor = moved(images)
        return features

    return answer


def _half(graph: InferenceGraph, device: Device) -> InferenceGraph:
    moved = copy.deepcopy(graph).to(device)
    moved.backbone = HalfBackbone(moved.backbone)
    _settle(device)
    return moved


def _settle(device: Device) -> None:
    """Wait until the weights are there: other streams than this one will read them."""
    if device == "cuda":
        torch.cuda.synchronize()


def _compiled_answer(graph: InferenceGraph, device: Device) -> TensorAnswer:
    compiled: Callable[[Tensor], Tensor] = torch.compile(_half(graph, device), dynamic=False)

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return compiled(images)

    return answer


def _captured(answer: TensorAnswer, settings: Settings) -> CapturedAnswer:
    if settings.device == "cpu":
        raise StepSkippedError("CUDA graphs need a GPU")
    captured = CapturedAnswer(answer)
    captured(torch.from_numpy(images_of(settings)[:1]).to(settings.device))
    return captured


def _same_bits(plain: TensorAnswer, captured: TensorAnswer, settings: Settings) -> Values:
    images = torch.from_numpy(images_of(settings)).to(settings.device)
    sizes = [size for size in (1, 3, 8) if size <= len(images)]
    for turn in range(3):
        for size in sizes:
            found = captured(images[-size:]).cpu().numpy()
            answers.check_equal_bits(
                found, plain(images[-size:]).cpu().numpy(), f"batch {size}, turn {turn + 1}"
            )
    return {"batch_sizes": sizes}


def _check(bench: Bench, subject: str, session: Session, answer: TensorAnswer, settings: Settings) -> None:
    images, expected = images_of(settings), answers_of(settings, "network")
    bench.check(subject, "parity", 5, lambda: answers.parity(session, images, expected))
    bench.check(subject, "batch consistency", 5, lambda: answers.consistency(session, images))
    measure_speeds(bench, subject, session, settings, answer)


def _graph(settings: Settings) -> InferenceGraph:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise StepSkippedError(f"torch {torch.__version__} finds no GPU that it can use")
    return graph_from_checkpoint(load_checkpoint(checkpoint_of(settings)))


def _session(
    graph: InferenceGraph, answer: TensorAnswer, device: Device, precision: Literal["fp32", "fp16"]
) -> Session:
    backend = GraphBackend(answer, device, precision)
    return Session(manifest_of_graph(graph, precision=precision), "torch", backend, threads=4)


def _only(settings: Settings, size: int) -> Settings:
    return replace(settings, batch_sizes=(size,))
