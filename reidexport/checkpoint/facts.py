"""The facts that decide a checkpoint's answers, each with where it comes from and the option that sets it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reidruntime.artifact.manifest import Origin, Preprocess

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.models.baseline import RESNET_STEMS, BaselineArchitecture
from reidexport.models.catalogue import LIGHTMBNS
from reidexport.models.lightmbn import NUM_PARTS
from reidexport.models.vit import TokenOptions

_STEM_POOLS = {
    "padded": "3x3, padded",
    "padded-ceil": "3x3, padded, ceil_mode",
    "valid": "3x3, unpadded",
    "ceil": "3x3, unpadded, ceil_mode",
    "2x2": "2x2",
    "none": "none",
}


@dataclass(frozen=True)
class CheckpointFact:
    """One of them.

    Attributes:
        name: in manifests, such as "last_stride".
        text: name and value in words, such as "last stride 1".
        origin: "read" from the file, "told" by the user, "assumed" as in the checkpoint's project, or assumed and
            "tested" on images.
        option: of the command line.
    """

    name: str
    text: str
    origin: Origin
    option: str


def facts_of(
    architecture: BaselineArchitecture,
    preprocess: Preprocess,
    gem_p: float | None,
    batch_norm_eps: float | None,
    weights: str | None,
    origins: Mapping[str, Origin],
) -> Iterator[CheckpointFact]:
    """Every fact that a network of this architecture has.

    Args:
        architecture: the network.
        preprocess: its input.
        gem_p: the power of its pooling, None where it has none.
        batch_norm_eps: of its BatchNorms, None where they differ or there are none.
        weights: which of the file's sets of weights it has, in words; None where there is one under no key.
        origins: of each fact by name; what is missing is assumed.
    """
    is_resnet = architecture.backbone in RESNET_STEMS
    stem_relu = "a ReLU after the stem" if architecture.stem_relu else "no ReLU after the stem"
    pooling = {"avg": "average", "max": "max", "gem": "generalized-mean", "none": ""}[architecture.pooling]
    power = "" if gem_p is None else f" with p = {gem_p:g}"
    semantic = architecture.semantic_weight
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values) for values in (preprocess.mean, preprocess.std)
    )
    texts = {
        "backbone": f"backbone {architecture.backbone}",
        "last_stride": architecture.last_stride and f"last stride {architecture.last_stride}",
        "stem_relu": stem_relu if is_resnet else None,
        "stem_pool": f"stem pooling {_STEM_POOLS[architecture.stem_pool]}" if is_resnet else None,
        "pooling": pooling and f"{pooling} pooling{power}",
        **_camera_facts(architecture.tokens),
        "semantic_weight": None if semantic is None else f"semantic weight {semantic:g}",
        "unit_parts": _parts_fact(architecture),
        "batch_norm_eps": None if batch_norm_eps is None else f"BatchNorm eps {batch_norm_eps:g}",
        "size": f"input {preprocess.height_px}x{preprocess.width_px} px{_patches(architecture.tokens)}",
        "mean": f"mean {mean}",
        "std": f"std {std}",
        "channel_order": f"{preprocess.channel_order} channels",
        "resize": f"{preprocess.resize} resizing",
        "weights": weights,
    }
    for name, text in texts.items():
        if text:
            yield CheckpointFact(name, text, origins.get(name, "assumed"), OPTIONS[name])


def _parts_fact(architecture: BaselineArchitecture) -> str | None:
    """Whether each part of the feature has unit length, of networks whose feature has parts."""
    if architecture.backbone not in LIGHTMBNS:
        return None
    return f"its {NUM_PARTS} parts {'each of unit length' if architecture.unit_parts else 'as they are'}"


def _patches(tokens: TokenOptions | None) -> str:
    """How a transformer cuts its images, in words."""
    if tokens is None or tokens.conv_stem:
        return ""
    rows, columns = tokens.grid
    return f" in {rows}x{columns} patches, one every {tokens.stride_px} px"


def _camera_facts(tokens: TokenOptions | None) -> dict[str, str]:
    """Which camera embedding is added, of networks that have some."""
    if tokens is None or not tokens.num_cameras:
        return {}
    if tokens.camera is None:
        none = f"no camera embedding added, of {tokens.num_cameras}"
        return {"camera": f"{none}, where its project adds each image's own"}
    return {
        "camera": f"the embedding of camera {tokens.camera} of {tokens.num_cameras} added",
        "camera_weight": f"camera embedding times {tokens.camera_weight:g}",
    }


OPTIONS = {
    "backbone": "--arch",
    "last_stride": "--last-stride",
    "stem_relu": "--stem-relu",
    "stem_pool": "--stem-pool",
    "pooling": "--pooling",
    "camera": "--camid",
    "camera_weight": "--camera-weight",
    "semantic_weight": "--semantic-weight",
    "unit_parts": "--unit-parts",
    "batch_norm_eps": "--bn-eps",
    "size": "--size",
    "mean": "--mean",
    "std": "--std",
    "channel_order": "--channel-order",
    "resize": "--resize",
    "weights": "--weights",
}


def told_facts(choices: CheckpointChoices) -> dict[str, Origin]:
    """The facts that a user states, by name."""
    given = vars(choices) | {"backbone": choices.arch}
    return {name: "told" for name in OPTIONS if given.get(name) is not None}
