"""Read a checkpoint of any known project, safely, into one form.

    file ─▶ Weights (nothing runs) ─▶ family ─▶ architecture ─▶ Checkpoint

What the file does not show is assumed as in the family's published configurations; ``Checkpoint.facts`` says of each
fact where it comes from, and :class:`CheckpointChoices` override it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from reidruntime.artifact.manifest import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Adaptation,
    Channels3,
    Feature,
    Origin,
    Preprocess,
    file_sha256,
)
from torch import Tensor

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.facts import OPTIONS, CheckpointFact, facts_of, told_facts
from reidexport.checkpoint.families import FAMILIES, backbone_shapes, family_of, shapes_of
from reidexport.checkpoint.family import Family, candidates_of, rename_keys
from reidexport.checkpoint.identify import describe, first_difference, identify, with_head
from reidexport.checkpoint.module_facts import ModuleFacts
from reidexport.checkpoint.other_networks import refuse_known_kinds, refuse_other_networks
from reidexport.checkpoint.projects.own import REIDEXPORT
from reidexport.checkpoint.projects.roboflow import reid_family
from reidexport.checkpoint.projects.torchreid import TORCHREID
from reidexport.checkpoint.reid_folder import CONFIG, ReidConfig, preprocess_of, weights_file
from reidexport.checkpoint.weights import FORMAT, Weights, read_weights
from reidexport.errors import CheckpointError, InputError
from reidexport.files import replaced_when_whole
from reidexport.models.baseline import (
    BACKBONES,
    RESNET_STEMS,
    Baseline,
    BaselineArchitecture,
    batch_norms,
    is_backbone,
)
from reidexport.models.catalogue import LIGHTMBNS
from reidexport.models.vit import PATCH_PX, TokenOptions, resized_grid, tokens_in_size

_IMAGENET = (
    "ImageNet's classifiers of 1000 classes (torchreid's *_imagenet.pth), never trained for re-identification"
)
_OWN_WORDS = ("weights", "camera")  # facts that are not as in a checkpoint's project
TORCH_EPS = 1e-5  # torch.nn.BatchNorm2d's default


@dataclass(frozen=True)
class Checkpoint:
    """Weights under this project's names, with everything needed to rebuild and feed the network.

    Attributes:
        name: the file's name, or the folder's.
        sha256: of the bytes of the file with the weights.
        family: the project whose conventions it follows.
        layout: how the file holds the weights, in words.
        architecture: the network.
        preprocess: size, resize kernel and normalization of its input.
        feature: what its project answers, behind the neck (f_i) or before it (f_t).
        state_dict: float32 tensors by name: ``backbone.*``, ``pool.p``, ``neck.*``, ``classifier.*``.
        facts: everything that decides its answers, and where each fact comes from.
        read: the facts that the file itself says, by name, whether another value was told or not.
        weights_key: which of several sets of weights in the file these are; None where it holds one.
        lookalikes: other networks that have these names and shapes, in words; "" where none is known.
        adaptation: how its BatchNorm statistics were moved towards a site's, where they were.
    """

    name: str
    sha256: str
    family: str
    layout: str
    architecture: BaselineArchitecture
    preprocess: Preprocess
    state_dict: dict[str, Tensor]
    facts: tuple[CheckpointFact, ...]
    feature: Feature = "f_i"
    read: frozenset[str] = frozenset()
    weights_key: str | None = None
    lookalikes: str = ""
    adaptation: Adaptation | None = None

    @property
    def assumed(self) -> tuple[str, ...]:
        """What is assumed because the file does not show it, each with the option that sets it."""
        return tuple(
            f"{fact.text} ({'' if fact.name in _OWN_WORDS else f'as in {self.family}; '}set with {fact.option})"
            for fact in self.facts
            if fact.origin == "assumed"
        )

    @property
    def fact_lines(self) -> list[str]:
        """All facts in words: what was read in one line, what was told in another, a line for each assumption."""
        lines = [
            f"{origin}: {', '.join(texts)}"
            for origin in ("read", "told", "tested")
            if (texts := [fact.text for fact in self.facts if fact.origin == origin])
        ]
        lines += [f"assumed: {text}" for text in self.assumed]
        return lines + ([f"the same names and shapes have: {self.lookalikes}"] if self.lookalikes else [])

    @property
    def origins(self) -> dict[str, Origin]:
        """Where each fact comes from, by its name."""
        return {fact.name: fact.origin for fact in self.facts}

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
        path: a file of ``torch.save`` (state dict, wrapped state dict or whole module) or safetensors, or a folder
            that roboflow's reid saved.
        choices: what is known of it that its weights do not show; default: what the file and its family say.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, holds no known architecture, or weights that are
            not finite numbers.
        InputError: the chosen size is not positive, or another value is chosen that the network cannot have.
    """
    path, choices = Path(path), choices or CheckpointChoices()
    if choices.size is not None and min(choices.size) < 1:
        raise InputError(f"size must be positive, got {choices.size[0]}x{choices.size[1]}")
    if choices.batch_norm_eps is not None and not 0 < choices.batch_norm_eps < 1:
        raise InputError(f"--bn-eps must be between 0 and 1, got {choices.batch_norm_eps}")
    if choices.semantic_weight is not None and not 0 <= choices.semantic_weight <= 1:
        raise InputError(f"--semantic-weight must be from 0 to 1, got {choices.semantic_weight}")
    weights = read_weights(path, choices.weights)
    for name, found in weights.module.unknown:
        if name not in told_facts(choices):
            raise CheckpointError(
                f"{path}: its module has {found}, which no network here has. If another one gives the same "
                f"answers, state it with {OPTIONS[name]}; else export the module to ONNX with its own code."
            )
    try:
        if weights.config is not None:
            contents = _contents_by_config(weights, weights.config, choices)
        else:
            read = _contents_by_names if weights.header is None else _contents_by_header
            contents = read(weights, choices.arch)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    family, architecture, preprocess, state_dict, known = _with_choices(contents, choices)
    in_file = known if weights.other_keys else known | {"weights"}
    origins: dict[str, Origin] = dict.fromkeys(in_file, "read")
    checkpoint = Checkpoint(
        name=path.resolve().name if path.is_dir() else path.name,
        sha256=file_sha256(weights_file(path)),
        family=family.name,
        layout=weights.layout,
        architecture=architecture,
        preprocess=preprocess,
        state_dict=state_dict,
        facts=checkpoint_facts(
            architecture, preprocess, state_dict, origins | told_facts(choices), _weights_in_words(weights)
        ),
        feature=family.feature,
        read=in_file,
        weights_key=weights.key if weights.other_keys else None,
    )
    has_lookalikes = architecture.backbone in (*RESNET_STEMS, "resnest50") or architecture.pooling == "none"
    is_ambiguous = has_lookalikes and checkpoint.assumed
    is_imagenet = family is TORCHREID and architecture.num_classes == 1000
    lookalikes = (_IMAGENET if is_imagenet else "", family.lookalikes if is_ambiguous else "")
    return replace(checkpoint, lookalikes="; ".join(filter(None, lookalikes)))


