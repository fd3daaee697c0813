"""One file per inference engine, and the choice between them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

from numpy.typing import NDArray

from reidruntime.artifact.manifest import Precision, TensorSpec
from reidruntime.errors import ArtifactError, InputError, NotInstalledError
from reidruntime.tensorrt_library import first_gpu

BackendName = Literal[
    "auto", "onnxruntime", "openvino", "openvino-bf16", "torch-cuda", "tensorrt", "tensorrt-rtx"
]
DeviceName = Literal["auto", "cpu", "cuda"]
Answer = Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class BackendFacts:
    """What a backend is.

    Attributes:
        engine: what computes.
        devices: where, as ``open_session`` takes them.
        loads: ``"onnx"`` files or TensorRT ``"engine"`` files.
        computes_in: for every file; None: the file's own precision.
        takes_tensors: whether its sessions have ``run_tensor``.
    """

    engine: str
    devices: tuple[Literal["cpu", "cuda"], ...]
    loads: Literal["onnx", "engine"] = "onnx"
    computes_in: Literal["bf16"] | None = None
    takes_tensors: bool = False


BACKENDS: dict[str, BackendFacts] = {
    "onnxruntime": BackendFacts("ONNX Runtime", ("cpu", "cuda")),
    "openvino": BackendFacts("OpenVINO", ("cpu",)),
    "openvino-bf16": BackendFacts("OpenVINO, only on request", ("cpu",), computes_in="bf16"),
    "torch-cuda": BackendFacts("torch alone", ("cuda",), takes_tensors=True),
    "tensorrt": BackendFacts("TensorRT", ("cuda",), loads="engine", takes_tensors=True),
    "tensorrt-rtx": BackendFacts("TensorRT for RTX, in ONNX Runtime", ("cuda",)),
}


def backend_places() -> dict[str, tuple[BackendName, DeviceName]]:
    """Every backend on every one of its devices, by name: ``-cuda`` tells a second device from the first."""
    return {
        name if device == facts.devices[0] else f"{name}-{device}": (cast(BackendName, name), device)
        for name, facts in BACKENDS.items()
        for device in facts.devices
    }


@dataclass(frozen=True)
class Network:
    """What a backend loads: the file, the input to feed, the output to return, the file's own precision.

    ``depthwise`` is for :func:`choose`: whether most of its convolutions are depthwise, as OSNet's are.
    ``by_definition`` is for INT8 files in TensorRT's form: Q/DQ pairs are computed one by one, in float32, as the
    integer kernels of many CPUs overflow on signed activations.
    """

    path: Path
    input: TensorSpec
    output: TensorSpec
    precision: Precision
    depthwise: bool = False
    by_definition: bool = False


class Backend(Protocol):
    """A loaded network: one input, one output, no pre- or post-processing.

    It may have ``preferred_batch``: how many images a run should take, where neither caller nor artifact has a
    preference; see :func:`reidruntime.tensorrt_library.default_batch_size`.
    """

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
        tensor_device: the type of device on which :meth:`run_tensor` takes tensors.
    """

    in_flight: int
    tensor_device: str

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch: start it, and wait for the answer."""
        return self.submit(batch)()

    def submit(self, batch: NDArray[Any]) -> Answer:
        """Start a batch; what is returned waits for its answer, and must be called once.

        Raises:
            GpuError: the GPU fails; here or when the answer is fetched.
        """
        ...

    def host_array(self, num_rows: int) -> NDArray[Any]:
        """Memory for a batch, from which copying to the GPU is fastest: page-locked, where there is a GPU."""
        ...

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor on the GPU with another; nothing passes through the host."""
        ...

    def close(self) -> None:
        """Release the GPU's memory."""
        ...


