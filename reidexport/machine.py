"""The machine and the packages that a measurement was made with."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from reidruntime.session import default_threads

_PACKAGES = (
    "reidexport",
    "numpy",
    "pillow",
    "simplejpeg",
    "numba",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "torchvision",
    "timm",
    "tensorrt",
)


class MachineInfo(TypedDict):
    """One machine; ``load_average`` is that of the last minute at the time of the call."""

    cpu: str
    cores: int
    memory_mib: int | None
    gpus: list[str]
    system: str
    load_average: float | None


def machine_info() -> MachineInfo:
    """CPU model, cores this process may use, memory, NVIDIA GPUs, operating system and load."""
    return MachineInfo(
        cpu=_cpu_model(),
        cores=default_threads(),
        memory_mib=_memory_mib(),
        gpus=_gpu_models(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result can depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (AttributeError, ValueError, OSError):
        return None


def _gpu_models() -> list[str]:
    """As NVIDIA's driver lists them."""
    texts = [path.read_text() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    return [found.group(1) for text in texts if (found := re.search(r"Model:\s*(.+)", text))]
