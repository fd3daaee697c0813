"""``adapt`` and the commands that take its profile: what is written, what is not, and that everything agrees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reidruntime import open_session
from reidruntime.artifact.camera_profile import profile_from_json
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from reidruntime.artifact.own_manifest import artifact_manifest

from reidexport.adaptation.adapt import AdaptationOptions, adapt
from reidexport.adaptation.crops import SiteCrops, find_site_crops
from reidexport.checkpoint.loading import load_checkpoint, save_checkpoint
from reidexport.data import Dataset
from reidexport.data.synthetic import draw_dataset
from reidexport.embed.files import read_gallery
from reidexport.errors import InputError
from reidexport.models import Baseline, BaselineArchitecture
from reidexport.models.timm_backbone import PREFIX
from reidexport.records.adaptation import AdaptationRecord
from reidexport.records.reading import read_record
from tests.conftest import Exported, Run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Enough people for 36 crops of each of two cameras."""
    root = tmp_path_factory.mktemp("site") / "people"
    return draw_dataset(
        root, num_train_pids=18, num_test_pids=3, num_cameras=2, images_per_camera=2, size=(64, 32)
    )


@pytest.fixture(scope="module")
def folder(people: Dataset) -> Path:
    """The folder of the crops."""
    return people.train[0].path.parent


@pytest.fixture(scope="module")
def crops(folder: Path) -> SiteCrops:
    """The same, found."""
    return find_site_crops(folder)


