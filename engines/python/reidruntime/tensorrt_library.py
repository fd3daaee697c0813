"""TensorRT's Python bindings, and the GPU that they would run on."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from reidruntime.errors import GpuError, NotInstalledError
from reidruntime.manifest import Flavor

OLDEST, NEWEST = (10, 12), (11, 99)
INSTALL: dict[Flavor, str] = {
    "tensorrt": 'pip install "reidexport[trt]"',
    "rtx": 'pip install "reidexport[rtx]"',
}
# The provider package carries the libraries that the bindings of TensorRT for RTX load.
_RTX_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
_RTX_LOAD_ORDER = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_SUCCESS, _NO_DEVICE = 0, 100  # CUresult
_DEVICE_NODE = Path("/dev/nvidiactl")  # there where the driver's kernel module is


@dataclass(frozen=True)
class Gpu:
    """The first GPU that this process may use; ``compute_capability`` as in ``"9.0"``."""

    name: str
    compute_capability: str
    driver_version: str


def import_tensorrt(flavor: Flavor) -> Any:
    """The Python module of TensorRT (10.12 to 11.x) or of TensorRT for RTX.

    Raises:
        NotInstalledError: it is missing, cannot load its libraries, or is of another version.
    """
    try:
        module = _import_native() if flavor == "tensorrt" else _import_rtx()
    except ImportError as error:
        what = "TensorRT" if flavor == "tensorrt" else "TensorRT for RTX"
        raise NotInstalledError(
            f"{what} is not installed, or cannot load ({error}): {INSTALL[flavor]}"
        ) from error
    if flavor == "tensorrt" and not OLDEST <= version_tuple(module.__version__)[:2] <= NEWEST:
        raise NotInstalledError(
            f"TensorRT {module.__version__} is installed, expected 10.12 to 11.x: {INSTALL[flavor]}"
        )
    return module


def make_logger(trt: Any, say: Callable[[str, bool], None]) -> Any:
    """A logger that passes on what TensorRT says from level WARNING up.

    Args:
        trt: from :func:`import_tensorrt`.
        say: called with every message, and whether it is an error.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                say(msg, True)
            elif severity == trt.ILogger.Severity.WARNING:
                say(msg, False)

    return Logger()


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.16.1.11"`` -> (10, 16, 1, 11); what is not a number ends it."""
    parts = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)


def first_gpu() -> Gpu | None:
    """The GPU that CUDA takes first, asked of NVIDIA's driver; None without a driver or a GPU.

    Raises:
        GpuError: there is a GPU, and its driver does not start.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    status = driver.cuInit(0)
    if status not in (_SUCCESS, _NO_DEVICE) and _DEVICE_NODE.exists():
        raise GpuError(
            f"There is an NVIDIA GPU, but its driver does not start: cuInit returned {status}. Check it with "
            "nvidia-smi; after an update of the driver, restart the machine or the container."
        )
    count = ctypes.c_int(0)
    if status != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return None
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGetName(name, len(name), 0)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, 0)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, 0)
    return Gpu(name.value.decode(), f"{major.value}.{minor.value}", _driver_version())


def _driver_version() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return "unknown"


def _import_native() -> ModuleType:
    import tensorrt

    module: ModuleType = tensorrt
    return module


def _import_rtx() -> ModuleType:
    if find_spec("tensorrt_rtx") is not None:  # NVIDIA's own package, which finds its libraries by itself
        import tensorrt_rtx

        whole: ModuleType = tensorrt_rtx
        return whole
    provider = find_spec(_RTX_LIBRARIES)
    if provider is not None and provider.origin is not None:
        folder = Path(provider.origin).parent
        for pattern in _RTX_LOAD_ORDER:
            for library in sorted(folder.glob(pattern))[:1]:
                _load_globally(library)
    import tensorrt_rtx_bindings

    bindings: ModuleType = tensorrt_rtx_bindings
    return bindings


def _load_globally(library: Path) -> None:
    try:
        ctypes.CDLL(str(library), os.RTLD_GLOBAL)
    except OSError as error:
        raise ImportError(str(error)) from error
