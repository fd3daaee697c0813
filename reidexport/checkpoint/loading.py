"""Read a checkpoint of any known project, safely, into one form.

    file ─▶ Weights (nothing runs) ─▶ family ─▶ architecture ─▶ Checkpoint

What the weights do not show is assumed as in the family's published configurations and listed in
``Checkpoint.assumed``; :class:`CheckpointChoices` override it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from reidruntime.artifact.manifest import Channels3, Preprocess, file_sha256
from torch import Tensor

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.families import (
    FAST_REID,
    REIDEXPORT,
    TORCHREID,
    Family,
    family_of,
    rename_keys,
    shapes_of,
)
from reidexport.checkpoint.identify import describe, first_difference, identify
from reidexport.checkpoint.other_networks import refuse_other_networks
from reidexport.checkpoint.weights import FORMAT, Weights, read_weights
from reidexport.errors import CheckpointError, InputError
from reidexport.files import replaced_when_whole
from reidexport.models.baseline import (
    BACKBONES,
    IBN_RESNETS,
    RESNETS,
    Baseline,
    BaselineArchitecture,
    is_backbone,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Checkpoint:
    """Weights under this project's names, with everything needed to rebuild and feed the network.

    Attributes:
        name: the file's name.
        sha256: of the file's bytes.
        family: the project whose conventions it follows.
        layout: how the file holds the weights, in words.
        architecture: the network.
        preprocess: size, resize kernel and normalization of its input.
        state_dict: float32 tensors by name: ``backbone.*``, ``pool.p``, ``neck.*``, ``classifier.*``.
        assumed: what was assumed because the weights do not show it, each with the option that sets it.
    """

    name: str
    sha256: str
    family: str
    layout: str
    architecture: BaselineArchitecture
    preprocess: Preprocess
    state_dict: dict[str, Tensor]
    assumed: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line: project, backbone, neck, feature dimension and classes."""
        architecture = self.architecture
        classes = f", {architecture.num_classes} classes" if architecture.num_classes else ""
        return (
            f"{self.family} {describe(architecture)}, neck {architecture.neck}, "
            f"{architecture.feature_dim}-d feature{classes} ({self.layout})"
        )


def load_checkpoint(path: str | Path, choices: CheckpointChoices | None = None) -> Checkpoint:
    """Read a checkpoint and identify what it holds; no code from the file runs.

    Args:
        path: a file of ``torch.save`` (state dict, wrapped state dict or whole module) or safetensors.
        choices: what is known of it that its weights do not show; default: what the file and its family say.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, holds no known architecture, or weights that are
            not finite numbers.
        InputError: the chosen size is not positive, or another value is chosen that the network cannot have.
    """
    path, choices = Path(path), choices or CheckpointChoices()
    if choices.size is not None and min(choices.size) < 1:
        raise InputError(f"size must be positive, got {choices.size[0]}x{choices.size[1]}")
    weights = read_weights(path, choices.weights)
    try:
        read = _contents_by_names if weights.header is None else _contents_by_header
        contents = read(weights, choices.arch)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    assumed = () if weights.header is not None else tuple(_assumptions(contents, weights, choices))
    family, architecture, preprocess, state_dict = _with_choices(contents, choices)
    return Checkpoint(
        name=path.name,
        sha256=file_sha256(path),
        family=family.name,
        layout=weights.layout,
        architecture=architecture,
        preprocess=preprocess,
        state_dict=state_dict,
        assumed=assumed,
    )


def model_from_checkpoint(checkpoint: Checkpoint) -> Baseline:
    """The network with the checkpoint's weights, in eval mode and without the classifier, which only training uses."""
    with torch.device("meta"):  # no weights are drawn only to be replaced
        model = Baseline(replace(checkpoint.architecture, num_classes=0))
    counters = {key: torch.tensor(0) for key in model.state_dict() if key.endswith("num_batches_tracked")}
    tensors = checkpoint.state_dict.items()
    used = {key: tensor.clone() for key, tensor in tensors if not key.startswith("classifier.")}
    model.load_state_dict({**counters, **used}, assign=True)
    return model.eval()


def save_checkpoint(
    path: str | Path, model: Baseline, preprocess: Preprocess, extra: dict[str, object] | None = None
) -> None:
    """Write this project's own format, tensors and plain data only, atomically.

    Args:
        path: where to; an existing file is replaced only by a whole one.
        model: its weights and architecture are written.
        preprocess: the input that it was trained with.
        extra: plain data to keep beside it, such as the recipe or the epoch.
    """
    save_weights(path, model.architecture, model.state_dict(), preprocess, extra)


