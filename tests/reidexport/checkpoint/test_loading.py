"""Every layout in which weights are found, what is told and what is assumed, and what a wrong file is called."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reidruntime.artifact.manifest import Preprocess
from safetensors.torch import save_file
from torch import Tensor, nn

from reidexport.checkpoint.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    load_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)
from reidexport.checkpoint.weights import FORMAT, read_weights
from reidexport.errors import CheckpointError, InputError
from reidexport.models.baseline import BaselineArchitecture
from tests.standins import checkpoints

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def osnet() -> Weights:
    """Torchreid's osnet_x0_25, 10 classes, fc neck."""
    return checkpoints.golden_weights("tr_osnet_x0_25")


@pytest.fixture(scope="module")
def resnet18() -> Weights:
    """strong-baseline's resnet18, 10 classes, BNNeck."""
    return checkpoints.golden_weights("sb_resnet18")


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write anything with torch.save and load it."""

    def write_and_load(content: object, **options: Any) -> Checkpoint:
        path = tmp_path / "model.pth"
        torch.save(content, path)
        return load_checkpoint(path, **options)

    return write_and_load


Load = Callable[..., Checkpoint]


def refusal(load: Load, content: object, **options: Any) -> str:
    """Why a file is refused."""
    with pytest.raises(CheckpointError) as raised:
        load(content, **options)
    assert raised.value.exit_status == 2
    return str(raised.value)


def prefixed(weights: Weights, prefix: str) -> Weights:
    """The same tensors under longer names."""
    return {prefix + key: tensor for key, tensor in weights.items()}


def fast_reid(weights: Weights) -> Weights:
    """strong-baseline's resnet18 under the names that fast-reid gives its R18."""
    heads = {"bottleneck.": "heads.bottleneck.0.", "classifier.": "heads.", "base.": "backbone."}
    renamed = {
        "pixel_mean": torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1) * 255,
        "pixel_std": torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1) * 255,
    }
    for key, tensor in weights.items():
        old = next(old for old in heads if key.startswith(old))
        renamed[heads[old] + key.removeprefix(old)] = tensor
    return renamed


def torchreid(weights: Weights) -> Weights:
    """strong-baseline's resnet18 under the names of torchreid's, which has no neck."""
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith("bottleneck.")}
    return {
        **{key.removeprefix("base."): tensor for key, tensor in kept.items()},
        "classifier.bias": torch.zeros(10),
    }


def adam_state(weights: Weights) -> dict[str, Any]:
    """What Adam's state_dict() holds after a step."""
    parameter = nn.Parameter(weights["conv1.conv.weight"].clone())
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


# ── layouts ───────────────────────────────────────────────────────────────────────────────────────────────────

LAYOUTS: dict[str, tuple[Callable[[Weights], object], str]] = {
    "plain": (lambda weights: weights, "state dict"),
    "OrderedDict": (OrderedDict, "state dict"),
    "module.": (lambda weights: prefixed(weights, "module."), "state dict"),
    "module.module.": (lambda weights: prefixed(weights, "module.module."), "state dict"),
    "model": (lambda weights: {"model": weights, "epoch": 3}, "state dict under 'model'"),
    "state_dict": (lambda weights: {"state_dict": weights}, "state dict under 'state_dict'"),
    "net": (lambda weights: {"net": prefixed(weights, "module.")}, "state dict under 'net'"),
    "model_state_dict": (lambda weights: {"model_state_dict": weights}, "state dict under 'model_state_dict'"),
    "module": (lambda weights: {"module": weights}, "state dict under 'module'"),
    "torchreid": (
        lambda weights: {
            "state_dict": weights, "epoch": 60, "rank1": np.float32(0.948), "optimizer": adam_state(weights),
            "scheduler": {"milestones": {60: 1}, "last_epoch": 60},
        },
        "state dict under 'state_dict'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, load: Load, osnet: Weights) -> None:
    """The weights are found bit for bit wherever training programs put them."""
    wrap, words = LAYOUTS[layout]
    checkpoint = load(wrap(osnet))
    assert (checkpoint.family, checkpoint.layout) == ("torchreid", words)
    assert checkpoint.architecture == BaselineArchitecture(
        "osnet_x0_25", last_stride=None, neck="fc", feature_dim=512, num_classes=10
    )
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], osnet["conv1.conv.weight"])
    assert torch.equal(checkpoint.state_dict["neck.0.weight"], osnet["fc.0.weight"])
    assert model_from_checkpoint(checkpoint).classifier is None
    assert checkpoint.summary == f"torchreid osnet_x0_25, neck fc, 512-d feature, 10 classes ({words})"


