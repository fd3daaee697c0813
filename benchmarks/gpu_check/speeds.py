"""How fast: latency as a caller on the CPU sees it, the network alone on the GPU, and a stream of batches."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from reidruntime.resize import Image8
from reidruntime.session import Session

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.network import flop_per_image
from benchmarks.gpu_check.outcome import Values
from benchmarks.gpu_check.peaks import peaks_of
from benchmarks.gpu_check.settings import Device, Settings

if TYPE_CHECKING:
    from torch import Tensor

TensorAnswer = Callable[["Tensor"], "Tensor"]
_WARM_UP_S, _MIN_REPEATS, _RUNS_BETWEEN_LOOKS = 0.3, 5, 10
_STREAMED_BATCHES = 8


def measure_speeds(
    bench: Bench, subject: str, session: Session, settings: Settings, answer: TensorAnswer | None = None
) -> None:
    """One measurement per batch size.

    Args:
        bench: where to.
        subject: what is measured.
        session: answers arrays.
        settings: batch sizes, and how long.
        answer: answers tensors on the device without copies; None: only the session is measured.
    """
    for size in settings.batch_sizes:
        bench.measure(
            subject,
            f"speed at batch {size}",
            4 * settings.seconds_per_speed,
            partial(_speed, session, size, settings, answer),
        )


def _speed(session: Session, size: int, settings: Settings, answer: TensorAnswer | None) -> Values:
    """All three, each with its share of what the hardware gives."""
    pixels = session.manifest.preprocess
    images = np.random.default_rng(0).integers(
        0, 256, (size, pixels.height_px, pixels.width_px, 3), dtype=np.uint8
    )
    seconds, peaks, flop = settings.seconds_per_speed, peaks_of(settings), flop_per_image(settings)
    values: Values = {
        "precision": session.manifest.precision,
        "batch_size": size,
        "caller": summary(host_times_ms(lambda: session.run(images), seconds), size),
    }
    streamed = _streamed_images_per_s(session, images, seconds)
    values["streamed"] = {
        "images_per_s": streamed,
        "share_of_copy_bandwidth": _share(streamed * images[0].nbytes / 1e9, peaks.host_to_device),
    }
    if answer is not None:
        import torch

        tensor = torch.from_numpy(images).to(settings.device)
        device = summary(device_times_ms(lambda: answer(tensor), seconds, settings.device), size)
        peak = getattr(peaks, session.manifest.precision)
        tflops = None if flop is None else device["images_per_s"] * flop / 1e12
        values["device"] = {**device, "tflop_per_s": tflops, "share_of_matrix_peak": _share(tflops, peak)}
    return values


def summary(times_ms: Sequence[float], batch_size: int) -> dict[str, float]:
    """Percentiles over the runs of a batch, and images per second over all of them."""
    p50, p90, p99 = np.percentile(times_ms, (50, 90, 99))
    return {
        "repeats": len(times_ms),
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "images_per_s": batch_size * len(times_ms) * 1000 / sum(times_ms),
    }


def host_times_ms(work: Callable[[], object], seconds: float) -> list[float]:
    """How long calls take that return when they are done; after a warm-up, which also raises the GPU's clocks."""
    _repeat(work, min(_WARM_UP_S, seconds), 3)
    return _repeat(work, seconds, _MIN_REPEATS)


def device_times_ms(work: Callable[[], object], seconds: float, device: Device) -> list[float]:
    """How long the GPU takes for what a call enqueues, by CUDA's events; the CPU does not wait between calls.

    Where the CPU enqueues more slowly than the GPU works, that is part of the time: a caller would see it too.
    """
    if device == "cpu":
        return host_times_ms(work, seconds)
    import torch

    def look() -> list[float]:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(_RUNS_BETWEEN_LOOKS + 1)]  # type: ignore[no-untyped-call]
        marks[0].record()
        for mark in marks[1:]:
            work()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)]

    began, times = time.perf_counter(), look()
    while time.perf_counter() - began < min(_WARM_UP_S, seconds):
        look()
    began, times = time.perf_counter(), look()
    while time.perf_counter() - began < seconds:
        times += look()
    return times


def _streamed_images_per_s(session: Session, images: Image8, seconds: float) -> float:
    """Batch after batch from memory, prepared in threads and copied beside the network where the session can."""
    size, num_images, elapsed = len(images), 0, 0.0
    stream = list(images) * _STREAMED_BATCHES
    for _ in session.embed_batches(stream, batch_size=size):
        pass
    while elapsed < seconds:
        began = time.perf_counter()
        for _ in session.embed_batches(stream, batch_size=size):
            pass
        elapsed += time.perf_counter() - began
        num_images += len(stream)
    return num_images / elapsed


def _repeat(work: Callable[[], object], seconds: float, min_repeats: int) -> list[float]:
    times: list[float] = []
    total = 0.0
    while len(times) < min_repeats or total < seconds:
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
        total += times[-1] / 1000
    return times


def _share(found: float | None, peak: float | None) -> float | None:
    return None if found is None or not peak else found / peak
