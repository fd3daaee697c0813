"""Why a candidate does not answer as its reference: what the two manifests and the figures show of it."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel
from reidruntime.artifact.manifest import Architecture, ImageInput, Manifest

from reidexport.records.accuracy import Verification

_UNKNOWN = (None, "unknown")
_NUM_DIGITS = 12  # of a sha256 that is shown
_NOT_THE_NETWORK = {"family", "feature_dim"}  # of an architecture's fields
_NOT_THE_IMAGES = {"layout"}  # of an image input's
_ROUNDING = 1e-4  # of means and deviations that somebody typed


def causes_of_failure(
    result: Verification,
    candidate: Manifest,
    reference: Manifest,
    *,
    not_finite: tuple[tuple[str, ...], tuple[str, ...]],
    num_queries: int | None,
) -> tuple[str, ...]:
    """What may be behind a failed verification and what to do, the most certain first; never empty.

    Args:
        result: the figures, with their limits.
        candidate: its manifest.
        reference: likewise.
        not_finite: names of the images whose features are not finite, of the candidate and of the reference.
        num_queries: of the data set, if there is one.
    """
    limits = result.limits
    batch_changes = limits and [
        change for change in result.batch_consistency.values() if not change <= limits.max_batch_change
    ]
    found = [*_values(result, *not_finite), *_checkpoints(candidate, reference)]
    found += _differences(candidate, reference)
    if batch_changes:
        found.append(
            "rows of one batch change each other: something is computed over the batch, as BatchNorm and Dropout do in "
            "training mode. Export the network in evaluation mode; until then use a batch of 1"
        )
    if limits and limits.precision != "fp32" and not any(not_finite) and not found:
        found.append(_precision(result, candidate))
    if limits and num_queries and (share := 100 / num_queries) > limits.max_rank1_drop and result.drops:
        found.append(
            f"of {num_queries} queries each is {share:.2f} points of rank-1: one that changes is above the limit of "
            f"{limits.max_rank1_drop}. Use a larger data set, or pass --max-rank1-drop"
        )
    return tuple(found) or (_nothing_shown(candidate),)


def _values(result: Verification, candidates: tuple[str, ...], references: tuple[str, ...]) -> Iterator[str]:
    for who, images in (("candidate", candidates), ("reference", references)):
        if images:
            yield (
                f"{len(images)} of {result.num_images} features of the {who} are not finite, of {images[0]} first: "
                "values overflow, as in FP16 they may, or weights are damaged. Look at the file with reidexport "
                "inspect, and export it in FP32"
            )


def _checkpoints(candidate: Manifest, reference: Manifest) -> Iterator[str]:
    # The source of another exporter's file is the file itself.
    foreign = "foreign" in (candidate.architecture.family, reference.architecture.family)
    a, b = candidate.source, reference.source
    if not foreign and a.sha256 != b.sha256:
        yield (
            f"two checkpoints: the candidate was made from {a.name} (sha256 {a.sha256[:_NUM_DIGITS]}), the reference "
            f"from {b.name} ({b.sha256[:_NUM_DIGITS]}). Compare with the checkpoint that the candidate was exported "
            "from, or export this one"
        )


def _differences(candidate: Manifest, reference: Manifest) -> Iterator[str]:
    images = _differing(ImageInput, _NOT_THE_IMAGES, candidate.preprocess, reference.preprocess)
    if images:
        yield (
            f"the images are prepared differently: {'; '.join(images)}. Export again with the right ones, or state "
            "them for a file without a manifest"
        )
    network = _differing(Architecture, _NOT_THE_NETWORK, candidate.architecture, reference.architecture)
    if network:
        yield f"the networks differ: {'; '.join(network)}. Export again with what the checkpoint was trained with"


def _differing(
    kind: type[BaseModel], left_out: Collection[str], found: object, expected: object
) -> list[str]:
    """The fields of a part of both manifests whose values differ, with both values."""
    values = {name: (getattr(found, name), getattr(expected, name)) for name in kind.model_fields}
    return [
        f"{name} {one}, the reference's {other}"
        for name, (one, other) in values.items()
        if name not in left_out and _differ(one, other)
    ]


def _differ(found: Any, expected: Any) -> bool:
    if found in _UNKNOWN or expected in _UNKNOWN:
        return False
    if isinstance(found, tuple) and isinstance(expected, tuple):
        return not np.allclose(found, expected, atol=_ROUNDING)
    return bool(found != expected)


def _precision(result: Verification, candidate: Manifest) -> str:
    precision = result.limits.precision if result.limits else candidate.precision
    text = f"{precision} rounds more than this network bears"
    if candidate.precision == "int8":
        text += (
            ", or it was calibrated on other images than these. Calibrate on 200 or more of your own cameras, or use "
            "--fp16"
        )
    else:
        text += ". Use FP32"
    return f"{text}; to allow what was lost, pass --min-cosine, --min-mean-cosine, --max-rank1-drop, --max-map-drop"


def _nothing_shown(candidate: Manifest) -> str:
    if candidate.architecture.family == "foreign":
        return (
            "what was stated for the file agrees with the reference: its weights are others, or it normalizes its "
            "images itself, or what was stated is wrong (--mean --std --channel-order --resize)"
        )
    return (
        "the manifests name the same checkpoint, images and network: the file was changed after its export, or the "
        "backend computes wrongly. Export it again, and compare with another --backend"
    )