def test_an_untrained_network_is_adapted_and_profiled(
    exported: Exported, crops: SiteCrops, people: Dataset, tmp_path: Path
) -> None:
    """Its statistics are those of no images at all: far from home. The profile takes the means of cameras off."""
    output = tmp_path / "site.onnx"
    found = adapt(load_checkpoint(exported.checkpoint), crops, output, AdaptationOptions(standardize=True))
    assert (found.mix, found.is_needed, found.standardizes) == (0.5, True, True)
    assert [(camera.camid, camera.num_crops) for camera in found.cameras] == [(0, 36), (1, 36)]
    assert any("72 crops are few" in warning for warning in found.warnings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.cameras.json", "site.onnx"]
    manifest = artifact_manifest(output)
    assert manifest.adaptation is not None
    assert (manifest.adaptation.mix, manifest.adaptation.num_crops) == (0.5, 72)
    with open_session(output, cameras=tmp_path / "site.cameras.json") as session:
        rows = session.embed(crops.paths, camids=crops.camids)
        assert session.manifest.sha256 != manifest.sha256
    for camid in (0, 1):  # the means of both cameras are nearly the same now
        assert np.abs(rows[crops.camids == camid].mean(0)).mean() < 0.5
    assert read_record_of(found, tmp_path) == found


def read_record_of(found: AdaptationRecord, folder: Path) -> AdaptationRecord:
    """The record, written and read."""
    from reidexport.records.reading import write_record

    write_record(folder / "found.json", found)
    record = read_record(folder / "found.json")
    assert isinstance(record, AdaptationRecord)
    return record


def test_a_mix_of_nothing_leaves_the_artifact_as_it_is_exported(
    exported: Exported, crops: SiteCrops, tmp_path: Path
) -> None:
    """Without mix and profile, the manifest and the features are those of ``reidexport onnx``."""
    output = tmp_path / "site.onnx"
    found = adapt(
        load_checkpoint(exported.checkpoint), crops, output, AdaptationOptions(mix=0, standardize=False)
    )
    assert found.mix == 0
    with (
        open_session(exported.onnx) as plain,
        open_session(output, cameras=tmp_path / "site.cameras.json") as same,
    ):
        measured = {"parity": None}  # with other numbers of threads, which round otherwise
        assert same.manifest.model_copy(update=measured) == plain.manifest.model_copy(update=measured)
        few = crops.paths[:4]
        assert np.allclose(same.embed(few, camids=crops.camids[:4]), plain.embed(few), rtol=1e-5)


def test_each_camera_may_have_its_own_network(exported: Exported, crops: SiteCrops, tmp_path: Path) -> None:
    """A file for each camera beside the profile, which names them; each answers its own images otherwise."""
    output = tmp_path / "site.onnx"
    found = adapt(load_checkpoint(exported.checkpoint), crops, output, AdaptationOptions(per_camera=True))
    assert [camera.mix for camera in found.cameras] == [0.5, 0.5]
    profile = profile_from_json((tmp_path / "site.cameras.json").read_bytes(), "site")
    assert [camera.network and camera.network.name for camera in profile.cameras] == [
        "site-c1.onnx",
        "site-c2.onnx",
    ]
    few = crops.paths[:2]
    with open_session(output, cameras=tmp_path / "site.cameras.json") as session:
        one, other = (session.embed(few, camids=[camid, camid]) for camid in (0, 1))
    assert not np.allclose(one, other, rtol=1e-2)


def test_each_camera_needs_a_camera(exported: Exported, folder: Path, tmp_path: Path) -> None:
    """Where crops tell none, a network for each is refused; and a folder that is not there, before any work."""
    checkpoint, nobody = load_checkpoint(exported.checkpoint), find_site_crops(folder, ignore_cameras=True)
    with pytest.raises(InputError, match="The crops tell no camera"):
        adapt(checkpoint, nobody, tmp_path / "site.onnx", AdaptationOptions(per_camera=True))
    with pytest.raises(InputError, match="does not exist"):
        adapt(checkpoint, nobody, tmp_path / "nowhere" / "site.onnx")


def test_a_networks_tracks_can_speak_against_it(
    exported: Exported, crops: SiteCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where adapted statistics separate the site's tracks worse, all networks keep their own."""
    monkeypatch.setattr("reidexport.adaptation.adapt._separation_as_it_is", lambda *_: 1e3)
    monkeypatch.setattr("reidexport.adaptation.free_pairs.FEWEST_PAIRS", 10)
    options = AdaptationOptions(per_camera=True)
    record = adapt(load_checkpoint(exported.checkpoint), crops, tmp_path / "site.onnx", options)
    assert (record.mix, record.own_networks) == (0, ())
    assert record.advice[0].startswith("The site is far from home, but its own tracks are told apart worse")
    assert record.pairs is not None
    assert record.pairs.separations["as it is"] > record.pairs.separations["adapted"]
    assert artifact_manifest(tmp_path / "site.onnx").adaptation is None
    assert not list(tmp_path.glob("site-c*.onnx"))


def test_int8_is_calibrated_on_the_crops(exported: Exported, crops: SiteCrops, tmp_path: Path) -> None:
    """With the gate of every INT8 file; the profile is of its own features."""
    adapt(
        load_checkpoint(exported.checkpoint),
        crops,
        tmp_path / "site.onnx",
        AdaptationOptions(precision="int8"),
    )
    quantization = artifact_manifest(tmp_path / "site.onnx").quantization
    assert quantization is not None
    assert quantization.num_calibrated_images + quantization.num_held_out_images == len(crops.paths)
    with open_session(tmp_path / "site.onnx", cameras=tmp_path / "site.cameras.json") as session:
        assert session.precision == "int8"


def test_nothing_is_written_where_something_fails(
    exported: Exported, crops: SiteCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of an earlier site stay as they were, and no half of the new ones is left."""
    (tmp_path / "site.onnx").write_text("earlier")

    def fail(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr("reidexport.adaptation.adapt._profile", fail)
    with pytest.raises(InputError, match="the disk is full"):
        adapt(load_checkpoint(exported.checkpoint), crops, tmp_path / "site.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["site.onnx"]
    assert (tmp_path / "site.onnx").read_text() == "earlier"


def test_a_network_without_batch_norms_can_only_be_profiled(crops: SiteCrops, tmp_path: Path) -> None:
    """It says so where more is asked for."""
    torch.manual_seed(0)
    architecture = BaselineArchitecture(f"{PREFIX}convnext_atto", None, neck="none", feature_dim=320)
    path = tmp_path / "convnext.pth"
    preprocess = Preprocess(height_px=64, width_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=False)
    save_checkpoint(path, Baseline(architecture), preprocess)
    checkpoint = load_checkpoint(path)
    with pytest.raises(InputError, match=r"convnext\.pth has no BatchNorm, whose statistics could be mixed"):
        adapt(checkpoint, crops, tmp_path / "site.onnx", AdaptationOptions(per_camera=True))
    found = adapt(checkpoint, crops, tmp_path / "site.onnx", AdaptationOptions(standardize=True))
    assert (found.site.divergence, found.mix, found.standardizes) == (None, 0, True)


def test_commands_take_the_profile(
    exported: Exported,
    folder: Path,
    people: Dataset,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """adapt, then eval, embed, search and verify with --cameras; a gallery refuses what was made without."""
    monkeypatch.chdir(tmp_path)
    done = run(
        "adapt", exported.checkpoint, folder, "-o", "site.onnx", "--standardize", "--json", "adapt.json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "how far the crops are from what the BatchNorms recorded" in done.stdout
    assert "Adapted: 50% of the BatchNorm statistics are the site's." in done.stdout
    assert json.loads(Path("adapt.json").read_text())["kind"] == "adaptation"
    Path("other-c2.onnx").write_text("mine")
    kept = run("adapt", exported.checkpoint, folder, "-o", "other.onnx", "--per-camera")
    assert kept.returncode == 2
    assert "other-c2.onnx: exists" in kept.stderr
    refused = run("adapt", exported.checkpoint, folder, "-o", "site.onnx")
    assert refused.returncode == 2
    assert "exists" in refused.stderr
    root, profile = people.query[0].path.parents[1], ("--cameras", "site.cameras.json")
    scores = {}
    for name, options in (("plain", ()), ("profile", profile)):
        assert run("eval", "site.onnx", "--data", root, *options, "--json", f"{name}.json").returncode == 0
        scores[name] = json.loads(Path(f"{name}.json").read_text())
    assert scores["plain"]["manifest_sha256"] != scores["profile"]["manifest_sha256"]
    assert scores["plain"]["mAP"] != scores["profile"]["mAP"]
    gallery = people.gallery[0].path.parent
    assert run("embed", "site.onnx", gallery, "-o", "site.gallery", *profile).returncode == 0
    query = people.query[0].path
    found = run("search", "site.gallery", query, "--artifact", "site.onnx", *profile, "-k", "1")
    assert found.returncode == 0, found.stderr
    mixed = run("search", "site.gallery", query, "--artifact", "site.onnx")
    assert mixed.returncode == 2
    assert "or with another camera profile: their distances mean nothing" in mixed.stderr
    verified = run("verify", "site.onnx", "--reference", "site.onnx", "--images", gallery, *profile)
    assert verified.returncode == 0, verified.stderr
    against = run("verify", "site.onnx", "--reference", exported.checkpoint, "--images", gallery)
    assert against.returncode == 2
    assert "The candidate was adapted to a site, so it does not answer as the checkpoint" in against.stderr
    checkpoint = run("eval", exported.checkpoint, "--data", root, *profile)
    assert checkpoint.returncode == 2
    assert "is a checkpoint, and a camera profile belongs to the file" in checkpoint.stderr


def test_cameras_of_a_table_are_those_of_the_images(
    exported: Exported,
    folder: Path,
    people: Dataset,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names that tell no camera get it from --labels; without, the image is named and refused, or gets the mean."""
    monkeypatch.chdir(tmp_path)
    options = ("--cameras", "site.cameras.json")
    assert run("adapt", exported.checkpoint, folder, "-o", "site.onnx", "--standardize").returncode == 0
    Path("crops").mkdir()
    for number, record in enumerate(people.query[:4]):
        Path(f"crops/{number}.jpg").write_bytes(record.path.read_bytes())
    lines = [f"crops/{number}.jpg,{record.camid + 1}" for number, record in enumerate(people.query[:4])]
    Path("labels.csv").write_text("\n".join(["path,camera", *lines]))
    refused = run("embed", "site.onnx", "crops", "-o", "no.npz", *options)
    assert refused.returncode == 2
    assert "crops/0.jpg does not tell its camera, and the camera profile is of cameras 1, 2" in refused.stderr
    assert not any(path.name.startswith("no.npz") for path in Path().iterdir())
    assert (
        run("embed", "site.onnx", "crops", "-o", "told.npz", *options, "--labels", "labels.csv").returncode
        == 0
    )
    assert (
        run("embed", "site.onnx", "crops", "-o", "mean.npz", *options, "--unknown-camera", "mean").returncode
        == 0
    )
    told, mean = (np.load(f"{name}.npz") for name in ("told", "mean"))
    with open_session("site.onnx", cameras="site.cameras.json") as session:
        expected = session.embed(
            [record.path for record in people.query[:4]], camids=[record.camid for record in people.query[:4]]
        )
    assert np.allclose(told["embeddings"], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(mean["embeddings"], expected, rtol=1e-2)
    assert told["manifest_sha256"] == mean["manifest_sha256"]
    search = ("search", "told.npz", "crops/0.jpg", "--artifact", "site.onnx", *options, "-k", "1")
    assert "crops/0.jpg does not tell its camera" in run(*search).stderr
    assert run(*search, "--unknown-camera", "mean").returncode == 0
    assert (
        run("embed", "site.onnx", "crops", "-o", "parts", *options, "--labels", "labels.csv").returncode == 0
    )
    parts = read_gallery(Path("parts"))
    assert np.allclose(parts.embeddings(np.arange(4)), told["embeddings"], rtol=1e-4, atol=1e-5)