def test_safetensors(tmp_path: Path, osnet: Weights) -> None:
    """A safetensors file holds the same checkpoint."""
    path = tmp_path / "model.safetensors"
    save_file(dict(osnet), path)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.layout, checkpoint.architecture.backbone) == ("safetensors", "osnet_x0_25")
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], osnet["conv1.conv.weight"])


def test_fast_reid_layout(load: Load, resnet18: Weights) -> None:
    """fast-reid's Checkpointer file: model, optimizer, schedulers, metric; its mean and std buffers are dropped."""
    content = {
        "model": fast_reid(resnet18),
        "optimizer": {"state": {}, "param_groups": [{"lr": 3.5e-4, "params": [0]}]},
        "lr_sched": {"last_epoch": 59},
        "warmup_sched": {"last_epoch": 2000},
        "epoch": 59,
        "metric": np.float64(0.913),
    }
    checkpoint = load(content)
    assert checkpoint.architecture == BaselineArchitecture(
        "resnet18", stem_pool="ceil", feature_dim=512, num_classes=10, neck="bnneck"
    )
    assert checkpoint.preprocess.resize == "bicubic"
    assert torch.equal(checkpoint.state_dict["neck.running_var"], resnet18["bottleneck.running_var"])
    assert not [key for key in checkpoint.state_dict if key.startswith(("pixel", "heads"))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_dtypes_become_float32(dtype: torch.dtype, load: Load, osnet: Weights) -> None:
    """Weights saved in another floating type are loaded as float32."""
    checkpoint = load(
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in osnet.items()}
    )
    assert {value.dtype for value in checkpoint.state_dict.values()} == {torch.float32}
    wanted = osnet["conv1.conv.weight"].to(dtype).float()
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], wanted)


# ── this project's own format ─────────────────────────────────────────────────────────────────────────────────

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
    assert load_checkpoint(path, arch="osnet_x0_25").architecture == OWN
    with pytest.raises(CheckpointError, match=r"--arch resnet50: the file says that it is osnet_x0_25"):
        load_checkpoint(path, arch="resnet50")


# ── necks, classes, pooling ───────────────────────────────────────────────────────────────────────────────────


def without(weights: Weights, *prefixes: str) -> Weights:
    """The weights but for those whose names begin so."""
    return {key: tensor for key, tensor in weights.items() if not key.startswith(prefixes)}


