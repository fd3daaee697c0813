"""Camera profiles: what a session does with them, and everything that it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reidruntime import ArtifactError, InputError, SessionOptions, open_session
from reidruntime.artifact.camera_profile import manifest_with_profile, profile_from_json, read_camera_profile
from reidruntime.artifact.manifest import Engine, LayerCounts, file_sha256
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.session import DEFAULT_OPTIONS

from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, small_manifest, write_artifact

MEAN = SessionOptions(unknown_camera="mean")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small ONNX file."""
    return write_artifact(tmp_path / "site.onnx")


def pixels(count: int) -> Any:
    """Images that the small network takes as they are."""
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_features_are_standardized_by_the_camera_of_their_image(artifact: Path) -> None:
    """(f - mean) / deviation, in float32 and in the order of the images, whatever the batch size."""
    profile = small_profile(artifact, DIM)
    camids, images = [2, 0, 0, 2, 2], pixels(5)
    with open_session(artifact) as plain:
        features = plain.run(images)
    by_camid = {camera.camid: camera for camera in profile.cameras}
    expected = [
        (row - np.float32(by_camid[camid].mean)) / np.float32(by_camid[camid].deviation)
        for row, camid in zip(features, camids, strict=True)
    ]
    with open_session(artifact, cameras=write_profile(profile, artifact)) as session:
        assert session.camids == (0, 2)
        assert np.array_equal(session.run(images, camids), expected)
        for batch_size in (1, 2, None):
            found = session.embed(list(images), camids=camids, batch_size=batch_size)
            assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert session.manifest == manifest_with_profile(plain.manifest, profile) != plain.manifest


def test_rows_keep_unit_length_where_the_artifact_gives_it(tmp_path: Path) -> None:
    """What is standardized has unit length again where the manifest says that features have."""
    manifest = small_manifest(None).model_copy(update={"normalized": True})
    artifact = write_artifact(tmp_path / "unit.onnx", manifest=manifest)
    with open_session(artifact, cameras=write_profile(small_profile(artifact, DIM), artifact)) as session:
        rows = session.run(pixels(4), [0, 0, 2, 2])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_images_of_unknown_cameras_are_refused_or_get_the_mean(artifact: Path, tmp_path: Path) -> None:
    """By default an error before anything is embedded; on demand what all crops together measured."""
    profile = small_profile(artifact, DIM)
    cameras, images = write_profile(profile, artifact), pixels(3)
    with open_session(artifact, cameras=cameras) as session:
        with pytest.raises(
            InputError, match=r"Image 1 is of camera 2, and the camera profile is of cameras 1, 3"
        ):
            session.embed(list(images), camids=[0, 1, 2])
        missing = tmp_path / "nowhere.jpg"
        with pytest.raises(
            InputError, match=rf"{missing} does not tell its camera.* pass --labels .*--unknown-camera mean"
        ):
            session.embed([missing], camids=[-2])
        with pytest.raises(InputError, match="pass the camera of each image"):
            session.run(images)
        for camids in ([0, 0], [0, 0, 0, 0]):
            with pytest.raises(InputError, match=f"Expected a camid for each of 3 images, got {len(camids)}"):
                session.embed(list(images), camids=camids)
            with pytest.raises(InputError, match=f"Expected a camid for each of 3 images, got {len(camids)}"):
                session.run(images, camids)
    with open_session(artifact) as plain, open_session(artifact, MEAN, cameras=cameras) as session:
        mean, deviation = np.float32(profile.all_crops.mean), np.float32(profile.all_crops.deviation)
        expected = (plain.run(images) - mean) / deviation
        assert np.array_equal(session.run(images, [1, -2, 7]), expected)
        with pytest.raises(InputError, match="camids are for a camera profile"):
            plain.run(images, [0, 0, 0])
    with pytest.raises(InputError, match="unknown_camera must be refuse or mean, got 'guess'"):
        open_session(artifact, replace(DEFAULT_OPTIONS, unknown_camera="guess"))  # type: ignore[arg-type]


def test_a_profile_without_cameras_needs_no_camids(artifact: Path) -> None:
    """Crops that told no camera make one profile for all images."""
    profile = small_profile(artifact, DIM, camids=())
    with open_session(artifact, cameras=write_profile(profile, artifact)) as session:
        assert session.camids == ()
        assert np.array_equal(session.run(pixels(2)), session.run(pixels(2), [5, 0]))


