"""What a checkpoint's BatchNorms remember of its training, as a test of what is assumed about it; no label is needed.

A BatchNorm keeps the mean and the variance of what it normalized in training. On images like those of the training,
through the right network and the right preprocessing, it meets the same again; through a wrong one it does not. How far
it is off is the divergence of :mod:`reidexport.evaluation.batch_norm_moments`; the figure of a configuration is the
mean over all BatchNorms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Channels3, Origin
from reidruntime.images.depth import Depth
from reidruntime.images.preprocess import decode_image
from reidruntime.images.resize import Image8, resize
from torch import Tensor

from reidexport.checkpoint.loading import TORCH_EPS, Checkpoint, checkpoint_facts, model_from_checkpoint
from reidexport.errors import InputError
from reidexport.evaluation.batch_norm_moments import divergence, measured_moments
from reidexport.models.baseline import Baseline, BaselineArchitecture, batch_norms
from reidexport.models.vit import tokens_in_size
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.inspection import Evidence, Fit

MIN_IMAGES = 32
MAX_IMAGES = 256
# An alternative that is this many times nearer is right; less can be chance, or an augmentation of the training.
CLEARLY = 1.5
# Added to both: in training, batches of a few persons are normalized by their own statistics, which leaves the right
# network this far away, and lets a larger eps fit a little better.
SYSTEMATIC = 0.001
# On images of its training's data set the right network's neck stays below; on those of others it is above.
FITS_BELOW = 0.15
# What is so many times farther than the nearest after a glimpse at a few images sees no more of them; and what is
# clearly farther after more of them does not see all.
_GLIMPSED_IMAGES, _SCREENED_IMAGES = 16, 64
_FAR = 4.0
_MAX_CHANGES = 3
_BATCH = 32
_SIZES = (
    *((256, 128), (384, 128), (128, 64), (256, 256), (224, 224), (288, 144), (384, 192), (160, 64)),
    *((192, 64), (192, 96), (256, 192), (320, 160)),
)
_NORMALIZATIONS: tuple[tuple[Channels3, Channels3], ...] = (
    (IMAGENET_MEAN, IMAGENET_STD),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    (IMAGENET_MEAN, (1 / 255, 1 / 255, 1 / 255)),
)

Change = dict[str, Any]


def read_crops(paths: Sequence[str], depth: Depth = "refuse") -> list[Image8]:
    """Decode at most ``MAX_IMAGES`` images, evenly spread over the list.

    Raises:
        ImageError: one cannot be read.
    """
    places = np.linspace(0, len(paths) - 1, min(len(paths), MAX_IMAGES)).astype(int)
    return [decode_image(Path(paths[i]), depth=depth) for i in places]


def check_assumptions(
    checkpoint: Checkpoint, images: Sequence[Image8], progress_bar: ProgressBar = no_progress_bar
) -> tuple[Checkpoint, Evidence]:
    """Compare what a checkpoint's BatchNorms recorded with what they measure, as assumed and otherwise.

    Every fact that is assumed or told is varied alone; from an alternative that is clearly nearer the others are varied
    again, up to three at once.

    Args:
        checkpoint: the network as it is taken to be.
        images: at least ``MIN_IMAGES`` real crops, uint8 RGB of any size, like those of the training; 256 suffice.
        progress_bar: shown for the configurations.

    Returns:
        The checkpoint, in which assumptions that hold against their alternatives have the origin "tested"; and the
        evidence.

    Raises:
        InputError: there are too few images, or the network has no BatchNorm.
    """
    if len(images) < MIN_IMAGES:
        raise InputError(f"testing assumptions needs at least {MIN_IMAGES} images, got {len(images)}.")
    model = model_from_checkpoint(checkpoint)
    if not batch_norms(model):
        raise InputError(
            f"{checkpoint.name} has no BatchNorm: what is assumed of it cannot be tested on images."
        )
    # Those that are screened are of all persons and cameras.
    images = [images[i] for i in np.random.default_rng(0).permutation(len(images))]

    networks = {checkpoint.architecture: model}

    def fit(each: _Configuration, num_images: int) -> _Configuration:
        architecture = each.checkpoint.architecture
        if architecture not in networks:
            if len(networks) > 1:
                networks.popitem()  # many configurations differ in their images only, so the last one is kept
            networks[architecture] = model_from_checkpoint(each.checkpoint)
        return _fit(each, images[each.num_images : num_images], networks[architecture])

    best = assumed = fit(_Configuration(checkpoint, {}), _SCREENED_IMAGES)
    found = [assumed]
    for _ in range(_MAX_CHANGES):
        found += _fits_of_alternatives(best, found, fit, progress_bar)
        nearest = min(
            (each for each in found if each.num_images == best.num_images), key=lambda each: each.divergence
        )
        if not _is_clearly_nearer(nearest, best):
            break
        best = nearest
    picked = found.index(best)
    near = [
        place
        for place, each in enumerate(found)
        if each is assumed or (each.num_images == best.num_images and not _is_clearly_nearer(best, each))
    ]
    with progress_bar("comparing the nearest", len(near)) as progress:
        for done, place in enumerate(near if len(images) > _SCREENED_IMAGES else (), start=1):
            found[place] = fit(found[place], len(images))
            if progress:
                progress(done)
    return _judged(checkpoint, found, picked)


@dataclass(frozen=True, eq=False)
class _Configuration:
    """A network and its input, and what of it was changed.

    Once it has seen images: how many, what its BatchNorms met, and how far that is from what they recorded.
    """

    checkpoint: Checkpoint
    changes: Change
    num_images: int = 0
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    stem: float = float("inf")
    neck: float | None = None
    divergence: float = float("inf")


def _fits_of_alternatives(
    start: _Configuration,
    found: Sequence[_Configuration],
    fit: Callable[[_Configuration, int], _Configuration],
    progress_bar: ProgressBar,
) -> list[_Configuration]:
    """Everything that differs in one more fact than the start, but for what was found before."""
    known = [each.changes for each in found]
    new = [
        (change, start.changes | change)
        for change in _alternatives(start.checkpoint)
        if not change.keys() & start.changes.keys() and start.changes | change not in known
    ]
    fits = [fit(_Configuration(start.checkpoint, start.changes), _GLIMPSED_IMAGES)]
    with progress_bar("testing what is assumed", len(new)) as progress:
        for done, (change, all_changes) in enumerate(new, start=1):
            changed = _Configuration(_changed(start.checkpoint, change), all_changes)
            fits.append(fit(changed, _GLIMPSED_IMAGES))
            if progress:
                progress(done)
    limit = _FAR * min(each.divergence for each in fits)
    return [fit(each, _SCREENED_IMAGES) if each.divergence <= limit else each for each in fits[1:]]


def _alternatives(checkpoint: Checkpoint) -> Iterator[Change]:
    """Every other value of each fact that is not read from the file."""
    architecture, pixels = checkpoint.architecture, checkpoint.preprocess
    open_facts = {name for name, origin in checkpoint.origins.items() if origin != "read"}
    kinds: dict[str, Sequence[Any]] = {
        "last_stride": (1, 2),
        "stem_relu": (True, False),
        "stem_pool": ("padded", "padded-ceil", "valid", "ceil", "2x2", "none"),
        # Only a BatchNorm behind the pooling can tell.
        "pooling": ("avg", "max", "gem") if "none" not in (architecture.neck, architecture.pooling) else (),
        "batch_norm_eps": (1e-5, 1e-3),
        "semantic_weight": () if architecture.semantic_weight is None else (0.2, 1.0),
        "size": _sizes_of(architecture),
        "resize": ("bilinear", "bicubic"),
    }
    now = vars(architecture) | {"size": (pixels.height_px, pixels.width_px), "resize": pixels.resize}
    now["batch_norm_eps"] = now["batch_norm_eps"] or TORCH_EPS
    for name, values in kinds.items():
        yield from ({name: value} for value in values if name in open_facts and value != now[name])
    statistics, orders = [(pixels.mean, pixels.std)], [pixels.channel_order]
    if open_facts & {"mean", "std"}:
        # Values from the file are rounded to float32.
        statistics += [each for each in _NORMALIZATIONS if not np.allclose(each, statistics[0], atol=1e-6)]
    if "channel_order" in open_facts:
        orders = ["RGB", "BGR"]
    for (mean, std), order in product(statistics, orders):
        if (mean, std, order) != (pixels.mean, pixels.std, pixels.channel_order):
            yield {"mean": mean, "std": std, "channel_order": order}


def _sizes_of(architecture: BaselineArchitecture) -> Sequence[tuple[int, int]]:
    """The sizes of images that a network may have been trained on."""
    tokens = architecture.tokens
    if tokens is None:
        with torch.device("meta"):
            model = Baseline(architecture).eval()
        return [size for size in _SIZES if _takes(model, size)]
    num_patches = tokens.grid[0] * tokens.grid[1]
    grids = {size: tokens_in_size(tokens, size).grid for size in _SIZES}
    return [size for size, (rows, columns) in grids.items() if rows * columns == num_patches]


def _takes(model: Baseline, size: tuple[int, int]) -> bool:
    """Whether a network on the meta device takes images of a size: some are built for one only."""
    try:
        model(torch.empty(1, 3, *size, device="meta"))
    except (AssertionError, RuntimeError):
        return False
    return True


def _changed(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    """The same weights in another network, or behind another preprocessing."""
    pixel_facts = ("mean", "std", "channel_order", "resize")
    pixels: dict[str, Any] = {name: change[name] for name in pixel_facts if name in change}
    if "size" in change:
        pixels["height_px"], pixels["width_px"] = change["size"]
    network = {name: value for name, value in change.items() if name in vars(checkpoint.architecture)}
    state_dict = {key: tensor for key, tensor in checkpoint.state_dict.items() if key != "pool.p"}
    architecture = replace(checkpoint.architecture, **network)
    preprocess = checkpoint.preprocess.model_copy(update=pixels)
    if "size" in change and architecture.tokens:
        architecture = replace(architecture, tokens=tokens_in_size(architecture.tokens, change["size"]))
    if architecture.pooling == "gem":
        state_dict["pool.p"] = checkpoint.state_dict.get("pool.p", torch.tensor([3.0]))
    facts = checkpoint_facts(architecture, preprocess, state_dict, checkpoint.origins)
    return replace(
        checkpoint, architecture=architecture, preprocess=preprocess, state_dict=state_dict, facts=facts
    )


def _fit(configuration: _Configuration, images: Sequence[Image8], model: Baseline) -> _Configuration:
    """Run more images through a configuration's network, and compare what its BatchNorms met and recorded."""
    pixels = configuration.checkpoint.preprocess
    model = model.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (pixels.mean, pixels.std))
    with measured_moments(model, configuration.moments) as moments, torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            sized = [
                resize(image, pixels.height_px, pixels.width_px, pixels.resize)
                for image in images[start : start + _BATCH]
            ]
            # The permuted view is in channels_last, as the network is: faster on CPUs.
            batch = torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2).float() / 255
            if pixels.channel_order == "BGR":
                batch = batch.flip(1)
            model((batch - mean) / std)
    norms = batch_norms(model)
    apart = {name: divergence(norms[name], met) for name, met in moments.items()}
    neck = [value for name, value in apart.items() if name.startswith("neck")]
    return replace(
        configuration,
        num_images=configuration.num_images + len(images),
        moments=moments,
        stem=next(iter(apart.values())),
        neck=neck[-1] if neck else None,
        divergence=float(np.mean(list(apart.values()))),
    )