def reduction(weights: Weights) -> Weights:
    """fast-reid with EMBEDDING_DIM 256: a 1x1 convolution, then BatchNorm2d."""
    kept = without(fast_reid(weights), "heads.")
    norm = {
        f"heads.bottleneck.1.{key}": torch.ones(256)
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    return {
        **kept, "heads.bottleneck.0.weight": torch.randn(256, 512, 1, 1), **norm,
        "heads.bottleneck.1.num_batches_tracked": torch.tensor(5), "heads.weight": torch.ones(7, 256),
    }  # fmt: skip


NECKS: dict[str, tuple[Callable[[Weights], Weights], str, int, int]] = {
    "strong-baseline": (lambda weights: weights, "bnneck", 512, 10),
    "strong-baseline without classifier": (lambda weights: without(weights, "classifier"), "bnneck", 512, 0),
    "strong-baseline without neck": (lambda weights: without(weights, "bottleneck"), "none", 512, 10),
    "fast-reid": (fast_reid, "bnneck", 512, 10),
    "old fast-reid": (
        lambda weights: {
            key.replace("bottleneck.0.", "bnneck.").replace("heads.weight", "heads.classifier.weight"): value
            for key, value in fast_reid(weights).items()
        },
        "bnneck", 512, 10,
    ),
    "fast-reid with EMBEDDING_DIM": (reduction, "reduction-bnneck", 256, 7),
    "torchreid": (torchreid, "none", 512, 10),
    "torchreid with fc": (
        lambda weights: {
            **without(torchreid(weights), "classifier"),
            "fc.0.weight": torch.ones(64, 512), "fc.0.bias": torch.ones(64),
            **{f"fc.1.{key}": torch.ones(64) for key in ("weight", "bias", "running_mean", "running_var")},
        },
        "fc", 64, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NECKS)
def test_neck_and_classes(kind: str, load: Load, resnet18: Weights) -> None:
    """Neck, feature dimension and number of classes are read from the tensors, and the model can be built."""
    change, neck, feature_dim, num_classes = NECKS[kind]
    checkpoint = load(change(resnet18))
    found = checkpoint.architecture
    assert (found.neck, found.feature_dim, found.num_classes) == (neck, feature_dim, num_classes)
    with torch.inference_mode():
        f_t, f_i = model_from_checkpoint(checkpoint)(torch.randn(2, 3, 64, 32))
    assert (f_t.shape, f_i.shape) == ((2, 512), (2, feature_dim))


def test_reduction_neck_is_a_linear_layer_and_a_norm(load: Load, resnet18: Weights) -> None:
    """fast-reid's 1x1 convolution over a pooled map computes what the linear layer here computes."""
    weights = reduction(resnet18)
    model = model_from_checkpoint(load(weights))
    with torch.inference_mode():
        f_t, f_i = model(torch.randn(2, 3, 64, 32))
        norm = nn.BatchNorm2d(256).eval()
        norm.load_state_dict(
            {
                key.removeprefix("heads.bottleneck.1."): value
                for key, value in weights.items()
                if ".1." in key and "heads" in key
            }
        )
        wanted = norm(
            nn.functional.conv2d(f_t[:, :, None, None], weights["heads.bottleneck.0.weight"])
        ).flatten(1)
    torch.testing.assert_close(f_i, wanted)


def test_learned_pooling_power_is_kept(load: Load, resnet18: Weights) -> None:
    """A stored exponent means GeM pooling with that exponent, and SBS's taller input."""
    checkpoint = load({**fast_reid(resnet18), "heads.pool_layer.p": torch.tensor([2.5])})
    assert checkpoint.architecture.pooling == "gem"
    assert checkpoint.state_dict["pool.p"].tolist() == [2.5]
    assert (checkpoint.preprocess.height_px, checkpoint.preprocess.width_px) == (384, 128)


def test_pooling_can_be_given_where_it_is_open(load: Load, resnet18: Weights) -> None:
    """Without a stored exponent the pooling can be given: GeM gets p = 3."""
    checkpoint = load(fast_reid(resnet18), pooling="gem")
    assert checkpoint.architecture.pooling == "gem"
    assert checkpoint.state_dict["pool.p"].tolist() == [3.0]
    assert load(fast_reid(resnet18), pooling="avg").architecture.pooling == "avg"


# ── what is assumed ───────────────────────────────────────────────────────────────────────────────────────────


def test_assumed_facts_are_listed(load: Load, resnet18: Weights) -> None:
    """What a plain state dict cannot tell is listed, each fact with the option that sets it."""
    assert load(resnet18).assumed == (
        "input 256x128 px (as in reid-strong-baseline; set with --size)",
        "last stride 1 (as in reid-strong-baseline; set with --last-stride)",
        "no ReLU after the stem (as in reid-strong-baseline's code; set with --stem-relu)",
    )


def test_given_facts_are_not_assumed(load: Load, resnet18: Weights) -> None:
    """A fact that is given is taken and leaves the list; the others stay in it."""
    checkpoint = load(resnet18, last_stride=2, size=(192, 96))
    assert checkpoint.architecture.last_stride == 2
    assert (checkpoint.preprocess.height_px, checkpoint.preprocess.width_px) == (192, 96)
    assert [text.split(" (")[0] for text in checkpoint.assumed] == ["no ReLU after the stem"]
    checkpoint = load(resnet18, stem_relu=True)
    assert checkpoint.architecture.stem_relu is True
    assert [text.split()[0] for text in checkpoint.assumed] == ["input", "last"]
    assert load(resnet18, last_stride=1, stem_relu=False, size=(256, 128)).assumed == ()


def test_fixed_pooling_power_of_agw_is_assumed(load: Load) -> None:
    """fast-reid's AGW, known by its non-local blocks, is given its fixed exponent, and says that it was assumed."""
    checkpoint = load(checkpoints.golden_weights("fr_agw_r50"))
    assert checkpoint.architecture.non_local
    assert "generalized-mean pooling with p = 3 (as in fast-reid's AGW)" in checkpoint.assumed
    assert load(checkpoints.golden_weights("fr_agw_r50"), pooling="avg").architecture.pooling == "avg"


def test_osnet_has_no_last_stride(load: Load, osnet: Weights) -> None:
    """Of an OSNet only the input size is open."""
    assert load(osnet).assumed == ("input 256x128 px (as in torchreid; set with --size)",)


def test_last_stride_of_torchreid_resnets(load: Load, resnet18: Weights) -> None:
    """Torchreid's plain ResNets keep stride 2, those with an fc neck (resnet50_fc512) have 1; either can be set."""
    plain, with_fc = torchreid(resnet18), NECKS["torchreid with fc"][0](resnet18)
    assert load(plain).architecture.last_stride == 2
    assert "last stride 2 (as in torchreid; set with --last-stride)" in load(plain).assumed
    assert load(with_fc).architecture.last_stride == 1
    assert "last stride 1 (as in torchreid; set with --last-stride)" in load(with_fc).assumed
    assert load(with_fc, last_stride=2).architecture.last_stride == 2


@pytest.mark.parametrize("size", [(0, 128), (-256, 128), (256, 0)])
def test_size_must_be_positive(size: tuple[int, int], load: Load, osnet: Weights) -> None:
    """A size that no image has is an error, not a manifest that nobody can read."""
    with pytest.raises(InputError, match=f"size must be positive, got {size[0]}x{size[1]}"):
        load(osnet, size=size)


# ── files that are something else ─────────────────────────────────────────────────────────────────────────────


def test_optimizer_state_is_named(load: Load, osnet: Weights) -> None:
    """An optimizer's state dict is called that, and the model's file is asked for."""
    message = refusal(load, adam_state(osnet))
    assert "this is an optimizer's state, not the model. Pass the model's file of the same epoch" in message
    assert "NAME_model_N.pth, not NAME_optimizer_N.pth" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_optimizer_object_is_named(zipped: bool, tmp_path: Path) -> None:
    """A whole pickled optimizer, as ignite's ModelCheckpoint wrote it, is called that."""
    path = tmp_path / "resnet50_optimizer_120.pth"
    torch.save(torch.optim.Adam([nn.Parameter(torch.ones(3))]), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"this is a pickled optimizer \(torch\.optim\.adam\.Adam\), not the model"
    ):
        load_checkpoint(path)


def test_center_loss_is_named(load: Load) -> None:
    """The centers of the center loss are called that, with their shape, as a state dict and as a module."""
    centers = nn.Module()
    centers.centers = nn.Parameter(torch.randn(751, 2048))
    for content in (centers.state_dict(), centers):
        message = refusal(load, content)
        assert "these are the centers of the center loss, of shape [751, 2048], not the model" in message


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


MISMATCHES: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "shape": (
        lambda weights: {**weights, "base.layer2.0.conv1.weight": torch.ones(128, 32, 3, 3)},
        "First difference: backbone.layer2.0.conv1.weight has shape [128, 32, 3, 3], expected [128, 64, 3, 3]",
    ),
    "missing": (
        lambda weights: without(weights, "base.layer3.1.bn2.weight"),
        "First difference: backbone.layer3.1.bn2.weight of shape [256] is missing",
    ),
    "unexpected": (
        lambda weights: {**weights, "base.layer5.0.conv1.weight": torch.ones(2, 3)},
        "First difference: backbone.layer5.0.conv1.weight of shape [2, 3] is unexpected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISMATCHES)
def test_mismatch_names_the_first_difference(kind: str, load: Load, resnet18: Weights) -> None:
    """Weights that almost fit name the nearest architecture and the first tensor that differs."""
    change, words = MISMATCHES[kind]
    message = refusal(load, change(resnet18))
    assert "no known reid-strong-baseline architecture has these weights. Nearest: resnet18 (9" in message
    assert words in message
    assert "pass --arch to compare with that one" in message


HEADS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "cut neck": (
        lambda weights: without(weights, "bottleneck.running_var"),
        "its weights are not those of resnet18: neck.running_var of shape [512] is missing",
    ),
    "neck statistics of another length": (
        lambda weights: {**weights, "bottleneck.running_var": torch.ones(4)},
        "neck.running_var has shape [4], expected [512]",
    ),
    "something else": (
        lambda weights: {**weights, "attention.weight": torch.ones(4)},
        "attention.weight of shape [4] is unexpected",
    ),
    "neck of another backbone": (
        lambda weights: {**weights, "bottleneck.weight": torch.ones(2048)},
        "the neck takes [2048] features, the backbone gives [512]",
    ),
    "classifier of another backbone": (
        lambda weights: {**weights, "classifier.weight": torch.ones(10, 2048)},
        "classifier.weight has shape [10, 2048], expected [classes, 512]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_head_that_does_not_fit(kind: str, load: Load, resnet18: Weights) -> None:
    """A backbone that fits under a head that does not is refused when loaded, not when the model is built."""
    change, words = HEADS[kind]
    assert words in refusal(load, change(resnet18))


def test_unknown_names(load: Load) -> None:
    """Tensors named as in no known project: the first is quoted and the known ones are listed."""
    message = refusal(load, {"encoder.block.0.weight": torch.ones(3)})
    assert "no known project names its tensors like this (first: encoder.block.0.weight)" in message
    assert "Known are reid-strong-baseline (base.*), fast-reid (backbone.*, heads.*)" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(3)], "holds list, expected a dict of tensors or a module"),
        (torch.ones(3), "holds Tensor, expected a dict of tensors or a module"),
        ({}, "holds no tensors (its keys: nothing)"),
        (
            {"epoch": 3, "lr": 0.1},
            "holds no tensors (its keys: epoch, lr). Expected a state dict or one under 'model'",
        ),
        ({"model": {"a": 1}}, "holds no tensors (its keys: a)"),
    ],
)
def test_content_without_weights(content: object, words: str, load: Load) -> None:
    """What holds no weights is said to hold none, with what it does hold."""
    assert words in refusal(load, content)


