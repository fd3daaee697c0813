"""ONNX Runtime on CUDA: whose fault a failure is, and nothing in silence on the CPU.

What the stand-in answers is what onnxruntime-gpu 1.31.1 answered on a machine without a GPU, and with a driver that
does not start.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reidruntime import SessionOptions, open_session, tensorrt_library
from reidruntime.backends import onnxruntime as backend_module
from reidruntime.backends.onnxruntime import OnnxRuntimeBackend
from reidruntime.errors import ArtifactError, GpuError
from reidruntime.tensorrt_library import Gpu, first_gpu

from tests.standins.runtime_models import network_of, write_artifact

onnxruntime = pytest.importorskip("onnxruntime")

_DRIVER_FAILS = (
    "CUDA failure 803: system has unsupported display driver / cuda driver combination ; GPU=-1 ; "
    "expr=cudaSetDevice(info_.device_id);"
)
_NODES_ON_CPU = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)


class Cuda:
    """Sessions of an onnxruntime that supports CUDA; those on the CPU are real ones.

    Attributes:
        driver_fails: CUDA starts, and fails at its first call.
        on_cpu: (operator, name) of the nodes that CUDA has no kernel for.
        asked: providers and options of each session that was asked for.
        folders: what ``preload_dlls`` was given.
        real: ``onnxruntime.InferenceSession``.
    """

    def __init__(self) -> None:
        self.driver_fails = False
        self.on_cpu: list[tuple[str, str]] = []
        self.asked: list[tuple[Any, Any]] = []
        self.folders: list[str | None] = []
        self.real = onnxruntime.InferenceSession

    def session(self, path: Path, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        """As ``onnxruntime.InferenceSession``."""
        assert enable_fallback == 0
        self.asked.append((providers, options))
        if providers[0][0] == "CPUExecutionProvider":
            return self.real(path, options, providers=providers, enable_fallback=enable_fallback)
        if self.driver_fails:
            raise RuntimeError(_DRIVER_FAILS)
        if self.on_cpu and entry(options, "disable_cpu_ep_fallback") == "1":
            raise RuntimeError(_NODES_ON_CPU)
        nodes = [SimpleNamespace(op_type=op_type, name=name) for op_type, name in self.on_cpu]
        assignment = [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [nodes, nodes]),
            SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes),
        ]
        return SimpleNamespace(
            get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            get_provider_graph_assignment_info=lambda: assignment,
        )

    def preload(self, *, directory: str | None = None) -> None:
        """As ``onnxruntime.preload_dlls``, which prints."""
        self.folders.append(directory)
        print("Failed to load libcublasLt.so.13")


def entry(options: Any, key: str) -> str | None:
    """A session option; None where it was not set."""
    try:
        value: str = options.get_session_config_entry(f"session.{key}")
    except RuntimeError:
        return None
    return value


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The onnxruntime that is installed says that it supports CUDA."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


@pytest.fixture
def cuda(listed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """A stand-in that works, until a test says otherwise."""
    stand_in = Cuda()
    monkeypatch.setattr(onnxruntime, "InferenceSession", stand_in.session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", stand_in.preload)
    yield stand_in


def test_sessions_keep_to_the_gpu_and_to_float32(cuda: Cuda, tmp_path: Path) -> None:
    """No node on the CPU, no session made anew on the CPU, and no TF32."""
    open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(backend="onnxruntime", device="cuda"))
    ((providers, options),) = cuda.asked
    assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})]
    assert entry(options, "disable_cpu_ep_fallback") == "1"


def test_a_large_gpu_gets_large_batches(cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session on an H200 runs 64 images at a time, one on the CPU of the same machine 32."""
    h200 = Gpu("NVIDIA H200", "9.0", "580.0", num_multiprocessors=132)
    monkeypatch.setattr(backend_module, "first_gpu", lambda: h200)
    network = network_of(write_artifact(tmp_path / "a.onnx"))
    assert OnnxRuntimeBackend(network, device="cuda", threads=1).preferred_batch == 64
    assert OnnxRuntimeBackend(network, device="cpu", threads=1).preferred_batch == 32


def test_sessions_on_the_cpu_may_use_the_cpu(tmp_path: Path) -> None:
    """The option is of CUDA alone: ONNX Runtime would refuse every session on the CPU with it."""
    with open_session(
        write_artifact(tmp_path / "a.onnx"), SessionOptions(backend="onnxruntime", device="cpu")
    ) as session:
        assert "CPU" in session.description


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_is_not_loaded_is_a_failure_of_the_gpu(listed: None, tmp_path: Path) -> None:
    """A real session that ONNX Runtime leaves on the CPU: the message has the system's reason, and blames no file."""
    path = write_artifact(tmp_path / "a.onnx")
    with pytest.raises(GpuError, match=r"CUDA does not start: .*providers_cuda\.so.*nvidia-smi") as caught:
        open_session(path, SessionOptions(backend="onnxruntime", device="cuda"))
    assert str(path) not in str(caught.value)


