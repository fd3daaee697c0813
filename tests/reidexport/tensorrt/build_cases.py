"""Builds engines against stand-ins of TensorRT's bindings; run by ``test_tensorrt_contract.py``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorrt_bindings
from reidruntime.artifact.manifest import BatchProfile, manifest_from_json
from reidruntime.tensorrt_library import Gpu

from reidexport.errors import EngineError, InputError, PrecisionError
from reidexport.tensorrt import build as trt_build
from reidexport.tensorrt.timing_cache import default_timing_cache
from tests.standins.runtime_models import (
    small_manifest,
    tensorrt_quantization,
    write_artifact,
)
from tests.standins.tensorrt.bindings import Bindings, StandIn
from tests.standins.tensorrt.contract import GPU, TEN, build

ELEVEN = {
    "Name": "conv",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Format": "Row major linear", "DataType": "Half"}],
}


FUSED = {
    "Name": "__myl_ConvReluAdd_myl0_3",
    "LayerType": "kgen",
    "Inputs": [{"DataType": "Half"}, {"DataType": "Half"}],
    "Outputs": [{"DataType": "Half"}],
    "Metadata": "[ONNX Layer: name]\x1f[ONNX Layer: relu]",
}


def test_a_plan_is_built_with_every_option(trt: Bindings, onnx_file: Path) -> None:
    """Every option reaches the builder through calls that the bindings have, and the manifest says what was built."""
    manifest = build(
        onnx_file, workspace_mib=64, optimization_level=5, version_compatible=True, hardware_compatible=True
    )
    assert onnx_file.with_suffix(".engine").read_bytes() == b"plan"
    assert manifest_from_json(onnx_file.with_name("model.engine.json").read_text(), "") == manifest
    engine = manifest.engine
    assert engine is not None
    assert (engine.tensorrt_version, engine.gpu_name, engine.driver_version) == (
        trt.__version__, "NVIDIA H100", "580.82.07",
    )  # fmt: skip
    assert (engine.layers.network, engine.layers.plan) == ({"fp16": 1}, {"fp16": 1})
    assert trt.assigned["IBuilderConfig.builder_optimization_level"] == 5
    assert trt.assigned["IBuilderConfig.hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert trt.assigned["IBuilderConfig.profiling_verbosity"].name == "DETAILED"
    assert trt.calls.count("IBuilderConfig.set_memory_pool_limit") == 1
    assert trt.calls.count("IBuilderConfig.clear_flag") == 1  # TF32
    assert "OnnxParser.parse_from_file" in trt.calls


def test_timing_caches_are_merged(trt: Bindings, onnx_file: Path) -> None:
    """The first build writes the cache, the second reads it and merges what it learned into it."""
    build(onnx_file)
    assert onnx_file.with_name("timing.cache").read_bytes() == b"plan"
    assert "ITimingCache.combine" not in trt.calls
    build(onnx_file)
    assert trt.calls.count("ITimingCache.combine") == 1


def test_a_default_timing_cache_of_another_gpu_is_not_taken(
    trt: Bindings, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT refuses it; the build continues with an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refusals = iter([False, True])
    trt.answers["IBuilderConfig.set_timing_cache"] = lambda cache, ignore: next(refusals)
    build(onnx_file, timing_cache=None)
    assert trt.calls.count("IBuilderConfig.set_timing_cache") == 2


def test_a_damaged_default_timing_cache_is_replaced(
    trt: Bindings, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT makes nothing of it: the build starts with an empty cache, says so, and writes a whole one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trt.answers["IBuilderConfig.create_timing_cache"] = lambda data: (
        StandIn(trt, tensorrt_bindings.ITimingCache) if data == b"" else None
    )
    cache = default_timing_cache(trt.__version__, GPU)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"damaged")
    said: list[str] = []
    build(onnx_file, said.append, timing_cache=None)
    assert said == [f"{cache}: TensorRT does not take this timing cache; starting with an empty one"]
    assert trt.calls.count("IBuilderConfig.set_timing_cache") == 1
    assert cache.read_bytes() == b"plan"


@pytest.mark.parametrize("answer", ["create_timing_cache", "set_timing_cache"])
def test_a_named_file_that_is_no_timing_cache_is_kept(trt: Bindings, onnx_file: Path, answer: str) -> None:
    """A file of the user's that TensorRT does not take is refused before the build, and not written over."""
    trt.answers[f"IBuilderConfig.{answer}"] = lambda *arguments: (
        None if answer == "create_timing_cache" else False
    )
    notes = onnx_file.with_name("notes.txt")
    notes.write_text("mine")
    with pytest.raises(
        InputError, match=r"notes\.txt is not a timing cache of this TensorRT and GPU.*choose another"
    ):
        build(onnx_file, timing_cache=notes)
    assert "Builder.build_serialized_network" not in trt.calls
    assert notes.read_text() == "mine"
    assert sorted(path.name for path in onnx_file.parent.iterdir()) == ["model.onnx", "notes.txt"]