@cache
def _own_eps(architecture: BaselineArchitecture) -> float | None:
    """The eps of a network's BatchNorms as its code has it; None where they differ or there are none."""
    with torch.device("meta"):
        eps = {norm.eps for norm in batch_norms(Baseline(architecture)).values()}
    return eps.pop() if len(eps) == 1 else None


def _weights_in_words(weights: Weights) -> str | None:
    if not weights.key:
        return None
    others = ", ".join(repr(key) for key in weights.other_keys)
    return f"weights under {weights.key!r}" + (f", not those under {others}" if others else "")


def checkpoint_facts(
    architecture: BaselineArchitecture,
    preprocess: Preprocess,
    state_dict: Mapping[str, Tensor],
    origins: Mapping[str, Origin],
    weights: str | None = None,
) -> tuple[CheckpointFact, ...]:
    """The facts of a network with weights by this project's names; what ``origins`` does not name is assumed."""
    eps = architecture.batch_norm_eps
    if eps is None:
        eps = _own_eps(replace(architecture, num_classes=0))
    return tuple(
        facts_of(
            architecture,
            preprocess,
            float(state_dict["pool.p"]) if "pool.p" in state_dict else None,
            eps,
            weights,
            origins,
        )
    )


def model_from_checkpoint(checkpoint: Checkpoint) -> Baseline:
    """The network with the checkpoint's weights, in eval mode and without the classifier, which only training uses."""
    with torch.device("meta"):  # no weights are drawn only to be replaced
        model = Baseline(replace(checkpoint.architecture, num_classes=0))
    counters = {key: torch.tensor(0) for key in model.state_dict() if key.endswith("num_batches_tracked")}
    tensors = checkpoint.state_dict.items()
    used = {key: tensor.clone() for key, tensor in tensors if not key.startswith("classifier.")}
    model.load_state_dict({**counters, **used}, assign=True)
    _compute_buffers(model)
    return model.eval()