def test_a_driver_that_fails_is_not_the_files_fault(cuda: Cuda, tmp_path: Path) -> None:
    """ONNX Runtime's RuntimeError is in the message of a GpuError."""
    cuda.driver_fails = True
    with pytest.raises(GpuError, match=r"CUDA does not start: CUDA failure 803: .*nvidia-smi"):
        open_session(
            write_artifact(tmp_path / "a.onnx"), SessionOptions(backend="onnxruntime", device="cuda")
        )


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("driver_fails", [False, True])
def test_a_file_that_the_cpu_refuses_too_is_the_files_fault(
    cuda: Cuda, tmp_path: Path, driver_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether CUDA starts or not, an unknown operator is an ArtifactError with ONNX Runtime's words."""
    path = write_artifact(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes().replace(b"GlobalAveragePool", b"GlobalAveragePooX"))
    cuda.driver_fails = driver_fails
    if not driver_fails:
        monkeypatch.setattr(onnxruntime, "InferenceSession", cuda.real)
    with pytest.raises(ArtifactError, match=r"a\.onnx: ONNX Runtime cannot load it: .*GlobalAveragePooX"):
        open_session(path, SessionOptions(backend="onnxruntime", device="cuda"))


def test_nodes_without_a_kernel_are_named(cuda: Cuda, tmp_path: Path) -> None:
    """Instead of a few nodes on the CPU, an error that says which they are and what to do."""
    cuda.on_cpu = [("Shape", f"node_{number}") for number in range(7)]
    with pytest.raises(ArtifactError) as caught:
        open_session(
            write_artifact(tmp_path / "a.onnx"), SessionOptions(backend="onnxruntime", device="cuda")
        )
    assert "a.onnx: ONNX Runtime has no CUDA kernel for Shape (node_0), Shape (node_1)" in str(caught.value)
    assert "Shape (node_4) and 2 more, and would run that on the CPU. Use device cpu" in str(caught.value)


@pytest.mark.parametrize(("precision", "expected"), [("int8", "1"), ("fp16", None), ("fp32", None)])
def test_int8_is_computed_by_definition(cuda: Cuda, tmp_path: Path, precision: Any, expected: str) -> None:
    """ONNX Runtime folds the Q/DQ pairs of constants then: CUDA has no kernel for those of int32."""
    network = replace(network_of(tmp_path / "a.onnx"), precision=precision)
    backend = OnnxRuntimeBackend(network, device="cuda", threads=1)
    ((_, options),) = cuda.asked
    assert entry(options, "disable_quant_qdq") == expected
    assert ("as defined, in fp32" in backend.describe()) == (precision == "int8")


def test_libraries_are_found_where_pip_put_them(
    cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of any folder of sys.path, each of the first that has it; what preload_dlls prints is not ours to say."""
    for library in (
        "wheels/onnxruntime",
        "site/nvidia/cu13/lib",
        "site/nvidia/cudnn/lib",
        "b/nvidia/cudnn/lib",
    ):
        (tmp_path / library).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("wheels", "site", "b")])
    network = network_of(write_artifact(tmp_path / "a.onnx"))
    OnnxRuntimeBackend(network, device="cuda", threads=1)
    site = tmp_path / "site" / "nvidia"
    assert cuda.folders == [None, str(site / "cu13" / "lib"), str(site / "cudnn" / "lib")]
    assert capsys.readouterr().out == ""


def test_auto_does_not_hide_a_broken_gpu(cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU and an onnxruntime for it, CUDA that does not start is an error, and the CPU is not taken."""
    cuda.driver_fails = True
    monkeypatch.setattr("reidruntime.backends.first_gpu", lambda: Gpu("NVIDIA H200", "9.0", "580.1"))
    with pytest.raises(GpuError, match="CUDA does not start"):
        open_session(write_artifact(tmp_path / "a.onnx"))


@pytest.mark.parametrize(
    ("status", "node", "fails"), [(803, True, True), (803, False, False), (100, True, False)]
)
def test_a_driver_that_does_not_start_is_not_a_missing_gpu(
    status: int, node: bool, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel's module is, only "no device" means that there is no GPU: it may have been hidden."""
    monkeypatch.setattr(tensorrt_library, "_DEVICE_NODE", tmp_path if node else tmp_path / "nothing")
    monkeypatch.setattr(
        tensorrt_library.ctypes, "CDLL", lambda name: SimpleNamespace(cuInit=lambda flags: status)
    )
    if fails:
        with pytest.raises(GpuError, match=r"its driver does not start: cuInit returned 803\. .*nvidia-smi"):
            first_gpu()
    else:
        assert first_gpu() is None
