"""How far a site's crops, and those of each camera, are from what a network's BatchNorms recorded in training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from reidgallery.input import UNLABELED
from reidruntime.images.depth import Depth
from reidruntime.images.resize import Image8
from torch import Tensor

from reidexport.adaptation.crops import FEWEST, Ints, SiteCrops
from reidexport.adaptation.statistics import (
    SiteNetwork,
    drawn_evenly,
    needed_mix,
    padded_and_cut,
    read_pixels,
    share_of_far,
)
from reidexport.evaluation.evidence import CLEARLY, SYSTEMATIC
from reidexport.progress import ProgressBar
from reidexport.records.adaptation import Divergence

NUM_MEASURED = 256  # crops: more give no better statistics
_NUM_COMPARED = 64  # crops: enough to tell which of two ways of feeding them is nearer to the training
_AWAY = 0.5  # of the way to another data set: crops that are nearer are at home


@dataclass(frozen=True)
class MeasuredSite:
    """What was measured.

    Attributes:
        whole: of all crops together; None where the network has no BatchNorm.
        cameras: of each camera, by its camid; empty where crops tell no camera.
        times_nearer_swapped: how many times nearer the crops are with red and blue swapped, where that is clear.
        is_kept: whether the statistics are to stay as they are, however far the site is: its tracks speak against it.
    """

    whole: Divergence | None
    cameras: Mapping[int, Divergence]
    times_nearer_swapped: float | None
    is_kept: bool = False

    @property
    def is_far(self) -> bool:
        """Whether the crops are unlike those of the training."""
        return self.whole is not None and share_of_far(self.whole) >= _AWAY

    @property
    def far_cameras(self) -> tuple[int, ...]:
        """Cameras whose crops are unlike those of the training; one camera alone differs from all of a training."""
        least = _AWAY if self.is_far else 1
        return tuple(camid for camid, measured in self.cameras.items() if share_of_far(measured) >= least)

    @property
    def mix(self) -> float:
        """The share of the site's statistics that a network for all cameras needs."""
        return needed_mix(self.whole) if self.whole is not None and self.is_far and not self.is_kept else 0.0

    @property
    def camera_mixes(self) -> dict[int, float]:
        """The share of its own statistics that the network of each camera needs."""
        adapted = () if self.is_kept else self.far_cameras
        return {camid: needed_mix(each) if camid in adapted else 0.0 for camid, each in self.cameras.items()}


def measured_pixels(network: SiteNetwork, crops: SiteCrops, depth: Depth, camid: int = UNLABELED) -> Image8:
    """The crops that statistics are measured on: of all cameras in turn, or of one; uint8 (N, height, width, 3)."""
    places = np.arange(len(crops.paths)) if camid == UNLABELED else np.flatnonzero(crops.camids == camid)
    drawn = places[drawn_evenly(crops.camids[places], _num_drawn(crops))]
    return read_pixels([crops.paths[place] for place in drawn.tolist()], network.checkpoint.preprocess, depth)


def measured_site(
    network: SiteNetwork, crops: SiteCrops, pixels: Image8, progress_bar: ProgressBar
) -> MeasuredSite:
    """Run crops through a network as it is, also as a strong baseline's training pads them: what is nearer counts.

    Args:
        network: of the checkpoint.
        crops: of the site.
        pixels: those of :func:`measured_pixels` of all cameras.
        progress_bar: shows how many crops are done.
    """
    if not network.has_batch_norms:
        return MeasuredSite(None, {}, None)
    drawn = drawn_evenly(crops.camids, _num_drawn(crops))
    camids, tracks = crops.camids[drawn], crops.tracks[drawn]
    num_people = {camid: _num_people(tracks[camids == camid]) for camid in np.unique(camids).tolist()}
    compared = pixels[:_NUM_COMPARED]
    with progress_bar("measuring the site", len(pixels)) as progress:
        as_they_are, padded = (
            _mean_divergence(network, each) for each in (compared, padded_and_cut(compared))
        )
        images = padded_and_cut(pixels) if padded < as_they_are else pixels
        total, cameras, done = dict[str, Tensor](), dict[int, Divergence](), 0
        for camid, count in num_people.items():
            own = images[camids == camid]
            moments = network.moments(own)
            total = {name: met + total.get(name, torch.zeros_like(met)) for name, met in moments.items()}
            if camid != UNLABELED:
                cameras[camid] = network.divergence(moments, count)
            done += len(own)
            if progress:
                progress(done)
    # One person may pass all cameras, so those of all are no more people than those of one.
    site = MeasuredSite(network.divergence(total, max(num_people.values())), cameras, None)
    if not site.is_far:
        return site
    swapped = _mean_divergence(network, compared[..., ::-1])
    times = (as_they_are + SYSTEMATIC) / (swapped + SYSTEMATIC)
    return replace(site, times_nearer_swapped=times if times > CLEARLY else None)


def _mean_divergence(network: SiteNetwork, pixels: Image8) -> float:
    return network.divergence(network.moments(pixels), len(pixels)).mean


def _num_drawn(crops: SiteCrops) -> int:
    """Of many cameras more are measured: enough of each to judge it by."""
    return max(NUM_MEASURED, FEWEST * len(crops.cameras))


def _num_people(tracks: Ints) -> int:
    """How many of one camera's crops show different people: as many as there are tracks, or else all."""
    known = tracks[tracks > 0]
    return len(np.unique(known)) + len(tracks) - len(known)