@pytest.mark.parametrize("name", ["model.onnx", "model.engine", "model.engine.json"])
def test_a_timing_cache_has_a_file_of_its_own(trt: Bindings, onnx_file: Path, name: str) -> None:
    """The file to build from, the engine and its manifest are refused as the timing cache."""
    with pytest.raises(
        InputError, match=rf"{name}: that is the file to build from, the engine or its manifest"
    ):
        build(onnx_file, timing_cache=onnx_file.with_name(name))
    assert "Builder.__init__" not in trt.calls


def test_every_parser_error_is_in_the_message(trt: Bindings, onnx_file: Path) -> None:
    """A network that the parser refuses leaves no file, and all that the parser said."""
    texts = iter(["no importer for Foo", "weights are missing"])
    trt.answers |= {
        "OnnxParser.parse_from_file": False,
        "OnnxParser.num_errors": 2,
        "OnnxParser.get_error": lambda index: StandIn(trt, tensorrt_bindings.ParserError),
        "ParserError.desc": lambda: next(texts),
        "ParserError.node_operator": "Foo",
    }
    with pytest.raises(
        EngineError, match=r"(?s)no importer for Foo \(node 'name', Foo\).*weights are missing \(node"
    ):
        build(onnx_file)
    assert sorted(path.name for path in onnx_file.parent.iterdir()) == ["model.onnx"]


def test_a_builder_that_gives_nothing_is_an_error(trt: Bindings, onnx_file: Path) -> None:
    """None instead of a plan leaves no file."""
    trt.answers["Builder.build_serialized_network"] = lambda network, config: None
    with pytest.raises(EngineError, match="could not build it"):
        build(onnx_file)
    assert not list(onnx_file.parent.glob("*.engine*"))


@pytest.mark.parametrize("dialect", [TEN, ELEVEN])
def test_precision_is_proved_before_and_after(
    trt: Bindings, onnx_file: Path, dialect: dict[str, Any]
) -> None:
    """A float convolution in the network or in the plan is named, and nothing is written; exit status 1."""
    as_float = json.dumps({"Layers": [dialect]}).replace("FP16", "FP32").replace("Half", "Float")
    trt.answers["EngineInspector.get_engine_information"] = as_float
    with pytest.raises(
        PrecisionError, match=r"1 of 1 convolutions of the engine are not fp16.*\n  conv: fp32"
    ) as raised:
        build(onnx_file)
    assert raised.value.exit_status == 1
    described = onnx_file.with_name("model.engine.layers.json")
    assert str(raised.value).endswith(f"What TensorRT says of every layer is in {described}.")
    assert described.read_text() == as_float
    described.unlink()
    trt.answers["ITensor.dtype"] = tensorrt_bindings.DataType.FLOAT
    with pytest.raises(PrecisionError, match=r"of the network are not fp16.*\n  name: fp32"):
        build(onnx_file)
    assert not list(onnx_file.parent.glob("*.engine*"))


