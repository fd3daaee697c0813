"""The architecture that weights belong to, and what is said of weights that belong to none."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from reidexport.checkpoint.loading import (
    model_from_checkpoint,
)
from tests.standins.state_dicts import Load, Weights, fast_reid, refusal, torchreid, without


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


def left_out(prefix: str) -> Callable[[Weights], Weights]:
    """The same weights without some."""
    return lambda weights: without(weights, prefix)


def with_ones(name: str, *shape: int) -> Callable[[Weights], Weights]:
    """The same weights with a tensor of ones, which replaces the one of that name."""
    return lambda weights: {**weights, name: torch.ones(shape)}


# What is done to the weights of a ResNet-18, and what is said of it.
REFUSED: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "shape": (
        with_ones("base.layer2.0.conv1.weight", 128, 32, 3, 3),
        "First difference: backbone.layer2.0.conv1.weight has shape [128, 32, 3, 3], expected [128, 64, 3, 3]",
    ),
    "missing": (
        left_out("base.layer3.1.bn2.weight"),
        "First difference: backbone.layer3.1.bn2.weight of shape [256] is missing",
    ),
    "unexpected": (
        with_ones("base.layer5.0.conv1.weight", 2, 3),
        "First difference: backbone.layer5.0.conv1.weight of shape [2, 3] is unexpected",
    ),
    "cut neck": (
        left_out("bottleneck.running_var"),
        "its weights are not those of resnet18: neck.running_var of shape [512] is missing",
    ),
    "neck statistics of another length": (
        with_ones("bottleneck.running_var", 4),
        "neck.running_var has shape [4], expected [512]",
    ),
    "something else": (with_ones("attention.weight", 4), "attention.weight of shape [4] is unexpected"),
    "neck of another backbone": (
        with_ones("bottleneck.weight", 2048),
        "the neck takes [2048] features, the backbone gives [512]",
    ),
    "classifier of another backbone": (
        with_ones("classifier.weight", 10, 2048),
        "classifier.weight has shape [10, 2048], expected [classes, 512]",
    ),
}
OF_THE_BACKBONE = ("shape", "missing", "unexpected")


@pytest.mark.parametrize("kind", OF_THE_BACKBONE)
def test_mismatch_names_the_first_difference(kind: str, load: Load, resnet18: Weights) -> None:
    """Weights that almost fit name the nearest architecture and the first tensor that differs."""
    change, words = REFUSED[kind]
    message = refusal(load, change(resnet18))
    assert "no known reid-strong-baseline architecture has these weights. Nearest: resnet18 (9" in message
    assert words in message
    assert "pass --arch to compare with that one" in message


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in OF_THE_BACKBONE])
def test_head_that_does_not_fit(kind: str, load: Load, resnet18: Weights) -> None:
    """A backbone that fits under a head that does not is refused when loaded, not when the model is built."""
    change, words = REFUSED[kind]
    assert words in refusal(load, change(resnet18))


def test_unknown_names(load: Load) -> None:
    """Tensors named as in no known project: the first is quoted and the known ones are listed."""
    message = refusal(load, {"encoder.block.0.weight": torch.ones(3)})
    assert "no known project names its tensors like this (first: encoder.block.0.weight)" in message
    for name in ("TransReID", "reid-strong-baseline", "fast-reid", "CLIP-ReID"):
        assert re.search(f"Known are .*{name}", message)
    assert message.count("CLIP-ReID") == 1


def test_two_tensors_under_one_name(load: Load, resnet18: Weights) -> None:
    """A file that holds a tensor twice is refused where the two differ, as nothing says which one is meant."""
    assert (
        load({**resnet18, "backbone.conv1.weight": resnet18["base.conv1.weight"]}).family
        == "reid-strong-baseline"
    )
    message = refusal(load, {**resnet18, "backbone.conv1.weight": torch.zeros(64, 3, 7, 7)})
    assert (
        "its tensors base.conv1.weight and backbone.conv1.weight differ, and both are backbone.conv1.weight"
        in message
    )
    assert "save the state dict of the one to export" in message


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


def test_arch_of_a_family_of_names(load: Load, resnet18: Weights) -> None:
    """--arch of a backbone that the project lists by a wildcard compares with that one; not what nobody has."""
    message = refusal(load, fast_reid(resnet18), arch="resnet18_ibn_a")
    assert "Nearest: resnet18_ibn_a (" in message
    assert "First difference: backbone.layer1.0.bn1.IN.weight" in message
    for arch in ("resnet19_ibn_a", "resnet*_ibn_a"):
        message = refusal(load, fast_reid(resnet18), arch=arch)
        assert f"--arch {arch}: fast-reid has no such backbone" in message


def test_last_stride_of_torchreid_resnets(load: Load, resnet18: Weights) -> None:
    """Torchreid's plain ResNets keep stride 2, those with an fc neck (resnet50_fc512) have 1; either can be set."""
    plain, with_fc = torchreid(resnet18), NECKS["torchreid with fc"][0](resnet18)
    assert load(plain).architecture.last_stride == 2
    assert "last stride 2 (as in torchreid; set with --last-stride)" in load(plain).assumed
    assert load(with_fc).architecture.last_stride == 1
    assert "last stride 1 (as in torchreid; set with --last-stride)" in load(with_fc).assumed
    assert load(with_fc, last_stride=2).architecture.last_stride == 2
