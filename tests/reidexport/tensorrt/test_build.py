"""Engines, built for real with TensorRT for RTX, which needs no GPU to build; and what is refused."""

import json
import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from reidruntime import device_memory, open_session
from reidruntime.artifact.engine_checks import check_engine
from reidruntime.artifact.manifest import (
    BatchProfile,
    Engine,
    LayerCounts,
    Manifest,
    file_sha256,
    manifest_from_json,
)
from reidruntime.errors import ArtifactError, GpuError, InputError, NotInstalledError
from reidruntime.tensorrt_library import Gpu, first_gpu, version_tuple

from reidexport.errors import EngineError, PrecisionError
from reidexport.tensorrt.build import BuildOptions, engine_from_onnx
from reidexport.tensorrt.precision import Layer, check_precision, layers_of_plan
from reidexport.tensorrt.source import find_source, prepared_source
from tests.conftest import Exported, Run
from tests.standins import checkpoints
from tests.standins.runtime_models import small_manifest, write_artifact

RTX = BuildOptions(flavor="rtx")
rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason='needs TensorRT for RTX: pip install "reidexport[rtx]"'
)
H100 = Gpu("NVIDIA H100", "9.0", "580.82.07")


def build(source: Path, target: Path, precision: str | None = None, options: BuildOptions = RTX) -> Manifest:
    """An RTX engine."""
    with prepared_source(source, precision) as prepared:  # type: ignore[arg-type]
        return engine_from_onnx(prepared, target, options=options)


@rtx
def test_onnx_then_trt_without_further_arguments(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands in one folder make a strong baseline's FP16 engine: 53 half convolutions, half the size."""
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoints.golden_weights("sb_resnet50"), "resnet50_model_120.pth")
    assert run("onnx", "resnet50_model_120.pth").returncode == 0
    half = run("trt", "--fp16", "--flavor", "rtx")
    assert half.returncode == 0, half.stderr
    assert "wrote resnet50_model_120.engine (45." in half.stdout
    assert "layers of the network 53 fp16" in half.stdout
    full = run("trt", "--flavor", "rtx", "-o", "full.engine")
    assert "layers of the network 53 fp32" in full.stdout
    assert Path("resnet50_model_120.engine").stat().st_size < 0.6 * Path("full.engine").stat().st_size
    manifest = manifest_from_json(Path("resnet50_model_120.engine.json").read_text(), "")
    assert manifest.engine is not None
    assert manifest.engine.onnx_sha256 == file_sha256(Path("resnet50_model_120.onnx"))
    assert manifest.engine.plan_sha256 == file_sha256(Path("resnet50_model_120.engine"))
    assert (manifest.precision, manifest.layer_precisions) == ("fp16", {"fp16": 53})
    assert manifest.parity is not None
    assert manifest.parity.max_relative_l2 < 1e-3


