"""The code's every use of TensorRT exists in TensorRT 10.16 and in 11.4, as their own Python bindings say.

The bindings are real, the libraries under them are stubs that only let them be imported; ``CASES`` run the build
and the session against stand-ins that are generated from them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

VERSIONS = ("10.16.1.11", "11.4.0.106")
CASES = ("tests/reidexport/tensorrt/build_cases.py", "tests/reidruntime/backends/tensorrt_cases.py")


def bindings_folder(version: str) -> Path:
    """Where ``make install`` puts the bindings of a version, which cannot be installed beside each other."""
    return (
        Path(os.environ.get("REIDEXPORT_TENSORRT_BINDINGS", Path(sys.prefix) / "tensorrt-bindings")) / version
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_exists_in_the_bindings(version: str, tmp_path: Path) -> None:
    """A class, method, enum member or argument that a version lacks fails a case."""
    bindings, compiler = bindings_folder(version), shutil.which("cc")
    if not bindings.is_dir():
        pytest.skip(f"the bindings of TensorRT {version} are not in {bindings}: make install puts them there")
    if compiler is None:
        pytest.skip("there is no C compiler for the stub libraries")
    major = version.partition(".")[0]
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = f"lib{name}.so.{major}"
        source = str(ROOT / "tests/standins/tensorrt/stubs.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", tmp_path / library, f"-Wl,-soname,{library}", source],
            check=True,
        )
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": f"{bindings}:{os.environ.get('PYTHONPATH', '')}",
    }
    plugins = ("-p", "no:cacheprovider", "-p", "tests.standins.tensorrt.contract")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--no-header", *CASES],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
