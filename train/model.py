"""The network with its losses' inputs, and where its first weights come from."""

import difflib
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from reidruntime.artifact.manifest import file_sha256
from torch import Tensor, nn

from reidexport.checkpoint.families import backbone_shapes
from reidexport.checkpoint.identify import first_difference
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.checkpoint.weights import read_weights
from reidexport.errors import CheckpointError, InputError, NotInstalledError
from reidexport.models.baseline import (
    BACKBONES,
    RESNETS,
    WITHOUT_LAST_STRIDE,
    Baseline,
    BaselineArchitecture,
    backbone_channels,
    is_backbone,
)
from reidexport.models.trunk import TIMM_NAMES, torchvision_names
from train.recipe import Recipe

_CLASSIFIER_STD = 0.001  # authors' weights_init_classifier


class TrainedModel(nn.Module):
    """A :class:`Baseline` and its classifier: forward returns what the losses need (paper, fig. 5).

    Attributes:
        baseline: what a checkpoint holds.
        autocast: dtype that the backbone computes in, or None for float32; pooling, neck and classifier are float32.
    """

    def __init__(self, baseline: Baseline, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.baseline = baseline
        self.autocast = autocast

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (B, 3, H, W) → f_t (B, D) and logits (B, num_classes), both float32."""
        baseline = self.baseline
        # Every weight is cast once a step, so a cache saves nothing; and a CUDA graph must record each cast.
        with torch.autocast(
            images.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        ):
            features = baseline.backbone(images)
        f_t = baseline.pool(features.float())
        logits: Tensor = baseline.get_submodule("classifier")(baseline.neck(f_t))
        return f_t, logits


def build_model(recipe: Recipe, num_classes: int) -> Baseline:
    """The recipe's network with random weights that its seed decides."""
    architecture = architecture_of(recipe, num_classes)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        model = Baseline(architecture)
        if recipe.tricks.bnneck:
            weight = model.get_submodule("classifier").get_parameter("weight")
            if recipe.model.classifier_init == "code":
                nn.init.normal_(weight, std=_CLASSIFIER_STD)
            else:
                nn.init.kaiming_normal_(weight, mode="fan_out")
        else:
            # Without a BNNeck the classifier keeps its bias and torch's own initialization (authors' code).
            model.classifier = nn.Linear(architecture.feature_dim, num_classes)
    return model


def architecture_of(recipe: Recipe, num_classes: int) -> BaselineArchitecture:
    """The architecture that a recipe's model and tricks describe.

    Raises:
        InputError: there is no such backbone, or it has no last stride to change.
    """
    name = recipe.model.backbone
    if not is_backbone(name):
        near = difflib.get_close_matches(name, BACKBONES, 1, 0.4)
        nearest = f"; did you mean {near[0]}?" if near else "."
        raise InputError(
            f"there is no backbone {name}{nearest} Backbones: {', '.join(BACKBONES)}, and timm/NAME."
        )
    if name in WITHOUT_LAST_STRIDE and recipe.tricks.last_stride_1:
        raise InputError(f"{name} has no last stride: set tricks.last_stride_1=false")
    architecture = BaselineArchitecture(
        backbone=name,
        last_stride=None if name in WITHOUT_LAST_STRIDE else 1 if recipe.tricks.last_stride_1 else 2,
        stem_relu=recipe.model.stem_relu or name not in RESNETS,
        neck="bnneck" if recipe.tricks.bnneck else "none",
        num_classes=num_classes,
    )
    return replace(architecture, feature_dim=backbone_channels(architecture))


def initialize(model: Baseline, init: str) -> None:
    """Set the backbone's first weights.

    Args:
        model: changed in place.
        init: "none": keep the random ones; "imagenet": torchvision's or timm's, downloaded; else a path to a
            checkpoint of this project, of a known project, or of a bare torchvision or timm network.

    Raises:
        CheckpointError: the file is not readable, or its backbone is another one.
        NotInstalledError: the weights cannot be downloaded.
        InputError: neither torchvision nor timm publishes ImageNet weights for this backbone.
    """
    if init == "none":
        return
    name = model.architecture.backbone
    state_dict = _download(name) if init == "imagenet" else _from_file(Path(init), model)
    expected = {
        key.removeprefix("backbone."): shape for key, shape in backbone_shapes(model.architecture).items()
    }
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items() if key in expected}
    problem = first_difference(found, expected)
    if problem is not None:
        raise CheckpointError(f"{init}: its weights are not those of {name}: {problem}")
    model.backbone.load_state_dict({key: state_dict[key] for key in found}, strict=False)


@cache
def init_text(init: str) -> str:
    """First weights as results name them: a file by its name and content, wherever it is."""
    if init in ("imagenet", "none"):
        return init
    if not Path(init).is_file():
        raise CheckpointError(
            f"--init {init}: there is no such file; expected imagenet, none or a checkpoint"
        )
    return f"{Path(init).name} (sha256 {file_sha256(Path(init))[:12]})"


def _from_file(path: Path, model: Baseline) -> dict[str, Tensor]:
    """The backbone's tensors under the backbone's own names."""
    weights = read_weights(path)
    keys = torchvision_names(weights.state_dict)
    if weights.header is not None or any(key.startswith(("base.", "heads.")) for key in keys):
        checkpoint = load_checkpoint(path)
        return {key.removeprefix("backbone."): tensor for key, tensor in checkpoint.state_dict.items()}
    prefix = "trunk." if model.architecture.backbone.startswith("timm/") else ""
    return {prefix + key: tensor for key, tensor in keys.items()}


def _download(name: str) -> dict[str, Tensor]:
    import timm
    from torchvision.models import get_model_weights, list_models

    timm_name = TIMM_NAMES.get(name) or name.removeprefix("timm/")
    is_timm = name in TIMM_NAMES or name.startswith("timm/")
    if not is_timm and name not in list_models():
        raise InputError(
            f"--init imagenet: torchvision and timm publish no weights for {name}. Pass a file to --init, or none."
        )
    try:
        if not is_timm:
            # Enumerated in the order of publication: the first are the ones that the paper started from.
            weights = next(iter(get_model_weights(name)))
            return dict(weights.get_state_dict(progress=False, check_hash=True))
        trunk = timm.create_model(timm_name, pretrained=True, num_classes=0, global_pool="")
        prefix = "trunk." if name.startswith("timm/") else ""
        return {prefix + key: tensor for key, tensor in trunk.state_dict().items()}
    except (OSError, RuntimeError, ValueError) as error:
        raise NotInstalledError(
            f"--init imagenet: the weights of {name} could not be downloaded ({error}). Download them elsewhere and "
            "pass their file to --init, or start from random weights with --init none."
        ) from error
