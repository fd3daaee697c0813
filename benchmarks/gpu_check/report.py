"""One JSON of everything that was found, and lines for people."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.nvidia_smi import FACTS, query
from benchmarks.gpu_check.outcome import Outcome, Values
from reidexport.files import replaced_when_whole
from reidexport.machine import machine_info, package_versions

# What GPU results depend on, beside what every result does.
_PACKAGES = (
    "triton",
    "onnxscript",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "cuda-bindings",
    "cuda-python",
    "pycuda",
    "cupy-cuda13x",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "pydantic",
)
_NUM_DECIMALS = 3


def report(
    outcomes: Sequence[Outcome], network: Values, *, seconds: float, limit_s: float, is_quick: bool
) -> dict[str, Any]:
    """Everything as one plain dict.

    Args:
        outcomes: of all groups.
        network: what was run.
        seconds: how long it took.
        limit_s: how long it might have taken.
        is_quick: whether it was the tiny network.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "passed": passed(outcomes),
        "counts": {status: counts[status] for status in ("passed", "failed", "skipped", "measured")},
        "quick": is_quick,
        "seconds": round(seconds, 1),
        "limit_s": limit_s,
        "network": network,
        "gpu": gpu_facts(),
        "machine": machine_info(),
        "versions": {**package_versions(), **_more_versions()},
        "checks": [_plain(each) for each in outcomes if each.status != "measured"],
        "measurements": [_plain(each) for each in outcomes if each.status == "measured"],
    }


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether nothing failed."""
    return all(outcome.status != "failed" for outcome in outcomes)


def write_report(path: Path, content: dict[str, Any]) -> None:
    """As one JSON object; an old file is replaced only by a whole new one.

    Raises:
        InputError: the path cannot be written.
    """
    with replaced_when_whole(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def line(outcome: Outcome) -> str:
    """One outcome for people."""
    text = f"{outcome.status:8}  {outcome.subject}: {outcome.step}"
    if outcome.reason:
        return f"{text}: {outcome.reason}"
    numbers = ", ".join(_numbers(outcome.values))
    return f"{text}  {numbers}" if numbers else text


def finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def gpu_facts() -> dict[str, float | str | None]:
    """What nvidia-smi tells; nothing where it is not there or does not answer."""
    try:
        return query(*FACTS)
    except (OSError, subprocess.SubprocessError):
        return {}


def _plain(outcome: Outcome) -> dict[str, Any]:
    content = outcome.as_json()
    content["seconds"] = round(outcome.seconds, _NUM_DECIMALS)
    return {key: value for key, value in content.items() if value not in ("", {})}


def _numbers(values: Values, prefix: str = "") -> list[str]:
    """What fits into a line: speeds, shares and errors."""
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict) and name != "limits":
            found += _numbers(value, f"{name} ")
        elif isinstance(value, float) and not isinstance(value, bool) and name not in ("p90_ms", "p99_ms"):
            found.append(f"{prefix}{name} {value:.4g}")
    return found


def _more_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
