"""The machine and the packages that a measurement was made with."""

import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reidruntime.threads import default_threads
from typing_extensions import TypedDict  # pydantic reads no other in Python 3.11

CPUINFO = Path("/proc/cpuinfo")
_BUSY_LOAD = 0.3  # a core

_PACKAGES = (
    *("reidexport", "numpy", "pillow", "simplejpeg", "numba", "onnx", "onnxruntime", "onnxruntime-gpu"),
    *("openvino", "torch", "torchvision", "timm", "tensorrt", "faiss-cpu", "faiss-gpu-cu12", "cuvs-cu12"),
    *("cuvs-cu13", "usearch", "nvidia-pytriton", "tritonclient", "pytest-benchmark"),
)


class MachineInfo(TypedDict):
    """One machine; ``load_average`` is that of the last minute at the time of the call.

    ``cpu_mhz`` is the highest clock of any core at that time, ``governor`` what sets the clocks (Linux's cpufreq);
    None where the system does not say.
    """

    cpu: str
    cpu_mhz: int | None
    governor: str | None
    cores: int
    memory_mib: int | None
    gpus: list[str]
    system: str
    load_average: float | None


def machine_info() -> MachineInfo:
    """CPU model and clock, cores this process may use, memory, NVIDIA GPUs, operating system and load."""
    cpuinfo = file_text(CPUINFO)
    return MachineInfo(
        cpu=cpu_model(cpuinfo) or platform.processor() or platform.machine(),
        cpu_mhz=cpu_mhz(cpuinfo),
        governor=file_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip() or None,
        cores=default_threads(),
        memory_mib=_memory_mib(),
        gpus=_gpu_models(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def is_busy(machine: MachineInfo) -> bool:
    """Whether other programs were using so much of a machine that a measurement on it is doubtful."""
    load = machine["load_average"]
    return load is not None and load >= _BUSY_LOAD * machine["cores"]


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result can depend on."""
    return {"python": platform.python_version(), **installed_versions(_PACKAGES)}


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def cpu_model(cpuinfo: str) -> str | None:
    """The CPU's name in the text of ``/proc/cpuinfo``, with the numbers that tell generations of one name apart.

    None where it has none.
    """
    name, family, model = (
        re.search(rf"^{what}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        for what in ("model name", "cpu family", "model")
    )
    if not name:
        return None
    return f"{name[1]} (family {family[1]}, model {model[1]})" if family and model else name[1]


def cpu_mhz(cpuinfo: str) -> int | None:
    """The highest clock of any core in the text of ``/proc/cpuinfo``, in MHz; None where it has none."""
    clocks = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", cpuinfo, re.MULTILINE)
    return round(max(map(float, clocks))) if clocks else None


def file_text(path: Path) -> str:
    """A file's text; empty if it does not exist."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (AttributeError, ValueError, OSError):
        return None


def _gpu_models() -> list[str]:
    """As NVIDIA's driver lists them."""
    texts = [path.read_text() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    return [found.group(1) for text in texts if (found := re.search(r"Model:\s*(.+)", text))]