def save_weights(
    path: str | Path,
    architecture: BaselineArchitecture,
    state_dict: Mapping[str, Tensor],
    preprocess: Preprocess,
    extra: dict[str, object] | None = None,
) -> None:
    """:func:`save_checkpoint` for a network's weights by name, on any device, that are in no model at the moment."""
    content = {
        **(extra or {}),
        "format": FORMAT,
        "architecture": asdict(architecture),
        "preprocess": preprocess.model_dump(mode="json"),
        "state_dict": {key: tensor.detach().cpu() for key, tensor in state_dict.items()},
    }
    with replaced_when_whole(Path(path)) as temporary:
        torch.save(content, temporary)


def imagenet_preprocess(height_px: int, width_px: int) -> Preprocess:
    """Bilinear resizing to a size, and ImageNet's mean and std (paper, 2, step 5)."""
    return Preprocess(
        height_px=height_px, width_px=width_px, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=True
    )


class _Contents(NamedTuple):
    """What a file says, or its family implies."""

    family: Family
    architecture: BaselineArchitecture
    preprocess: Preprocess
    state_dict: dict[str, Tensor]


def _contents_by_header(weights: Weights, arch: str | None) -> _Contents:
    """Of a checkpoint of this project: its header says everything, and is refused where no network can be so."""
    header = weights.header or {}
    try:
        architecture = TypeAdapter(BaselineArchitecture).validate_python(header.get("architecture"))
        preprocess = Preprocess.model_validate(header.get("preprocess"))
    except ValidationError as error:
        raise CheckpointError(
            f"its header is not valid: {error}. Write it with reidexport.save_checkpoint."
        ) from error
    if not is_backbone(architecture.backbone):
        raise CheckpointError(
            f"its backbone {architecture.backbone!r} is not known. Known: {', '.join(BACKBONES)}, and timm/NAME"
        )
    if architecture.feature_dim < 1 or architecture.num_classes < 0:
        raise CheckpointError(
            f"its header says a {architecture.feature_dim}-d feature and {architecture.num_classes} classes"
        )
    if arch not in (None, architecture.backbone):
        raise CheckpointError(f"--arch {arch}: the file says that it is {architecture.backbone}")
    state_dict = rename_keys(weights.state_dict, REIDEXPORT)
    _check_names(state_dict, architecture)
    return _Contents(REIDEXPORT, architecture, preprocess, _finite(state_dict))


def _contents_by_names(weights: Weights, arch: str | None) -> _Contents:
    """Of a foreign checkpoint: names and shapes identify the network, the family's conventions say the rest."""
    refuse_other_networks({key: tuple(tensor.shape) for key, tensor in weights.state_dict.items()})
    family = family_of(set(weights.state_dict))
    if family is None:
        first = next(iter(weights.state_dict), None)
        raise CheckpointError(
            f"no known project names its tensors like this (first: {first}). Known are reid-strong-baseline "
            "(base.*), fast-reid (backbone.*, heads.*), torchreid (conv1.*, layer1.*) and reidexport itself."
        )
    state_dict = rename_keys(weights.state_dict, family)
    identified = identify(state_dict, family, arch)
    _check_names(state_dict, identified)
    state_dict = _finite(state_dict)
    # fast-reid's SBS configurations are those with a learned pooling power, and take taller images.
    size = (384, 128) if family is FAST_REID and identified.pooling == "gem" else (256, 128)
    mean, std = _pixel_statistics(weights.state_dict)
    preprocess = imagenet_preprocess(*size).model_copy(
        update={"resize": family.resize, "mean": mean, "std": std}
    )
    return _Contents(family, _with_unseen_facts(identified, family, weights), preprocess, state_dict)


def _with_unseen_facts(
    architecture: BaselineArchitecture, family: Family, weights: Weights
) -> BaselineArchitecture:
    """What neither names nor shapes show: as a pickled module has it, else as the family's own code does."""
    last_stride, stem_relu = architecture.last_stride, architecture.stem_relu
    if last_stride is not None:
        # torchreid's resnet50_fc512 has 1; its plain resnet50 has 2.
        last_stride = 1 if family is TORCHREID and architecture.neck == "fc" else last_stride
        last_stride = weights.last_stride or last_stride
    if weights.stem_relu is not None and architecture.backbone in (*RESNETS, *IBN_RESNETS):
        stem_relu = weights.stem_relu
    # fast-reid's AGW pools with a fixed power that its weights do not hold.
    pooling = "gem" if architecture.non_local else architecture.pooling
    return replace(architecture, last_stride=last_stride, stem_relu=stem_relu, pooling=pooling)