def _compute_buffers(model: Baseline) -> None:
    """Fill what a network computes when it is built and does not store, such as indices into tables of biases."""
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if not empty:
        return
    with torch.random.fork_rng(devices=()):
        computed = dict(Baseline(model.architecture).named_buffers())
    for name in empty:
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner).register_buffer(attribute, computed[name], persistent=False)


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
    """:func:`save_checkpoint` for a network's weights by name, on any device, that are in no model at the moment.

    Raises:
        InputError: this format does not hold such networks, which only other projects' checkpoints have.
    """
    if not is_backbone(architecture.backbone):
        raise InputError(
            f"this format does not hold {architecture.backbone}: keep the checkpoint that it was read from"
        )
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
    known: frozenset[str]  # the facts that the file says, by name


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
    return _Contents(REIDEXPORT, architecture, preprocess, _finite(state_dict), frozenset(OPTIONS))


def _contents_by_config(weights: Weights, config: ReidConfig, choices: CheckpointChoices) -> _Contents:
    """Of a folder of roboflow's reid: its config names the network and states the images."""
    family = reid_family(config.architecture)
    if family is None:
        raise CheckpointError(
            f"its {CONFIG} names the network {config.architecture!r}, which is not known here: neither one of reid's "
            "own, nor one of the installed timm."
        )
    if choices.arch not in (None, *family.backbones):
        raise CheckpointError(f"--arch {choices.arch}: its {CONFIG} says that it is {config.architecture}")
    with _shaped_as_in(family):
        state_dict = rename_keys(weights.state_dict, family)
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items() if key.startswith("backbone.")}
    (network,) = candidates_of(family, found)
    try:
        expected = backbone_shapes(network)
    except InputError as error:
        raise CheckpointError(f"{error}. Export it with timm, and use the ONNX file") from error
    if problem := first_difference(found, expected):
        raise CheckpointError(
            f"its {CONFIG} says that it is {config.architecture}, but its weights are others: {problem}"
        )
    architecture = with_head(network, state_dict)
    _check_names(state_dict, architecture)
    preprocess, stated = preprocess_of(config, choices.resize)
    known = {"backbone", "last_stride", "pooling", "batch_norm_eps", *stated}
    return _Contents(family, architecture, preprocess, _finite(state_dict), frozenset(known))


@contextmanager
def _shaped_as_in(family: Family) -> Iterator[None]:
    """Names a family's own tensors that are missing or of another shape, where they are put together or taken apart."""
    try:
        yield
    except (LookupError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"its tensors are named as {family.name}'s, but some are missing or of another shape ({error}). The file "
            "may be cut, or of a changed network: export that with its own code (torch.onnx.export)."
        ) from error