# ── --arch ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arch_restricts_the_search(load: Load, resnet18: Weights) -> None:
    """--arch of the right backbone changes nothing; of a wrong one, it compares with that one."""
    assert load(resnet18, arch="resnet18").architecture == load(resnet18).architecture
    message = refusal(load, resnet18, arch="resnet34")
    assert "Nearest: resnet34 (" in message
    assert "backbone.layer1.2.conv1.weight of shape [64, 64, 3, 3] is missing" in message


def test_arch_that_the_project_does_not_have(load: Load, resnet18: Weights) -> None:
    """--arch of a backbone that the file's project does not have lists those it has."""
    message = refusal(load, resnet18, arch="osnet_x1_0")
    assert (
        "--arch osnet_x1_0: reid-strong-baseline has no such backbone; it has resnet18, resnet34" in message
    )


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


def test_safetensors_lose_their_prefix_too(tmp_path: Path, osnet: Weights) -> None:
    """DataParallel's prefix is dropped whatever the container."""
    path = tmp_path / "model.safetensors"
    save_file({f"module.{key}": tensor.contiguous() for key, tensor in osnet.items()}, path)
    assert load_checkpoint(path).architecture.backbone == "osnet_x0_25"


def test_fast_reids_own_pixel_statistics_are_kept(load: Load, resnet18: Weights) -> None:
    """Older fast-reid checkpoints hold mean and std of their pixels, and those are used."""
    weights = fast_reid(resnet18)
    weights["pixel_mean"] = torch.full((1, 3, 1, 1), 127.5)
    weights["pixel_std"] = torch.full((1, 3, 1, 1), 51.0)
    preprocess = load(weights).preprocess
    assert preprocess.mean == pytest.approx((0.5, 0.5, 0.5))
    assert preprocess.std == pytest.approx((0.2, 0.2, 0.2))
