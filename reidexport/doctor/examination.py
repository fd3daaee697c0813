"""All checks, in the order in which they are printed."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reidruntime.backends import choose

from reidexport.doctor.finding import Finding
from reidexport.doctor.hardware import NvidiaDriver, cpu_features, nvidia_driver
from reidexport.doctor.machine_checks import (
    dataset_findings,
    environment_findings,
    gpu_findings,
    system_findings,
)
from reidexport.doctor.packages import PACKAGES, conflicts, package_findings
from reidexport.doctor.requirements import Requirement, own_requirements, torch_cuda_version
from reidexport.errors import NotInstalledError
from reidexport.machine import CPUINFO, MachineInfo, file_text, installed_versions, machine_info


@dataclass(frozen=True)
class Examination:
    """The facts about a machine, and what was found about them.

    Attributes:
        machine: processor, memory and system.
        features: instruction sets that matter to networks.
        python: its version.
        driver: NVIDIA's, or None.
        packages: installed versions by name.
        torch_cuda: the CUDA that the installed torch was built for, or None.
        findings: what there is to say.
    """

    machine: MachineInfo
    features: tuple[str, ...]
    python: str
    driver: NvidiaDriver | None
    packages: Mapping[str, str]
    torch_cuda: str | None
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding is a problem."""
        return all(finding.level != "problem" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """One plain dict."""
        return {"healthy": self.healthy, **asdict(self)}


def examine_this_machine(env: Mapping[str, str]) -> Examination:
    """Examine the machine and the Python that this runs on.

    Args:
        env: environment variables, usually ``os.environ``; ``REIDEXPORT_DATA`` is the folder of data sets.
    """
    return examine(
        machine_info(),
        cpu_features(file_text(CPUINFO)),
        platform.python_version(),
        nvidia_driver(),
        installed_versions(PACKAGES),
        torch_cuda_version(),
        own_requirements(),
        env,
    )


def examine(
    machine: MachineInfo,
    features: tuple[str, ...],
    python: str,
    driver: NvidiaDriver | None,
    packages: Mapping[str, str],
    torch_cuda: str | None,
    requirements: tuple[Requirement, ...],
    env: Mapping[str, str],
) -> Examination:
    """Judge the facts about a machine; only the backend is looked up on this one."""
    num_gpus = len(driver.gpus) if driver else 0
    findings = (
        *system_findings(machine, features, python),
        *gpu_findings(driver),
        *package_findings(packages, requirements, torch_cuda, num_gpus),
        *conflicts(packages, num_gpus),
        *environment_findings(env, machine["cores"]),
        backend_finding(),
        *dataset_findings(env.get("REIDEXPORT_DATA")),
    )
    return Examination(machine, features, python, driver, packages, torch_cuda, findings)


def backend_finding() -> Finding:
    """What ``open_session`` uses here by default."""
    try:
        backend, device = choose("auto", "auto")
    except NotInstalledError as error:
        return Finding("problem", "backend", str(error))
    return Finding("ok", "backend", f"open_session uses {backend} on {device}")
