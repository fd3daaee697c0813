"""What a GPU achieves at most, measured on it: square matrix products, and copies.

Every function also runs on the CPU, so that programs which measure a GPU can be tried out without one.
"""

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Literal

import torch
from reidruntime.torch_settings import exact_float32

from benchmarks.harness.turns import calls_in_a_row, one_call

MatrixPrecision = Literal["fp16", "bf16", "fp32"]

_WARM_UP_S, _CALLS_BETWEEN_WAITS = 0.3, 10


def matrix_product_tflop_per_s(
    precision: MatrixPrecision, size: int = 8192, device: str = "cuda", *, at_least_s: float = 0.5
) -> float:
    """The rate of the product of two square matrices, in 1e12 operations a second, two for each multiply-add.

    The matrices are random: zeros draw less power, and run faster than any network. A ``size`` of 8192 rows and columns
    reaches the peak of tensor cores. Factors in "fp32" are not rounded to TF32.
    """
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    left, right = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    with exact_float32():
        seconds = median(device_seconds(lambda: torch.mm(left, right, out=product), at_least_s, device))
    return 2e-12 * size**3 / seconds


def copy_gb_per_s(device: str = "cuda", *, size_mib: int = 512, at_least_s: float = 0.5) -> float:
    """The rate of a copy within the device's memory, in 1e9 bytes a second; bytes read and written both count.

    ``size_mib`` is several times what the GPU's caches hold.
    """
    source = torch.zeros(size_mib << 20, dtype=torch.uint8, device=device)
    target = source.clone()
    seconds = median(device_seconds(lambda: target.copy_(source), at_least_s, device))
    return 2e-9 * source.nbytes / seconds


def device_seconds(work: Callable[[], object], at_least_s: float, device: str = "cuda") -> list[float]:
    """How long the GPU needs for each call's work, by CUDA's events; the CPU waits after every tenth call only.

    ``work`` enqueues something on torch's current stream; on the CPU, it does it. Where the CPU enqueues more slowly
    than the GPU works, that is part of the time: a caller would see it too. Measuring begins after a warm-up of at most
    0.3 s, which also raises the GPU's clocks. ``device`` is "cuda" or "cpu".
    """
    measure = _times_on_gpu if device == "cuda" else one_call
    calls_in_a_row(work, min(_WARM_UP_S, at_least_s), measure)
    return calls_in_a_row(work, at_least_s, measure)


def _times_on_gpu(work: Callable[[], object]) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(_CALLS_BETWEEN_WAITS + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [1e-3 * start.elapsed_time(end) for start, end in pairwise(marks)]
