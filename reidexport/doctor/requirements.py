"""What reidexport's extras ask for, and what is installed: read from package metadata, nothing is imported."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

_REQUIREMENT = re.compile(
    r"""([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*extra\s*==\s*['"]([\w-]+)['"])?$"""
)


@dataclass(frozen=True)
class Requirement:
    """One package that an extra (or, with "", every installation) asks for; ``bounds`` such as ">=2.11,<2.15"."""

    package: str
    bounds: str
    extra: str


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
    for bound in filter(None, bounds.split(",")):
        limit = _numbers(bound.strip("<>= "))
        if bound.startswith(">=") and _numbers(installed) < limit:
            return False
        if bound.startswith("<") and _numbers(installed) >= limit:
            return False
    return True


def extra_of(package: str, requirements: Iterable[Requirement]) -> str | None:
    """The smallest extra that brings a package, or None."""
    requirements = tuple(requirements)
    sizes = Counter(each.extra for each in requirements)
    extras = [each.extra for each in requirements if each.package == package and each.extra]
    return min(extras, key=lambda extra: sizes[extra], default=None)


def missing_packages(
    extra: str, requirements: Iterable[Requirement], installed: Mapping[str, str]
) -> tuple[str, ...]:
    """Those packages of an extra that are not installed."""
    return tuple(
        each.package for each in requirements if each.extra == extra and each.package not in installed
    )


def torch_cuda_version() -> str | None:
    """The CUDA that the installed torch was built for, read from its ``version.py``; None without either."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("version.py")
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(part) for part in found.group().split(".")] if found else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
