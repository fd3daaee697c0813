"""The network in torch: in the runtime's lanes, by the backend that needs nothing else, and by torch itself."""

from collections.abc import Iterator

import pytest
import torch
from reidruntime import SessionOptions, open_session
from reidruntime.session import Session

from benchmarks.harness.gpu_peaks import device_seconds
from benchmarks.peers.gpu_peers import CompileMode, torch_peers
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.export.graph import GraphOptions
from reidexport.export.onnx_check import TOLERANCE
from tests.gpu.conftest import Judge, Setup
from tests.gpu.paths import LaneChecks


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def session(request: pytest.FixtureRequest, setup: Setup) -> Iterator[Session]:
    """A session of each precision."""
    artifact = setup.folder / f"{request.param}.onnx"
    with open_session(artifact, SessionOptions(backend="torch-cuda", device=setup.device)) as session:
        yield session


class TestTorchCuda(LaneChecks):
    """Every check of a path in lanes."""


@pytest.mark.parametrize("compile_mode", [None, "default"])
def test_torch_itself(compile_mode: CompileMode | None, setup: Setup, judge: Judge) -> None:
    """What artifacts are measured beside: eager and compiled, in float32 without TF32 and in half; at batch 8."""
    images = torch.from_numpy(setup.load("images")[:8]).to(setup.device)
    checkpoint = load_checkpoint(setup.folder / "network.pth")
    peers = torch_peers(checkpoint, GraphOptions(), "fp16", images, compile_mode=compile_mode)
    for name, opened in peers.items():
        if ("compile" in name) == (compile_mode is not None):
            answer, limit = opened(), TOLERANCE["fp32" if "without TF32" in name else "fp16"]
            judge.close(answer().cpu(), setup.load("answers_to_arrays")[:8], limit, f"{name} relative_l2")
            seconds = device_seconds(answer, setup.seconds, setup.device)
            judge.record(f"{name} images_per_s", 8 * len(seconds) / sum(seconds))
