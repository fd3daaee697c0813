"""Engines and GPU memory where there is no GPU."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from reidruntime import SessionOptions, device_memory, open_session
from reidruntime.errors import GpuError, InputError, NotInstalledError
from reidruntime.tensorrt_library import first_gpu

from tests.standins.engines import engine_manifest
from tests.standins.runtime_models import write_artifact


@pytest.mark.skipif(first_gpu() is not None, reason="there is a GPU here")
def test_engines_and_memory_without_a_gpu(tmp_path: Path) -> None:
    """Every way to a GPU that is not there says so; none falls back."""
    if find_spec("tensorrt_rtx_bindings") is not None:
        plan = tmp_path / "a.engine"
        plan.write_bytes(b"plan")
        plan.with_name("a.engine.json").write_text(engine_manifest(plan, flavor="rtx").to_json())
        with pytest.raises(NotInstalledError, match="needs an NVIDIA GPU"):
            open_session(plan)
    with pytest.raises(NotInstalledError, match="needs an NVIDIA RTX GPU"):
        open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(backend="tensorrt-rtx"))
    with pytest.raises((NotInstalledError, GpuError), match="cuda"):
        device_memory.open_device_memory("cuda-python")
    with pytest.raises(NotInstalledError, match="torch finds no GPU"):
        device_memory.open_device_memory("torch")
    with pytest.raises(NotInstalledError, match="pycuda"):
        device_memory.open_device_memory("pycuda")
    with pytest.raises(InputError, match=r"no memory 'cupy'. Expected one of: cuda-python, torch, pycuda"):
        device_memory.open_device_memory("cupy")  # type: ignore[arg-type]


def test_tensors_are_for_plans(tmp_path: Path) -> None:
    """A backend that takes arrays says so."""
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        with pytest.raises(InputError, match="takes arrays, not tensors on a GPU"):
            session.run_tensor(np.zeros((1, 32, 16, 3), np.uint8))
