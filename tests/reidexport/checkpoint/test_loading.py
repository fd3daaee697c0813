"""What a file says, what is assumed, and what the caller may say instead."""

import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reidruntime.artifact.manifest import IMAGENET_MEAN, Preprocess

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint, save_checkpoint
from reidexport.checkpoint.weights import FORMAT, read_weights
from reidexport.errors import CheckpointError, InputError
from reidexport.models.baseline import BaselineArchitecture, batch_norms
from tests.standins import checkpoints
from tests.standins.state_dicts import (
    Load,
    Weights,
    fast_reid,
    refusal,
    without,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_dtypes_become_float32(dtype: torch.dtype, load: Load, osnet: Weights) -> None:
    """Weights saved in another floating type are loaded as float32."""
    checkpoint = load(
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in osnet.items()}
    )
    assert {value.dtype for value in checkpoint.state_dict.values()} == {torch.float32}
    wanted = osnet["conv1.conv.weight"].to(dtype).float()
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], wanted)


EVERYTHING: dict[str, Any] = {
    "last_stride": 1,
    "stem_relu": False,
    "stem_pool": "2x2",
    "pooling": "gem",
    "gem_p": 2.5,
    "batch_norm_eps": 1e-3,
    "size": (256, 128),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "channel_order": "BGR",
    "resize": "bicubic",
}
OWN = BaselineArchitecture(
    "osnet_x0_25", last_stride=None, neck="bnneck", feature_dim=128, pooling="gem", num_classes=3
)


PREPROCESS = Preprocess(
    height_px=160, width_px=64, resize="bicubic", mean=IMAGENET_MEAN, std=(0.2, 0.3, 0.4), in_graph=True
)


def test_own_format_round_trip(tmp_path: Path) -> None:
    """What save_checkpoint writes comes back whole: architecture, preprocessing, weights; nothing is assumed."""
    path = tmp_path / "model.pth"
    model = checkpoints.drawn_model(OWN)
    save_checkpoint(path, model, PREPROCESS, {"epoch": 7, "format": "not this"})
    checkpoint = load_checkpoint(path)
    assert checkpoint.architecture == OWN
    assert checkpoint.preprocess == PREPROCESS
    assert (checkpoint.family, checkpoint.layout, checkpoint.assumed) == (
        "reidexport",
        "reidexport checkpoint",
        (),
    )
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(checkpoint.state_dict[key], tensor)
    images = torch.randn(2, 3, 160, 64)
    with torch.inference_mode():
        for found, wanted in zip(model_from_checkpoint(checkpoint)(images), model(images), strict=True):
            assert torch.equal(found, wanted)


def test_own_format_is_plain_data(tmp_path: Path) -> None:
    """torch.load reads this project's files with weights_only=True, and finds what was put beside the weights."""
    path = tmp_path / "model.pth"
    save_checkpoint(path, checkpoints.drawn_model(OWN), PREPROCESS, {"epoch": 7, "recipe": {"lr": 3.5e-4}})
    content = torch.load(path, weights_only=True)
    assert (content["format"], content["epoch"], content["recipe"]) == (FORMAT, 7, {"lr": 3.5e-4})
    assert content["architecture"]["backbone"] == "osnet_x0_25"


