"""Folders that roboflow's reid saved, read as checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from reidruntime import open_session
from torch import Tensor

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint
from reidexport.data.synthetic import draw_people
from reidexport.errors import CheckpointError, InputError
from reidexport.evaluation.opening import open_any, open_reference
from reidexport.export.graph import graph_from_checkpoint
from tests.conftest import Run
from tests.standins.checkpoints import golden_cases, golden_weights, seeded_weights, write_reid_folder

VIT: dict[str, Any] = {
    "architecture": "timm:test_vit",
    "preprocessing": {
        "input_size": [160, 160],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.5, 0.5],
        "interpolation": "bicubic",
        "to_rgb": True,
        "resize_mode": "stretch",
        "pad_value": 114,
    },
}


def timm_weights(name: str) -> dict[str, Tensor]:
    """Drawn weights of a network of timm without a classifier."""
    network = timm.create_model(name, pretrained=False, num_classes=0)
    return seeded_weights({key: list(value.shape) for key, value in network.state_dict().items()}, 0)


@pytest.fixture(scope="module")
def vit_weights() -> dict[str, Tensor]:
    """Of timm's smallest vision transformer."""
    return timm_weights("test_vit")


@pytest.fixture
def vit_folder(tmp_path: Path, vit_weights: dict[str, Tensor]) -> Path:
    """A whole folder of it."""
    folder = tmp_path / "my-reid"
    folder.mkdir()
    return write_reid_folder(folder, vit_weights, VIT)


def changed(folder: Path, config: dict[str, Any] | str) -> Path:
    """The folder with another config."""
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "reid_config.json").write_text(text)
    return folder


def with_pixels(**pixels: Any) -> dict[str, Any]:
    """The transformer's config with other images."""
    return {**VIT, "preprocessing": {**VIT["preprocessing"], **pixels}}


def test_everything_is_read_from_the_folder(vit_folder: Path) -> None:
    """The config says all facts: the network, and size, mean, std, channels and kernel of its images."""
    checkpoint = load_checkpoint(vit_folder)
    assert (checkpoint.family, checkpoint.name) == ("roboflow reid", "my-reid")
    assert set(checkpoint.origins.values()) == {"read"}
    pixels = checkpoint.preprocess
    assert (pixels.height_px, pixels.width_px, pixels.resize) == (160, 160, "bicubic")
    assert (pixels.mean, pixels.std, pixels.channel_order) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5), "RGB")
    assert checkpoint.architecture.backbone == "timm/test_vit"
    assert checkpoint.lookalikes == ""


