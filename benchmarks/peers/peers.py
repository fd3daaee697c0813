"""Other ways to answer the same pixels: each opener returns a function from a batch to features.

Vendors are imported late: a fresh process that measures one of them must not wait for another.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Embed = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


def num_threads() -> int:
    """Threads of every side: OMP_NUM_THREADS, which some libraries obey anyhow, or the CPUs of this process."""
    outermost = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # the others are for nested regions
    return int(outermost or 0) or len(os.sched_getaffinity(0))


def onnxruntime_takes(device: str) -> bool:
    """Whether an onnxruntime is installed that supports the device."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return False
    return _PROVIDERS[device] in onnxruntime.get_available_providers()


def bare_onnxruntime(path: Path, device: str) -> Embed:
    """ONNX Runtime as its documentation shows it; float32 without TF32 on a GPU, as everywhere here."""
    session = onnxruntime_session(path, device, {"use_tf32": "0"} if device == "cuda" else {})
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def onnxruntime_session(model: Path | bytes, device: str, provider_options: dict[str, str]) -> Any:
    """Open a file, or its content, on a device.

    Raises:
        RuntimeError: ONNX Runtime does not run it on the device, but elsewhere.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3
    provider = _PROVIDERS[device]
    session = onnxruntime.InferenceSession(model, options, providers=[(provider, provider_options)])
    if (chosen := session.get_providers()[0]) != provider:
        what = model if isinstance(model, Path) else "a network in memory"
        raise RuntimeError(f"ONNX Runtime runs {what} on {chosen}, not on {provider}.")
    return session


def bare_openvino(path: Path) -> Embed:
    """OpenVINO as its documentation shows it for low latency; float32 also on CPUs with bfloat16."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    return lambda batch: compiled(batch)[0]


def torch_eager(checkpoint: Any, options: Any) -> Embed:
    """The network as its authors wrote it; uint8 pixels in, on the GPU where there is one."""
    from reidexport.evaluation.torch_session import TorchBackend

    return TorchBackend(checkpoint, options, num_threads()).run


def torch_network(checkpoint: Any, options: Any, precision: str = "fp32") -> Callable[[Any], Any]:
    """The same network for a pipeline in torch: normalized float32 (B, 3, H, W) tensors in, features out.

    On a GPU channels-last, with convolutions that cuDNN has tried out, and under autocast for fp16; without TF32.
    """
    import torch

    from reidexport.evaluation.torch_session import TorchBackend

    network = TorchBackend(checkpoint, options, num_threads())
    on_gpu = network.device.type == "cuda"
    if on_gpu:
        network.model.to(memory_format=torch.channels_last)

    def features(images: torch.Tensor) -> torch.Tensor:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=on_gpu, allow_tf32=False),
            torch.autocast("cuda", torch.float16, enabled=on_gpu and precision == "fp16"),
        ):
            images = images.to(network.device, non_blocking=True)
            if on_gpu:
                images = images.contiguous(memory_format=torch.channels_last)
            answer: torch.Tensor = network.features(images).float().cpu()
        return answer

    return features
