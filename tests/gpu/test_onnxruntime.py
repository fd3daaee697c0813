"""ONNX Runtime's providers for GPUs, and nothing that they could fall back to: CUDA, and TensorRT for RTX."""

from collections.abc import Iterator

import pytest
import torch
from reidruntime import SessionOptions, open_session
from reidruntime.backends import BackendName
from reidruntime.backends.onnxruntime import cuda_is_installed
from reidruntime.session import Session

from tests.gpu.conftest import Setup, skip_unless_installed
from tests.gpu.paths import PathChecks


@pytest.fixture(scope="module", params=["cuda-fp32", "cuda-fp16", "rtx-fp32", "rtx-fp16"])
def session(request: pytest.FixtureRequest, setup: Setup) -> Iterator[Session]:
    """A session of each precision; a provider that is installed and does not start is an error."""
    provider, precision = request.param.split("-")
    if provider == "rtx":
        request.getfixturevalue("gpu_only")
        skip_unless_installed("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime_ep_nv_tensorrt_rtx")
        if torch.cuda.get_device_capability() not in {(7, 5), (8, 6), (8, 9), (12, 0)}:
            pytest.skip(f"TensorRT for RTX is not for {torch.cuda.get_device_name()}")
    elif setup.device == "cuda" and not cuda_is_installed():
        pytest.skip("onnxruntime-gpu is not installed")
    backend: BackendName = "tensorrt-rtx" if provider == "rtx" else "onnxruntime"
    with open_session(setup.folder / f"{precision}.onnx", SessionOptions(backend, setup.device)) as session:
        yield session


class TestOnnxRuntime(PathChecks):
    """Every check of a path."""
