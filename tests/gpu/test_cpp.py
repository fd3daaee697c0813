"""The C++ library, where it is built: ONNX Runtime on the CPU, and TensorRT."""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from reidexport.export.onnx_check import TOLERANCE
from tests.gpu.conftest import Judge, Setup

_RELEASE = Path(__file__).parents[2] / "engines" / "cpp" / "build" / "release"
_PROGRAM = Path(os.environ.get("REIDEXPORT_CPP_BUILD", _RELEASE)) / "reid_embed"


@pytest.mark.parametrize("name", ["fp32.onnx", "fp16.engine"])
def test_parity(name: str, setup: Setup, judge: Judge, tmp_path: Path) -> None:
    """``reid_embed`` answers as float32 on the CPU does, in the order of the files."""
    if not _PROGRAM.is_file():
        pytest.skip("the C++ library is not built: make cpp, or set REIDEXPORT_CPP_BUILD")
    if not (setup.folder / name).is_file():
        pytest.skip(f"tensorrt has left no {name}")
    library, out = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")), tmp_path / "f.npy"
    arguments = (setup.folder / name, *setup.photos, "-o", out, "--onnxruntime", library)
    done = subprocess.run([_PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    judge.close(np.load(out), setup.load("answers_to_files"), TOLERANCE["fp16" if "16" in name else "fp32"])
