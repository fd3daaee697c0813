"""TensorRT engines of both precisions, built here, in the memory of every library that is installed."""

from collections.abc import Iterator

import pytest
from reidruntime import Session, SessionOptions, open_session
from reidruntime.artifact.manifest import BatchProfile

from reidexport.tensorrt.build import engine_from_onnx
from reidexport.tensorrt.options import BuildOptions
from reidexport.tensorrt.source import prepared_source
from tests.gpu.conftest import MEMORY_MODULES, Judge, Setup, skip_unless_installed
from tests.gpu.paths import LaneChecks


@pytest.fixture(scope="module", params=["fp32 cuda-python", *(f"fp16 {each}" for each in MEMORY_MODULES)])
def session(request: pytest.FixtureRequest, gpu_only: None, setup: Setup) -> Iterator[Session]:
    """An engine, built where there is none yet; the build fails where a layer does not compute in its precision."""
    precision, memory = request.param.split()
    skip_unless_installed("tensorrt", "tensorrt", "tensorrt_bindings")
    skip_unless_installed(memory, MEMORY_MODULES[memory])
    plan, largest = setup.folder / f"{precision}.engine", setup.largest_batch
    if not plan.is_file():
        profile = BatchProfile(minimum=1, optimum=min(32, largest), maximum=largest)
        options = BuildOptions(batch_profile=profile, timing_cache=setup.folder / "timing.cache")
        with prepared_source(plan.with_suffix(".onnx"), None) as source:
            engine_from_onnx(source, plan, options=options, log=print)
    with open_session(plan, SessionOptions(memory=memory)) as session:
        yield session


class TestTensorRt(LaneChecks):
    """Every check of a path in lanes."""

    def test_precision_is_proved(self, session: Session, judge: Judge) -> None:
        """The manifest says in which precisions the plan's layers compute."""
        engine = session.manifest.engine
        assert engine is not None and engine.layers.plan
        judge.record("layers", engine.layers.model_dump())
