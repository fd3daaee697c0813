"""Sessions: same answers whatever the backend, the batch or the source of the image; nothing silent."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from reidruntime import (
    ArtifactError,
    EncodedImage,
    ImageError,
    InputError,
    NotInstalledError,
    Session,
    SessionOptions,
    open_session,
)
from reidruntime import backends as backends_module
from reidruntime.artifact.manifest import BatchProfile, Preprocess, TensorSpec
from reidruntime.backends import open_backend
from reidruntime.images.resize import Image8
from reidruntime.session import chosen_batch_size

from tests.conftest import Exported
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, network_of, small_manifest, write_artifact

BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend in turn."""
    pytest.importorskip(request.param)
    return request.param


def people(count: int, seed: int = 0) -> list[Image8]:
    """Noise images of different sizes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*rng.integers(8, 70, 2), 3), dtype=np.uint8) for _ in range(count)]


def test_files_and_arrays_answer_alike(tmp_path: Path, backend: Any) -> None:
    """A path and its pixels have one embedding, in the order given, whatever the batch size."""
    images = people(11)
    mixed: list[Image8 | str | Path] = list(images)
    for index in (2, 7):
        Image.fromarray(images[index]).save(tmp_path / f"{index}.png")
        mixed[index] = tmp_path / f"{index}.png"
    mixed[7] = str(mixed[7])
    done: list[int] = []
    with open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(backend=backend)) as session:
        expected = session.embed(images)
        got = session.embed(mixed, batch_size=4, progress=done.append)
    assert expected.shape == (11, DIM)
    assert expected.dtype == np.float32
    assert np.allclose(got, expected, rtol=1e-5)
    assert done == [4, 8, 11]


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_row_does_not_depend_on_its_batch(tmp_path: Path, backend: Any, batch: int | None) -> None:
    """Alone, permuted, duplicated or in a full batch: the same answer."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, HEIGHT, WIDTH, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(9)
    with open_session(write_artifact(tmp_path / "a.onnx", batch), SessionOptions(backend=backend)) as session:
        together = session.run(pixels)
        assert np.allclose(np.concatenate([session.run(row[None]) for row in pixels]), together, rtol=1e-5)
        assert np.allclose(session.run(pixels[order]), together[order], rtol=1e-5)
        assert np.allclose(session.run(pixels[[3, 3, 3]]), together[[3, 3, 3]], rtol=1e-5)


