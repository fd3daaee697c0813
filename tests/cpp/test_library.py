"""The C++ runtime answers as the Python runtime does, survives any input, and can be built upon.

Needs a build: ``make cpp-test`` makes one with sanitizers and names it in REIDEXPORT_CPP_BUILD.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from reidgallery.input import UNLABELED
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.manifest import METADATA_KEY, Preprocess, QuantizationTarget, TensorSpec

from reidexport import graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.data import Dataset
from reidexport.data.records import pid_and_camid
from tests import ROOT
from tests.conftest import Exported, Run
from tests.reidexport.tensorrt.test_tensorrt_contract import VERSIONS, bindings_folder
from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.runtime_models import DIM, small_manifest, write_artifact, write_foreign

BUILD = Path(os.environ.get("REIDEXPORT_CPP_BUILD", "")).resolve()
SOURCES = ROOT / "engines" / "cpp"

pytestmark = pytest.mark.skipif(
    "REIDEXPORT_CPP_BUILD" not in os.environ, reason="needs a build of the C++ runtime: make cpp-test"
)

Done = subprocess.CompletedProcess[str]


def onnxruntime_library() -> Path:
    """The shared library inside the onnxruntime package."""
    package = Path(importlib.import_module("onnxruntime").__file__ or "").parent
    return next((package / "capi").glob("libonnxruntime.so*"))


def call(program: str | Path, *arguments: object) -> Done:
    """Run one of the build's programs; a finding of a sanitizer fails the test."""
    done = subprocess.run(
        [str(BUILD / program), *map(str, arguments)],
        env=os.environ | {"REIDRUNTIME_ONNXRUNTIME": str(onnxruntime_library())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done


def embed(artifact: Path, paths: list[Path], out: Path, *options: object) -> np.ndarray:
    """What ``reid_embed`` writes."""
    done = call("reid_embed", artifact, *paths, "-o", out, "--force", "--threads", 1, *options)
    assert done.returncode == 0, done.stderr
    return np.load(out, allow_pickle=False)


@pytest.fixture
def photos(drawn_dataset: Dataset) -> list[Path]:
    """Thirteen JPEG files of drawn people."""
    return [Path(record.path) for record in drawn_dataset.gallery][:13]


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("kind", ["small", "exported"])
def test_embeddings_are_those_of_the_python_runtime(
    kind: str, batch_size: int, photos: list[Path], exported: Exported, tmp_path: Path
) -> None:
    """The same files have the same embeddings to 1e-6, alone and in batches, from a small network and a real export."""
    artifact = exported.onnx if kind == "exported" else write_artifact(tmp_path / "small.onnx")
    with open_session(artifact, SessionOptions(backend="onnxruntime", device="cpu", threads=1)) as session:
        expected = session.embed(photos, batch_size=batch_size)
    found = embed(artifact, photos, tmp_path / "f.npy", "--batch", batch_size)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-6 * max(1.0, float(np.abs(expected).max()))
    assert not np.allclose(expected[0], expected[1])


def test_a_static_batch_is_split_and_padded(photos: list[Path], tmp_path: Path) -> None:
    """An artifact for batches of four answers thirteen images, each as it does alone."""
    artifact = write_artifact(tmp_path / "four.onnx", batch=4)
    with open_session(artifact, SessionOptions(backend="onnxruntime", device="cpu", threads=1)) as session:
        expected = session.embed(photos)
    np.testing.assert_array_equal(embed(artifact, photos, tmp_path / "f.npy"), expected)


# The cameras 1 and 3 of a profile, others, and names that tell none.
NAMES = [
    "0001_c1s1_01.jpg",
    "0001_c3s1_02.jpg",
    "-1_c03s2.jpg",
    "0002_c3.jpg",
    "0003_c2s1_01.jpg",
    "0004_c1234567890.jpg",
    "0005_c12345678901234567890.jpg",
    "0006_c0s1.jpg",
    "-2_c1s1.jpg",
    "crop_c1.jpg",
    "0007.jpg",
    "0008_c1_c3.jpg",
    "0009_c1s1.jpg",
]
ON_CPU = SessionOptions(backend="onnxruntime", device="cpu", threads=1, unknown_camera="mean")


@pytest.fixture
def crops(photos: list[Path], tmp_path: Path) -> list[Path]:
    """Thirteen JPEG files, named after people and cameras."""
    (tmp_path / "crops").mkdir()
    paths = [tmp_path / "crops" / name for name in NAMES]
    for photo, path in zip(photos, paths, strict=True):
        shutil.copy(photo, path)
    return paths


def camids_of(paths: list[Path]) -> list[int]:
    """What Python makes of their names."""
    return [labels[1] if (labels := pid_and_camid(path.name)) else UNLABELED for path in paths]


def write_other_weights(artifact: Path, path: Path) -> Path:
    """The same network with weights of its own."""
    model = onnx.load(artifact)
    for weights in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        weights.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy() * 2, weights.name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("with_networks", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_camera_profile_does_as_in_python(
    normalized: bool, with_networks: bool, batch: int | None, crops: list[Path], tmp_path: Path
) -> None:
    """Standardized to 1e-6 alike by the camera of each name, those of others by all; each by its camera's network."""
    artifact = write_artifact(
        tmp_path / "site.onnx", batch, small_manifest(batch).model_copy(update={"normalized": normalized})
    )
    own = write_other_weights(artifact, tmp_path / "site-c3.onnx")
    profile = small_profile(artifact, DIM, networks={2: own} if with_networks else None)
    cameras = write_profile(profile, artifact)
    with open_session(artifact, ON_CPU, cameras=cameras) as session:
        expected = session.embed(crops, camids=camids_of(crops))
    options = ("--cameras", cameras, "--unknown-camera", "mean")
    found = embed(artifact, crops, tmp_path / "f.npy", *options)
    assert np.abs(found - expected).max() <= 1e-6 * max(1.0, float(np.abs(expected).max()))
    for crop, row in zip(crops[:5], expected[:5], strict=True):
        np.testing.assert_allclose(embed(artifact, [crop], tmp_path / "f.npy", *options)[0], row, atol=1e-5)
    plain = embed(artifact, crops, tmp_path / "f.npy")
    assert not np.isclose(found, plain, atol=1e-3).all(axis=1).any()


def test_a_camera_profile_that_changes_nothing_needs_no_cameras(crops: list[Path], tmp_path: Path) -> None:
    """Where standardizing was found to cost more than it gives, embeddings are those of the artifact."""
    artifact = write_artifact(tmp_path / "site.onnx")
    cameras = write_profile(small_profile(artifact, DIM, standardizes=False), artifact)
    found = embed(artifact, crops, tmp_path / "f.npy", "--cameras", cameras)
    np.testing.assert_array_equal(found, embed(artifact, crops, tmp_path / "f.npy"))


def test_a_camera_profile_refuses_what_it_does_not_fit(crops: list[Path], tmp_path: Path) -> None:
    """Unknown cameras, another artifact, a network that has changed or is of another kind: status 2, and no file."""
    artifact, out = write_artifact(tmp_path / "site.onnx"), tmp_path / "f.npy"
    cameras = write_profile(small_profile(artifact, DIM), artifact)
    other = write_other_weights(artifact, tmp_path / "other.onnx")
    known, of_camera_2, of_none = crops[0], crops[4], crops[10]
    profiled = "the camera profile is of cameras 1, 3"
    advice = "--unknown-camera mean (in C: reid_options.unknown_camera_mean = 1)"
    refused: list[tuple[Path, list[Path], list[object], str]] = [
        (artifact, [known, of_camera_2], [], f"{of_camera_2} is of camera 2, and {profiled}."),
        (artifact, [tmp_path / "crops"], [], advice),
        (artifact, [known, of_none], [], f"{of_none} does not tell its camera, and {profiled}."),
        (
            artifact,
            [known],
            ["--unknown-camera", "guess"],
            "--unknown-camera 'guess': expected refuse or mean.",
        ),
        (artifact, [known], ["--cameras", tmp_path / "none.json"], "none.json: cannot be read (No such file"),
        (artifact, [known], ["--cameras", artifact], "the camera profile is not JSON"),
        (other, [known], [], "the profile was measured on the features of site.onnx (sha256 "),
    ]
    for path, paths, options, message in refused:
        done = call("reid_embed", path, *paths, "-o", out, "--cameras", cameras, *options)
        assert (done.returncode, message in done.stderr) == (2, True), (message, done.stderr)
    network = write_artifact(tmp_path / "four.onnx", batch=4)
    write_profile(small_profile(artifact, DIM, networks={2: network}), artifact)
    for problem in (
        f"takes other images or batches than {artifact}",
        "is missing, or not the one that the camera profile was measured with",
    ):
        done = call("reid_embed", artifact, known, "-o", out, "--cameras", cameras)
        message = f"{network}: the network of camera 3 {problem}"
        assert (done.returncode, message in done.stderr) == (2, True), (message, done.stderr)
        network.write_bytes(network.read_bytes() + b"\0")
    assert not out.exists()


def write_mirror(path: Path, preprocess: Preprocess) -> Path:
    """A network that answers with its own input, so that an embedding is what preprocessing made."""
    height, width = preprocess.height_px, preprocess.width_px
    shape = (height, width, 3) if preprocess.layout == "NHWC" else (3, height, width)
    dim, in_graph = height * width * 3, preprocess.in_graph
    tiny = small_manifest()
    manifest = tiny.model_copy(
        update={
            "input": TensorSpec(
                name="images", dtype="uint8" if in_graph else "float32", shape=(None, *shape)
            ),
            "output": TensorSpec(name="f_i", dtype="float32", shape=(None, dim)),
            "architecture": tiny.architecture.model_copy(update={"feature_dim": dim}),
            "preprocess": preprocess,
        }
    )
    dtype = TensorProto.UINT8 if in_graph else TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["f_i"]),
        ],
        "mirror",
        [helper.make_tensor_value_info("images", dtype, ["batch", *shape])],
        [helper.make_tensor_value_info("f_i", TensorProto.FLOAT, ["batch", dim])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, manifest.to_json()
    onnx.save(model, path)
    return path


def write_kinds_of_jpeg(photo: Path, folder: Path) -> list[Path]:
    """A photo in sizes above and below the network's, in every form that cameras and programs write."""
    kinds: dict[str, dict[str, Any]] = {
        "420": {"subsampling": 2},
        "422": {"subsampling": 1},
        "444": {"subsampling": 0, "quality": 97},
        "progressive": {"progressive": True, "quality": 60},
        "restarts": {"restart_marker_blocks": 3},
        "rgb": {"keep_rgb": True},
        "gray": {},
        "turned": {
            "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"
        },
    }
    sizes = [(1, 1), (7, 13), (16, 32), (33, 17), (16, 90), (131, 32), (64, 128), (211, 305)]
    paths = []
    with Image.open(photo) as image:
        for width, height in sizes:
            for kind, options in kinds.items():
                sized = image.convert("L" if kind == "gray" else "RGB").resize((width, height))
                paths.append(folder / f"{width}x{height}_{kind}.jpg")
                sized.save(paths[-1], **options)
    return paths


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "bilinear", "layout": "NHWC", "channel_order": "RGB", "in_graph": True},
        {"resize": "bicubic", "layout": "NCHW", "channel_order": "BGR", "in_graph": True},
        {"resize": "bilinear", "layout": "NCHW", "channel_order": "RGB", "in_graph": False},
        {"resize": "bicubic", "layout": "NHWC", "channel_order": "BGR", "in_graph": False},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_pixels_are_bit_equal(changes: dict[str, Any], photos: list[Path], tmp_path: Path) -> None:
    """Every kind of JPEG, decoded, resized, normalized and laid out, has the same bits in both languages."""
    preprocess = Preprocess(
        height_px=32, width_px=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **changes
    )
    artifact = write_mirror(tmp_path / "mirror.onnx", preprocess)
    paths = write_kinds_of_jpeg(photos[0], tmp_path)
    with open_session(artifact, SessionOptions(backend="onnxruntime", device="cpu", threads=1)) as session:
        expected = session.embed(paths)
    found = embed(artifact, paths, tmp_path / "f.npy")
    different = [path.name for path, a, b in zip(paths, found, expected, strict=True) if not (a == b).all()]
    assert different == []


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_integer_networks_run_like_others(
    exported: Exported, photos: list[Path], drawn_dataset: Dataset, tmp_path: Path, target: QuantizationTarget
) -> None:
    """Both forms of INT8 answer as in Python; TensorRT's is computed as ONNX defines it."""
    artifact = tmp_path / "int8.onnx"
    onnx_from_graph(
        graph_from_checkpoint(load_checkpoint(exported.checkpoint)),
        artifact,
        precision="int8",
        calibration=drawn_dataset.train[0].path.parents[1],
        target=target,
    )
    with open_session(artifact, SessionOptions(backend="onnxruntime", device="cpu", threads=1)) as session:
        expected = session.embed(photos)
    np.testing.assert_allclose(embed(artifact, photos, tmp_path / "f.npy"), expected, atol=1e-6)
    done = call("reid_embed", artifact, photos[0], "-o", tmp_path / "one.npy")
    assert done.returncode == 0
    assert ("int8, as defined, in fp32" in done.stderr) == (target == "tensorrt")


def write_bad_images(photo: Path, folder: Path) -> dict[str, Path]:
    """Images that cannot be read, by what the message must say."""
    whole = photo.read_bytes()
    contents = {
        "the file is empty": b"",
        "not a JPEG file": b"not a picture",
        "the image is damaged": whole[: len(whole) // 2],
        "the image is damaged (": whole[:30] + b"\xff\xd9",
    }
    bad = {"No such file": folder / "missing.jpg", "not a regular file": folder / "folder.jpg"}
    for number, (message, content) in enumerate(contents.items()):
        bad[message] = folder / f"bad{number}.jpg"
        bad[message].write_bytes(content)
    bad["not a regular file"].mkdir()
    with Image.open(photo) as image:
        bad["This runtime reads JPEG only"] = folder / "image.png"
        image.save(folder / "image.png")
        bad["a CMYK image"] = folder / "cmyk.jpg"
        image.convert("CMYK").save(folder / "cmyk.jpg")
    return bad


def test_bad_images_are_named_and_leave_nothing_behind(photos: list[Path], tmp_path: Path) -> None:
    """One bad image among good ones: exit status 2, its name and what is wrong; an older result stays as it was."""
    artifact = write_artifact(tmp_path / "small.onnx")
    out = tmp_path / "out"
    out.mkdir()
    (out / "f.npy").write_text("older")
    for message, path in write_bad_images(photos[0], tmp_path).items():
        if message in ("No such file", "not a regular file"):
            continue  # the program finds these before the library does: see below
        done = call("reid_embed", artifact, photos[0], path, photos[1], "-o", out / "f.npy", "--force")
        assert done.returncode == 2
        assert str(path) in done.stderr and message in done.stderr
    done = call("reid_embed", artifact, tmp_path / "missing.jpg", "-o", out / "f.npy", "--force")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/missing.jpg: no such file or folder.\n")
    assert [path.name for path in out.iterdir()] == ["f.npy"]
    assert (out / "f.npy").read_text() == "older"


def test_ten_thousand_calls_from_four_threads(photos: list[Path], tmp_path: Path) -> None:
    """Files, pixels and bad images in any order from four threads: every answer as from one, nothing leaks or races."""
    artifact = write_artifact(tmp_path / "small.onnx")
    bad = write_bad_images(photos[0], tmp_path)
    done = call("reid_stress", artifact, 10_000, 4, *photos, "--", *bad.values())
    assert (done.returncode, done.stdout) == (0, "10000 calls from 4 threads\n"), done.stderr


def test_wrong_artifacts_are_refused(photos: list[Path], exported: Exported, tmp_path: Path) -> None:
    """A cut model, a wrong manifest or none, a missing runtime: status, what was expected and found, no file."""
    preprocess = small_manifest().preprocess
    whole = exported.onnx.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.onnx").touch()
    write_foreign(tmp_path / "foreign.onnx")
    wrong = {
        "float.onnx": small_manifest(
            input=TensorSpec(name="images", dtype="float32", shape=(None, 32, 16, 3))
        ),
        "size.onnx": small_manifest(preprocess=preprocess.model_copy(update={"width_px": 17})),
        "name.onnx": small_manifest(output=TensorSpec(name="f_t", dtype="float32", shape=(None, 8))),
        "deviation.onnx": small_manifest(preprocess=preprocess.model_copy(update={"std": (1, 0, 1)})),
        "version.onnx": small_manifest(format_version=99),
        "precision.onnx": small_manifest(precision="fp7"),
    }
    for name, manifest in wrong.items():
        write_artifact(tmp_path / name, manifest=manifest)
    (tmp_path / "plan.engine").write_bytes(b"plan")
    for name, status, message in [
        ("cut.onnx", 2, "ONNX Runtime cannot load it"),
        ("empty.onnx", 2, "ONNX Runtime cannot load it"),
        ("nowhere.onnx", 2, "no such file"),
        ("foreign.onnx", 2, "the file carries no manifest"),
        ("float.onnx", 2, "must be uint8, but the manifest says float32"),
        ("size.onnx", 2, "asks for 32x17 images in NHWC"),
        ("name.onnx", 2, "the manifest's output 'f_t' is not in the file, which has 'f_i'"),
        ("deviation.onnx", 2, "std must be positive"),
        ("version.onnx", 2, "format version 99, this reidruntime reads 1"),
        ("precision.onnx", 2, "the manifest is not valid"),
        ("plan.engine", 2, "An engine's manifest is the file beside it"),
    ]:
        done = call("reid_embed", tmp_path / name, photos[0], "-o", tmp_path / "f.npy")
        assert (done.returncode, message in done.stderr) == (status, True), (name, done.stderr)
    small = write_artifact(tmp_path / "small.onnx")
    done = call("reid_embed", small, photos[0], "-o", tmp_path / "f.npy", "--onnxruntime", "/nowhere/lib.so")
    assert done.returncode == 3 and "pip install onnxruntime" in done.stderr
    assert not (tmp_path / "f.npy").exists()


def test_usage_is_answered_with_status_2(photos: list[Path], tmp_path: Path) -> None:
    """Missing and wrong arguments, and a folder that is missing, are named before anything runs."""
    artifact = write_artifact(tmp_path / "small.onnx")
    out = tmp_path / "f.npy"
    for program, *arguments, message in [
        ("reid_embed", "expected ARTIFACT PATH... -o FILE.npy"),
        ("reid_embed", artifact, photos[0], "expected ARTIFACT PATH... -o FILE.npy"),
        (
            "reid_embed",
            artifact,
            photos[0],
            "-o",
            out,
            "--batch",
            "0",
            "--batch '0': expected a whole number",
        ),
        ("reid_embed", artifact, photos[0], "-o", out, "--fast", "see --help"),
        ("reid_embed", artifact, photos[0], "-o", photos[0], "exists. Pass --force to replace it"),
        ("reid_embed", artifact, photos[0], "-o", tmp_path / "no" / "f.npy", "Make the folder"),
        ("reid_embed", artifact, photos[0], "-o", tmp_path, "is not a regular file"),
        ("reid_bench", artifact, "--batch", "1,x", "--batch 'x'"),
        ("reid_bench", artifact, "--seconds", "-1", "--seconds '-1'"),
    ]:
        done = call(str(program), *arguments)
        assert done.returncode == 2 and str(message) in done.stderr, (arguments, done.stderr)
    assert not out.exists()
    for program in ("reid_embed", "reid_bench"):
        assert call(program, "--help").stdout.startswith(f"Usage: {program} ARTIFACT")


def keys_of(value: Any) -> Any:
    """A JSON value with every number and text left out."""
    if isinstance(value, dict):
        return {key: keys_of(part) for key, part in value.items() if key != "versions"}
    if isinstance(value, list):
        return [keys_of(value[0])] if value else []
    return None


def test_bench_writes_the_json_of_reidexport_bench(run: Run, photos: list[Path], tmp_path: Path) -> None:
    """The same keys at every level, in the same order, so that one program reads both."""
    artifact = write_artifact(tmp_path / "small.onnx")
    options = ["--batch", "1,3", "--seconds", "0.1", "--images", str(photos[0].parent)]
    theirs, ours = tmp_path / "python.json", tmp_path / "cpp.json"
    assert run("bench", artifact, *options, "--json", theirs).returncode == 0
    done = call("reid_bench", artifact, *options, "--json", ours)
    assert done.returncode == 0, done.stderr
    python, cpp = (json.loads(path.read_text()) for path in (theirs, ours))
    for report in (python, cpp):
        report.pop("warnings")  # whether there are any depends on the machine's load,
    if python["end_to_end"] is None:  # and so does a comparison with the network alone
        cpp["end_to_end"] = None
    assert json.dumps(keys_of(cpp)) == json.dumps(keys_of(python))
    assert [row["batch_size"] for row in cpp["batches"]] == [1, 3]
    for row in cpp["batches"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert {key: cpp["machine"][key] for key in ("cpu", "cores", "memory_mib")} == {
        key: python["machine"][key] for key in ("cpu", "cores", "memory_mib")
    }


def build_project(source: Path, folder: Path, prefix: Path, *options: str) -> None:
    """Configure and build a project that finds the library under ``prefix``."""
    sanitized = "REIDRUNTIME_SANITIZE:BOOL=ON" in (BUILD / "CMakeCache.txt").read_text()
    flags = "-fsanitize=address,undefined" if sanitized else ""
    for command in (
        ["cmake", "-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}", *options]
        + [f"-DCMAKE_{language}_FLAGS={flags} -Wall -Wextra -Werror" for language in ("C", "CXX")],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# What the Python bindings call each call of the C++ API.
PYTHON_NAMES = {
    "runtime": ("Runtime", {
        "setEngineHostCodeAllowed": "engine_host_code_allowed",
        "deserializeCudaEngine": "deserialize_cuda_engine",
    }),
    "engine": ("ICudaEngine", {
        "createExecutionContext": "create_execution_context",
        "getNbIOTensors": "num_io_tensors",
        "getIOTensorName": "get_tensor_name",
        "getTensorIOMode": "get_tensor_mode",
        "getTensorShape": "get_tensor_shape",
        "getTensorDataType": "get_tensor_dtype",
        "getProfileShape": "get_tensor_profile_shape",
    }),
    "context": ("IExecutionContext", {
        "setTensorAddress": "set_tensor_address",
        "setInputShape": "set_input_shape",
        "enqueueV3": "execute_async_v3",
    }),
}  # fmt: skip
LIST_NAMES = """
import json, tensorrt_bindings as trt
classes = {name: dir(value) for name, value in vars(trt).items() if isinstance(value, type)}
print(json.dumps(classes | {"ILogger.Severity": dir(trt.ILogger.Severity)}))
"""


def names_in_bindings(version: str, folder: Path) -> dict[str, list[str]]:
    """The attributes of every class of TensorRT's real Python bindings, imported on stub libraries."""
    bindings = bindings_folder(version)
    if not bindings.is_dir():
        pytest.skip(f"the bindings of TensorRT {version} are not in {bindings}: make install puts them there")
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = folder / f"lib{name}.so.{version.partition('.')[0]}"
        stubs = ROOT / "tests/standins/tensorrt/stubs.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, stubs], check=True)
    environment = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(bindings)}
    listed = subprocess.run(
        [sys.executable, "-c", LIST_NAMES],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    names: dict[str, list[str]] = json.loads(listed.stdout)
    return names


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tensorrt_call_is_in_both_releases(version: str, tmp_path: Path) -> None:
    """The methods, enum members and entry point that the backend uses are those of the release's own bindings."""
    source = (SOURCES / "src" / "tensorrt_backend.cpp").read_text()
    names = names_in_bindings(version, tmp_path)
    assert ("device_memory_size" in names["ICudaEngine"]) == version.startswith("10."), (
        "not that release's list"
    )
    found = re.findall(r"\b(runtime|engine|context)_?(?:->|\.)(\w+)\(", source)
    calls = {(object_, method) for object_, method in found if method != "reset"}  # that of unique_ptr
    assert calls == {(object_, method) for object_, (_, known) in PYTHON_NAMES.items() for method in known}
    for object_, method in calls:
        kind, known = PYTHON_NAMES[object_]
        assert known[method] in names[kind], f"TensorRT {version} has no {kind}.{method}()"
    for enum, member in re.findall(r"nvinfer1::(DataType|TensorIOMode)::k(\w+)", source):
        assert member in names[enum], f"TensorRT {version} has no {enum}::k{member}"
    assert "ERROR" in names["ILogger.Severity"]
    module = next(bindings_folder(version).rglob("tensorrt*.so"))
    imported = subprocess.run(
        ["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True
    )
    assert "createInferRuntime_INTERNAL" in source and "createInferRuntime_INTERNAL" in imported.stdout


def test_an_installed_library_is_found_and_used(
    exported: Exported, photos: list[Path], tmp_path: Path
) -> None:
    """``cmake --install``, then ``find_package`` from a C++ and from a C project, and the installed program."""
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, capture_output=True)
    with open_session(
        exported.onnx, SessionOptions(backend="onnxruntime", device="cpu", threads=1)
    ) as session:
        a, b = session.embed(photos[:2]).astype(np.float64)

    build_project(SOURCES / "example", tmp_path / "example", prefix)
    done = call(tmp_path / "example" / "similarity", exported.onnx, *photos[:2])
    assert float(done.stdout) == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
    done = call(tmp_path / "example" / "similarity", exported.onnx, photos[0], tmp_path / "missing.jpg")
    assert done.returncode == 1 and "missing.jpg: cannot be read" in done.stderr

    for language, suffix in (("C", "c"), ("CXX", "cpp")):  # the programs of docs/cpp.md
        source, program = tmp_path / suffix, tmp_path / f"{suffix}_build" / "app"
        source.mkdir()
        code = re.findall(rf"```{suffix}\n(.*?)```", (ROOT / "docs" / "cpp.md").read_text(), re.DOTALL)
        (source / f"app.{suffix}").write_text(code[0])
        (source / "CMakeLists.txt").write_text(
            f"cmake_minimum_required(VERSION 3.25)\nproject(app LANGUAGES {language})\n"
            f"find_package(reidruntime 0.2 REQUIRED)\nadd_executable(app app.{suffix})\n"
            "target_link_libraries(app PRIVATE reidruntime::reidruntime)\n"
        )
        build_project(source, program.parent, prefix)
        printed = np.array(call(program, exported.onnx, photos[0]).stdout.split(), np.float64)
        np.testing.assert_allclose(printed, a, rtol=1e-4, atol=1e-5)

    done = call(prefix / "bin" / "reid_embed", exported.onnx, photos[0], "-o", tmp_path / "f.npy")
    assert done.returncode == 0, done.stderr