def test_a_timm_network_answers_as_timm_itself(vit_folder: Path, vit_weights: dict[str, Tensor]) -> None:
    """What is simplified for the export gives timm's own embedding, pooled as its head does."""
    network = timm.create_model("test_vit", pretrained=False, num_classes=0)
    network.load_state_dict(vit_weights)
    images = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        f_t, _ = model_from_checkpoint(load_checkpoint(vit_folder))(images)
        torch.testing.assert_close(f_t, network.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_efficientnet", "test_vit2", "repvgg_a0"]
)
def test_heads_with_layers_behind_the_pooling_are_kept(name: str, tmp_path: Path) -> None:
    """Convolutional networks and transformers of other poolings are folded into what timm answers."""
    weights = timm_weights(name)
    write_reid_folder(tmp_path, weights, {**VIT, "architecture": f"timm:{name}"})
    network = timm.create_model(name, pretrained=False, num_classes=0)
    network.load_state_dict(weights)
    graph = graph_from_checkpoint(load_checkpoint(tmp_path))
    pixels = graph.example(2)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ((0.5,) * 3, (0.25, 0.5, 0.5)))
    with torch.inference_mode():
        wanted = network.eval()((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
        torch.testing.assert_close(graph(pixels), wanted, rtol=1e-3, atol=1e-3)


def test_what_the_config_leaves_out_is_assumed(vit_folder: Path) -> None:
    """Older configs state less: reid's defaults are taken, and called assumed with their options."""
    changed(vit_folder, {"architecture": "timm:test_vit", "preprocessing": {"input_size": [160, 160]}})
    checkpoint = load_checkpoint(vit_folder)
    assert {name for name, origin in checkpoint.origins.items() if origin == "assumed"} == {
        *("mean", "std", "channel_order", "resize")
    }
    assert "mean 0.485, 0.456, 0.406 (as in roboflow reid; set with --mean)" in checkpoint.assumed


def test_frames_that_stay_as_they_are_leave_the_channels_open(vit_folder: Path) -> None:
    """``to_rgb`` false says nothing of image files, which are RGB: the order is assumed."""
    checkpoint = load_checkpoint(changed(vit_folder, with_pixels(to_rgb=False)))
    assert (checkpoint.preprocess.channel_order, checkpoint.origins["channel_order"]) == ("RGB", "assumed")


def test_a_stated_fact_overrides_the_config(vit_folder: Path) -> None:
    """Options win, and say so."""
    checkpoint = load_checkpoint(vit_folder, CheckpointChoices(mean=(0.0, 0.0, 0.0), resize="bilinear"))
    assert (checkpoint.preprocess.mean, checkpoint.preprocess.resize) == ((0.0, 0.0, 0.0), "bilinear")
    assert (checkpoint.origins["mean"], checkpoint.origins["resize"]) == ("told", "told")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("not JSON", "its reid_config.json is not one of roboflow's reid: Expecting value"),
        ("[" * 100_000, "its reid_config.json is not one of roboflow's reid: "),
        (" " * (2 << 20), "its reid_config.json is longer than 1048576 bytes"),
        ({"preprocessing": {}}, "reid_config.json is not one of roboflow's reid: architecture: Field required"),
        ({**VIT, "architecture": "osnet_x9"}, "names the network 'osnet_x9', which is not known here"),
        ({**VIT, "architecture": "timm:no_such"}, "names the network 'timm:no_such', which is not known here"),
        ({**VIT, "architecture": "timm:hf-hub:some/one"}, "'timm:hf-hub:some/one', which is not known here"),
        ({**VIT, "architecture": "timm:crossvit_tiny_240"}, "does not take its images by one convolution"),
        ({**VIT, "architecture": "timm:test_resnet"}, "says that it is timm:test_resnet, but its weights are others"),
        ({**VIT, "architecture": "osnet_x0_25"}, "says that it is osnet_x0_25, but its weights are others"),
        (with_pixels(resize_mode="letterbox"), "fitted into the size with gray borders (resize_mode letterbox)"),
        (with_pixels(resize_mode="crop"), "preprocessing.resize_mode: Input should be 'stretch' or 'letterbox'"),
        (with_pixels(interpolation="nearest"), "resized by the nearest pixel (interpolation nearest)"),
        (with_pixels(input_size=[160]), "preprocessing.input_size"),
        (with_pixels(input_size=[0, 160]), "states images that cannot be: height_px"),
        (with_pixels(std=[0, 1, 1]), "states images that cannot be: "),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_used_are_refused(
    vit_folder: Path, config: dict[str, Any] | str, words: str
) -> None:
    """Each in words that say what is wrong; nothing is downloaded by the name of a network."""
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(changed(vit_folder, config))
    assert words in str(raised.value)
    assert str(vit_folder) in str(raised.value)


def test_a_kernel_may_be_stated_for_the_nearest_pixel(vit_folder: Path) -> None:
    """What the message advises."""
    folder = changed(vit_folder, with_pixels(interpolation="nearest"))
    assert load_checkpoint(folder, CheckpointChoices(resize="bilinear")).preprocess.resize == "bilinear"


def test_another_size_than_the_networks_own_is_refused(tmp_path: Path) -> None:
    """Most of timm's transformers take images of one size, as in reid itself."""
    config = {**with_pixels(input_size=[256, 128]), "architecture": "timm:vit_tiny_patch16_224"}
    checkpoint = load_checkpoint(write_reid_folder(tmp_path, timm_weights("vit_tiny_patch16_224"), config))
    with pytest.raises(
        InputError, match=r"cannot take images of 256x128 px: Input height \(256\) doesn't match"
    ):
        graph_from_checkpoint(checkpoint)


def test_another_arch_is_refused(vit_folder: Path) -> None:
    """The folder says what it is."""
    with pytest.raises(
        CheckpointError, match=r"--arch resnet50: its reid_config\.json says that it is timm:test_vit"
    ):
        load_checkpoint(vit_folder, CheckpointChoices(arch="resnet50"))


def test_weights_must_be_there_and_safe(vit_folder: Path) -> None:
    """A missing file, a Git LFS pointer and a pickle under its name are refused."""
    weights = vit_folder / "weights.safetensors"
    weights.unlink()
    with pytest.raises(
        CheckpointError, match=r"a folder of roboflow's reid without its weights\.safetensors"
    ):
        load_checkpoint(vit_folder)
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="this is a Git LFS pointer"):
        load_checkpoint(vit_folder)
    torch.save({"a": torch.ones(2)}, weights)
    with pytest.raises(CheckpointError, match=r"its weights\.safetensors is not a safetensors file"):
        load_checkpoint(vit_folder)


def test_prefixes_that_reid_itself_drops_are_dropped(tmp_path: Path) -> None:
    """``model.``, ``module.`` and a classifier in the file do not matter, as in its own loader."""
    weights = {f"module.model.{key}": tensor for key, tensor in golden_weights("rf_osnet_x0_25").items()}
    weights["classifier.weight"] = torch.ones(4, 512)
    config = golden_cases()["rf_osnet_x0_25"]["config"]
    checkpoint = load_checkpoint(write_reid_folder(tmp_path, weights, config))
    assert (checkpoint.architecture.backbone, checkpoint.architecture.neck) == ("osnet_x0_25", "fc")
    assert checkpoint.feature == "f_i"


def test_a_folder_goes_the_whole_way(run: Run, vit_folder: Path, tmp_path: Path) -> None:
    """Exported beside itself, opened as a checkpoint, and taken as the reference of its export."""
    done = run("onnx", vit_folder)
    assert done.returncode == 0, done.stderr
    assert "read: backbone timm/test_vit" in done.stderr
    assert "assumed" not in done.stdout + done.stderr
    file = tmp_path / "my-reid.onnx"
    people = draw_people(3)
    with open_session(file) as artifact:
        with open_reference(vit_folder, artifact.manifest) as reference:
            torch.testing.assert_close(artifact.embed(people), reference.embed(people), rtol=1e-3, atol=1e-3)
        assert artifact.manifest.source.sha256 == load_checkpoint(vit_folder).sha256
    with open_any(vit_folder) as session:
        assert session.backend == "torch"