def test_answers_are_not_overwritten_by_the_next(tmp_path: Path, backend: Any) -> None:
    """Features stay what they were after the session has answered another batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    with open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(backend=backend)) as session:
        first = session.run(pixels)
        kept = first.copy()
        session.run(255 - pixels)
    assert np.array_equal(first, kept)


def test_no_images_give_no_rows(tmp_path: Path, backend: Any) -> None:
    """Empty in, (0, D) out."""
    with open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(backend=backend)) as session:
        assert session.embed([]).shape == (0, DIM)
        assert session.run(np.empty((0, HEIGHT, WIDTH, 3), np.uint8)).shape == (0, DIM)


def test_a_backend_may_prefer_a_batch_size() -> None:
    """It counts where neither the caller nor the artifact says how many images a run takes."""
    sizes: list[int] = []

    class Large:
        preferred_batch = 64

        def run(self, batch: Any) -> Any:
            sizes.append(len(batch))
            return batch[:, 0, :DIM, 0]

        def describe(self) -> str:
            return "large"

    pixels = np.zeros((100, HEIGHT, WIDTH, 3), np.uint8)
    Session(small_manifest(), "onnxruntime", Large(), 1).embed(list(pixels))
    Session(small_manifest(), "onnxruntime", Large(), 1).embed(list(pixels), batch_size=50)
    own = small_manifest(batch_profile=BatchProfile(minimum=1, optimum=40, maximum=60))
    Session(own, "onnxruntime", Large(), 1).embed(list(pixels))
    assert sizes == [64, 36, 50, 50, 40, 40, 20]
    assert chosen_batch_size(small_manifest(), None) == 32


def test_batch_limits_are_kept(tmp_path: Path) -> None:
    """Batches are padded up to the minimum and split at the maximum of the batch profile."""
    sizes: list[int] = []

    class Recorder:
        def run(self, batch: Any) -> Any:
            sizes.append(len(batch))
            return batch[:, 0, :DIM, 0]

        def describe(self) -> str:
            return "recorder"

    manifest = small_manifest(batch_profile=BatchProfile(minimum=3, optimum=4, maximum=5))
    session = Session(manifest, "onnxruntime", Recorder(), 1)
    pixels = np.random.default_rng(0).integers(0, 256, (11, HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert np.array_equal(session.run(pixels), pixels[:, 0, :DIM, 0])
    assert sizes == [5, 5, 3]
    sizes.clear()
    session.embed(list(pixels))
    session.embed(list(pixels), batch_size=100)
    assert sizes == [4, 4, 3, 5, 5, 3]


def test_a_bad_image_is_named_and_stops_the_run(tmp_path: Path) -> None:
    """The error carries the name of the file, or the position of the array."""
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        with pytest.raises(ImageError, match=r"bad\.jpg: not an image"):
            session.embed([*people(40), tmp_path / "bad.jpg", *people(40)], batch_size=8)
        with pytest.raises(ImageError, match="image 2: expected pixels"):
            session.embed([*people(2), np.zeros((5, 5), np.uint8)])
        assert session.embed(people(2)).shape == (2, DIM)


def test_bad_images_can_be_left_out(tmp_path: Path) -> None:
    """With a handler the good images keep their positions and features, also when a whole batch is bad."""
    images: list[Any] = people(9)
    bad: list[int] = []
    for index in (1, 3, 4, 5):
        images[index] = tmp_path / f"{index}.jpg"
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        batches = list(
            session.embed_batches(images, batch_size=3, on_bad_image=lambda index, _: bad.append(index))
        )
        positions = [index for indices, _ in batches for index in indices]
        expected = session.embed([images[index] for index in positions])
    assert positions == [0, 2, 6, 7, 8]
    assert bad == [1, 3, 4, 5]
    assert np.allclose(np.concatenate([rows for _, rows in batches]), expected, rtol=1e-5)


def test_a_stream_is_read_no_further_than_needed(tmp_path: Path) -> None:
    """A generator of images is consumed a few batches ahead, and closed cleanly when abandoned."""
    taken = 0

    def stream() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield people(1)[0]

    with open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(threads=2)) as session:
        batches = session.embed_batches(stream(), batch_size=2)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    assert taken <= 8


def test_description_says_what_computes(tmp_path: Path, backend: Any) -> None:
    """Backend, device, threads, precision and image reading are in one line."""
    with open_session(
        write_artifact(tmp_path / "a.onnx"), SessionOptions(backend=backend, threads=1)
    ) as session:
        name = {"onnxruntime": "ONNX Runtime ", "openvino": "OpenVINO "}[backend]
        assert session.backend == backend
        assert session.description.startswith(name)
        assert "CPU, 1 threads, fp32; decode " in session.description


def test_closed_sessions_and_wrong_calls_are_refused(tmp_path: Path) -> None:
    """A single path, a wrong batch, silly numbers and a closed session all say what is expected."""
    path = write_artifact(tmp_path / "a.onnx")
    with open_session(path) as session:
        with pytest.raises(InputError, match="Expected a list of images"):
            session.embed("a.jpg")
        with pytest.raises(InputError, match=r"uint8 batch of shape \(N, 32, 16, 3\), got float64"):
            session.run(np.zeros((1, HEIGHT, WIDTH, 3)))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="batch_size must be at least 1"):
            session.embed(people(1), batch_size=0)
    with pytest.raises(InputError, match="session is closed"):
        session.embed(people(1))
    with pytest.raises(InputError, match="threads must be at least 1"):
        open_session(path, SessionOptions(threads=0))
    with pytest.raises(InputError, match="no backend 'tflite'"):
        open_session(path, SessionOptions(backend="tflite"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"TensorRT runs engines\. Build one"):
        open_session(path, SessionOptions(backend="tensorrt"))
    with pytest.raises(InputError, match="memory and allow_host_code are for TensorRT engines"):
        open_session(path, SessionOptions(memory="torch"))


def test_an_engine_that_cannot_be_opened_here(tmp_path: Path) -> None:
    """A missing engine, one without its manifest and a backend that runs no engines are refused, in this order."""
    engine = tmp_path / "a.engine"
    with pytest.raises(ArtifactError, match="there is no such file"):
        open_session(engine)
    engine.write_bytes(b"engine")
    with pytest.raises(ArtifactError, match=r"its manifest a\.engine\.json is not beside it"):
        open_session(engine)
    with pytest.raises(InputError, match="a TensorRT engine runs with TensorRT on a GPU"):
        open_session(engine, SessionOptions(backend="openvino"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"input": TensorSpec(name="x", dtype="uint8", shape=(None, HEIGHT, WIDTH, 3))},
            "input 'x' is not in",
        ),
        ({"input": TensorSpec(name="images", dtype="uint8", shape=(4, HEIGHT, WIDTH, 3))}, "static batch 4"),
        ({"input": TensorSpec(name="images", dtype="uint8", shape=(None, 9, 9, 3))}, "asks for 32x16 images"),
        (
            {"input": TensorSpec(name="images", dtype="float32", shape=(None, HEIGHT, WIDTH, 3))},
            "must be uint8",
        ),
        ({"output": TensorSpec(name="f_i", dtype="float16", shape=(None, DIM))}, "has float32"),
        (
            {"output": TensorSpec(name="f_i", dtype="float32", shape=(None, 9))},
            r"expects float32 \[batch, 9\]",
        ),
        ({"output": TensorSpec(name="f_t", dtype="float32", shape=(None, DIM))}, "which has 'f_i'"),
        (
            {"architecture": small_manifest().architecture.model_copy(update={"feature_dim": 9})},
            "says 9 dimensions",
        ),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Names, dtypes and shapes must agree with the file, before any backend loads it."""
    path = write_artifact(tmp_path / "a.onnx", manifest=small_manifest(**changes))
    with pytest.raises(ArtifactError, match=words) as caught:
        open_session(path)
    assert "Export the artifact again" in str(caught.value)


