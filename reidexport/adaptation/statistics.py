"""BatchNorm statistics of a site: how far they are from the checkpoint's own, and a checkpoint with some of both.

A network that normalizes a site's crops by the statistics of its training sees them shifted; with the site's own it
sees them as it saw its training (Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016).
A mixture of both is better than either (Schneider et al., "Improving robustness against common corruptions by covariate
shift adaptation", 2020). Every BatchNorm's is measured behind the mixtures of those before it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Adaptation, Preprocess
from reidruntime.images.depth import Depth
from reidruntime.images.preprocess import image_pixels
from reidruntime.images.resize import Image8
from reidruntime.threads import default_threads
from reidruntime.torch_settings import exact_float32
from torch import Tensor, nn

from reidexport.checkpoint.loading import Checkpoint, model_from_checkpoint
from reidexport.evaluation.batch_norm_moments import (
    divergence,
    mean_and_variance,
    measured_moments,
    moments_of,
)
from reidexport.models.baseline import Baseline, batch_norms
from reidexport.records.adaptation import Divergence

_LARGEST_MIX = 0.5
_BATCH = 64  # crops of all cameras, that a BatchNorm is normalized by along the way
# Divergences from which on crops are as far as those of another data set. MSMT17's OSNet has 0.09 and 0.017 on
# Market-1501, Market-1501's own 0.002 and 0.0003; a single camera of the own data set has up to 0.03 and 0.005.
_FAR_NECK, _FAR_MEAN = 0.08, 0.015

Moments = Mapping[str, Tensor]


def share_of_far(measured: Divergence) -> float:
    """From 0, where the crops are as those of the training, to 1 for a site as far as another data set."""
    return min(measured.mean / _FAR_MEAN if measured.neck is None else measured.neck / _FAR_NECK, 1.0)


def needed_mix(measured: Divergence) -> float:
    """The share in the statistics that the crops need, at most a half."""
    return _LARGEST_MIX * share_of_far(measured)


def read_pixels(paths: Sequence[str], preprocess: Preprocess, depth: Depth) -> Image8:
    """Crops as the network takes them: uint8 (N, height, width, 3), in its channel order.

    Raises:
        ImageError: one cannot be read.
    """
    with ThreadPoolExecutor(default_threads()) as workers:
        read = partial(image_pixels, preprocess=preprocess, depth=depth)
        return np.stack(list(workers.map(lambda path: read(Path(path), path), paths)))


def padded_and_cut(pixels: Image8) -> Image8:
    """Crops padded with black by 10 of 128 pixels of the width and cut to their size anywhere, as in training.

    That of the strong baseline (paper, 2.1) and of its children, which leaves black borders in what BatchNorms record.
    """
    rng = np.random.default_rng(0)
    _, height, width, _ = pixels.shape
    pad = round(10 / 128 * width)
    padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    places = rng.integers(0, 2 * pad + 1, (len(pixels), 2))
    return np.stack([
        image[y : y + height, x : x + width] for image, (y, x) in zip(padded, places, strict=True)
    ])  # fmt: skip


def drawn_evenly(camids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Places of at most ``count`` crops, as many of each camera as there are, in an order that mixes cameras."""
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(camids == camid)) for camid in np.unique(camids)]
    longest = max(map(len, shuffled))
    turns = [own[turn] for turn in range(longest) for own in shuffled if turn < len(own)]
    return np.array(turns[:count], np.int64)


