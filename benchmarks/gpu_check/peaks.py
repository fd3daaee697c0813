"""What this GPU gives at most, measured in the same run: matrix products, and copies."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.outcome import Values
from benchmarks.gpu_check.settings import Settings

if TYPE_CHECKING:
    import torch

FILE = "peaks.json"
_COPY_MIB = 256


@dataclass(frozen=True)
class Peaks:
    """Square matrix products in TFLOP/s, copies in GB/s (1e9 bytes); None where it was not measured."""

    fp32: float | None = None
    tf32: float | None = None
    fp16: float | None = None
    bf16: float | None = None
    host_to_device: float | None = None
    device_to_host: float | None = None
    device_to_device: float | None = None


def measure_peaks(bench: Bench, settings: Settings) -> None:
    """Measure all of them, and keep them for the other groups."""
    found: dict[str, float] = {}
    for name in ("fp16", "bf16", "tf32", "fp32"):
        bench.measure("peak", f"{name} matrix product", 4, partial(_matrix_product, settings, name, found))
    for name in ("host_to_device", "device_to_host", "device_to_device"):
        bench.measure("peak", f"copy {name}", 4, partial(_copy, settings, name, found))
    settings.file(FILE).write_text(json.dumps(asdict(Peaks(**found))))


def peaks_of(settings: Settings) -> Peaks:
    """What was measured."""
    path = settings.file(FILE)
    return Peaks(**json.loads(path.read_text())) if path.is_file() else Peaks()


def _matrix_product(settings: Settings, name: str, found: dict[str, float]) -> Values:
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    # Without tensor cores a product takes longer: a smaller one reaches the peak too.
    size = settings.matrix_size // 2 if name == "fp32" else settings.matrix_size
    a, b = (_random(size, dtype, settings.device) for _ in range(2))
    product = torch.empty_like(a)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        milliseconds = _median_ms(settings, lambda: torch.mm(a, b, out=product))
    finally:
        torch.set_float32_matmul_precision(before)
    found[name] = 2 * size**3 / milliseconds / 1e9
    return {"size": size, "tflop_per_s": found[name], "busy": _busy(settings)}


def _copy(settings: Settings, name: str, found: dict[str, float]) -> Values:
    """Page-locked memory on the host's side; a copy on the device counts what it reads and what it writes."""
    import torch

    on_gpu = settings.device == "cuda"
    host = torch.empty(_COPY_MIB << 20, dtype=torch.uint8, pin_memory=on_gpu)
    device = torch.empty(_COPY_MIB << 20, dtype=torch.uint8, device=settings.device)
    source, target = {
        "host_to_device": (host, device),
        "device_to_host": (device, host),
        "device_to_device": (device, device.clone()),
    }[name]
    milliseconds = _median_ms(settings, lambda: target.copy_(source, non_blocking=True))
    moved = source.nbytes * (2 if name == "device_to_device" else 1)
    found[name] = moved / milliseconds / 1e6
    return {"mib": _COPY_MIB, "gb_per_s": found[name]}


def _median_ms(settings: Settings, work: Callable[[], object]) -> float:
    from benchmarks.gpu_check.speeds import device_times_ms

    return median(device_times_ms(work, settings.seconds_per_speed, settings.device))


def _random(size: int, dtype: "torch.dtype", device: str) -> "torch.Tensor":
    """Random numbers: zeros draw less power, and run faster than any network."""
    import torch

    return torch.randn((size, size), device=device, dtype=torch.float32).to(dtype)


def _busy(settings: Settings) -> dict[str, float | str | None]:
    """Clocks, power and temperature right after the work."""
    from benchmarks.gpu_check.nvidia_smi import BUSY_FACTS, query

    try:
        return query(*BUSY_FACTS) if settings.device == "cuda" else {}
    except OSError:
        return {}
