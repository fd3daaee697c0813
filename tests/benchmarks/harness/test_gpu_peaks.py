"""The peaks of a GPU count the right operations and bytes, and leave torch's switches as they were."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.harness import gpu_peaks
from benchmarks.harness.gpu_peaks import (
    MatrixPrecision,
    copy_gb_per_s,
    device_seconds,
    matrix_product_tflop_per_s,
)


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes a second, as far as the peaks know."""

    def take(work: object, at_least_s: float, device: str) -> list[float]:
        work()  # type: ignore[operator]
        return [1.0, 1.0, 5.0]

    monkeypatch.setattr(gpu_peaks, "device_seconds", take)


@pytest.fixture(params=["ieee", "tf32", "none"])
def precision_of_application(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the application has set for float32 products on a GPU, by torch's newer switch."""
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, request.param
    yield request.param
    matmul.fp32_precision = before


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_products_count_two_operations_a_multiply_add(one_second: None, precision: MatrixPrecision) -> None:
    """A product of 64 x 64 in a second is 2 * 64^3 operations, whatever a straggler took."""
    assert matrix_product_tflop_per_s(precision, 64, "cpu") == pytest.approx(2 * 64**3 / 1e12)


def test_copies_count_bytes(one_second: None) -> None:
    """A copy within the device reads and writes: its bytes count twice."""
    assert copy_gb_per_s("cpu", size_mib=1) == pytest.approx(2 * 2**20 / 1e9)


def test_the_applications_precision_stays(one_second: None, precision_of_application: str) -> None:
    """Products set the precision of float32 for themselves only."""
    matrix_product_tflop_per_s("fp32", 8, "cpu")
    assert torch.backends.cuda.matmul.fp32_precision == precision_of_application


def test_float32_is_not_rounded(monkeypatch: pytest.MonkeyPatch, precision_of_application: str) -> None:
    """The product called fp32 keeps all bits of its factors, whatever the application has set."""
    seen: list[str] = []

    def see(work: object, at_least_s: float, device: str) -> list[float]:
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return [1.0]

    monkeypatch.setattr(gpu_peaks, "device_seconds", see)
    matrix_product_tflop_per_s("fp32", 8, "cpu")
    assert seen == ["ieee"]


def test_times_are_of_every_call() -> None:
    """Each call has a time, and they fill the seconds requested; the warm-up has none."""
    calls: list[None] = []
    times = device_seconds(lambda: calls.append(None), 0.01, "cpu")
    assert 0 < len(times) < len(calls)
    assert 0 < sum(times) < 1


@pytest.mark.gpu
def test_times_on_a_gpu() -> None:
    """Events time the work itself: a copy of 64 MiB takes more than a microsecond and less than a second."""
    tensor = torch.zeros(64 << 20, dtype=torch.uint8, device="cuda")
    assert all(1e-6 < seconds < 1 for seconds in device_seconds(tensor.clone, 0.05))
    assert 10 < copy_gb_per_s(at_least_s=0.05) < 100_000
    assert 10 < matrix_product_tflop_per_s("fp16", 4096, at_least_s=0.05) < 100_000