def test_a_static_file_under_a_dynamic_manifest_is_refused(tmp_path: Path) -> None:
    """A fixed batch that the manifest does not know of would fail at the first other batch."""
    path = write_artifact(tmp_path / "a.onnx", batch=1, manifest=small_manifest())
    with pytest.raises(ArtifactError, match=r"expects uint8 \[batch, 32, 16, 3\], the file has uint8 \[1, "):
        open_session(path)


def test_uint8_planes_are_laid_out_and_left_alone() -> None:
    """A uint8 NCHW input gets the pixels as they are, in its own layout."""
    session = Session(
        small_manifest(
            preprocess=Preprocess(
                height_px=HEIGHT, width_px=WIDTH, layout="NCHW", mean=(0, 0, 0), std=(1, 1, 1), in_graph=True
            )
        ),
        "onnxruntime",
        _Echo(),
        1,
    )
    batch = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert np.array_equal(session.run(batch), batch.transpose(0, 3, 1, 2).reshape(2, -1))


class _Echo:
    def run(self, batch: Any) -> Any:
        return batch

    def describe(self) -> str:
        return "echo"


def test_a_missing_backend_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requested backend or device that is not there raises with the pip command, though another is there."""
    path = write_artifact(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        NotInstalledError, match=r'openvino is not installed: pip install "reidexport\[cpu\]"'
    ):
        open_session(path, SessionOptions(backend="openvino"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        NotInstalledError, match=r'onnxruntime is not installed: pip install "reidexport\[cpu\]"'
    ):
        open_session(path, SessionOptions(backend="onnxruntime", device="cpu"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino-bf16", "tensorrt-rtx"])
def test_devices_are_never_ignored(tmp_path: Path, backend: Any) -> None:
    """A device that does not exist is refused by every backend, and the CPU by the one for GPUs only."""
    path = write_artifact(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="There is no device 'gpu'"):
        open_session(path, SessionOptions(backend=backend, device="gpu"))  # type: ignore[arg-type]
    if backend == "tensorrt-rtx":
        with pytest.raises(InputError, match="runs on a GPU, got device cpu"):
            open_session(path, SessionOptions(backend=backend, device="cpu"))


def test_cuda_is_required_when_asked_for(tmp_path: Path) -> None:
    """Device cuda with a CPU build of onnxruntime raises, and OpenVINO has no such device."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    path = write_artifact(tmp_path / "a.onnx")
    with pytest.raises(NotInstalledError, match=r'cannot use CUDA: pip install "reidexport\[gpu\]"'):
        open_session(path, SessionOptions(device="cuda"))
    with pytest.raises(InputError, match="OpenVINO runs on the CPU"):
        open_session(path, SessionOptions(backend="openvino", device="cuda"))