class SiteNetwork:
    """A checkpoint's network, unfolded, to run a site's crops through."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Build it, on CUDA where there is a GPU."""
        self.checkpoint = checkpoint
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = model_from_checkpoint(checkpoint).to(memory_format=torch.channels_last).to(self._device)
        self._model: Baseline = model.eval()
        pixels = checkpoint.preprocess
        self._mean, self._std = (
            torch.tensor(values, device=self._device).reshape(1, 3, 1, 1)
            for values in (pixels.mean, pixels.std)
        )

    @property
    def has_batch_norms(self) -> bool:
        """Whether there is anything to adapt."""
        return bool(batch_norms(self._model))

    def moments(self, pixels: Image8) -> Moments:
        """What the BatchNorms meet on crops, normalized by their own statistics."""
        with measured_moments(self._model, {}) as measured:
            self._run(pixels)
        return measured

    def divergence(self, moments: Moments, num_independent: int) -> Divergence:
        """How far the moments of some crops are from what was recorded.

        A neck sees every crop once: what chance alone puts between it and what was recorded is taken off. Of N people
        that is the median of a chi-squared variable with two degrees of freedom, for mean and variance, over N.

        Args:
            moments: of the crops.
            num_independent: how many crops that show different people there are, about.
        """
        norms = batch_norms(self._model)
        apart = {name: divergence(norms[name].cpu(), met.cpu()) for name, met in moments.items()}
        self._model.to(self._device)
        necks = [value for name, value in apart.items() if name.startswith("neck")]
        return Divergence(
            stem=next(iter(apart.values())),
            neck=max(necks[-1] - 2 * math.log(2) / num_independent, 0) if necks else None,
            mean=float(np.mean(list(apart.values()))),
        )

    def adapted(self, pixels: Image8, mix: float) -> Checkpoint:
        """The checkpoint with statistics that are mixed with those of crops.

        Args:
            pixels: uint8 (N, height, width, 3), as :func:`read_pixels` gives them, in an order that mixes cameras.
            mix: the crops' share, above 0 and up to 1.
        """
        own = {
            name: (norm.running_mean.clone(), norm.running_var.clone())
            for name, norm in batch_norms(self._model).items()
            if norm.running_mean is not None and norm.running_var is not None
        }
        totals: dict[str, Tensor] = {}

        def mixed(name: str, moments: Tensor) -> tuple[Tensor, Tensor]:
            mean, var = (values.float() for values in mean_and_variance(moments))
            return torch.lerp(own[name][0], mean, mix), torch.lerp(own[name][1], var, mix)

        def renormalize(name: str, norm: Any, inputs: tuple[Tensor, ...]) -> None:
            moments = moments_of(inputs[0])
            totals[name] = totals[name] + moments if name in totals else moments
            norm.running_mean, norm.running_var = mixed(name, moments)

        norms: dict[str, nn.Module] = {
            name: norm for name, norm in batch_norms(self._model).items() if name in own
        }
        handles = [norm.register_forward_pre_hook(partial(renormalize, name)) for name, norm in norms.items()]
        try:
            self._run(pixels)
        finally:
            for handle in handles:
                handle.remove()
            for name, norm in norms.items():
                norm.running_mean, norm.running_var = own[name]
        state = dict(self.checkpoint.state_dict)
        digest = hashlib.sha256()
        for name, moments in totals.items():
            for key, values in zip(("running_mean", "running_var"), mixed(name, moments), strict=True):
                state[f"{name}.{key}"] = values.cpu()
                digest.update(values.cpu().numpy().tobytes())
        adaptation = Adaptation(num_crops=len(pixels), mix=mix, statistics_sha256=digest.hexdigest())
        return replace(self.checkpoint, state_dict=state, adaptation=adaptation)

    def _run(self, pixels: Image8) -> None:
        with torch.inference_mode(), exact_float32():
            for batch in self._batches(pixels):
                self._model(batch)

    def _batches(self, pixels: Image8) -> Iterator[Tensor]:
        """Normalized, float32 (B, 3, height, width) in channels_last; of nearly equal size, as each is normalized."""
        for part in np.array_split(pixels, -(-len(pixels) // _BATCH)):
            images = (
                torch.from_numpy(np.ascontiguousarray(part)).to(self._device).permute(0, 3, 1, 2).float()
                / 255
            )
            yield (images - self._mean) / self._std
