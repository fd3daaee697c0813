"""What the checks share: options, the network and its float32 answers, and a line of JSON for each outcome."""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

MEMORY_MODULES = {"cuda-python": "cuda.bindings", "torch": "torch", "pycuda": "pycuda"}
# What allocators and drivers may take in more blocks; a leak of 4 KiB a call would be 40 MiB.
_GROWTH_MIB, _WARM_UP_CALLS = 32.0, 200


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the runner passes on."""
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="where the paths run")
    parser.addoption("--quick-check", action="store_true", help="a tiny network and few calls")
    parser.addoption("--folder", type=Path, help="what the files of checks share, and their lines of JSON")


def pytest_itemcollected(item: pytest.Item) -> None:
    """All of them are about a GPU."""
    item.add_marker("gpu")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Checks need what the runner prepares, and a process of their own."""
    if item.config.getoption("folder", None) is None:
        pytest.skip("run by make gpu-check")
    _write_line(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Write what became of a check at once: a process that is ended loses none."""
    report = yield
    if (report.when == "call" or report.outcome != "passed") and item.config.getoption("folder", None):
        reason = call.excinfo.exconly(tryshort=True).removeprefix("Skipped: ") if call.excinfo else ""
        known = {"outcome": report.outcome, "seconds": round(call.duration, 3), "reason": reason}
        _write_line(item, **known, measured=dict(item.user_properties))
    return report


def _write_line(item: pytest.Item, **known: object) -> None:
    with (item.config.getoption("folder") / f"{item.path.stem}.lines").open("a") as lines:
        lines.write(json.dumps({"check": item.name.removeprefix("test_"), **known}) + "\n")


@dataclass(frozen=True)
class Setup:
    """What is checked, and how much of it."""

    folder: Path  # where test_reference.py leaves the network for all others
    device: Literal["cuda", "cpu"]  # where the paths run
    backbone: str = "resnet50"
    size_px: tuple[int, int] = (256, 128)  # height and width
    num_images: int = 32  # to compare answers on
    largest_batch: int = 128  # to measure
    seconds: float = 0.4  # how long each speed is measured
    calls: int = 10_000  # after how many memory must be what it was
    matrix_size: int = 8192  # of the products whose rate limits all others

    def load(self, name: str) -> NDArray[Any]:
        """Load "images", or the CPU's float32 answers: "answers_to_arrays", of these images, or "answers_to_files"."""
        return np.load(self.folder / f"{name}.npy")  # type: ignore[no-any-return]

    @property
    def photos(self) -> list[Path]:
        """JPEG files of another size than the network's."""
        return sorted(self.folder.glob("photos/*.jpg"))


@dataclass(frozen=True)
class Judge:
    """Keeps what a check finds, and fails it."""

    record: Callable[[str, object], None]

    def within(self, limit: float, **found: float) -> None:
        """Fail if a value is above the limit, or not a number."""
        for name, value in found.items():
            self.record(name, value)
        self.record("limit", limit)
        above = [f"{name} is {value:.3g}" for name, value in found.items() if not value <= limit]
        assert not above, f"{', '.join(above)}, allowed {limit:.3g}"

    def close(self, found: Any, expected: NDArray[Any], limit: float, name: str = "relative_l2") -> None:
        """Fail if the largest relative L2 error of a row is above the limit."""
        from tests.standins.checkpoints import relative_l2

        self.within(limit, **{name: relative_l2(found, expected)})

    def same_bits(self, found: NDArray[Any], expected: NDArray[Any], what: str) -> None:
        """Fail, naming ``what``, unless both are the same to the last bit."""
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), f"{what}: another form"
        assert found.tobytes() == expected.tobytes(), f"{what}: off by {np.abs(found - expected).max():.3g}"

    def steady_memory(self, call: Callable[[], object], num_calls: int) -> None:
        """Fail if calls add to the memory in use, of the whole GPU or of this process, after a warm-up."""
        found = []
        for calls in (min(_WARM_UP_CALLS, num_calls), num_calls):
            for _ in range(calls):
                call()
            found.append(_memory_mib())
        (device_before, host_before), (device, host) = found
        self.record("calls", num_calls)
        self.within(_GROWTH_MIB, device_growth_mib=device - device_before, host_growth_mib=host - host_before)


@pytest.fixture(scope="session")
def setup(pytestconfig: pytest.Config) -> Setup:
    """As the options say."""
    folder, device = pytestconfig.getoption("folder"), pytestconfig.getoption("device")
    if pytestconfig.getoption("quick_check"):
        return Setup(folder, device, "resnet18", (64, 32), 8, 8, 0.05, 50, 512)
    return Setup(folder, device)


@pytest.fixture
def judge(record_property: Callable[[str, object], None]) -> Judge:
    """Of one check."""
    return Judge(record_property)


@pytest.fixture(scope="session")
def gpu_only(setup: Setup) -> None:
    """For what only a GPU has."""
    if setup.device == "cpu":
        pytest.skip("needs a GPU")


def skip_unless_installed(package: str, *modules: str) -> None:
    """Skip what needs a package that is missing; one that is installed and does not work is a failure."""
    if not any(find_spec(module.partition(".")[0]) and find_spec(module) for module in modules):
        pytest.skip(f"{package} is not installed")


def _memory_mib() -> tuple[float, float]:
    import torch

    host = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    return (total - free) / 2**20, host / 2**20
