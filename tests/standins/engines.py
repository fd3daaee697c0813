"""The manifest of an engine for the tests."""

from pathlib import Path

from reidruntime.artifact.manifest import (
    Engine,
    LayerCounts,
    Manifest,
    file_sha256,
)
from reidruntime.tensorrt_library import Gpu

from tests.standins.runtime_models import small_manifest

H100 = Gpu("NVIDIA H100", "9.0", "580.82.07")


def engine_manifest(plan: Path, **changes: object) -> Manifest:
    """The manifest of a plan that was built on an H100 with TensorRT 10.16."""
    facts = Engine(
        flavor="tensorrt",
        tensorrt_version="10.16.1.11",
        gpu_name=H100.name,
        compute_capability=H100.compute_capability,
        driver_version=H100.driver_version,
        onnx_name="a.onnx",
        onnx_sha256="0" * 64,
        plan_sha256=file_sha256(plan),
        layers=LayerCounts(network={"fp16": 1}),
    )
    return small_manifest(engine=facts.model_copy(update=changes))