def _contents_by_names(weights: Weights, arch: str | None) -> _Contents:
    """Of a foreign checkpoint: names and shapes identify the network, the family's conventions say the rest."""
    found = {key: tuple(tensor.shape) for key, tensor in weights.state_dict.items()}
    refuse_other_networks(found)
    family = family_of(found)
    if family is None:
        refuse_known_kinds(found)
        first = next(iter(weights.state_dict), None)
        names = ", ".join(dict.fromkeys(each.name for each in FAMILIES))
        raise CheckpointError(
            f"no known project names its tensors like this (first: {first}). Known are {names} and reidexport itself."
        )
    with _shaped_as_in(family):
        state_dict = rename_keys(weights.state_dict, family)
        identified = identify(state_dict, family, arch)
        _check_names(state_dict, identified)
    state_dict = _finite(state_dict)
    preprocess = imagenet_preprocess(*(weights.size or family.size(identified))).model_copy(
        update={"resize": family.resize, "mean": family.mean, "std": family.std}
    )
    statistics = _pixel_statistics(weights.state_dict)
    architecture = _as_in_family(identified, family)
    by_module = _told_by_module(architecture, weights.module)
    known = {"backbone", *statistics, *by_module, *(["size"] if weights.size else [])}
    if by_module.get("batch_norm_eps") == TORCH_EPS:
        del by_module["batch_norm_eps"]  # what every network of these families has anyway
    architecture = replace(architecture, **by_module)
    if weights.module.gem_p is not None:
        state_dict["pool.p"] = torch.tensor([weights.module.gem_p])
    if "pool.p" in state_dict:
        known.add("pooling")
    elif architecture.pooling == "gem":
        state_dict["pool.p"] = torch.tensor([3.0])
        known.discard("pooling")  # its power is assumed
    preprocess = preprocess.model_copy(update=statistics)
    return _Contents(family, architecture, preprocess, state_dict, frozenset(known))


def _as_in_family(architecture: BaselineArchitecture, family: Family) -> BaselineArchitecture:
    """What neither names nor shapes show, as the family's own code has it."""
    last_stride = architecture.last_stride
    if last_stride is not None and family is TORCHREID and architecture.neck == "fc":
        last_stride = 1  # torchreid's resnet50_fc512; its plain resnet50 has 2
    # fast-reid's AGW pools with a fixed power that its weights do not hold.
    pooling = "gem" if architecture.non_local else architecture.pooling
    return replace(architecture, last_stride=last_stride, pooling=pooling)


def _told_by_module(architecture: BaselineArchitecture, module: ModuleFacts) -> dict[str, Any]:
    """The fields of an architecture that a pickled module tells."""
    known: dict[str, Any] = {"batch_norm_eps": module.batch_norm_eps}
    if architecture.pooling != "none":
        known["pooling"] = module.pooling
    if architecture.last_stride is not None:
        known["last_stride"] = module.last_stride
    if architecture.backbone in RESNET_STEMS:
        known |= {"stem_relu": module.stem_relu, "stem_pool": module.stem_pool}
    return {name: value for name, value in known.items() if value is not None}


def _pixel_statistics(state_dict: dict[str, Tensor]) -> dict[str, Channels3]:
    """The mean and std that older fast-reid checkpoints hold, for pixels in [0, 1]; nothing of others."""
    if "pixel_mean" not in state_dict or "pixel_std" not in state_dict:
        return {}
    mean, std = (state_dict[key].double().flatten() / 255 for key in ("pixel_mean", "pixel_std"))
    if len(mean) != 3 or len(std) != 3 or not bool((std > 0).all()):
        raise CheckpointError("pixel_mean and pixel_std must be three numbers each, the second positive")
    return {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}


