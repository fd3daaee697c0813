"""What nvidia-smi tells about the GPU that is used."""

import os
import subprocess

FACTS = (
    "name",
    "driver_version",
    "compute_cap",
    "memory.total",
    "memory.used",
    "power.limit",
    "clocks.max.sm",
    "clocks.max.mem",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "utilization.gpu",
)
BUSY_FACTS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def query(*names: str) -> dict[str, float | str | None]:
    """Properties by their names in ``nvidia-smi --help-query-gpu``: MHz, MiB, W and °C as numbers, None if not told.

    Raises:
        OSError: there is no nvidia-smi.
        subprocess.SubprocessError: it fails.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    command = ("nvidia-smi", "-i", first, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    return parse(names, done.stdout)


def parse(names: tuple[str, ...], line: str) -> dict[str, float | str | None]:
    """The answer to a query, from its first line."""
    values = [text.strip() for text in line.strip().splitlines()[0].split(",")]
    return {name: _value(name, text) for name, text in zip(names, values, strict=True)}


def _value(name: str, text: str) -> float | str | None:
    if text.startswith("[") or text in ("N/A", ""):
        return None
    if name in ("name", "driver_version", "compute_cap"):
        return text
    try:
        return float(text)
    except ValueError:
        return text