def _assumptions(contents: _Contents, weights: Weights, choices: CheckpointChoices) -> Iterator[str]:
    """A text for each fact that is only the family's convention, and not chosen, with the option that sets it."""
    family, architecture, preprocess, state_dict = contents
    if choices.weights is None and weights.other_keys:
        yield f"weights under {weights.key!r}, an average of those under {weights.other_keys[0]!r} (set with --weights)"
    if choices.size is None:
        size = f"{preprocess.height_px}x{preprocess.width_px}"
        yield f"input {size} px (as in {family.name}; set with --size)"
    if choices.pooling is None and architecture.non_local and "pool.p" not in state_dict:
        yield "generalized-mean pooling with p = 3 (as in fast-reid's AGW)"
    elif choices.pooling is None and (architecture.backbone, architecture.pooling) == ("resnest50", "avg"):
        yield "average pooling (as in fast-reid's BoT; its AGW has the same weights: --pooling gem)"
    if choices.last_stride is None and weights.last_stride is None and architecture.last_stride is not None:
        yield f"last stride {architecture.last_stride} (as in {family.name}; set with --last-stride)"
    if choices.stem_relu is None and weights.stem_relu is None and not architecture.stem_relu:
        yield f"no ReLU after the stem (as in {family.name}'s code; set with --stem-relu)"


def _pixel_statistics(state_dict: dict[str, Tensor]) -> tuple[Channels3, Channels3]:
    """ImageNet's mean and std, or those that older fast-reid checkpoints hold, for pixels in [0, 1]."""
    if "pixel_mean" not in state_dict or "pixel_std" not in state_dict:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = (state_dict[key].double().flatten() / 255 for key in ("pixel_mean", "pixel_std"))
    if len(mean) != 3 or len(std) != 3 or not bool((std > 0).all()):
        raise CheckpointError("pixel_mean and pixel_std must be three numbers each, the second positive")
    return tuple(mean.tolist()), tuple(std.tolist())


def _with_choices(contents: _Contents, choices: CheckpointChoices) -> _Contents:
    """What the user says instead of what was assumed; refused where the network leaves no choice."""
    family, architecture, preprocess, state_dict = contents
    backbone, pooling = architecture.backbone, choices.pooling or architecture.pooling
    if choices.last_stride is not None and architecture.last_stride is None:
        raise InputError(f"{backbone} has no last stride to set: leave --last-stride out")
    if choices.stem_relu not in (None, architecture.stem_relu) and backbone not in (*RESNETS, *IBN_RESNETS):
        raise InputError(f"the stem of {backbone} always has its ReLU: leave --stem-relu out")
    if pooling == "gem":
        state_dict = {**state_dict, "pool.p": state_dict.get("pool.p", torch.tensor([3.0]))}
    elif "pool.p" in state_dict:
        raise InputError("the weights hold the power of a learned GeM pooling: leave --pooling out")
    if choices.size is not None:
        height_px, width_px = choices.size
        preprocess = preprocess.model_copy(update={"height_px": height_px, "width_px": width_px})
    architecture = replace(
        architecture,
        last_stride=choices.last_stride or architecture.last_stride,
        stem_relu=architecture.stem_relu if choices.stem_relu is None else choices.stem_relu,
        pooling=pooling,
    )
    return _Contents(family, architecture, preprocess, state_dict)


def _check_names(state_dict: dict[str, Tensor], architecture: BaselineArchitecture) -> None:
    """Compare every tensor, those of the head included, with what the architecture has."""
    with torch.device("meta"):
        model = Baseline(architecture)
    backbone_dim = model.backbone.out_channels
    if architecture.neck in ("bnneck", "none") and architecture.feature_dim != backbone_dim:
        raise CheckpointError(
            f"its header says a {architecture.feature_dim}-d feature, but its {describe(architecture)} with neck "
            f"{architecture.neck} gives {backbone_dim}"
        )
    # A classifier's bias is no part of the paper's model; it would be dropped with the classifier.
    found = {key: tuple(value.shape) for key, value in state_dict.items() if key != "classifier.bias"}
    problem = first_difference(found, shapes_of(model))
    if problem is not None:
        raise CheckpointError(f"its weights are not those of {describe(architecture)}: {problem}")


def _finite(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in float32, all their values finite there."""
    state_dict = {key: tensor.float() for key, tensor in state_dict.items()}
    for key, tensor in state_dict.items():
        if num_bad := int((~torch.isfinite(tensor)).sum()):
            raise CheckpointError(
                f"{key} holds {num_bad} values that are not finite numbers: the training diverged or the file is "
                "damaged. Use an earlier checkpoint."
            )
    return state_dict
