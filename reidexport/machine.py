"""The machine and the packages that a measurement was made with, and what else the machine was doing.

A load average is that of the last minute: it blames a measurement for the one before it. :func:`cpu_use` counts, over
the very time of a measurement, what the CPUs of this process did, of which this process and its children are taken off.
"""

import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, TypedDict

from reidruntime.session import default_threads

_BUSY_LOAD = 0.3  # a core
_OTHERS_SHARE = 0.1  # of the CPU time during a measurement; above that it was disturbed
_PROC = Path("/proc")
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal
_CLOCK_TICKS_OF_ERROR = 2  # per CPU: both counts are in ticks

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
    "faiss-cpu",
    "faiss-gpu-cu12",
    "cuvs-cu12",
    "cuvs-cu13",
    "usearch",
    "nvidia-pytriton",
    "tritonclient",
    "pytest-benchmark",
)


class MachineInfo(TypedDict):
    """One machine; ``load_average`` is that of the last minute at the time of the call.

    ``cpu_mhz`` is the highest clock of any core at that time, ``governor`` what sets the clocks (Linux's cpufreq);
    None where the system does not tell.
    """

    cpu: str
    cpu_mhz: int | None
    governor: str | None
    cores: int
    memory_mib: int | None
    gpus: list[str]
    system: str
    load_average: float | None


class CpuUse(NamedTuple):
    """Clock ticks since the start of the machine, of all processes and of this one with its children."""

    everyones: int
    own: int
    cpus: int
    at_s: float


def machine_info() -> MachineInfo:
    """CPU model and clock, cores this process may use, memory, NVIDIA GPUs, operating system and load."""
    cpuinfo = _text(Path("/proc/cpuinfo"))
    return MachineInfo(
        cpu=cpu_model(cpuinfo) or platform.processor() or platform.machine(),
        cpu_mhz=cpu_mhz(cpuinfo),
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip() or None,
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


def cpu_use() -> CpuUse | None:
    """What has been used up to now on the CPUs that this process may use; None where the system does not tell."""
    try:
        cpus = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = (line.split() for line in (_PROC / "stat").read_text().splitlines())
        everyones = sum(
            int(line[1 + column]) for line in lines if line[0] in cpus for column in _BUSY_COLUMNS
        )
    except (AttributeError, OSError, IndexError):
        return None
    return CpuUse(everyones, _own_ticks(), len(cpus), time.perf_counter()) if everyones else None


def others_share(before: CpuUse | None, after: CpuUse | None) -> float | None:
    """Other processes' share of the CPU time between two readings, 0 to 1; None where a reading is missing."""
    if before is None or after is None:
        return None
    all_ticks = (after.at_s - before.at_s) * os.sysconf("SC_CLK_TCK") * after.cpus
    others = (after.everyones - before.everyones) - (after.own - before.own)
    error = _CLOCK_TICKS_OF_ERROR * after.cpus
    return round(min(max(others - error, 0) / all_ticks, 1.0), 3)


def disturbance(share: float | None, machine: MachineInfo) -> str | None:
    """What else the machine was doing, in words, if it was too much for a ratio.

    Args:
        share: from :func:`others_share`, over the measurement.
        machine: before the first measurement; its load counts where the share is not known.
    """
    if share is not None:
        return f"other processes used {share:.0%} of the CPU time" if share > _OTHERS_SHARE else None
    if is_busy(machine):
        return f"the load was {machine['load_average']} before the first measurement"
    return None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result can depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def cpu_model(cpuinfo: str) -> str | None:
    """The CPU's name in the text of ``/proc/cpuinfo``; None where it has none."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1) if found else None


def cpu_mhz(cpuinfo: str) -> int | None:
    """The highest clock of any core in the text of ``/proc/cpuinfo``, in MHz; None where it has none."""
    clocks = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", cpuinfo, re.MULTILINE)
    return round(max(map(float, clocks))) if clocks else None


def _text(path: Path) -> str:
    """A file's text; none where there is no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _own_ticks() -> int:
    """Of this process and all below it; a finished child's are in its parent's account."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    total, family = 0, [os.getpid()]
    while family:
        member = family.pop()
        total += ticks.get(member, 0)
        family += children.get(member, [])
    return total


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (AttributeError, ValueError, OSError):
        return None


def _gpu_models() -> list[str]:
    """As NVIDIA's driver lists them."""
    texts = [path.read_text() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    return [found.group(1) for text in texts if (found := re.search(r"Model:\s*(.+)", text))]