def _with_choices(contents: _Contents, choices: CheckpointChoices) -> _Contents:
    """What the user says instead of what was assumed; refused where the network leaves no choice."""
    family, architecture, preprocess, state_dict, known = contents
    backbone, is_resnet = architecture.backbone, architecture.backbone in RESNET_STEMS
    if choices.last_stride is not None and architecture.last_stride is None:
        raise InputError(f"{backbone} has no last stride to set: leave --last-stride out")
    if choices.stem_relu not in (None, architecture.stem_relu) and not is_resnet:
        raise InputError(f"the stem of {backbone} always has its ReLU: leave --stem-relu out")
    if choices.stem_pool is not None and not is_resnet:
        raise InputError(f"the stem of {backbone} pools in one way only: leave --stem-pool out")
    if choices.pooling is not None and architecture.pooling == "none":
        raise InputError(f"{backbone} has no global pooling to choose: leave --pooling out")
    if choices.semantic_weight is not None and architecture.semantic_weight is None:
        raise InputError(f"this {backbone} has no semantic embedding: leave --semantic-weight out")
    if choices.unit_parts is not None and backbone not in LIGHTMBNS:
        raise InputError(f"the feature of {backbone} is not made of parts: leave --unit-parts out")
    stated: dict[str, Any] = {
        "tokens": _tokens(architecture, choices),
        "last_stride": choices.last_stride,
        "stem_relu": choices.stem_relu,
        "stem_pool": choices.stem_pool,
        "pooling": choices.pooling,
        "batch_norm_eps": choices.batch_norm_eps,
        "semantic_weight": choices.semantic_weight,
        "unit_parts": choices.unit_parts,
    }
    architecture = replace(
        architecture, **{name: value for name, value in stated.items() if value is not None}
    )
    pixels: dict[str, object] = {
        "mean": choices.mean, "std": choices.std, "channel_order": choices.channel_order, "resize": choices.resize,
    }  # fmt: skip
    if choices.size is not None:
        pixels["height_px"], pixels["width_px"] = choices.size
    preprocess = preprocess.model_copy(
        update={name: value for name, value in pixels.items() if value is not None}
    )
    if architecture.tokens and contents.architecture.tokens:
        state_dict = resized_grid(state_dict, contents.architecture.tokens.grid, architecture.tokens.grid)
    state_dict = _with_power(state_dict, choices, is_read="pooling" in known)
    return _Contents(family, architecture, preprocess, state_dict, known)


def _tokens(architecture: BaselineArchitecture, choices: CheckpointChoices) -> TokenOptions | None:
    """A transformer's tokens as the user states them: of another size of images, of a camera."""
    tokens = architecture.tokens
    if choices.camera is not None and (tokens is None or not 1 <= choices.camera <= tokens.num_cameras):
        num_cameras = tokens.num_cameras if tokens else 0
        has = (
            f"has embeddings of {num_cameras} cameras, from 1" if num_cameras else "has no camera embeddings"
        )
        raise InputError(f"--camid {choices.camera}: this {architecture.backbone} {has}")
    camera = choices.camera or (tokens.camera if tokens else None)
    if choices.camera_weight is not None and camera is None:
        raise InputError("--camera-weight weighs the embedding of a camera: give --camid too")
    if tokens is None:
        return None
    if choices.size is not None:
        if min(choices.size) < PATCH_PX:
            raise InputError(
                f"--size {choices.size[0]}x{choices.size[1]}: its patches are of {PATCH_PX} px, images must not be "
                "smaller"
            )
        tokens = tokens_in_size(tokens, choices.size)
    weight = tokens.camera_weight if choices.camera_weight is None else choices.camera_weight
    return replace(tokens, camera=camera, camera_weight=weight)


def _with_power(
    state_dict: dict[str, Tensor], choices: CheckpointChoices, is_read: bool
) -> dict[str, Tensor]:
    """The tensors with the power of the chosen pooling; refused where the file holds another one."""
    held = state_dict.get("pool.p")
    if choices.pooling is None:
        return state_dict
    if is_read and held is not None:
        if choices.pooling != "gem" or choices.gem_p not in (None, float(held)):
            raise InputError(f"the file holds a GeM pooling with p = {float(held):g}: leave --pooling out")
        return state_dict
    others = {key: tensor for key, tensor in state_dict.items() if key != "pool.p"}
    return others if choices.pooling != "gem" else {**others, "pool.p": torch.tensor([choices.gem_p or 3.0])}


def _check_names(state_dict: dict[str, Tensor], architecture: BaselineArchitecture) -> None:
    """Compare every tensor, those of the head included, with what the architecture has."""
    with torch.device("meta"):
        model = Baseline(architecture)
    backbone_dim = model.backbone.out_channels
    if (
        architecture.neck in ("bnneck", "none")
        and not architecture.reduced
        and architecture.feature_dim != backbone_dim
    ):
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
