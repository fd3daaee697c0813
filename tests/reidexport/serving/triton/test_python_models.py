"""The models for Triton's Python backend, called as it calls them, with a stand-in for Triton's own module."""

import importlib
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.camera_profile import CameraProfile, UnknownCamera
from tritonclient.grpc import model_config_pb2 as schema

from reidexport.serving.triton.config import Batching, Ports, ServerOptions, session_network
from reidexport.serving.triton.repository import warm_up_images, write_models, write_repository
from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, small_manifest, write_artifact

Load = Callable[[Path, str], Any]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request or a response."""

    name: str
    values: Any

    def as_numpy(self) -> Any:
        """Its values."""
        return self.values


@dataclass(frozen=True)
class TritonError:
    """An error, of no particular kind or for what the request holds."""

    INVALID_ARG: ClassVar[str] = "invalid"

    message: str
    code: str = "internal"


@dataclass(frozen=True)
class InferenceResponse:
    """A response: tensors or an error."""

    output_tensors: Any = ()
    error: TritonError | None = None


def get_input_tensor_by_name(request: dict[str, Any], name: str) -> Tensor:
    """The tensor of a request, which is a dictionary of arrays here."""
    return Tensor(name, request[name])


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """What loads a model of a repository by the name of its module, as Triton does."""
    triton = ModuleType("triton_python_backend_utils")
    for part in (Tensor, TritonError, InferenceResponse, get_input_tensor_by_name):
        setattr(triton, part.__name__, part)
    monkeypatch.setitem(sys.modules, triton.__name__, triton)

    def loaded(folder: Path, module: str) -> Any:
        config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        model = importlib.import_module(f"reidruntime.triton.{module}").TritonPythonModel()
        as_json = json_format.MessageToJson(config, preserving_proto_field_name=True)
        model.initialize({"model_config": as_json, "model_repository": str(folder), "model_version": "1"})
        return model

    return loaded


def pixels(count: int) -> Any:
    """Images that the small network takes as they are."""
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def camid_tensor(*camids: int) -> Any:
    """Of a request's images, as Triton hands them over."""
    return np.array(camids, np.int32).reshape(-1, 1)


def served(folder: Path, profile: CameraProfile, artifact: Path, unknown: UnknownCamera) -> Path:
    """The model that ``serve`` writes for a network with a profile."""
    cameras = write_profile(profile, artifact)
    session = SessionOptions("onnxruntime", "cpu", 1, unknown_camera=unknown)
    options = ServerOptions(
        host="127.0.0.1",
        ports=Ports(0, 0, 0),
        max_request_bytes=1,
        batching=Batching(),
        session=session,
        cameras=cameras,
    )
    with open_session(artifact, session, cameras=cameras) as opened:
        manifest, camids = opened.manifest, opened.camids
    network = session_network("a", manifest, artifact, options, takes_camids=bool(camids))
    write_models(folder, network, manifest, warm_up_images(), None, camids=camids)
    return folder / "a"


def features_of(responses: list[Any]) -> list[Any]:
    """The features of each response, or None where it is an error."""
    return [None if each.error else each.output_tensors[0].as_numpy() for each in responses]


def expected_features(
    artifact: Path, images: Any, camids: list[int], unknown: UnknownCamera = "refuse"
) -> Any:
    """What a session with the profile beside the artifact answers."""
    options = SessionOptions("onnxruntime", "cpu", 1, unknown_camera=unknown)
    with open_session(artifact, options, cameras=artifact.with_suffix(".cameras.json")) as session:
        return session.run(images, camids)


def test_a_served_network_takes_the_camera_of_each_image(tmp_path: Path, load: Load) -> None:
    """Requests are answered together as a session answers them; one with an unknown camera alone is refused."""
    artifact = write_artifact(tmp_path / "a.onnx")
    model = load(served(tmp_path / "models", small_profile(artifact, DIM), artifact, "refuse"), "network")
    images = pixels(6)
    requests = [
        {"images": images[:2], "camid": camid_tensor(2, 0)},
        {"images": images[2:4], "camid": camid_tensor(0, 1)},
        {"images": images[4:], "camid": camid_tensor(0, 2)},
    ]
    responses = model.execute(requests)
    first, refused, last = features_of(responses)
    expected = expected_features(artifact, images[[0, 1, 4, 5]], [2, 0, 0, 2])
    np.testing.assert_allclose(np.concatenate([first, last]), expected, rtol=1e-5, atol=1e-6)
    assert refused is None and responses[1].error.code == TritonError.INVALID_ARG
    assert responses[1].error.message.startswith(
        "Image 1 is of camera 2, and the camera profile is of cameras 1, 3"
    )
    assert features_of(model.execute(requests[1:2])) == [None]
    model.finalize()


def test_a_served_network_takes_the_mean_for_unknown_cameras(tmp_path: Path, load: Load) -> None:
    """Where that is the option, no request is refused."""
    artifact = write_artifact(tmp_path / "a.onnx")
    model = load(served(tmp_path / "models", small_profile(artifact, DIM), artifact, "mean"), "network")
    (found,) = features_of(model.execute([{"images": pixels(3), "camid": camid_tensor(1, -1, 2)}]))
    np.testing.assert_array_equal(found, expected_features(artifact, pixels(3), [1, -1, 2], "mean"))


