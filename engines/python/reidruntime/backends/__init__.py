"""One file per inference engine, and the choice between them."""

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from reidruntime.errors import InputError, NotInstalledError
from reidruntime.manifest import Precision

BackendName = Literal["auto", "onnxruntime", "openvino"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Network:
    """What a backend loads: the file, the input to feed, the output to return, the file's own precision."""

    path: Path
    input_name: str
    output_name: str
    precision: Precision


class Backend(Protocol):
    """A loaded network: one input, one output, no pre- or post-processing."""

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch, in the dtype and layout of the file's own input; rows keep their order."""
        ...

    def describe(self) -> str:
        """Name and version, device, precision it computes in, threads."""
        ...


def open_backend(
    network: Network, backend: BackendName, device: DeviceName, threads: int
) -> tuple[Literal["onnxruntime", "openvino"], Backend]:
    """Load a network where :func:`choose` says.

    Returns:
        The backend's name and the backend.

    Raises:
        InputError: there is no such backend or device, or the backend has no such device.
        NotInstalledError: the backend or the device is not there.
        ArtifactError: the backend refuses the file.
    """
    name, place = choose(backend, device)
    if name == "openvino":
        from reidruntime.backends.openvino import OpenVinoBackend

        return name, OpenVinoBackend(network, threads=threads)
    from reidruntime.backends.onnxruntime import OnnxRuntimeBackend

    return name, OnnxRuntimeBackend(network, device=place, threads=threads)


def choose(
    backend: BackendName, device: DeviceName
) -> tuple[Literal["onnxruntime", "openvino"], Literal["cpu", "cuda"]]:
    """Settle ``"auto"``: the fastest that is installed.

    1. ONNX Runtime on CUDA, where there are a GPU and an onnxruntime that can use it.
    2. OpenVINO on the CPU: as fast as ONNX Runtime in fp32, and 5 to 10 % faster on single images
       and in int8.
    3. ONNX Runtime on the CPU.

    Raises:
        InputError: there is no such backend or device, or the backend has no such device.
        NotInstalledError: neither backend is installed.
    """
    _check_choice("backend", backend, get_args(BackendName))
    _check_choice("device", device, get_args(DeviceName))
    if backend == "openvino" and device == "cuda":
        raise InputError("OpenVINO runs on the CPU here. Take backend onnxruntime for device cuda.")
    if backend != "openvino" and (device == "cuda" or (device == "auto" and _cuda_is_ready())):
        return "onnxruntime", "cuda"
    if backend == "auto":
        return _fastest_on_cpu(), "cpu"
    return backend, "cpu"


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"There is no {what} {value!r}. Expected one of: {', '.join(known)}.")


def _fastest_on_cpu() -> Literal["onnxruntime", "openvino"]:
    if find_spec("openvino"):
        return "openvino"
    if find_spec("onnxruntime"):
        return "onnxruntime"
    raise NotInstalledError(
        'Neither openvino nor onnxruntime is installed: pip install "reidexport[cpu]", '
        'or with an NVIDIA GPU pip install "reidexport[gpu]".'
    )


def _cuda_is_ready() -> bool:
    if not find_spec("onnxruntime"):
        return False
    from reidruntime.backends.onnxruntime import cuda_is_installed

    return cuda_is_installed() and _num_gpus() > 0


def _num_gpus() -> int:
    """How many GPUs NVIDIA's driver offers to this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