def _is_clearly_nearer(one: _Configuration, other: _Configuration) -> bool:
    return other.divergence + SYSTEMATIC > CLEARLY * (one.divergence + SYSTEMATIC)


def _judged(checkpoint: Checkpoint, found: list[_Configuration], picked: int) -> tuple[Checkpoint, Evidence]:
    """The verdict: what was picked on the screened images stays first unless another is clearly nearer on all."""
    assumed, ranked = found[0], sorted(found, key=lambda each: (-each.num_images, each.divergence))
    best = ranked[0] if _is_clearly_nearer(ranked[0], found[picked]) else found[picked]
    ranked.remove(best)
    ranked.insert(0, best)
    texts = {fact.name: fact.text for fact in checkpoint.facts}

    def words(each: _Configuration) -> tuple[str, ...]:
        return tuple(
            f"{fact.text} ({fact.option})"
            for fact in each.checkpoint.facts
            if fact.text != texts.get(fact.name)
        )

    warnings = []
    if _is_clearly_nearer(best, assumed):
        warnings.append(
            f"another configuration fits {assumed.divergence / best.divergence:.1f} times better than what is "
            f"assumed: {', '.join(words(best))}. State it, or say why not."
        )
    farthest = max(best.divergence, best.neck or 0)
    if farthest > FITS_BELOW:
        warnings.append(
            f"nothing fits: even the nearest configuration is {farthest:.2f} from what the BatchNorms recorded, "
            f"expected less than {FITS_BELOW}. The images may be of another data set, cropped or decoded in another "
            "way, or the network another one."
        )
    holds: set[str] = set()
    if not warnings:
        # An assumption holds where all its alternatives are clearly farther.
        tried = {name for each in found for name in each.changes}
        open_ = {name for each in found[1:] if not _is_clearly_nearer(assumed, each) for name in each.changes}
        holds = tried - open_
    origins: dict[str, Origin] = {
        name: "tested" if origin == "assumed" and name in holds else origin
        for name, origin in checkpoint.origins.items()
    }
    facts = tuple(replace(fact, origin=origins[fact.name]) for fact in checkpoint.facts)
    evidence = Evidence(
        num_images=max(each.num_images for each in found),
        fits=tuple(
            Fit(
                changed=words(each),
                num_images=each.num_images,
                divergence=each.divergence,
                stem=each.stem,
                neck=each.neck,
            )
            for each in ranked
        ),
        warnings=tuple(warnings),
    )
    return replace(checkpoint, facts=facts), evidence
