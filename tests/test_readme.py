"""The README tells the truth: its links exist and its examples run."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reidruntime import open_session

from reidexport import graph_from_checkpoint, load_checkpoint, onnx_from_graph
from tests import ROOT
from tests.conftest import Exported

PAGES = sorted(path for path in ROOT.glob("*.md"))


def block(language: str, index: int = 0) -> str:
    """The n-th fenced block of a language in the README."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[index]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    """Every link of a page to a file of the repository leads to one."""
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


def test_python_examples_run(exported: Exported, tmp_path: Path) -> None:
    """Both Python examples run as they stand, on the files that they name."""
    shutil.copy(exported.checkpoint, tmp_path / "model.pth")
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 128), "teal").save(tmp_path / name)
    for example in (block("python", 1), block("python", 0)):
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_cpp_example_answers_as_python_does(tmp_path: Path, exported: Exported) -> None:
    """The C++ example compiles against OpenVINO's wheel and prints the runtime's own features."""
    spec = find_spec("openvino")
    if spec is None or spec.origin is None:
        pytest.skip("needs openvino: pip install 'reidexport[cpu]'")
    wheel = Path(spec.origin).parent
    library = next((wheel / "libs").glob("libopenvino.so*"))
    model, program = tmp_path / "model.onnx", tmp_path / "embed"
    (tmp_path / "embed.cpp").write_text(block("cpp"))
    onnx_from_graph(graph_from_checkpoint(load_checkpoint(exported.checkpoint, size=(256, 128))), model)
    subprocess.run(
        [
            *("g++", "-std=c++17", tmp_path / "embed.cpp", f"-I{wheel / 'include'}"),
            *(library, f"-Wl,-rpath,{library.parent}", "-o", program),
        ],
        check=True,
    )
    printed = subprocess.run([program, model], capture_output=True, text=True, check=True).stdout.split()
    with open_session(model) as session:
        expected = session.run(np.full((2, 256, 128, 3), 127, np.uint8))
    np.testing.assert_allclose(np.array(printed, np.float32), expected.ravel(), rtol=1e-3, atol=1e-3)
