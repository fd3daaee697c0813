"""All checks, in the order in which they are printed."""

import platform
from collections.abc import Mapping

from reidruntime.backends import choose

from reidexport.doctor.hardware import cpu_features, nvidia_driver
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
from reidexport.records.checks import Examination, Finding, NvidiaDriver


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
    return Examination(
        healthy=all(finding.level != "problem" for finding in findings),
        machine=machine,
        features=features,
        python=python,
        driver=driver,
        packages=packages,
        torch_cuda=torch_cuda,
        findings=findings,
    )


def backend_finding() -> Finding:
    """What ``open_session`` uses here by default."""
    try:
        backend, device = choose("auto", "auto")
    except NotInstalledError as error:
        return Finding("problem", "backend", str(error))
    return Finding("ok", "backend", f"open_session uses {backend} on {device}")
