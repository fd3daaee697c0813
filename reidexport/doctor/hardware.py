"""What the processor and NVIDIA's driver offer to this process, found without any framework."""

import ctypes
import re

from reidruntime.tensorrt_library import compute_capability

from reidexport.records.checks import DetectedGpu, NvidiaDriver

# What networks profit from, and the flags that Linux has for it on x86-64 and ARM.
_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "AMX": ("amx_tile",),
    "NEON": ("asimd",),
    "SVE": ("sve",),
    "I8MM": ("i8mm",),
}


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The instruction sets that matter to networks, from the text of ``/proc/cpuinfo``; empty if it names none."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return tuple(name for name, any_of in _FEATURES.items() if flags & set(any_of))


def nvidia_driver(
    cuda_library: str = "libcuda.so.1", nvml_library: str = "libnvidia-ml.so.1"
) -> NvidiaDriver | None:
    """Ask NVIDIA's driver what it is and which GPUs this process may use; None where it is not installed."""
    try:
        cuda = ctypes.CDLL(cuda_library)
    except OSError:
        return None
    version = _driver_version(nvml_library)
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    newest = f"{number.value // 1000}.{number.value % 1000 // 10}"
    status = cuda.cuInit(0)
    if status != 0:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(status, ctypes.byref(text))
        why = text.value.decode() if text.value else f"error {status}"
        return NvidiaDriver(version, newest, (), f"CUDA does not start ({why})")
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    return NvidiaDriver(version, newest, tuple(_gpu(cuda, index) for index in range(count.value)))


def _gpu(cuda: ctypes.CDLL, index: int) -> DetectedGpu:
    device, memory, name = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return DetectedGpu(name.value.decode(), compute_capability(cuda, device), memory.value >> 20)


def _driver_version(nvml_library: str) -> str | None:
    """The driver's own version is known to NVML; CUDA knows only that of CUDA."""
    try:
        nvml = ctypes.CDLL(nvml_library)
    except OSError:
        return None
    text = ctypes.create_string_buffer(96)
    if nvml.nvmlInit_v2() != 0:
        return None
    known = nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0
    nvml.nvmlShutdown()
    return text.value.decode() if known else None
