"""Which backend is chosen where the caller names none."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from reidruntime import NotInstalledError, SessionOptions, open_session
from reidruntime import backends as backends_module
from reidruntime.backends import choose
from reidruntime.tensorrt_library import Gpu

from tests.standins.runtime_models import small_manifest, write_artifact


def test_auto_takes_the_fastest_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime on CUDA, then torch on CUDA, then OpenVINO, then ONNX Runtime on the CPU, then words that help."""
    installed, for_cuda = {"openvino", "onnxruntime"}, {"onnxruntime", "torch"}
    gpu = Gpu("NVIDIA H200", "9.0", "580.0")
    monkeypatch.setattr(backends_module, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(backends_module, "_onnxruntime_is_for_cuda", lambda: "onnxruntime" in for_cuda)
    monkeypatch.setattr(backends_module, "_torch_is_for_cuda", lambda: "torch" in for_cuda)
    monkeypatch.setattr(backends_module, "first_gpu", lambda: gpu)
    assert choose("auto", "auto") == choose("auto", "cuda") == ("onnxruntime", "cuda")
    assert choose("openvino", "auto") == ("openvino", "cpu")
    for_cuda.discard("onnxruntime")
    assert choose("auto", "auto") == choose("auto", "cuda") == ("torch-cuda", "cuda")
    assert choose("onnxruntime", "auto") == ("onnxruntime", "cpu")
    assert choose("onnxruntime", "cuda") == ("onnxruntime", "cuda")  # whose error says what to install
    for_cuda.clear()
    assert choose("auto", "auto") == ("openvino", "cpu")
    monkeypatch.setattr(backends_module, "first_gpu", lambda: None)
    assert choose("auto", "auto") == ("openvino", "cpu")
    assert choose("auto", "auto", depthwise=True) == ("onnxruntime", "cpu")
    assert choose("openvino", "cpu", depthwise=True) == ("openvino", "cpu")
    assert choose("onnxruntime", "auto") == ("onnxruntime", "cpu")
    installed.discard("openvino")
    assert choose("auto", "cpu") == ("onnxruntime", "cpu")
    installed.clear()
    with pytest.raises(NotInstalledError, match="Neither openvino nor onnxruntime"):
        choose("auto", "auto")
    with pytest.raises(
        NotInstalledError, match="torch-cuda needs torch, which is not installed: pip install torch"
    ):
        choose("torch-cuda", "auto")


@pytest.mark.parametrize(
    ("module", "words"), [(None, "is not installed"), (ModuleType("onnxruntime"), "is installed but damaged")]
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_useless_onnxruntime_gives_way_to_openvino_alone(
    module: ModuleType | None, words: str, depthwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing or damaged, it is passed over where OpenVINO may be taken, and an error where it is needed."""
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    installed = {"openvino", "onnxruntime"}
    monkeypatch.setattr(backends_module, "find_spec", lambda name: name in installed or None)
    assert choose("auto", "auto", depthwise=depthwise) == ("openvino", "cpu")
    with pytest.raises(NotInstalledError, match=words):
        choose("onnxruntime", "auto")
    installed.discard("openvino")
    with pytest.raises(NotInstalledError, match=words):
        choose("auto", "cpu")


@pytest.mark.parametrize(
    ("backbone", "precision", "expected"),
    [
        ("osnet_x0_25", "fp32", "onnxruntime"),
        ("osnet_x0_25", "fp16", "openvino"),
        ("resnet50", "fp32", "openvino"),
    ],
)
def test_auto_depends_on_the_network(tmp_path: Path, backbone: str, precision: str, expected: str) -> None:
    """OSNet in fp32 goes to ONNX Runtime on the CPU, all else to OpenVINO."""
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
    architecture = small_manifest().architecture.model_copy(update={"backbone": backbone})
    manifest = small_manifest(architecture=architecture, precision=precision)
    with open_session(
        write_artifact(tmp_path / "a.onnx", manifest=manifest), SessionOptions(device="cpu")
    ) as session:
        assert session.backend == expected