def test_a_convolution_within_a_fused_entry_is_proved(trt: Bindings, onnx_file: Path) -> None:
    """A plan whose convolutions are in entries of the compiler's own is built where those compute in one precision."""
    trt.answers["EngineInspector.get_engine_information"] = json.dumps({"Layers": [FUSED]})
    manifest = build(onnx_file)
    assert manifest.engine is not None
    assert manifest.engine.layers.plan == {"fp16": 1}


@pytest.mark.parametrize("layers", [[], [FUSED | {"Outputs": [{"DataType": "Float"}]}]])
def test_what_cannot_be_proved_needs_consent(
    trt: Bindings, onnx_file: Path, layers: list[dict[str, Any]]
) -> None:
    """A convolution that the plan does not show, or shows in two types, is an error until the caller accepts it."""
    trt.answers["EngineInspector.get_engine_information"] = json.dumps({"Layers": layers})
    with pytest.raises(
        PrecisionError,
        match=r"(?s)1 of 1 convolutions of the engine cannot be proved to be fp16, expected none:\n  \w+: unproved\n"
        r".*model\.engine\.layers\.json\. If it convinces you, build with --allow-unproved-precision",
    ):
        build(onnx_file)
    assert not onnx_file.with_suffix(".engine").exists()
    said: list[str] = []
    manifest = build(onnx_file, said.append, allow_unproved_precision=True)
    assert manifest.engine is not None
    assert manifest.engine.layers.plan == {"unproved": 1}
    assert said == ["accepted without a proof of their precision: 1 of 1 convolutions of the engine"]


@pytest.mark.parametrize(
    ("gpu", "given", "profiles"),
    [
        (GPU, None, [(1, 64, 256), (1, 4, 8)]),
        (replace(GPU, num_multiprocessors=40), None, [(1, 8, 32)]),
        (GPU, BatchProfile(minimum=6, optimum=16, maximum=16), [(6, 16, 16), (6, 6, 8)]),
        (GPU, BatchProfile(minimum=9, optimum=64, maximum=64), [(9, 64, 64)]),
    ],
)
def test_small_batches_get_a_profile_of_their_own(
    trt: Bindings, onnx_file: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu, given: BatchProfile | None,
    profiles: list[tuple[int, int, int]],
) -> None:  # fmt: skip
    """The first profile takes every batch, and is by default what suits the GPU; the manifest records it."""
    monkeypatch.setattr(trt_build, "first_gpu", lambda: gpu)
    shapes: list[tuple[int, ...]] = []
    trt.answers["IOptimizationProfile.set_shape"] = lambda name, *sizes: shapes.append(
        tuple(size[0] for size in sizes)
    )
    manifest = build(onnx_file, batch_profile=given)
    assert shapes == profiles
    assert trt.calls.count("IBuilderConfig.add_optimization_profile") == len(profiles)
    built = manifest.batch_profile
    assert (built.minimum, built.optimum, built.maximum) == profiles[0]


def test_every_profile_may_have_the_wide_convolutions_of_the_file(trt: Bindings, tmp_path: Path) -> None:
    """The inspector shows the layers of both profiles; an INT8 file with one float layer has one wide one in each."""
    quantization = tensorrt_quantization(float_layers=("name",))
    manifest = small_manifest(precision="int8", quantization=quantization)
    onnx = write_artifact(tmp_path / "model.onnx", manifest=manifest)
    large = BatchProfile(minimum=1, optimum=32, maximum=64)
    layers = [TEN, TEN | {"Name": "conv [profile 1]"}]
    trt.answers["EngineInspector.get_engine_information"] = json.dumps({"Layers": layers})
    engine = build(onnx, batch_profile=large).engine
    assert engine is not None
    assert engine.layers.plan == {"fp16": 2}
    layers.append(TEN | {"Name": "other [profile 1]"})
    trt.answers["EngineInspector.get_engine_information"] = json.dumps({"Layers": layers})
    with pytest.raises(PrecisionError, match="3 of 3 convolutions of the engine are not int8, expected 2"):
        build(onnx, batch_profile=large)
