"""Whether the right packages are installed, in versions that work, and get along with each other.

What reidexport's extras ask for is read from package metadata; nothing is imported. A package counts as installed when
what a program imports exists, whichever distribution brought it: conda's and NVIDIA's have names of their own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

from reidexport.machine import installed_versions
from reidexport.records.checks import Finding

PACKAGES = (
    "reidexport",
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
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
)
# Where the name that a program imports is not the package's own.
_MODULES = {"pillow": "PIL", "pyyaml": "yaml"}
_USES = {
    "cli": "the commands",
    "export": "reading checkpoints and writing ONNX",
    "cpu": "running artifacts on the CPU",
    "gpu": "running artifacts on an NVIDIA GPU",
}
_NUM_PLACES = 8  # of a version; they have fewer
_REQUIREMENT = re.compile(
    r"""([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*extra\s*==\s*['"]([\w-]+)['"])?$"""
)


@dataclass(frozen=True)
class Requirement:
    """One package that an extra (or, with "", every installation) asks for; ``bounds`` such as ">=2.11,<2.15"."""

    package: str
    bounds: str
    extra: str


def package_findings(
    packages: Mapping[str, str], requirements: tuple[Requirement, ...], torch_cuda: str | None, num_gpus: int
) -> list[Finding]:
    """The version of every package, and what each extra still lacks, where this process may use ``num_gpus`` GPUs.

    ``packages`` and ``torch_cuda`` are those of an :class:`Examination`.
    """
    built = f"built for CUDA {torch_cuda}, {'with a GPU to use' if num_gpus else 'runs on the CPU here'}"
    about_torch = f" ({built if torch_cuda else 'built without CUDA'})"
    findings = [
        _version_finding(name, packages[name], requirements, about_torch if name == "torch" else "")
        for name in PACKAGES
        if name in packages
    ]
    on_gpu = num_gpus > 0 or "onnxruntime-gpu" in packages
    for extra in ("cli", "export", "gpu" if on_gpu else "cpu"):
        wanted = [each.package for each in requirements if each.extra == extra]
        if missing := [package for package in wanted if package not in packages]:
            findings.append(_missing_finding(extra, missing, packages))
    return findings


def conflicts(packages: Mapping[str, str], num_gpus: int) -> list[Finding]:
    """Packages that do not get along with each other or with this machine; as for :func:`package_findings`."""
    return [*_onnxruntime_conflicts(packages, num_gpus), *_torch_conflicts(packages)]


def _onnxruntime_conflicts(packages: Mapping[str, str], num_gpus: int) -> Iterable[Finding]:
    topic, extra = "onnxruntime", "gpu" if num_gpus else "cpu"
    if "onnxruntime" in packages and "onnxruntime-gpu" in packages:
        text = "onnxruntime and onnxruntime-gpu are both installed: they overwrite each other's files"
        advice = f'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "reidexport[{extra}]"'
        yield Finding("problem", topic, text, advice)
    elif "onnxruntime-gpu" in packages and not num_gpus:
        text = "onnxruntime-gpu is installed but there is no GPU to use: it runs on the CPU, without OpenVINO's help"
        advice = 'pip uninstall -y onnxruntime-gpu && pip install "reidexport[cpu]"'
        yield Finding("note", topic, text, advice)
    names = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    tensorrt = next((packages[name] for name in names if name in packages), "0")
    if "onnxruntime-gpu" in packages and not within(tensorrt, "<11"):
        text = (
            f"ONNX Runtime's TensorRT provider needs libnvinfer.so.10 and cannot load beside TensorRT {tensorrt}; "
            "its CUDA provider, which reidexport uses, can"
        )
        yield Finding("note", topic, text)


def _torch_conflicts(packages: Mapping[str, str]) -> Iterable[Finding]:
    if "torch" not in packages:
        return
    torch, torchvision = packages["torch"], packages.get("torchvision")
    if torchvision is None:
        text = "torch is installed without torchvision"
        yield Finding("problem", "torch", text, 'pip install "reidexport[export]"')
    elif torch.endswith("+cpu") != torchvision.endswith("+cpu"):  # PyPI's CUDA builds carry no suffix
        builds = f"torch {torch} and torchvision {torchvision}"
        text = f"{builds} are builds for different devices: torchvision cannot be imported"
        yield Finding("problem", "torch", text, 'pip install --force-reinstall "reidexport[export]"')


def _version_finding(name: str, version: str, requirements: tuple[Requirement, ...], more: str) -> Finding:
    bounds = next((each.bounds for each in requirements if each.package == name), "")
    if within(version, bounds):
        return Finding("ok", name, f"{version}{more}")
    extra = extra_of(name, requirements)
    what = f"reidexport[{extra}]" if extra else "reidexport"
    text = f"{version} is not supported, expected {bounds}{more}"
    return Finding("problem", name, text, f'pip install "{what}"')


def _missing_finding(extra: str, missing: list[str], packages: Mapping[str, str]) -> Finding:
    # Installing onnxruntime-gpu over onnxruntime is the conflict that this command warns of.
    replaces = extra == "gpu" and "onnxruntime-gpu" in missing and "onnxruntime" in packages
    uninstall = "pip uninstall -y onnxruntime && " if replaces else ""
    text = f"not installed: {', '.join(missing)} ({_USES[extra]})"
    return Finding("note", f"for {extra}", text, f'{uninstall}pip install "reidexport[{extra}]"')


def importable_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that can be imported, by the packages' names.

    Where none of that name is installed, the version is that of the distribution that brings the module.
    """
    wanted = tuple(dict.fromkeys(packages))
    found, distributions = installed_versions(wanted), packages_distributions()
    for package in wanted:
        module = _MODULES.get(package, package.replace("-", "_"))
        others = [each for each in distributions.get(module, ()) if each.lower() not in wanted]
        if package not in found and others:
            found[package] = version(others[0])
    return found


def own_requirements() -> tuple[Requirement, ...]:
    """What the installed reidexport asks for; nothing when it runs from a folder without being installed."""
    try:
        return parse_requirements(requires("reidexport") or ())
    except PackageNotFoundError:
        return ()


def parse_requirements(lines: Iterable[str]) -> tuple[Requirement, ...]:
    """Parse ``Requires-Dist`` lines; one with another marker than an extra is left out."""
    found = (_REQUIREMENT.match(line) for line in lines)
    return tuple(Requirement(each[1].lower(), each[2], each[3] or "") for each in found if each)


def within(installed: str, bounds: str) -> bool:
    """Whether a version keeps bounds made of ``>=`` and ``<``; suffixes such as ``+cu130`` or ``rc1`` do not count."""
    bounds_found = re.findall(r"(>=|<)\s*([\d.]+)", bounds)
    return all((_numbers(installed) >= _numbers(limit)) == (sign == ">=") for sign, limit in bounds_found)


def extra_of(package: str, requirements: Sequence[Requirement]) -> str | None:
    """The smallest extra that brings a package, or None."""
    sizes = Counter(each.extra for each in requirements)
    extras = [each.extra for each in requirements if each.package == package and each.extra]
    return min(extras, key=lambda extra: sizes[extra], default=None)


def torch_cuda_version() -> str | None:
    """The CUDA that the installed torch was built for, read from its ``version.py``; None without either."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("version.py")
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    """Of the same length for every version, as 2 is 2.0."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    return (*numbers, *(0 for _ in range(len(numbers), _NUM_PLACES)))