@rtx
def test_a_checkpoint_becomes_an_engine(exported: Exported, tmp_path: Path) -> None:
    """A checkpoint is exported on the way, and the ONNX file does not stay."""
    manifest = build(exported.checkpoint, tmp_path / "small.engine", "fp16")
    assert manifest.batch_profile == BatchProfile(minimum=1, optimum=8, maximum=32)
    assert manifest.engine is not None
    assert (manifest.engine.flavor, manifest.engine.gpu_name) == ("rtx", None)
    assert set(manifest.engine.layers.network) == {"fp16"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.engine", "small.engine.json"]


@rtx
def test_a_file_that_only_says_fp16_is_found_out(exported: Exported, tmp_path: Path) -> None:
    """An FP32 network whose manifest claims FP16 is an error that names the layers; exit status 1."""
    with prepared_source(exported.onnx, None) as source:
        liar = source.__class__(
            source.path,
            source.manifest.model_copy(update={"precision": "fp16"}),
            "liar.onnx",
            source.sha256,
            kept=True,
        )
        with pytest.raises(
            PrecisionError,
            match=r"20 of 20 convolutions of the network are not fp16.*\n  node_Conv_\d+: fp32",
        ):
            engine_from_onnx(liar, tmp_path / "a.engine", options=RTX)
    assert list(tmp_path.iterdir()) == []


@rtx
def test_broken_networks_are_refused_in_tensorrts_words(exported: Exported, tmp_path: Path, run: Run) -> None:
    """Junk, and a file whose external weights are lost, end with exit status 2, one message and no file."""
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(os.urandom(4096))
    lost = tmp_path / "lost.onnx"
    onnx.save(
        onnx.load(exported.onnx), lost, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "weights.bin").unlink()
    for path, words in ((junk, "not an ONNX model"), (lost, "weights.bin")):
        for precision in ("--fp32", "--fp16"):
            done = run("trt", path, precision, "--flavor", "rtx")
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
            assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junk.onnx", "lost.onnx"]


@rtx
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch-profile", "8:4:16"), "expected MIN <= OPT <= MAX"),
        (("--batch-profile", "0:4:16"), "expected MIN:OPT:MAX, each at least 1"),
        (("--batch-profile", "many"), "expected MIN:OPT:MAX, each at least 1"),
        (("--optimization-level", "9"), "expected 0 to 5, got 9"),
        (("--workspace", "0"), "expected at least 1 MiB, got 0"),
        (("--version-compatible",), "for native TensorRT only"),
        (("--allow-unproved-precision",), "for native TensorRT only"),
        (("--strip-weights", "--fp16"), "needs the fp16 ONNX file"),
        (("--int8",), "INT8 needs images to calibrate with"),
        (("--fp16", "--fp32"), "exclude each other"),
        (("-o", "model.bin"), "an engine's name ends in .engine or .plan"),
        (("--last-stride", "1"), "is an ONNX file: what is chosen for a checkpoint is built in"),
        (("--mean", "0,0,0"), "the file carries a manifest"),
    ],
)
def test_impossible_options(
    arguments: tuple[str, ...], words: str, exported: Exported, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What cannot be built is refused before anything is written, with what was expected; exit status 2."""
    monkeypatch.chdir(tmp_path)
    done = run("trt", exported.onnx, "--flavor", "rtx", "-o", "a.engine", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


@rtx
def test_static_batches_make_static_engines(exported: Exported, tmp_path: Path, run: Run) -> None:
    """A file for one batch size needs no profile, and takes no other."""
    static = tmp_path / "static.onnx"
    assert run("onnx", exported.checkpoint, "--batch", "4", "-o", static).returncode == 0
    manifest = build(static, tmp_path / "static.engine")
    assert manifest.batch_profile.static == 4
    done = run("trt", static, "--flavor", "rtx", "--batch-profile", "1:4:8")
    assert done.returncode == 2
    assert "takes batches of exactly 4, asked for was the profile 1:4:8" in done.stderr


@rtx
def test_an_old_engine_survives_a_failed_build(exported: Exported, tmp_path: Path) -> None:
    """Plan and manifest are replaced together, and only by a build that succeeds."""
    target = tmp_path / "small.engine"
    build(exported.fp16, target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    unknown = write_artifact(tmp_path / "unknown.onnx")
    unknown.write_bytes(unknown.read_bytes().replace(b"GlobalAveragePool", b"GlobalAveragePooX"))
    with pytest.raises(
        EngineError, match=r"(?s)unknown\.onnx: TensorRT's parser refuses it:.*GlobalAveragePooX"
    ):
        build(unknown, target)
    unknown.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@rtx
def test_full_and_read_only_disks(exported: Exported, tiny_disk: Path, run: Run) -> None:
    """A disk that is full, or cannot be written to, ends with exit status 2 and leaves nothing."""
    full = run("trt", exported.onnx, "--flavor", "rtx", "-o", tiny_disk / "a.engine")
    assert full.returncode == 2
    assert "a.engine: No space left on device" in full.stderr
    assert list(tiny_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    read_only = run("trt", exported.onnx, "--flavor", "rtx", "-o", tiny_disk / "a.engine")
    assert read_only.returncode == 2
    assert "cannot write there (Read-only file system)" in read_only.stderr


def test_the_one_onnx_file_of_a_folder(tmp_path: Path) -> None:
    """None and several are errors; several are listed."""
    with pytest.raises(InputError, match=r"no \.onnx file here"):
        find_source(tmp_path)
    (tmp_path / "a.onnx").touch()
    assert find_source(tmp_path) == tmp_path / "a.onnx"
    (tmp_path / "b.onnx").touch()
    with pytest.raises(InputError, match=r"name one of them: a\.onnx, b\.onnx"):
        find_source(tmp_path)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_native_tensorrt_that_is_not_there(exported: Exported, run: Run, tmp_path: Path) -> None:
    """Exit status 3, and the line that installs it."""
    done = run("trt", exported.onnx, "-o", tmp_path / "a.engine")
    assert done.returncode == 3
    assert 'pip install "reidexport[trt]"' in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(first_gpu() is not None, reason="there is a GPU here")
def test_engines_and_memory_without_a_gpu(tmp_path: Path) -> None:
    """Every way to a GPU that is not there says so; none falls back."""
    if find_spec("tensorrt_rtx_bindings") is not None:
        plan = tmp_path / "a.engine"
        plan.write_bytes(b"plan")
        plan.with_name("a.engine.json").write_text(engine_manifest(plan, flavor="rtx").to_json())
        with pytest.raises(NotInstalledError, match="needs an NVIDIA GPU"):
            open_session(plan)
    with pytest.raises(NotInstalledError, match="needs an NVIDIA RTX GPU"):
        open_session(write_artifact(tmp_path / "a.onnx"), backend="tensorrt-rtx")
    with pytest.raises((NotInstalledError, GpuError), match="cuda"):
        device_memory.open_device_memory("cuda-python")
    with pytest.raises(NotInstalledError, match="torch finds no GPU"):
        device_memory.open_device_memory("torch")
    with pytest.raises(NotInstalledError, match="pycuda"):
        device_memory.open_device_memory("pycuda")
    with pytest.raises(InputError, match=r"no memory 'cupy'. Expected one of: cuda-python, torch, pycuda"):
        device_memory.open_device_memory("cupy")  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("changes", "installed", "gpu", "words"),
    [
        ({}, "11.4.0.106", H100, r"built with TensorRT 10\.16\.1\.11, installed is 11\.4\.0\.106"),
        ({"version_compatible": True}, "10.12.0.36", H100, r"installed is 10\.12\.0\.36"),
        ({"version_compatible": True}, "11.4.0.106", H100, "carries code that runs when it is loaded"),
        ({}, "10.16.1.11", Gpu("NVIDIA L4", "8.9", "580.82.07"), r"built for NVIDIA H100 \(9\.0\), this is NVIDIA L4"),
        ({"hardware_compatible": True}, "10.16.1.11", Gpu("Tesla T4", "7.5", "580.82.07"), "capability 8.0 and up"),
        ({}, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "570.10"), r"has the older 570\.10. Update the driver"),
        ({"plan_sha256": "1" * 64}, "10.16.1.11", H100, "not the engine that its manifest describes"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit_the_machine(
    changes: dict[str, object], installed: str, gpu: Gpu, words: str, tmp_path: Path
) -> None:
    """Version, GPU, driver and bytes are compared with the manifest, and the message says what to rebuild."""
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    with pytest.raises(ArtifactError, match=words):
        check_engine(engine_manifest(plan, **changes), plan, installed, gpu)


def test_a_plan_that_fits(tmp_path: Path) -> None:
    """The same machine; a driver that is newer or not told; another Ampere GPU or later TensorRT where allowed."""
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    check_engine(engine_manifest(plan), plan, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "590.1"))
    check_engine(engine_manifest(plan), plan, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "unknown"))
    other = Gpu("NVIDIA L4", "8.9", "580.82.07")
    check_engine(engine_manifest(plan, hardware_compatible=True), plan, "10.16.1.11", other)
    later = engine_manifest(plan, version_compatible=True)
    check_engine(later, plan, "11.4.0.106", H100, allow_host_code=True)
    assert version_tuple("10.16.1.post12.dev1") == (10, 16, 1)


def test_both_dialects_of_the_inspector_are_read() -> None:
    """TensorRT 10 names a type within a format, TensorRT 11 outright; weights decide where they are listed."""
    ten = """{"Layers": [
        {"Name": "reformat", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"Name": "stem", "LayerType": "CaskConvActPool", "ParameterType": "Convolution",
         "Inputs": [{"Format/Datatype": "Row major linear FP32"}], "Weights": {"Type": "Half", "Count": 9408}},
        {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Channel major FP16 format"}]},
        {"Name": "fc", "LayerType": "CaskGemmMatrixMultiply", "Inputs": [{"Format/Datatype": "Half"}]}],
        "Bindings": ["images", "f_i"]}"""
    eleven = """{"Layers": [
        {"Name": "stem", "LayerType": "correlation", "Metadata": "[ONNX Layer: node_conv2d]",
         "Inputs": [{"Format": "Row major linear", "DataType": "Float"}], "Outputs": [{"DataType": "Half"}]},
        {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [{"DataType": "Int8"}]},
        {"Name": "b", "LayerType": "CaskConvolution", "Inputs": [{"DataType": "Float"}]}],
        "I/O Tensors": [{"Name": "images"}]}"""
    assert layers_of_plan(ten) == [
        Layer("stem", True, "fp16"), Layer("a", True, "fp16"), Layer("fc", False, "fp16"),
    ]  # fmt: skip
    assert layers_of_plan(eleven) == [
        Layer("stem", True, "unproved"), Layer("a", True, "int8"), Layer("b", True, "fp32"),
    ]  # fmt: skip


def entry(
    name: str, kind: str, inputs: str, outputs: str, metadata: str = "", weights: str = ""
) -> dict[str, object]:
    """An entry of the inspector, with tensors of the types that are named."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"DataType": dtype} for dtype in inputs.split()],
        "Outputs": [{"DataType": dtype} for dtype in outputs.split()],
        "Metadata": metadata,
        "Weights": {"Type": weights},
    }


@pytest.mark.parametrize(
    ("inputs", "outputs", "weights", "precision"),
    [
        ("Half", "Half", "", "fp16"),
        ("Half", "Float", "", "fp16"),
        ("Half Float", "Half", "", "fp16"),  # its second input is what is added
        ("Float", "Half", "", "unproved"),
        ("Half", "Int8", "", "unproved"),
        ("Half", "Int8", "Half", "fp16"),
        ("Float", "Half", "Half", "fp16"),
        ("Half", "Half", "Float", "fp32"),
        ("Int8 Half", "Int8", "", "int8"),
        ("UInt8", "Half", "", "fp16"),  # raw pixels are no int8 network
        ("BFloat16", "BFloat16", "", "bf16"),
        ("Int32", "Int32", "", "other"),
    ],
)
def test_a_convolution_computes_in_the_type_of_its_weights_or_input(
    inputs: str, outputs: str, weights: str, precision: str
) -> None:
    """A narrower output proves nothing: it may be cast after a wide convolution."""
    layers = {"Layers": [entry("conv", "CaskConvolution", inputs, outputs, weights=weights)]}
    assert layers_of_plan(json.dumps(layers)) == [Layer("conv", True, precision)]


def test_convolutions_within_entries_of_the_compiler() -> None:
    """They are found by name, and have the one precision of all tensors; what is only moved is no convolution."""
    stem, a, b = (f"[ONNX Layer: node_{name}]" for name in ("stem", "a", "b"))
    plan = json.dumps(
        {
            "Layers": [
                entry("__myl_Cast_myl0_0", "kgen", "Float", "Half", metadata=stem),
                entry(
                    "node_stem_myl0_1",
                    "correlation",
                    "Half",
                    "Half",
                    metadata=f"{stem}[ONNX Layer: conv_relu]",
                ),
                entry(
                    "__myl_ConvRelu_myl0_2",
                    "kgen",
                    "Half Half",
                    "Half",
                    metadata=f"{a}\x1f[ONNX Layer: relu]",
                ),
                entry("node_b + relu", "Myelin", "Half", "Float"),
                entry(
                    "__myl_ReluConv_myl0_3",
                    "kgen",
                    "Float",
                    "Float",
                    metadata="[ONNX Layer: conv_block/relu]",
                ),
                entry("Reformatting CopyNode for Input Tensor 0 to node_c", "Reformat", "Float", "Half"),
            ]
        }
    )
    names = ["node_stem", "node_a", "node_b", "node_c"]
    assert layers_of_plan(plan, names) == [
        Layer("node_stem_myl0_1", True, "fp16"),
        Layer("__myl_ConvRelu_myl0_2", True, "fp16"),
        Layer("node_b + relu", True, "unproved"),
        Layer("node_c", True, "unproved"),
    ]
    assert layers_of_plan(plan, names[:3])[-1] == Layer("node_b + relu", True, "unproved")
    assert b not in plan


def test_every_profile_of_a_plan_must_show_its_convolutions() -> None:
    """What the second profile hides is not proved by the first; entries without names count."""
    first = entry("node_a", "CaskConvolution", "Half", "Half")
    moved = entry("node_a [profile 1]", "Reformat", "Half", "Half")
    nameless = entry("__myl_3 [profile 1]", "correlation", "Half", "Half", metadata="conv")
    hidden = json.dumps({"Layers": [first, moved]})
    assert layers_of_plan(hidden, ["node_a"]) == [
        Layer("node_a", True, "fp16"),
        Layer("node_a", True, "unproved"),
    ]
    shown = json.dumps({"Layers": [first, moved, nameless]})
    assert layers_of_plan(shown, ["node_a"]) == [
        Layer("node_a", True, "fp16"), Layer("__myl_3 [profile 1]", True, "fp16"),
    ]  # fmt: skip


def test_what_counts_as_the_precision_asked_for() -> None:
    """INT8 files may keep as many wide convolutions as they state; an FP32 engine has FP32 convolutions only."""
    layers = [Layer("a", True, "int8"), Layer("b", True, "fp32"), Layer("fc", False, "fp32")]
    check_precision(layers, "int8", "plan", num_float_convolutions=1)
    with pytest.raises(
        PrecisionError, match=r"1 of 2 convolutions of the plan are not int8, expected none:\n  b: fp32"
    ):
        check_precision(layers, "int8", "plan")
    with pytest.raises(PrecisionError, match="  a: int8"):
        check_precision(layers, "fp32", "plan")
    hidden = [Layer("a", True, "fp16"), Layer("b", True, "unproved")]
    with pytest.raises(
        PrecisionError, match=r"1 of 2 .* cannot be proved to be fp16, expected none:\n  b: unproved"
    ):
        check_precision(hidden, "fp16", "plan")
    check_precision(hidden, "fp16", "plan", allow_unproved=True)
    with pytest.raises(PrecisionError, match=r"1 of 3 .* are not fp16, expected none:\n  c: fp32"):
        check_precision([*hidden, Layer("c", True, "fp32")], "fp16", "plan", allow_unproved=True)
    with pytest.raises(PrecisionError, match="shows no convolution"):
        check_precision(layers[2:], "fp16", "network")
    half = [Layer(f"conv{i}", True, "fp32") for i in range(12)]
    with pytest.raises(PrecisionError, match=r"(?s)12 of 12 .*\n  conv9: fp32\n  and 2 more"):
        check_precision(half, "fp16", "network")


def test_tensors_are_for_plans(tmp_path: Path) -> None:
    """A backend that takes arrays says so."""
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        with pytest.raises(InputError, match="takes arrays, not tensors on a GPU"):
            session.run_tensor(np.zeros((1, 32, 16, 3), np.uint8))
