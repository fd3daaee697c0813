"""Every fact that decides a checkpoint's answers is read from the file, or said to be assumed; and can be told."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reidexport.checkpoint import loading
from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.facts import OPTIONS
from reidexport.checkpoint.families import shapes_of
from reidexport.checkpoint.family import candidate
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint
from reidexport.checkpoint.projects.fast_reid import FAST_REID
from reidexport.checkpoint.projects.strong_baseline import STRONG_BASELINE
from reidexport.checkpoint.projects.torchreid import TORCHREID
from reidexport.checkpoint.weights import Weights
from reidexport.models.baseline import (
    RESNET_STEMS,
    Baseline,
    BaselineArchitecture,
    backbone_channels,
    batch_norms,
)
from reidexport.models.catalogue import LIGHTMBNS
from tests.standins.checkpoints import golden_cases

# One of each kind of torchreid's networks: the others have the same facts.
TORCHREID_KINDS = (
    *("osnet_x0_25", "resnet18", "resnext50_32x4d", "se_resnet50"),
    *("mobilenetv2_x1_0", "mlfn", "squeezenet1_1"),
)
# They have the facts of others, and take seconds.
SLOW = {
    "la_hr",
    "la_convnext",
    "la_swin",
    "la_swinv2",
    "la_dino",
    "fo_mgn_r50_ibn",
    "fo_repvgg_b1g4",
    "fo_effnet_b3",
}
NETWORKS = [
    *(
        (family, name)
        for family in (STRONG_BASELINE, FAST_REID)
        for name in family.backbones
        if "*" not in name
    ),
    *((TORCHREID, name) for name in TORCHREID_KINDS),
    *(
        (None, case)
        for case, about in golden_cases().items()
        if "feature" in about and "config" not in about and case not in SLOW
    ),
    *(pytest.param((None, case), marks=pytest.mark.slow) for case in sorted(SLOW)),
]
# Values of every fact, of which a checkpoint has one.
VALUES: dict[str, tuple[Any, ...]] = {
    "last_stride": (1, 2),
    "stem_relu": (True, False),
    "stem_pool": ("padded", "padded-ceil", "valid", "ceil", "2x2", "none"),
    "pooling": ("avg", "max", "gem"),
    "unit_parts": (True, False),
    "batch_norm_eps": (1e-5, 1e-3),
    "semantic_weight": (0.2, 1.0),
    "size": ((256, 128), (384, 128)),
    "mean": ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5)),
    "std": ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5)),
    "channel_order": ("RGB", "BGR"),
    "resize": ("bilinear", "bicubic"),
}


@pytest.fixture
def generated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that loads a checkpoint, which takes no memory, as the choices say.

    It is of a family's backbone, or has a golden case's names and shapes.
    """
    family, name = request.param
    shapes: Any = golden_cases()[name]["shapes"] if family is None else {}
    if family is not None:
        architecture = candidate(family, name)
        dim = backbone_channels(architecture)
        with torch.device("meta"):
            shapes = shapes_of(Baseline(replace(architecture, feature_dim=dim, num_classes=2)))
        monkeypatch.setattr(loading, "family_of", lambda _: family)
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    weights = Weights({key: torch.ones(()).expand(shape) for key, shape in shapes.items()}, "state dict")
    monkeypatch.setattr(loading, "_finite", dict)  # nothing is allocated
    contents = loading._contents_by_names(weights, None)
    assert family or contents.family.name == golden_cases()[name]["family"]
    monkeypatch.setattr(loading, "read_weights", lambda *_: weights)
    monkeypatch.setattr(loading, "_contents_by_names", lambda *_: contents)
    return lambda **choices: load_checkpoint(path, CheckpointChoices(**choices))


def value_of(checkpoint: Checkpoint, name: str) -> object:
    """What a checkpoint has for a fact."""
    architecture, pixels = checkpoint.architecture, checkpoint.preprocess
    if name == "camera":
        return architecture.tokens and architecture.tokens.camera
    if name == "size":
        return pixels.height_px, pixels.width_px
    if name == "batch_norm_eps":
        return architecture.batch_norm_eps or 1e-5
    return getattr(architecture if hasattr(architecture, name) else pixels, name)


def name_of(network: Any) -> str:
    """Of a row of ``NETWORKS``."""
    family, name = network
    return f"{family.name}-{name}" if family else name


@pytest.mark.parametrize("generated", NETWORKS, indirect=True, ids=name_of)
def test_every_fact_is_read_or_printed_and_can_be_told(generated: Any) -> None:
    """What is assumed is printed with its option; the option sets it, and the fact is then told and not assumed."""
    checkpoint = generated()
    printed = "\n".join(checkpoint.fact_lines)
    applicable = set(VALUES)
    tokens = checkpoint.architecture.tokens
    applicable -= {"last_stride"} if checkpoint.architecture.last_stride is None else set()
    applicable -= {"pooling"} if checkpoint.architecture.pooling == "none" else set()
    applicable |= {"camera"} if tokens and tokens.num_cameras else set()
    applicable -= {"semantic_weight"} if checkpoint.architecture.semantic_weight is None else set()
    if checkpoint.architecture.backbone == "efficientnet_b4":
        applicable -= {"batch_norm_eps"}  # its BatchNorms have another eps than the neck's
    if checkpoint.architecture.backbone not in RESNET_STEMS:
        applicable -= {"stem_relu", "stem_pool"}
    with torch.device("meta"):
        network = Baseline(checkpoint.architecture)
    if not batch_norms(network):
        applicable -= {"batch_norm_eps"}
    if checkpoint.architecture.backbone not in LIGHTMBNS:
        applicable -= {"unit_parts"}
    assert set(checkpoint.origins) == applicable | {"backbone"}
    for name in sorted(applicable - checkpoint.read):
        assert checkpoint.origins[name] == "assumed"
        assert f"set with {OPTIONS[name]})" in printed
        for value in VALUES.get(name, (1, 2)):
            told = generated(**{name: value})
            assert value_of(told, name) == value
            assert told.origins[name] == "told"
            assert not any(OPTIONS[name] in text for text in told.assumed)


def test_no_field_is_without_a_fact() -> None:
    """A field that decides answers, and no name or shape shows, has a fact: a new one must be added here, too."""
    shown = {"backbone", "non_local", "neck", "feature_dim", "num_classes", "tokens", "jpm", "reduced"}
    pixels = {"height_px", "width_px", "layout", "in_graph", "mean", "std", "channel_order", "resize"}
    assert {field.name for field in fields(BaselineArchitecture)} - shown == VALUES.keys() - pixels - {"size"}
    assert set(loading.imagenet_preprocess(2, 1).model_dump()) == pixels