def test_own_format_keeps_its_name(tmp_path: Path) -> None:
    """Checkpoints say which format they are in by a name that no later version may change, or old ones are lost."""
    path = tmp_path / "model.pth"
    save_checkpoint(path, checkpoints.drawn_model(OWN), PREPROCESS)
    assert torch.load(path, weights_only=True)["format"] == FORMAT == "reidexport.checkpoint.v1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": None}, "its header is not valid"),
        ({"architecture": {"backbone": 3}}, "its header is not valid"),
        ({"preprocess": {"height_px": 256}}, "its header is not valid"),
        ({"state_dict": {}}, "holds no tensors (its keys: nothing)"),
        ({"state_dict": None}, "holds no tensors (its keys: nothing)"),
        (
            {"state_dict": {"backbone.x": torch.ones(2)}},
            "its weights are not those of osnet_x0_25: backbone.conv1",
        ),
        (
            {"architecture": asdict(replace(OWN, backbone="resnet7"))},
            "its backbone 'resnet7' is not known. Known: resnet18, resnet34",
        ),
        (
            {"architecture": asdict(replace(OWN, feature_dim=77))},
            "says a 77-d feature, but its osnet_x0_25 with neck bnneck gives 128",
        ),
        (
            {"architecture": asdict(replace(OWN, feature_dim=-1))},
            "its header says a -1-d feature and 3 classes",
        ),
    ],
)
def test_own_format_damaged(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A file of this project whose header or weights do not fit says what does not fit."""
    path = tmp_path / "model.pth"
    save_checkpoint(path, checkpoints.drawn_model(OWN), PREPROCESS)
    torch.save({**torch.load(path), **change}, path)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    assert words in str(raised.value)


def test_own_format_knows_its_backbone(tmp_path: Path) -> None:
    """--arch of another backbone than the file's own is an error, not ignored."""
    path = tmp_path / "model.pth"
    save_checkpoint(path, checkpoints.drawn_model(OWN), PREPROCESS)
    assert load_checkpoint(path, CheckpointChoices(arch="osnet_x0_25")).architecture == OWN
    with pytest.raises(CheckpointError, match=r"--arch resnet50: the file says that it is osnet_x0_25"):
        load_checkpoint(path, CheckpointChoices(arch="resnet50"))


def test_learned_pooling_power_is_kept(load: Load, resnet18: Weights) -> None:
    """A stored exponent means GeM pooling with that exponent, and SBS's taller input."""
    checkpoint = load({**fast_reid(resnet18), "heads.pool_layer.p": torch.tensor([2.5])})
    assert checkpoint.architecture.pooling == "gem"
    assert checkpoint.state_dict["pool.p"].tolist() == [2.5]
    assert (checkpoint.preprocess.height_px, checkpoint.preprocess.width_px) == (384, 128)


@pytest.mark.parametrize("num_classes", [575, 576, 13164, 30671])
def test_fast_reid_takes_squares_of_vehicles(load: Load, resnet18: Weights, num_classes: int) -> None:
    """As many classes as a data set of vehicles has tell fast-reid's configuration for it; --size says otherwise."""
    weights = {**fast_reid(resnet18), "heads.weight": torch.zeros(num_classes, 512)}
    for more in ({}, {"heads.pool_layer.p": torch.tensor([2.5])}):
        pixels = load({**weights, **more}).preprocess
        assert (pixels.height_px, pixels.width_px) == (256, 256)
    assert load(weights, size=(256, 128)).preprocess.width_px == 128


def test_pooling_can_be_given_where_it_is_open(load: Load, resnet18: Weights) -> None:
    """Without a stored exponent the pooling can be given: GeM gets p = 3."""
    checkpoint = load(fast_reid(resnet18), pooling="gem")
    assert checkpoint.architecture.pooling == "gem"
    assert checkpoint.state_dict["pool.p"].tolist() == [3.0]
    assert load(fast_reid(resnet18), pooling="avg").architecture.pooling == "avg"


def test_assumed_facts_are_listed(load: Load, resnet18: Weights) -> None:
    """What a plain state dict cannot tell is listed, each fact with the option that sets it."""
    checkpoint = load(resnet18)
    assert checkpoint.assumed == tuple(
        f"{fact} (as in reid-strong-baseline; set with {option})"
        for fact, option in (
            ("last stride 1", "--last-stride"),
            ("no ReLU after the stem", "--stem-relu"),
            ("stem pooling 3x3, padded", "--stem-pool"),
            ("average pooling", "--pooling"),
            ("BatchNorm eps 1e-05", "--bn-eps"),
            ("input 256x128 px", "--size"),
            ("mean 0.485, 0.456, 0.406", "--mean"),
            ("std 0.229, 0.224, 0.225", "--std"),
            ("RGB channels", "--channel-order"),
            ("bilinear resizing", "--resize"),
        )
    )
    assert checkpoint.fact_lines[0] == "read: backbone resnet18"
    assert "person-reid-tiny-baseline (--no-stem-relu --stem-pool 2x2)" in checkpoint.fact_lines[-1]


def test_given_facts_are_not_assumed(load: Load, resnet18: Weights) -> None:
    """A fact that is given is taken and leaves the list; the others stay in it."""
    checkpoint = load(resnet18, last_stride=2, size=(192, 96))
    assert checkpoint.architecture.last_stride == 2
    assert (checkpoint.preprocess.height_px, checkpoint.preprocess.width_px) == (192, 96)
    told = [name for name, origin in checkpoint.origins.items() if origin == "told"]
    assert told == ["last_stride", "size"]
    assert "told: last stride 2, input 192x96 px" in checkpoint.fact_lines
    assert load(resnet18, stem_relu=True).architecture.stem_relu is True
    assert load(resnet18, **EVERYTHING).assumed == ()
    assert load(resnet18, **EVERYTHING).lookalikes == ""


def test_every_choice_reaches_the_network(load: Load, resnet18: Weights) -> None:
    """What is told of stem, pooling, eps and pixels is what the rebuilt network and its input have."""
    checkpoint = load(resnet18, **EVERYTHING)
    model = model_from_checkpoint(checkpoint)
    assert model.backbone.get_submodule("maxpool").kernel_size == 2
    assert model.pool.get_parameter("p").tolist() == [2.5]
    assert {norm.eps for norm in batch_norms(model).values()} == {1e-3}
    pixels = checkpoint.preprocess
    assert (pixels.mean, pixels.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (pixels.channel_order, pixels.resize) == ("BGR", "bicubic")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"stem_pool": "2x2"}, "the stem of osnet_x0_25 pools in one way only: leave --stem-pool out"),
        ({"batch_norm_eps": 0.0}, "--bn-eps must be between 0 and 1, got 0.0"),
    ],
)
def test_choices_that_the_network_cannot_have(
    choice: dict[str, Any], message: str, load: Load, osnet: Weights
) -> None:
    """A fact that this network has no place for is refused with the option to leave out."""
    with pytest.raises(InputError, match=re.escape(message)):
        load(osnet, **choice)


