"""What the BatchNorms of a network meet on some images, beside what they recorded in training; no label is needed.

The two Gaussians of each channel, recorded and measured, are apart by the symmetric Kullback-Leibler divergence

    J = ½ [v₁/v₂ + v₂/v₁ − 2 + (m₁ − m₂)² (1/v₁ + 1/v₂)]

of which the median over the channels is taken. Where the images are as in training it is about 1/N of N images, since
that is how well N images show a mean.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from reidexport.errors import InputError
from reidexport.models.baseline import Baseline, BatchNorm, batch_norms

_FLOOR = 1e-5  # of variances: channels that are always 0 agree; an eps that is in question would favor itself


@contextmanager
def measured_moments(model: Baseline, before: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """While the block runs images: of each BatchNorm that they reach, in that order, count, sums and sums of squares.

    Args:
        model: the network.
        before: what other images have shown.

    Yields:
        By a BatchNorm's name: float64 (3, C), of those images and these.
    """
    measured = dict(before)

    def measure(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments = moments_of(inputs[0])
        measured[name] = measured[name] + moments if name in measured else moments

    handles = [
        norm.register_forward_pre_hook(partial(measure, name)) for name, norm in batch_norms(model).items()
    ]
    try:
        yield measured
    finally:
        for handle in handles:
            handle.remove()


def moments_of(x: Tensor) -> Tensor:
    """Count, sums and sums of squares of each channel of (B, C) or (B, C, H, W): float64 (3, C)."""
    # In channels_last a view. Matrix products are the fastest sums; an image at a time they are exact enough.
    pixels = x.movedim(1, -1).reshape(len(x), -1, x.shape[1])
    ones = pixels.new_ones(1, pixels.shape[1])
    sums, squares = ((ones @ each).double().sum((0, 1)) for each in (pixels, pixels.square()))
    return torch.stack((torch.full_like(sums, pixels.shape[0] * pixels.shape[1]), sums, squares))


def mean_and_variance(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Of moments (3, C): two of (C,)."""
    count, sums, squares = moments
    mean = sums / count
    return mean, (squares / count - mean.square()).clamp(min=0)


def divergence(norm: BatchNorm, moments: Tensor) -> float:
    """The median over channels of the symmetric divergence of recorded and measured Gaussians."""
    mean, var = mean_and_variance(moments)
    var = var + _FLOOR
    recorded_mean, recorded_var = _recorded(norm)
    ratio = var / recorded_var
    means_apart = (mean - recorded_mean).square() * (1 / var + 1 / recorded_var)
    return float((0.5 * (ratio + 1 / ratio - 2 + means_apart)).nan_to_num(float("inf")).median())


def _recorded(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """What a BatchNorm recorded: mean and variance, float64 (C,)."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("a BatchNorm without running statistics recorded nothing that could be compared.")
    return norm.running_mean.double(), norm.running_var.double() + _FLOOR
