"""All checks, in the order in which they are printed; those of packages are in a module of their own."""

import platform
from collections.abc import Mapping
from pathlib import Path

from reidruntime.backends import choose

from reidexport.data.layouts import Found, recognized_in
from reidexport.doctor.hardware import cpu_features, nvidia_driver
from reidexport.doctor.packages import (
    PACKAGES,
    Requirement,
    conflicts,
    importable_versions,
    own_requirements,
    package_findings,
    torch_cuda_version,
)
from reidexport.errors import DatasetError, NotInstalledError
from reidexport.machine import CPUINFO, MachineInfo, file_text, machine_info
from reidexport.records.checks import Examination, Finding, NvidiaDriver

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def examine_this_machine(env: Mapping[str, str]) -> Examination:
    """Examine the machine and the Python that this runs on.

    Args:
        env: environment variables, usually ``os.environ``; ``REIDEXPORT_DATA`` is the folder of data sets.
    """
    requirements = own_requirements()
    return examine(
        machine_info(),
        cpu_features(file_text(CPUINFO)),
        platform.python_version(),
        nvidia_driver(),
        importable_versions((*PACKAGES, *(each.package for each in requirements))),
        torch_cuda_version(),
        requirements,
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
    try:
        backend, device = choose("auto", "auto")
        opening = Finding("ok", "backend", f"open_session uses {backend} on {device}")
    except NotInstalledError as error:
        opening = Finding("problem", "backend", str(error))
    findings = (
        *system_findings(machine, features, python),
        *gpu_findings(driver),
        *package_findings(packages, requirements, torch_cuda, num_gpus),
        *conflicts(packages, num_gpus),
        *environment_findings(env, machine["cores"]),
        opening,
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


def system_findings(machine: MachineInfo, features: tuple[str, ...], python: str) -> list[Finding]:
    """Operating system, Python, processor, memory; ``features`` are those of :func:`cpu_features`."""
    memory = machine["memory_mib"]
    extensions = ", ".join(features) or "its instruction sets are not known"
    processor = f"{machine['cpu']}, {machine['cores']} cores for this process; {extensions}"
    findings = [
        Finding("ok", "system", f"{machine['system']}, Python {python}"),
        Finding("ok", "processor", processor),
        Finding("ok", "memory", f"{memory / 1024:.1f} GiB" if memory else "not known"),
    ]
    if features and not {"AVX2", "NEON"} & set(features):
        findings.append(Finding("note", "processor", "it has no AVX2: networks run several times slower"))
    return findings


def gpu_findings(driver: NvidiaDriver | None) -> list[Finding]:
    """NVIDIA's driver and the GPUs that it offers."""
    if driver is None:
        return [Finding("ok", "GPU", "no NVIDIA driver, so no GPU: everything runs on the CPU")]
    about = f"NVIDIA driver {driver.version or 'of unknown version'}, CUDA up to {driver.cuda}"
    if driver.problem:
        text = f"{about}: {driver.problem}"
        return [Finding("problem", "GPU", text, "check with nvidia-smi; reinstall the driver")]
    if not driver.gpus:
        return [Finding("note", "GPU", f"{about}, but no GPU for this process", "check CUDA_VISIBLE_DEVICES")]
    return [Finding("ok", "GPU", about)] + [
        Finding("ok", "GPU", f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_mib} MiB")
        for gpu in driver.gpus
    ]


def environment_findings(env: Mapping[str, str], cores: int) -> list[Finding]:
    """Environment variables that make things slower than they need to be."""
    findings = []
    if "OPENBLAS_CORETYPE" in env:
        value = env["OPENBLAS_CORETYPE"]
        text = f"OPENBLAS_CORETYPE={value} chooses numpy's kernels: a wrong one can cost half of its speed"
        findings.append(Finding("note", "environment", text, "unset OPENBLAS_CORETYPE"))
    for name in _THREAD_VARIABLES:
        if (value := env.get(name, "")).isdecimal() and int(value) < cores:
            text = f"{name}={value} leaves {cores - int(value)} of {cores} cores idle in some computations"
            findings.append(Finding("note", "environment", text, f"unset {name}"))
    return findings


def dataset_findings(root: str | None) -> list[Finding]:
    """The data sets in a folder, down to two levels below it; ``root`` None is an unset REIDEXPORT_DATA."""
    topic = "data sets"
    if root is None:
        text = "REIDEXPORT_DATA is not set: tests that need a real one are skipped"
        return [Finding("ok", topic, text, "export REIDEXPORT_DATA=FOLDER, the one that holds them")]
    folder = Path(root)
    if not folder.is_dir():
        return [Finding("problem", topic, f"REIDEXPORT_DATA={root} is not a folder", "correct or unset it")]
    folders = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
    findings = [_dataset_finding(found) for place in folders for found in recognized_in(place)]
    return findings or [Finding("note", topic, f"REIDEXPORT_DATA={root} holds none that is known")]


def _dataset_finding(found: Found) -> Finding:
    try:
        dataset = found.read(found.folder, found.names[0])
    except DatasetError as error:
        return Finding("problem", "data sets", str(error))
    counts = (
        f"{len(dataset.train)} train, {len(dataset.query)} query and {len(dataset.gallery)} gallery images"
    )
    return Finding("ok", "data sets", f"{dataset.name}: {counts} in {found.folder}")
