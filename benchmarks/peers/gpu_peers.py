"""What a network is compared with on a GPU: torch and ONNX Runtime in the artifact's own precision, each at its best.

Every side answers one batch in the GPU's memory, and leaves its answer there. Torch's are channels-last, with
convolutions that cuDNN has tried out, in CUDA graphs; their names include all of that. On the CPU the same code runs
without graphs, so that it can be tried out; what CPUs are compared with there is in :mod:`benchmarks.peers.peers`, but
for :func:`compiled_on_cpu`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.peers import onnxruntime_session
from reidexport import Checkpoint, GraphOptions, graph_from_checkpoint

Answer = Callable[[], Tensor]
Opener = Callable[[], Answer]
CompileMode = Literal["default", "max-autotune"]

_WARM_UP_RUNS = 3
# A network is compiled anew for each batch size; after eight, torch would stop compiling.
_MAX_COMPILED = 64
_FLOATS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}

_networks: dict[Any, nn.Module] = {}  # by all that makes one


class Float16Backbone(nn.Module):
    """A backbone that computes in float16, as those of FP16 artifacts do; float32 maps in and out."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.inner = backbone.half()

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, 3, H, W) → float32 (B, C, h, w)."""
        maps: Tensor = self.inner(x.half())
        return maps.float()


def torch_peers(
    checkpoint: Checkpoint,
    options: GraphOptions,
    precision: str,
    images: Tensor,
    *,
    compile_mode: CompileMode | None,
) -> dict[str, Opener]:
    """The folded inference graph in torch, by name: float32 without and with TF32, and in the artifact's precision.

    Args:
        checkpoint: what the artifact was made from.
        options: how it was exported.
        precision: of the artifact; "fp16" adds torch in float16, and what is compiled is in it.
        images: uint8 (B, H, W, 3), on the device that answers.
        compile_mode: of ``torch.compile``; None: it is not a peer.
    """
    device = images.device.type
    how = "channels-last" + (", CUDA graph" if device == "cuda" else "")
    full = _network(checkpoint, options, "fp32", device)
    found: dict[str, Opener] = {
        f"torch eager, fp32 without TF32, {how}": partial(_ready, full, images, tf32=False),
        f"torch eager, fp32 with TF32, {how}": partial(_ready, full, images, tf32=True),
    }
    own: Literal["fp32", "fp16"] = "fp16" if precision == "fp16" else "fp32"
    if own == "fp16":
        float16 = _network(checkpoint, options, "fp16", device)
        found[f"torch eager, fp16, {how}"] = partial(_ready, float16, images, tf32=False)
    if compile_mode is not None:
        compiled = _compiled(_network(checkpoint, options, own, device), compile_mode)
        name = f"torch.compile {compile_mode}, {own}{' without TF32' * (own == 'fp32')}, {how}"
        found[name] = partial(_ready, compiled, images, tf32=False)
    return found


def compiled_on_cpu(checkpoint: Checkpoint, options: GraphOptions, images: Tensor) -> Answer:
    """A checkpoint's inference graph through ``torch.compile`` as its users write it on a CPU: not channels-last."""
    network = _network(checkpoint, options, "fp32", "cpu", torch.contiguous_format)
    compiled = torch.compile(network, dynamic=False)
    with torch.inference_mode(), _room_for_compiled():
        compiled(images)

    def answer() -> Tensor:
        with torch.inference_mode():
            features: Tensor = compiled(images)
        return features

    return answer


def onnxruntime_peers(path: Path, images: Tensor) -> dict[str, Opener]:
    """ONNX Runtime on the device of the images, by name: as it comes, and on a GPU also in NHWC and in a CUDA graph.

    Args:
        path: an ONNX file with one input and one output.
        images: its input, contiguous.
    """
    if images.device.type == "cpu":
        return {"onnxruntime bare": partial(_bound, path, images, {})}
    bare = {"use_tf32": "0"}
    best = {**bare, "prefer_nhwc": "1", "enable_cuda_graph": "1"}
    return {
        "onnxruntime bare": partial(_bound, path, images, bare),
        "onnxruntime bare, NHWC, CUDA graph": partial(_bound, path, images, best),
    }


def captured(answer: Callable[[Tensor], Tensor], images: Tensor) -> Answer:
    """The answer to these images as a CUDA graph, which reads them anew in every run; on the CPU, plain calls."""
    if images.device.type == "cpu":
        return lambda: answer(images)
    torch.cuda.synchronize()  # the images may have been written on another stream
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # Libraries choose, compile and allocate, which must not happen in a capture.
        for _ in range(_WARM_UP_RUNS):
            answer(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        features = answer(images)

    def replay() -> Tensor:
        graph.replay()
        return features

    return replay


@contextmanager
def _torch_at_its_best(*, tf32: bool) -> Iterator[None]:
    """Let cuDNN try its convolutions out, and compute float32 in TF32 or not.

    By the older switches alone: torch's compiler reads them, and fails where the newer ones differ.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _ready(network: Callable[[Tensor], Tensor], images: Tensor, *, tf32: bool) -> Answer:
    """The network's answer to these images; in a CUDA graph, what was chosen when it was captured stays so."""

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode(), _torch_at_its_best(tf32=tf32):
            return network(images)

    return captured(answer, images)


def _network(
    checkpoint: Checkpoint,
    options: GraphOptions,
    precision: Literal["fp32", "fp16"],
    device: str,
    memory_format: torch.memory_format = torch.channels_last,
) -> nn.Module:
    key = checkpoint.sha256, options, precision, device, memory_format
    if key not in _networks:
        graph = graph_from_checkpoint(checkpoint, options)
        if precision == "fp16":
            graph.backbone = Float16Backbone(graph.backbone)
        _networks[key] = graph.eval().to(device).to(memory_format=memory_format)
    return _networks[key]


def _room_for_compiled() -> Any:
    """Within it, torch compiles anew for many batch sizes, and fails where it would give up without a word."""
    return torch._dynamo.config.patch(recompile_limit=_MAX_COMPILED, fail_on_recompile_limit_hit=True)


@cache
def _compiled(network: nn.Module, mode: CompileMode) -> Callable[[Tensor], Tensor]:
    # As for every side, the CUDA graph is captured here.
    chosen = "max-autotune-no-cudagraphs" if mode == "max-autotune" else mode
    compiled = torch.compile(network, dynamic=False, mode=chosen)

    def answer(images: Tensor) -> Tensor:
        with _room_for_compiled():
            features: Tensor = compiled(images)
        return features

    return answer


def _bound(path: Path, images: Tensor, provider_options: dict[str, str]) -> Answer:
    """A session whose input and output are bound to memory of torch; every run waits for its answer."""
    session = onnxruntime_session(path, images.device.type, provider_options)
    (source,), (wanted,) = session.get_inputs(), session.get_outputs()
    shape = (len(images), *wanted.shape[1:])
    features = torch.empty(shape, dtype=_FLOATS[wanted.type], device=images.device)
    binding = session.io_binding()
    place = images.device.type, images.device.index or 0
    bound = (binding.bind_input, source.name, images), (binding.bind_output, wanted.name, features)
    for bind, name, tensor in bound:
        element = np.dtype(str(tensor.dtype).removeprefix("torch."))
        bind(name, *place, element, tuple(tensor.shape), tensor.data_ptr())

    def answer() -> Tensor:
        session.run_with_iobinding(binding)
        return features

    return answer