def open_backend(
    network: Network, backend: BackendName, device: DeviceName, threads: int
) -> tuple[BackendName, Backend]:
    """Load an ONNX file into the backend that :func:`choose` names.

    ``openvino-bf16`` is OpenVINO with convolutions and linear layers in bfloat16, used only on request:
    features differ from float32's by about a percent.

    Returns:
        The backend's name and the backend.

    Raises:
        InputError: the backend or device does not exist, or do not go together.
        NotInstalledError: the backend, the device, or what the backend needs of the device is missing.
        GpuError: the GPU and a backend for it exist, and do not start; ``"auto"`` then chooses no other.
        ArtifactError: the backend refuses the file, some of its operators, or to compute in the precision asked for.
    """
    for what, value, known in (("backend", backend, BackendName), ("device", device, DeviceName)):
        if value not in get_args(known):
            raise InputError(f"There is no {what} {value!r}. Expected one of: {', '.join(get_args(known))}.")
    if backend == "tensorrt":
        raise InputError(
            f"{network.path}: TensorRT runs engines. Build one (reidexport trt {network.path.name}), or use backend "
            "onnxruntime with device cuda."
        )
    if backend == "tensorrt-rtx":
        from reidruntime.backends.tensorrt_rtx import TensorRtRtxBackend

        if device == "cpu":
            raise InputError(f"{network.path}: backend tensorrt-rtx runs on a GPU, got device cpu.")
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
            f"{network.path}: INT8 in TensorRT's form, which CPU kernels overflow on. Use backend onnxruntime, which "
            "computes it as ONNX defines it, or export with --target cpu."
        )
    if network.by_definition and backend == "auto":
        backend = "onnxruntime"
    name, place = choose(
        backend,
        device,
        depthwise=network.depthwise and network.precision == "fp32",
        is_int8=network.precision == "int8",
    )
    if name == "openvino":
        from reidruntime.backends.openvino import OpenVinoBackend

        return name, OpenVinoBackend(network, threads=threads)
    if name == "torch-cuda":
        from reidruntime.backends.torch_cuda import TorchCudaBackend

        return name, TorchCudaBackend(network, device=place, threads=threads)
    from reidruntime.backends.onnxruntime import OnnxRuntimeBackend

    return name, OnnxRuntimeBackend(network, device=place, threads=threads)


def choose(
    backend: BackendName, device: DeviceName, *, depthwise: bool = False, is_int8: bool = False
) -> tuple[Literal["onnxruntime", "openvino", "torch-cuda"], Literal["cpu", "cuda"]]:
    """Settle ``"auto"``: the fastest that is installed and not damaged.

    1. ONNX Runtime on CUDA, where there are a GPU and an onnxruntime that can use it.
    2. torch-cuda for fp32 and fp16, where there are a GPU and a torch that can use it.
    3. ONNX Runtime on the CPU for fp32 networks of depthwise convolutions: OSNet x0.25 at batch 32 answers
       804 images/s, with OpenVINO 430.
    4. OpenVINO on the CPU for all others: ResNet-50 in fp32 is 1.6 times as fast as with ONNX Runtime at
       batch 1, 1.1 times at 8, and equal at 32; fp16 files are 2 to 3 times as fast (OSNet), as ONNX Runtime
       converts them anew in every run.
    5. ONNX Runtime on the CPU.

    The figures are of two CPU cores. ``depthwise`` is for fp32 files whose convolutions are mostly depthwise,
    ``is_int8`` for int8 files, which torch-cuda does not compute.

    Raises:
        InputError: the backend and the device do not go together.
        NotInstalledError: what is needed is missing or damaged.
        GpuError: there are a GPU and an onnxruntime that can use it, and the GPU's driver does not start.
    """
    if backend == "openvino":
        if device == "cuda":
            raise InputError("OpenVINO runs on the CPU here. Use backend onnxruntime for device cuda.")
        return "openvino", "cpu"
    if backend == "torch-cuda":
        if find_spec("torch") is None:
            raise NotInstalledError(
                "Backend torch-cuda needs torch, which is not installed: pip install torch"
            )
        return "torch-cuda", "cpu" if device == "cpu" else "cuda"
    if device == "cuda" or (device == "auto" and first_gpu() is not None):
        if _onnxruntime_is_for_cuda():
            return "onnxruntime", "cuda"
        if backend == "auto" and not is_int8 and _torch_is_for_cuda():
            return "torch-cuda", "cuda"
    if device == "cuda":
        return "onnxruntime", "cuda"  # whose error names what to install
    return _choose_for_cpu(backend, depthwise), "cpu"


def _choose_for_cpu(backend: BackendName, depthwise: bool) -> Literal["onnxruntime", "openvino"]:
    from reidruntime.backends.onnxruntime import import_onnxruntime

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
            return "openvino"
        raise
    return "openvino" if may_be_openvino and not depthwise else "onnxruntime"


def failed_run(network: Network, batch_size: int, backend: str, error: Exception) -> ArtifactError:
    """The error of a network that loads, but fails on a batch."""
    return ArtifactError(
        f"{network.path}: {backend} failed on a batch of {batch_size}: {error}. "
        "Try a smaller or a static batch."
    )


def _onnxruntime_is_for_cuda() -> bool:
    from reidruntime.backends.onnxruntime import cuda_is_installed

    return find_spec("onnxruntime") is not None and cuda_is_installed()


def _torch_is_for_cuda() -> bool:
    """Whether torch is installed and finds a GPU; importing it takes seconds, so it is tried last."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