def test_fixed_pooling_power_of_agw_is_assumed(load: Load) -> None:
    """fast-reid's AGW, known by its non-local blocks, is given its fixed exponent, and says that it was assumed."""
    checkpoint = load(checkpoints.golden_weights("fr_agw_r50"))
    assert checkpoint.architecture.non_local
    assert "generalized-mean pooling with p = 3 (as in fast-reid; set with --pooling)" in checkpoint.assumed
    assert load(checkpoints.golden_weights("fr_agw_r50"), pooling="avg").architecture.pooling == "avg"


def test_osnet_has_no_last_stride(load: Load, osnet: Weights) -> None:
    """Of an OSNet only pooling, eps and pixels are open."""
    names = [name for name, origin in load(osnet).origins.items() if origin == "assumed"]
    assert names == ["pooling", "batch_norm_eps", "size", "mean", "std", "channel_order", "resize"]


@pytest.mark.parametrize("size", [(0, 128), (-256, 128), (256, 0)])
def test_size_must_be_positive(size: tuple[int, int], load: Load, osnet: Weights) -> None:
    """A size that no image has is an error, not a manifest that nobody can read."""
    with pytest.raises(InputError, match=f"size must be positive, got {size[0]}x{size[1]}"):
        load(osnet, size=size)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("key", ["layer1.0.conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_numbers_name_their_key(
    key: str, bad: float, load: Load, resnet18: Weights
) -> None:
    """NaN, infinity, and a double beyond float32 are refused by key, count and likely cause."""
    tensor = resnet18[f"base.{key}"].double()
    tensor.flatten()[3] = bad
    message = refusal(load, {**resnet18, f"base.{key}": tensor})
    assert f"backbone.{key} holds 1 values that are not finite numbers: the training diverged" in message


def test_nan_in_the_classifier_counts(load: Load, resnet18: Weights) -> None:
    """A diverged classifier is refused too, although the graph does not use it."""
    message = refusal(load, {**resnet18, "classifier.weight": torch.full((10, 512), math.nan)})
    assert "classifier.weight holds 5120 values that are not finite numbers" in message


def test_errors_name_the_file(tmp_path: Path, resnet18: Weights) -> None:
    """Every refusal begins with the file's path."""
    path = tmp_path / "what.pth"
    torch.save(without(resnet18, "base.conv1"), path)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert read_weights(path).layout == "state dict"


def test_a_choice_that_the_network_does_not_leave_is_refused(
    tmp_path: Path, load: Load, osnet: Weights
) -> None:
    """A last stride for OSNet, a stem without ReLU for OSNet: an error, never an option without effect."""
    with pytest.raises(InputError, match="osnet_x0_25 has no last stride to set"):
        load(osnet, last_stride=1)
    with pytest.raises(InputError, match="the stem of osnet_x0_25 always has its ReLU"):
        load(osnet, stem_relu=False)
    assert load(osnet, stem_relu=True).architecture.stem_relu


def test_fast_reids_own_pixel_statistics_are_kept(load: Load, resnet18: Weights) -> None:
    """Older fast-reid checkpoints hold mean and std of their pixels, and those are used."""
    weights = fast_reid(resnet18)
    weights["pixel_mean"] = torch.full((1, 3, 1, 1), 127.5)
    weights["pixel_std"] = torch.full((1, 3, 1, 1), 51.0)
    preprocess = load(weights).preprocess
    assert preprocess.mean == pytest.approx((0.5, 0.5, 0.5))
    assert preprocess.std == pytest.approx((0.2, 0.2, 0.2))
