"""The GPU as NVIDIA's driver describes it, and the batches that suit it."""

import ctypes
from typing import Any

import pytest
from reidruntime import tensorrt_library
from reidruntime.tensorrt_library import Gpu, default_batch_profile, default_batch_size, first_gpu


class Driver:
    """``libcuda`` with one H200."""

    attributes = {16: 132, 75: 9, 76: 0}  # noqa: RUF012

    def cuInit(self, flags: int) -> int:  # noqa: N802
        """Works."""
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        """One."""
        count._obj.value = 1
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: int) -> int:  # noqa: N802
        """Its name."""
        name.value = b"NVIDIA H200"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:  # noqa: N802
        """One of those that are asked for."""
        value._obj.value = self.attributes[attribute]
        return 0


def test_the_first_gpu_is_the_driver_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, compute capability and number of multiprocessors."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(tensorrt_library, "_driver_version", lambda: "580.95.05")
    assert first_gpu() == Gpu("NVIDIA H200", "9.0", "580.95.05", num_multiprocessors=132)


def test_the_numbers_of_attributes_are_cuda_s() -> None:
    """As the driver's own enumeration has them."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    names = driver.CUdevice_attribute
    assert list(Driver.attributes) == [
        names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ]


@pytest.mark.parametrize(
    ("name", "multiprocessors", "profile", "batch"),
    [
        ("NVIDIA H200", 132, (1, 64, 256), 64),
        ("NVIDIA A100", 108, (1, 64, 256), 64),
        ("NVIDIA L4", 58, (1, 32, 128), 32),
        ("Tesla T4", 40, (1, 8, 32), 32),
        ("Orin", 16, (1, 8, 32), 32),
    ],
)
def test_batches_by_gpu(name: str, multiprocessors: int, profile: tuple[int, int, int], batch: int) -> None:
    """Large GPUs get large batches; small ones, and those that are not known, what they always had."""
    gpu = Gpu(name, "9.0", "580.95.05", num_multiprocessors=multiprocessors)
    found = default_batch_profile(gpu)
    assert (found.minimum, found.optimum, found.maximum) == profile
    assert default_batch_size(gpu) == batch
    assert default_batch_profile(None) == default_batch_profile(Gpu("unknown", "9.0", "unknown"))
    assert default_batch_size(None) == 32
