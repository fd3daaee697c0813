"""TensorRT's Python bindings, and the GPU that they would run on."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

from reidruntime.artifact.manifest import BatchProfile, Flavor
from reidruntime.errors import GpuError, NotInstalledError

OLDEST, NEWEST = (10, 12), (11, 99)
INSTALL: dict[Flavor, str] = {
    "tensorrt": 'pip install "reidexport[trt]"',
    "rtx": 'pip install "reidexport[rtx]"',
}
# The provider package carries the libraries that the bindings of TensorRT for RTX load.
_RTX_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
_RTX_LOAD_ORDER = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
_SUCCESS, _NO_DEVICE = 0, 100  # CUresult
_DEVICE_NODE = Path("/dev/nvidiactl")  # exists where the driver's kernel module is loaded
# CUdevice_attribute
_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY = 16, (75, 76)

DEFAULT_BATCH = 32  # where neither the caller nor the artifact nor the device has a preference
# The fewest multiprocessors, the best batch, the largest batch.
_BATCHES = (
    (100, 64, 256),  # A100, H100, H200
    (48, 32, 128),  # L4, A10, V100
    (0, 8, 32),  # Jetson, T4, and where it is not known
)


@dataclass(frozen=True)
class Gpu:
    """The first GPU that this process may use.

    Attributes:
        name: as the driver gives it.
        compute_capability: such as ``"9.0"``.
        driver_version: or ``"unknown"``.
        num_multiprocessors: 0 where it is not known.
    """

    name: str
    compute_capability: str
    driver_version: str
    num_multiprocessors: int = 0


def import_tensorrt(flavor: Flavor) -> Any:
    """The Python module of TensorRT (10.12 to 11.x) or of TensorRT for RTX.

    Raises:
        NotInstalledError: it is missing, cannot load its libraries, or is of another version.
    """
    try:
        module = _import_native() if flavor == "tensorrt" else _import_rtx()
    except (ImportError, OSError) as error:
        what = "TensorRT" if flavor == "tensorrt" else "TensorRT for RTX"
        raise NotInstalledError(
            f"{what} is not installed, or cannot load ({error}): {INSTALL[flavor]}"
        ) from error
    if flavor == "tensorrt" and not OLDEST <= version_tuple(module.__version__)[:2] <= NEWEST:
        raise NotInstalledError(
            f"TensorRT {module.__version__} is installed, expected 10.12 to 11.x: {INSTALL[flavor]}"
        )
    return module


def make_logger(trt: Any, log: Callable[[str], None] = lambda _: None) -> Any:
    """A logger of TensorRT's that passes on lines from level WARNING up, and keeps its errors in a list, ``errors``."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(msg)
                log(f"TensorRT error: {msg}")
            elif severity == trt.ILogger.Severity.WARNING:
                log(f"TensorRT warning: {msg}")

    return Logger()


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.16.1.11"`` -> (10, 16, 1, 11); what is not a number ends it."""
    return tuple(map(int, takewhile(str.isdecimal, version.split("."))))


def first_gpu() -> Gpu | None:
    """CUDA's first GPU, according to NVIDIA's driver; None without a driver or a GPU.

    Raises:
        GpuError: the GPU's driver does not start.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    status = driver.cuInit(0)
    if status not in (_SUCCESS, _NO_DEVICE) and _DEVICE_NODE.exists():
        raise GpuError(
            f"This machine has an NVIDIA GPU, but its driver does not start: cuInit returned {status}. Check it with "
            "nvidia-smi; after an update of the driver, restart the machine or the container."
        )
    count = ctypes.c_int(0)
    if status != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return None
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), 0)
    first = ctypes.c_int(0)
    num_multiprocessors = _attribute(driver, first, _MULTIPROCESSOR_COUNT)
    return Gpu(name.value.decode(), compute_capability(driver, first), _driver_version(), num_multiprocessors)


def compute_capability(driver: ctypes.CDLL, device: ctypes.c_int) -> str:
    """That of a GPU by its CUdevice, such as ``"9.0"``."""
    return ".".join(str(_attribute(driver, device, which)) for which in _COMPUTE_CAPABILITY)


def default_batch_profile(gpu: Gpu | None) -> BatchProfile:
    """The batch sizes to build an engine for where the caller names none.

    A batch is to fill the multiprocessors, and to leave most activations in the L2 cache. By estimate, 64 images of
    ResNet-50 do both on an H100; throughput grows little beyond. An unknown GPU gets what suits the
    smallest.
    """
    multiprocessors = gpu.num_multiprocessors if gpu else 0
    optimum, maximum = next(sizes for at_least, *sizes in _BATCHES if multiprocessors >= at_least)
    return BatchProfile(minimum=1, optimum=optimum, maximum=maximum)


def default_batch_size(gpu: Gpu | None) -> int:
    """Images per run where neither caller nor artifact has a preference: 64 on a GPU that 64 suit best, else 32."""
    return max(default_batch_profile(gpu).optimum or 0, DEFAULT_BATCH)


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


def _driver_version() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return "unknown"


def _import_native() -> Any:
    try:
        return import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name != "tensorrt" or find_spec("tensorrt_bindings") is None:
            raise
        return import_module("tensorrt_bindings")  # alone, with libraries that the loader finds elsewhere


def _import_rtx() -> Any:
    if find_spec("tensorrt_rtx") is not None:  # NVIDIA's own package, which finds its libraries by itself
        return import_module("tensorrt_rtx")
    provider = find_spec(_RTX_LIBRARIES)
    if provider is not None and provider.origin is not None:
        folder = Path(provider.origin).parent
        for pattern in _RTX_LOAD_ORDER:
            for library in sorted(folder.glob(pattern))[:1]:
                ctypes.CDLL(str(library), os.RTLD_GLOBAL)
    return import_module("tensorrt_rtx_bindings")