@pytest.mark.parametrize("standardizes", [True, False])
def test_a_served_network_needs_no_camids_without_cameras(
    tmp_path: Path, load: Load, standardizes: bool
) -> None:
    """Neither for a profile of all images alike, nor for one that changes nothing."""
    artifact = write_artifact(tmp_path / "a.onnx")
    profile = small_profile(
        artifact, DIM, camids=(0, 2) if not standardizes else (), standardizes=standardizes
    )
    model = load(served(tmp_path / "models", profile, artifact, "refuse"), "network")
    (found,) = features_of(model.execute([{"images": pixels(3)}]))
    np.testing.assert_array_equal(found, expected_features(artifact, pixels(3), [0, 0, 0]))


def test_a_network_that_fails_fails_for_all(tmp_path: Path, load: Load) -> None:
    """Every request of the batch gets the error, which is none of its own."""
    artifact = write_artifact(tmp_path / "a.onnx")
    model = load(served(tmp_path / "models", small_profile(artifact, DIM, ()), artifact, "refuse"), "network")
    model.finalize()
    responses = model.execute([{"images": pixels(1)}, {"images": pixels(2)}])
    assert [each.error.code for each in responses] == ["internal"] * 2
    assert "The session is closed" in responses[0].error.message


def test_a_served_network_is_warmed_up_with_cameras_of_the_profile(tmp_path: Path) -> None:
    """Others would be refused, and the model not be loaded; the ensemble takes them too."""
    artifact = write_artifact(tmp_path / "a.onnx")
    folder = served(tmp_path / "models", small_profile(artifact, DIM, (3, 5)), artifact, "refuse")
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("images", schema.TYPE_UINT8, [HEIGHT, WIDTH, 3]),
        ("camid", schema.TYPE_INT32, [1]),
    ]
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    files = [sample.inputs["camid"].input_data_file for sample in config.model_warmup]
    assert [(folder / "warmup" / file).read_bytes() for file in files] == [
        struct.pack("<i", camid) for camid in (3, 5)
    ]
    ensemble = text_format.Parse(
        (folder.with_name("a_jpeg") / "config.pbtxt").read_text(), schema.ModelConfig()
    )
    assert [each.name for each in ensemble.input] == ["jpeg", "camid"]
    assert dict(ensemble.ensemble_scheduling.step[1].input_map) == {"images": "images", "camid": "camid"}


@pytest.mark.parametrize("normalized", [True, False])
def test_features_of_a_network_are_standardized_as_by_a_session(
    tmp_path: Path, load: Load, normalized: bool
) -> None:
    """Bit for bit, with unit length where the artifact gives it; only the request with an unknown camera is refused."""
    artifact = write_artifact(tmp_path / "a.onnx", manifest=small_manifest(normalized=normalized))
    cameras = write_profile(small_profile(artifact, DIM), artifact)
    write_repository([artifact], tmp_path / "models", cameras=cameras)
    model = load(tmp_path / "models" / "a_onnx_cameras", "standardize")
    with open_session(artifact, SessionOptions("onnxruntime", "cpu", 1)) as session:
        raw = session.run(pixels(4))
    responses = model.execute(
        [
            {"raw_f_i": raw[:1], "camid": camid_tensor(5)},
            {"raw_f_i": raw, "camid": camid_tensor(2, 0, 0, 2)},
        ]
    )
    refused, found = features_of(responses)
    np.testing.assert_array_equal(found, expected_features(artifact, pixels(4), [2, 0, 0, 2]))
    assert refused is None and responses[0].error.code == TritonError.INVALID_ARG
    assert responses[0].error.message.startswith(
        "Image 0 is of camera 6, and the camera profile is of cameras 1, 3"
    )


def test_features_are_standardized_without_cameras_and_in_static_batches(tmp_path: Path, load: Load) -> None:
    """By the mean of all, where the profile has no cameras, or the option says so; a camid each in a batch of four."""
    artifact = write_artifact(tmp_path / "a.onnx", batch=4)
    with open_session(artifact, SessionOptions("onnxruntime", "cpu", 1)) as session:
        raw = session.run(pixels(4))
    for name, camids, request in (
        ("alike", (), {"raw_f_i": raw}),
        ("apart", (0, 2), {"raw_f_i": raw, "camid": np.array([0, 2, 7, -1], np.int32)}),
    ):
        cameras = write_profile(small_profile(artifact, DIM, camids), artifact)
        write_repository([artifact], tmp_path / name, cameras=cameras, unknown_camera="mean")
        (found,) = features_of(load(tmp_path / name / "a_onnx_cameras", "standardize").execute([request]))
        expected = expected_features(artifact, pixels(4), [0, 2, 7, -1], "mean")
        np.testing.assert_array_equal(found, expected)
