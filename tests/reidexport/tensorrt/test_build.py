"""Engines, built for real with TensorRT for RTX, which needs no GPU to build; and what is refused."""

import os
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch
from reidruntime.artifact.manifest import (
    BatchProfile,
    Manifest,
    file_sha256,
    manifest_from_json,
)

from reidexport.errors import EngineError, PrecisionError
from reidexport.tensorrt.build import engine_from_onnx
from reidexport.tensorrt.options import BuildOptions
from reidexport.tensorrt.source import prepared_source
from tests.conftest import Exported, Run
from tests.standins import checkpoints
from tests.standins.runtime_models import write_artifact

RTX = BuildOptions(flavor="rtx")


rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason='needs TensorRT for RTX: pip install "reidexport[rtx]"'
)


def build(source: Path, target: Path, precision: str | None = None, options: BuildOptions = RTX) -> Manifest:
    """An RTX engine."""
    with prepared_source(source, precision) as prepared:  # type: ignore[arg-type]
        return engine_from_onnx(prepared, target, options=options)


@rtx
def test_onnx_then_trt_without_further_arguments(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands in one folder make a strong baseline's FP16 engine: 53 FP16 convolutions, half the size."""
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoints.golden_weights("sb_resnet50"), "resnet50_model_120.pth")
    assert run("onnx", "resnet50_model_120.pth").returncode == 0
    fp16 = run("trt", "--fp16", "--flavor", "rtx")
    assert fp16.returncode == 0, fp16.stderr
    assert "wrote resnet50_model_120-fp16-rtx.engine (45." in fp16.stdout
    assert "layers of the network 53 fp16" in fp16.stdout
    full = run("trt", "--flavor", "rtx", "-o", "full.engine")
    assert "layers of the network 53 fp32" in full.stdout
    assert (
        Path("resnet50_model_120-fp16-rtx.engine").stat().st_size < 0.6 * Path("full.engine").stat().st_size
    )
    manifest = manifest_from_json(Path("resnet50_model_120-fp16-rtx.engine.json").read_text(), "")
    assert manifest.engine is not None
    assert manifest.engine.onnx_sha256 == file_sha256(Path("resnet50_model_120.onnx"))
    assert manifest.engine.plan_sha256 == file_sha256(Path("resnet50_model_120-fp16-rtx.engine"))
    assert (manifest.precision, manifest.layer_precisions) == ("fp16", {"fp16": 53})
    assert manifest.parity is not None
    assert manifest.parity.max_relative_l2 < 1e-3


TRANSFORMERS = [
    pytest.param("pv_vit_tiny", {"convolution": 1, "matrix product": 72, "normalization": 25, "softmax": 12}),
    pytest.param(
        "tn_vit_base",
        {"convolution": 1, "matrix product": 72, "normalization": 25, "softmax": 12},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "so_swin_t",
        {"convolution": 1, "matrix product": 75, "normalization": 29, "softmax": 12},
        marks=pytest.mark.slow,
    ),
]


@rtx
@pytest.mark.parametrize(("case", "counts"), TRANSFORMERS)
def test_transformers_compute_in_half_with_whole_layer_norms(
    case: str, counts: dict[str, int], tmp_path: Path
) -> None:
    """All is FP16 but the LayerNormalizations, each of which is one layer of TensorRT and float32."""
    torch.save(checkpoints.golden_weights(case), tmp_path / "model.pth")
    manifest = build(tmp_path / "model.pth", tmp_path / "model.engine", "fp16")
    assert manifest.engine is not None
    assert manifest.engine.layers.kinds == {
        kind: {"fp32" if kind == "normalization" else "fp16": number} for kind, number in counts.items()
    }


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
    arguments: tuple[str, ...], words: str, exported: Exported, refuses: Callable[..., None]
) -> None:
    """What cannot be built is refused before anything is written, with what was expected; exit status 2."""
    refuses(words, "trt", exported.onnx, "--flavor", "rtx", "-o", "a.engine", *arguments)


@rtx
def test_static_batches_make_static_engines(exported: Exported, tmp_path: Path, run: Run) -> None:
    """A file for one batch size needs no profile, and takes no other."""
    static = tmp_path / "static.onnx"
    assert run("onnx", exported.checkpoint, "--batch", "4", "-o", static).returncode == 0
    manifest = build(static, tmp_path / "static.engine")
    assert manifest.batch_profile.static == 4
    done = run("trt", static, "--flavor", "rtx", "--batch-profile", "1:4:8")
    assert done.returncode == 2
    assert "takes batches of exactly 4, the profile asked for is 1:4:8" in done.stderr


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


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_native_tensorrt_that_is_not_there(exported: Exported, run: Run, tmp_path: Path) -> None:
    """Exit status 3, and the line that installs it."""
    done = run("trt", exported.onnx, "-o", tmp_path / "a.engine")
    assert done.returncode == 3
    assert 'pip install "reidexport[trt]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
