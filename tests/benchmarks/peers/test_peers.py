"""Peers run on the threads and the device that were chosen."""

import onnxruntime
import pytest
from reidruntime.threads import default_threads

from benchmarks.peers.peers import bare_onnxruntime, num_threads
from tests.conftest import Exported


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("4,2", 4), ("", default_threads()), ("0", default_threads())]
)
def test_threads_are_those_of_the_outermost_region(
    value: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OMP_NUM_THREADS may be a list, one number for each level; none: the CPUs of the process."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert num_threads() == threads


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_device_than_the_one_asked_for_is_refused(exported: Exported) -> None:
    """ONNX Runtime without CUDA runs on the CPU instead, which is no measurement of a GPU."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(RuntimeError, match="on CPUExecutionProvider, not on CUDAExecutionProvider"):
        bare_onnxruntime(exported.onnx, "cuda")
