"""A pytest plugin: stand-ins of TensorRT's real bindings in place of ``tensorrt``, and an engine built with them."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorrt_bindings
from reidruntime import tensorrt_library
from reidruntime.artifact.manifest import BatchProfile, Manifest
from reidruntime.backends import tensorrt as backend_module
from reidruntime.tensorrt_library import Gpu

from reidexport.tensorrt import build as trt_build
from reidexport.tensorrt.build import engine_from_onnx
from reidexport.tensorrt.options import BuildOptions
from reidexport.tensorrt.source import prepared_source
from tests.standins.host_memory import HostMemory
from tests.standins.runtime_models import (
    HEIGHT,
    WIDTH,
    small_manifest,
    write_artifact,
)
from tests.standins.tensorrt.bindings import Bindings

GPU = Gpu("NVIDIA H100", "9.0", "580.82.07", num_multiprocessors=132)


TEN = {
    "Name": "conv",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}],
}


class RecordingMemory(HostMemory):
    """Memory whose graphs call what they record once, and count how often they are replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.stream, self.replays = 7, 0

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record by calling it once; a replay is counted."""

        def replay() -> None:
            self.replays += 1

        work()
        return replay


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bindings]:
    """The stand-in module in place of ``tensorrt``, on a machine with a GPU, for a network of one FP16 convolution."""
    bindings = Bindings(tensorrt_bindings)
    bindings.answers |= {
        "INetworkDefinition.num_layers": 1,
        "ILayer.type": tensorrt_bindings.LayerType.CONVOLUTION,
        "ILayer.num_outputs": 1,
        "ITensor.dtype": tensorrt_bindings.DataType.HALF,
        "IBuilderConfig.add_optimization_profile": 0,
        "EngineInspector.get_engine_information": json.dumps({"Layers": [TEN]}),
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.num_optimization_profiles": 1,
        "ICudaEngine.get_tensor_name": lambda index: ("images", "f_i")[index],
        "ICudaEngine.get_tensor_dtype": lambda name: (
            tensorrt_bindings.DataType.UINT8 if name == "images" else tensorrt_bindings.DataType.FLOAT
        ),
        "ICudaEngine.get_tensor_profile_shape": lambda name, profile: [
            (n, HEIGHT, WIDTH, 3) for n in (1, 4, 8)
        ],
    }
    monkeypatch.setitem(sys.modules, "tensorrt", bindings)
    for module in (tensorrt_library, trt_build, backend_module):
        monkeypatch.setattr(module, "first_gpu", lambda: GPU)
    yield bindings


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """An artifact that says it is FP16."""
    manifest = small_manifest(precision="fp16", layer_precisions={"fp16": 1})
    return write_artifact(tmp_path / "model.onnx", manifest=manifest)


def build(onnx: Path, log: Callable[[str], None] = print, **options: Any) -> Manifest:
    """An engine beside the ONNX file, for batches of 1 to 8 where the options do not say otherwise."""
    options = {
        "batch_profile": BatchProfile(minimum=1, optimum=4, maximum=8),
        "timing_cache": onnx.with_name("timing.cache"),
    } | options
    with prepared_source(onnx, None) as source:
        return engine_from_onnx(
            source,
            onnx.with_suffix(".engine"),
            options=BuildOptions(**options),
            log=log,
        )