def test_a_run_that_fails_is_the_artifacts_error(tmp_path: Path, backend: Any) -> None:
    """A failure at run time tells the batch size, the backend's words and what to try."""
    network = network_of(write_artifact(tmp_path / "a.onnx", 1), 1)
    _, loaded = open_backend(network, backend, "cpu", 1)
    with pytest.raises(
        ArtifactError, match=r"(?s)a\.onnx: .* failed on a batch of 2: .*Try a smaller or a static"
    ):
        loaded.run(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8))


def test_a_file_that_the_backend_refuses_is_named(tmp_path: Path, backend: Any) -> None:
    """A graph with an unknown operator is the artifact's error, with the backend's words."""
    path = write_artifact(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes().replace(b"GlobalAveragePool", b"GlobalAveragePooX"))
    with pytest.raises(ArtifactError, match=r"a\.onnx: (ONNX Runtime|OpenVINO) cannot load it"):
        open_session(path, SessionOptions(backend=backend))


def test_every_backend_name_is_tested() -> None:
    """A new backend joins the tests of this file."""
    elsewhere = {
        "openvino-bf16",  # below
        "tensorrt",  # test_tensorrt_contract.py
        "tensorrt-rtx",  # test_engines.py
        "torch-cuda",  # test_torch_cuda.py
    }
    assert set(get_args(backends_module.BackendName)) == {"auto", *BACKENDS, *elsewhere}
    assert get_args(backends_module.BackendName) == ("auto", *backends_module.BACKENDS)


def test_bf16_is_computed_where_the_cpu_has_it_and_refused_elsewhere(tmp_path: Path) -> None:
    """Backend openvino-bf16 computes in bfloat16 and says so; a CPU without it is an error, not a float32 answer."""
    openvino = pytest.importorskip("openvino")
    path = write_artifact(tmp_path / "a.onnx")
    images = people(3)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(NotInstalledError, match="This CPU has no bfloat16"):
            open_session(path, SessionOptions(backend="openvino-bf16"))
        return
    with (
        open_session(path, SessionOptions(backend="openvino-bf16")) as session,
        open_session(path) as reference,
    ):
        assert session.backend == "openvino-bf16"
        assert ", bf16 (file: fp32); " in session.description
        features, expected = session.embed(images), reference.embed(images)
    error = np.linalg.norm(features - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 5e-2


def test_bf16_is_for_float_files_on_cpus(tmp_path: Path) -> None:
    """Backend openvino-bf16 refuses a GPU and an INT8 file, which it would not compute in bfloat16."""
    path = write_artifact(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="in bfloat16 on a CPU, got device cuda"):
        open_session(path, SessionOptions(backend="openvino-bf16", device="cuda"))
    network = replace(network_of(path), precision="int8")
    with pytest.raises(InputError, match="in bfloat16 on a CPU, got an INT8 file"):
        open_backend(network, "openvino-bf16", "cpu", 1)


def test_arrays_in_bgr_answer_as_in_rgb(exported: Exported) -> None:
    """channel_order names the order of the arrays alone: files beside them are read as ever."""
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (70, 30, 3), np.uint8)
    exact = rng.integers(0, 256, (64, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "PNG")
    encoded = EncodedImage("crop", file.getvalue())
    with open_session(exported.onnx) as session:
        expected = session.embed([crop, exact, encoded])
        found = session.embed([crop[..., ::-1], exact[..., ::-1], encoded], channel_order="BGR")
        wrong = session.embed([crop[..., ::-1]])
        assert np.array_equal(found, expected)
        assert not np.allclose(wrong[0], expected[0], rtol=0.1)
        with pytest.raises(InputError, match="channel_order must be RGB or BGR, got 'GBR'"):
            session.embed([crop], channel_order="GBR")  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="expected pixels, uint8 of shape"):
            session.embed([crop[..., 0]], channel_order="BGR")
