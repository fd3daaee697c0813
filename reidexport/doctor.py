"""What this machine can do with reidexport, what stands in the way, and what to install for more."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reidexport.datasets.layouts import recognised_in
from reidexport.errors import DatasetError, NotInstalledError
from reidexport.hardware import NvidiaDriver, cpu_features, cpuinfo_text
from reidexport.machine import MachineInfo
from reidexport.requirements import Requirement, extra_of, missing_packages, within
from reidruntime.backends import choose

PACKAGES = (
    "numpy",
    "pillow",
    "pydantic",
    "typer",
    "rich",
    "pyarrow",
    "numba",
    "simplejpeg",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "tensorrt",
    "tensorrt-rtx",
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One thing found out.

    Attributes:
        level: "ok", "note" (something could be better) or "problem" (something does not work).
        topic: what it is about, in a word or two.
        text: what was found.
        advice: the command or change that helps, or "".
    """

    level: Literal["ok", "note", "problem"]
    topic: str
    text: str
    advice: str = ""


def examine(
    machine: MachineInfo,
    driver: NvidiaDriver | None,
    packages: Mapping[str, str],
    requirements: tuple[Requirement, ...],
    env: Mapping[str, str],
    *,
    torch_cuda: str | None = None,
) -> list[Finding]:
    """Everything that ``reidexport doctor`` says, in its order.

    Args:
        machine: from :func:`reidexport.machine.machine_info`.
        driver: from :func:`reidexport.hardware.nvidia_driver`; None where there is none.
        packages: installed versions by name, as a rule of ``PACKAGES``.
        requirements: from :func:`reidexport.requirements.own_requirements`.
        env: environment variables; ``REIDEXPORT_DATA`` is where data sets are looked for.
        torch_cuda: the CUDA that torch was built for.
    """
    num_gpus = len(driver.gpus) if driver else 0
    return [
        *system_findings(machine, cpu_features(cpuinfo_text())),
        *gpu_findings(driver),
        *package_findings(packages, requirements, torch_cuda, num_gpus),
        *conflicts(packages, num_gpus),
        *environment_findings(env, machine["cores"]),
        backend_finding(),
        *dataset_findings(env.get("REIDEXPORT_DATA")),
    ]
