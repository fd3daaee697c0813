"""Checkpoints for the tests: the golden cases, networks with drawn weights, and pickled modules of lost classes."""

import gzip
import json
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from reidexport.models.baseline import Baseline, BaselineArchitecture
from tests import ROOT
from tests.golden import seeded

GOLDEN = ROOT / "tests" / "golden"


@cache
def golden_cases() -> dict[str, dict[str, Any]]:
    """Every case of tests/golden/shapes*.json.gz by name."""
    cases: dict[str, dict[str, Any]] = {}
    for path in sorted(GOLDEN.glob("shapes*.json.gz")):
        with gzip.open(path, "rt") as stream:
            cases.update(json.load(stream))
    return cases


@cache
def _features() -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(GOLDEN.glob("features*.npz")):
        with np.load(path) as features:
            arrays.update(features)
    return arrays


def expected(case: str, feature: str) -> np.ndarray:
    """What the upstream project's own code answers for the two images of a case, (2, D)."""
    return _features()[f"{case}/{feature}"]


def golden_images(case: str) -> Tensor:
    """The two images of a case, uint8 (2, H, W, 3)."""
    about = golden_cases()[case]
    return torch.from_numpy(
        seeded.seeded_images(about["height_px"], about["width_px"], 2, about["image_seed"])
    )


def seeded_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """``seeded.seeded_state_dict`` as tensors, drawn on several threads, the largest first."""

    def draw(key: str) -> Tensor:
        ends_branch = seeded._ends_residual_branch(key, shapes)
        return torch.from_numpy(
            np.asarray(seeded.seeded_tensor(key, shapes[key], seed, ends_branch=ends_branch))
        )

    keys = sorted(shapes, key=lambda key: -int(np.prod(shapes[key])))
    with ThreadPoolExecutor(4) as threads:
        drawn = dict(zip(keys, threads.map(draw, keys), strict=True))
    return {key: drawn[key] for key in shapes}


def golden_weights(case: str) -> dict[str, Tensor]:
    """The state dict of a case under its upstream project's names."""
    about = golden_cases()[case]
    weights = seeded_weights(about["shapes"], about["seed"])
    for key in weights if "variance" in about else ():
        if key.endswith("running_var"):
            weights[key] *= about["variance"]
    return weights


def write_golden(folder: Path, case: str) -> Path:
    """A case's checkpoint as its project writes it: a file of torch.save, or a folder of roboflow's reid."""
    config = golden_cases()[case].get("config")
    if config is not None:
        return write_reid_folder(folder, golden_weights(case), config)
    path = folder / f"{case}.pth"
    torch.save(golden_weights(case), path)
    return path


def write_reid_folder(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """What ``ReIDModel.save_pretrained`` of roboflow's reid leaves in a folder."""
    save_file(weights, folder / "weights.safetensors")
    (folder / "reid_config.json").write_text(json.dumps(config, indent=2))
    return folder


def normalized(images: Tensor, case: str | None = None) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W) with a case's mean and std, ImageNet's by default."""
    about = golden_cases()[case] if case else {}
    mean = torch.tensor(about.get("mean", (0.485, 0.456, 0.406)))
    std = torch.tensor(about.get("std", (0.229, 0.224, 0.225)))
    return ((images.double() / 255 - mean.double()) / std.double()).permute(0, 3, 1, 2).float()


def relative_l2(found: np.ndarray | Tensor, wanted: np.ndarray | Tensor) -> float:
    """The largest relative L2 error of any row."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    return float((np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


def drawn_model(architecture: BaselineArchitecture, seed: int = 0) -> Baseline:
    """A network whose every tensor, statistics of the norms included, is drawn from a seed; in eval mode."""
    model = Baseline(architecture)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(seeded_weights(shapes, seed))
    return model.eval()


class Lost(nn.Module):
    """Stands in the pickles of :func:`lost_classes` for strong-baseline's ``modeling.baseline.Baseline``."""

    def __init__(self, depth: int, last_stride: int, stem_relu: bool, num_classes: int = 10) -> None:
        super().__init__()
        block = sys.modules["modeling.backbones.resnet"].Block[depth]  # type: ignore[attr-defined]
        layers = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[depth]
        trunk = torchvision_resnet.ResNet(block, layers, num_classes=1)
        self.base = sys.modules["modeling.backbones.resnet"].ResNet()  # type: ignore[attr-defined]
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            if name != "relu" or stem_relu:
                self.base.add_module(name, getattr(trunk, name))
        if last_stride == 1:
            for module in self.base.layer4.modules():
                if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                    module.stride = (1, 1)
        features = 512 * block.expansion
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.bottleneck = nn.BatchNorm1d(features)
        self.classifier = nn.Linear(features, num_classes, bias=False)
        self.neck, self.neck_feat = "bnneck", "after"


@contextmanager
def lost_classes() -> Iterator[type[nn.Module]]:
    """A class ``modeling.baseline.Baseline`` that can be pickled inside the block and is unknown after it."""
    names = ("modeling", "modeling.baseline", "modeling.backbones", "modeling.backbones.resnet")
    modules = {name: types.ModuleType(name) for name in names}
    baseline, resnet = modules["modeling.baseline"], modules["modeling.backbones.resnet"]

    def foreign(name: str, base: type[nn.Module], home: types.ModuleType) -> type[nn.Module]:
        cls = type(name, (base,), {"__module__": home.__name__, "__qualname__": name})
        setattr(home, name, cls)
        return cls

    basic = foreign("BasicBlock", torchvision_resnet.BasicBlock, resnet)
    bottleneck = foreign("Bottleneck", torchvision_resnet.Bottleneck, resnet)
    resnet.Block = {18: basic, 50: bottleneck}  # type: ignore[attr-defined]
    foreign("ResNet", nn.Module, resnet)
    model = foreign("Baseline", Lost, baseline)
    sys.modules.update(modules)
    try:
        yield model
    finally:
        for name in names:
            del sys.modules[name]