def test_a_profile_that_changes_nothing_leaves_the_manifest(artifact: Path) -> None:
    """Where standardizing was found to cost more than it gives, embeddings are those of the artifact."""
    profile = small_profile(artifact, DIM, standardizes=False)
    with (
        open_session(artifact) as plain,
        open_session(artifact, cameras=write_profile(profile, artifact)) as session,
    ):
        assert session.manifest == plain.manifest
        assert np.array_equal(session.run(pixels(2)), plain.run(pixels(2)))


def test_each_camera_may_have_a_network_of_its_own(artifact: Path, tmp_path: Path) -> None:
    """Images go to the file of their camera, those of others to the artifact; a file that differs is refused."""
    own = write_artifact(
        tmp_path / "site-c3.onnx",
        manifest=small_manifest(None).model_copy(update={"layer_precisions": {"fp32": 7}}),
    )
    profile = small_profile(artifact, DIM, networks={2: own})
    cameras, images = write_profile(profile, artifact), pixels(6)
    with open_session(artifact, cameras=cameras) as session:
        alike = session.run(images, [0, 2, 0, 2, 2, 0])
        (network,) = session._networks.values()
        assert network.manifest.layer_precisions == {"fp32": 7}
        assert np.allclose(alike[1], session.run(images[1:2], [2])[0], rtol=1e-5)
    write_artifact(own, manifest=small_manifest(None).model_copy(update={"flip": True}))
    with pytest.raises(ArtifactError, match=r"takes other images or gives other features than site\.onnx"):
        open_session(
            artifact, cameras=write_profile(small_profile(artifact, DIM, networks={2: own}), artifact)
        )
    own.write_bytes(own.read_bytes() + b"\0")
    with pytest.raises(
        ArtifactError, match=r"site-c3\.onnx: the network of camera 3 is missing, or not the one"
    ):
        open_session(artifact, cameras=cameras)


def test_a_profile_is_bound_to_its_artifact(artifact: Path, tmp_path: Path) -> None:
    """Another file's profile is refused; an engine's is that of the ONNX file it was built from."""
    cameras = write_profile(small_profile(artifact, DIM), artifact)
    other = write_artifact(tmp_path / "other.onnx", batch=2)
    with pytest.raises(ArtifactError, match=r"was measured on the features of site\.onnx .* is another file"):
        open_session(other, cameras=cameras)

    engine = Engine(
        flavor="tensorrt",
        tensorrt_version="10",
        onnx_name="site.onnx",
        onnx_sha256=file_sha256(artifact),
        plan_sha256="0",
        layers=LayerCounts(network={}),
    )
    manifest = artifact_manifest(artifact).model_copy(update={"engine": engine})
    assert read_camera_profile(cameras, tmp_path / "site.engine", manifest).cameras
    narrow = write_profile(small_profile(artifact, DIM - 1), artifact)
    with pytest.raises(ArtifactError, match=f"features of {DIM - 1} elements"):
        open_session(artifact, cameras=narrow)
    with pytest.raises(ArtifactError, match=r"nowhere\.cameras\.json: the camera profile cannot be read"):
        open_session(artifact, cameras=tmp_path / "nowhere.cameras.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 7}, "format version 7, this reidruntime reads 1"),
        ({"artifact": {"name": "../site.onnx", "sha256": ""}}, "artifact.name"),
        ({"standardise": True}, "the camera profile is not valid: standardise"),
        ({"all_crops": {"num_crops": 1, "mean": [0.0], "deviation": [0.0]}}, "greater than 0"),
        ({"all_crops": {"num_crops": 1, "mean": [0.0], "deviation": [1.0]}}, "differ in length"),
        (
            {"cameras": [], "all_crops": {"num_crops": 1, "mean": [1e39], "deviation": [1.0]}},
            "that float32 holds",
        ),
    ],
)
def test_what_is_not_a_profile_is_refused(artifact: Path, change: dict[str, Any], message: str) -> None:
    """The message says what is wrong with the file, and which command writes another."""
    content = json.loads(small_profile(artifact, DIM).to_json()) | change
    with pytest.raises(ArtifactError, match=f"site: .*{message}.*reidexport adapt"):
        profile_from_json(json.dumps(content), "site")


def test_cameras_of_a_profile_are_in_order_and_once(artifact: Path) -> None:
    """A camera that is there twice would have two means."""
    twice = small_profile(artifact, DIM, camids=(1, 1))
    with pytest.raises(ArtifactError, match=r"expected each camera once, in order, got camids \[1, 1\]"):
        profile_from_json(twice.to_json(), "site")
    with pytest.raises(ArtifactError, match="the camera profile is not JSON"):
        profile_from_json(b"\xff", "site")
