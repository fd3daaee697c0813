"""Peak kernels multiply and add what they say, on all threads at once."""

import os
import threading

import numpy as np
import pytest

from benchmarks.harness import peak_kernels


def kernels_of_this_cpu(precision: str) -> tuple[peak_kernels.Kernel, ...]:
    """All of them; skips where there are none."""
    found = peak_kernels.kernels(precision)
    if not found:
        pytest.skip(f"no peak kernel of {precision} for this CPU")
    return found


def as_factors(integers: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Small integers in the type of a peak kernel's ones; bfloat16 is the upper half of a float32."""
    if ones.dtype == np.uint16:
        return (integers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return integers.astype(ones.dtype)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_peak_kernels_multiply_and_add(precision: str) -> None:
    """Every sum of a peak kernel is that of as many multiply-adds in plain NumPy, of groups that fill 32 bits."""
    rng = np.random.default_rng(0)
    for kernel in kernels_of_this_cpu(precision):
        left, right = rng.integers(0, 8, kernel.ones[0].size), rng.integers(-8, 8, kernel.ones[1].size)
        sums = kernel.run(
            1000, *(as_factors(values, ones) for values, ones in zip((left, right), kernel.ones, strict=True))
        )
        products = (left * right).reshape(sums.shape[1], -1).sum(axis=1)
        expected = np.zeros(sums.shape, sums.dtype)
        for _ in range(1000):
            expected += products.astype(sums.dtype)
        np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_peak_kernels_do_as_many_operations_as_they_say(precision: str) -> None:
    """Where all factors are one, each multiply-add adds one, and counts as two operations."""
    for kernel in kernels_of_this_cpu(precision):
        assert 2 * kernel.run(1000, *kernel.ones).sum() == 1000 * kernel.operations_per_round


def test_peaks_are_of_all_threads_at_once() -> None:
    """No thread's burst ends before all others have begun, and the caller keeps its CPUs."""
    together, cpus = threading.Barrier(3), os.sched_getaffinity(0)

    def run(rounds: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        together.wait(timeout=30)
        return left

    kernel = peak_kernels.Kernel("waits", 2, (np.ones(1), np.ones(1)), run)
    assert peak_kernels.gop_per_s(kernel, 3) > 0
    assert os.sched_getaffinity(0) == cpus


def test_vectors_are_no_limit_where_tiles_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX has no peak kernel of int8 and bf16."""
    features = dict.fromkeys(("amx-int8", "amx-bf16", "avx512vnni", "avx512bf16"), True)
    monkeypatch.setattr(peak_kernels.llvm, "get_host_cpu_features", lambda: features)
    assert peak_kernels.kernels.__wrapped__("int8") == peak_kernels.kernels.__wrapped__("bf16") == ()
