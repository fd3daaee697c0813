"""One file per inference engine, and the choice between them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from numpy.typing import NDArray

from reidruntime.errors import ArtifactError, InputError, NotInstalledError
from reidruntime.manifest import Precision
from reidruntime.tensorrt_library import first_gpu

BackendName = Literal["auto", "onnxruntime", "openvino", "openvino-bf16", "tensorrt", "tensorrt-rtx"]
DeviceName = Literal["auto", "cpu", "cuda"]
OnnxBackendName = Literal["onnxruntime", "openvino", "openvino-bf16", "tensorrt-rtx"]
Answer = Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """What a backend loads: the file, the input to feed, the output to return, the file's own precision.

    ``depthwise`` is for :func:`choose`: whether most of its convolutions are depthwise, as OSNet's are.
    ``by_definition`` is for INT8 files in TensorRT's form: Q/DQ pairs are computed one by one, in float32, as the
    integer kernels of many CPUs overflow on signed activations.
    """

    path: Path
    input_name: str
    output_name: str
    precision: Precision
    depthwise: bool = False
    by_definition: bool = False


class Backend(Protocol):
    """A loaded network: one input, one output, no pre- or post-processing."""

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch, in the dtype and layout of the file's own input; rows keep their order.

        Raises:
            ArtifactError: the backend fails, for example for lack of memory.
            GpuError: the GPU does.
        """
        ...

    def describe(self) -> str:
        """Name and version, device, precision it computes in, threads."""
        ...


@runtime_checkable
class PipelinedBackend(Backend, Protocol):
    """A backend in which several batches may be under way at once, so that copies overlap with computing.

    Attributes:
        in_flight: how many batches keep it busy.
    """

    in_flight: int

    def submit(self, batch: NDArray[Any]) -> Answer:
        """Start a batch; what is returned waits for its answer, and must be called once.

        Raises:
            GpuError: the GPU fails; here or when the answer is asked for.
        """
        ...

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor on the GPU with another, without copies."""
        ...

    def close(self) -> None:
        """Give the GPU's memory back."""
        ...


def submit(backend: Backend, batch: NDArray[Any]) -> Answer:
    """Start a batch where the backend can, else answer it at once."""
    if isinstance(backend, PipelinedBackend):
        return backend.submit(batch)
    features = backend.run(batch)
    return lambda: features


def open_backend(
    network: Network, backend: BackendName, device: DeviceName, threads: int
) -> tuple[OnnxBackendName, Backend]:
    """Load an ONNX file where :func:`choose` says.

    ``openvino-bf16`` is OpenVINO with convolutions and linear layers in bfloat16, taken only when it is asked for:
    features differ from float32's by about a percent.

    Returns:
        The backend's name and the backend.

    Raises:
        InputError: there is no such backend or device, or the backend has no such device.
        NotInstalledError: the backend or the device is not there.
        GpuError: the GPU and a backend for it are there, and do not start; ``"auto"`` then takes no other.
        ArtifactError: the backend refuses the file.
    """
    if backend == "tensorrt":
        raise InputError(
            f"{network.path}: TensorRT runs engines. Build one (reidexport trt {network.path.name}), or take backend "
            "onnxruntime with device cuda."
        )
    if backend == "tensorrt-rtx":
        from reidruntime.backends.tensorrt_rtx import TensorRtRtxBackend

        return backend, TensorRtRtxBackend(network)
    if backend == "openvino-bf16":
        from reidruntime.backends.openvino import OpenVinoBackend

        if device == "cuda" or network.precision == "int8":
            wrong = "device cuda" if device == "cuda" else "an INT8 file"
            raise InputError(
                f"{network.path}: backend openvino-bf16 computes FP32 and FP16 files in bfloat16 on a CPU, got {wrong}."
            )
        return backend, OpenVinoBackend(network, threads=threads, in_bf16=True)
    if network.by_definition and backend == "openvino":
        raise InputError(
            f"{network.path}: INT8 in TensorRT's form, which CPU kernels overflow on. Take backend onnxruntime, which "
            "computes it as ONNX defines it, or export with --target cpu."
        )
    if network.by_definition and backend == "auto":
        backend = "onnxruntime"
    name, place = choose(backend, device, depthwise=network.depthwise and network.precision == "fp32")
    if name == "openvino":
        from reidruntime.backends.openvino import OpenVinoBackend

        return name, OpenVinoBackend(network, threads=threads)
    from reidruntime.backends.onnxruntime import OnnxRuntimeBackend

    return name, OnnxRuntimeBackend(network, device=place, threads=threads)


def choose(
    backend: BackendName, device: DeviceName, *, depthwise: bool = False
) -> tuple[Literal["onnxruntime", "openvino"], Literal["cpu", "cuda"]]:
    """Settle ``"auto"``: the fastest that is installed and not damaged.

    1. ONNX Runtime on CUDA, where there are a GPU and an onnxruntime that can use it.
    2. ONNX Runtime on the CPU for fp32 networks of depthwise convolutions: OSNet x0.25 at batch 32 answers
       804 images/s, with OpenVINO 430.
    3. OpenVINO on the CPU for all others: ResNet-50 in fp32 is 1.6 times as fast as with ONNX Runtime at
       batch 1, 1.1 times at 8, and equal at 32; fp16 files are 2 to 3 times as fast (OSNet), as ONNX Runtime
       converts them anew in every run.
    4. ONNX Runtime on the CPU.

    The figures are of two CPU cores.

    Args:
        backend: what the caller asked for.
        device: what the caller asked for.
        depthwise: whether the file is fp32 and its convolutions are mostly depthwise.

    Raises:
        InputError: there is no such backend or device, or the backend has no such device.
        NotInstalledError: onnxruntime is needed, and is missing or damaged.
        GpuError: there are a GPU and an onnxruntime that can use it, and the GPU's driver does not start.
    """
    from reidruntime.backends.onnxruntime import import_onnxruntime

    _check_choice("backend", backend, get_args(BackendName))
    _check_choice("device", device, get_args(DeviceName))
    if backend == "openvino" and device == "cuda":
        raise InputError("OpenVINO runs on the CPU here. Take backend onnxruntime for device cuda.")
    if backend == "openvino":
        return "openvino", "cpu"
    if device == "cuda":
        return "onnxruntime", "cuda"
    may_be_openvino = backend == "auto" and find_spec("openvino") is not None
    if backend == "auto" and not may_be_openvino and not find_spec("onnxruntime"):
        raise NotInstalledError(
            'Neither openvino nor onnxruntime is installed: pip install "reidexport[cpu]", '
            'or with an NVIDIA GPU pip install "reidexport[gpu]".'
        )
    try:
        import_onnxruntime("cpu")
    except NotInstalledError:
        if may_be_openvino:
            return "openvino", "cpu"
        raise
    if device == "auto" and _cuda_is_ready():
        return "onnxruntime", "cuda"
    return ("openvino" if may_be_openvino and not depthwise else "onnxruntime"), "cpu"


def failed_run(network: Network, batch_size: int, backend: str, error: Exception) -> ArtifactError:
    """The error of a network that loads, but fails on a batch."""
    return ArtifactError(
        f"{network.path}: {backend} failed on a batch of {batch_size}: {error}. "
        "Try a smaller or a static batch."
    )


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"There is no {what} {value!r}. Expected one of: {', '.join(known)}.")


def _cuda_is_ready() -> bool:
    from reidruntime.backends.onnxruntime import cuda_is_installed

    return cuda_is_installed() and first_gpu() is not None
