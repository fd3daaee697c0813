"""Pairs of crops whose answer is known without a label: boxes of one track, and boxes of two tracks at one time.

Boxes that follow each other in a track show one person. Two tracks that one camera sees at the same time are of two.
All of it is within one camera: how a network tells people across cameras, no such pair says.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import UNLABELED

from reidexport.adaptation.crops import Ints, SiteCrops
from reidexport.metrics.distances import unit_rows
from reidexport.records.adaptation import SuggestedThreshold

FEWEST_PAIRS = 100  # of either kind; fewer say nothing
_MOST_PAIRS = 20_000
_PAIRS_PER_ENCOUNTER = 2  # of two tracks that are seen at one time
_LONGEST_GAP = 4  # medians between two boxes of a track: after a longer one it is another track
_NUM_RESAMPLED = 200
_CONFIDENCE = 0.95
_FPR = 0.01

Features = NDArray[np.float32]
Distances = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FreePairs:
    """Pairs of crops: int64 (N, 3), the places of both and the number of the first one's track.

    Attributes:
        genuine: of one person.
        impostor: of two persons.
    """

    genuine: Ints
    impostor: Ints

    @property
    def are_enough(self) -> bool:
        """Whether there are enough of them to judge by."""
        return min(len(self.genuine), len(self.impostor)) >= FEWEST_PAIRS

    @property
    def places(self) -> Ints:
        """Those of all crops of pairs, in order."""
        return np.unique(np.concatenate([self.genuine[:, :2], self.impostor[:, :2]]))

    def some(self, count: int) -> "FreePairs":
        """So many of each kind, drawn; or all."""
        rng = np.random.default_rng(0)
        return FreePairs(*(_at_most(pairs, count, rng) for pairs in (self.genuine, self.impostor)))

    def among(self, places: Ints) -> "FreePairs":
        """The same pairs, where of all crops only those at ``places``, in order, are left: their places among them."""

        def renumbered(pairs: Ints) -> Ints:
            kept = pairs[np.isin(pairs[:, :2], places).all(axis=1)]
            return np.column_stack([np.searchsorted(places, kept[:, :2]), kept[:, 2]])

        return FreePairs(renumbered(self.genuine), renumbered(self.impostor))


def free_pairs(crops: SiteCrops) -> FreePairs:
    """The pairs of a site's crops, at most 20,000 of a kind; none where no track or no time is known."""
    rng = np.random.default_rng(0)
    tracks = _tracks(crops)
    genuine = [(one, other, number) for number, track in enumerate(tracks) for one, other in pairwise(track)]
    spans = [(crops.camids[track[0]], *crops.times[[track[0], track[-1]]]) for track in tracks]
    order = sorted(range(len(tracks)), key=spans.__getitem__)
    impostor: list[tuple[int, int, int]] = []
    for place, number in enumerate(order):
        camid, _, end = spans[number]
        for other in order[place + 1 :]:
            if spans[other][0] != camid or spans[other][1] > end:
                break
            if crops.tracks[tracks[number][0]] != crops.tracks[tracks[other][0]]:
                both = (rng.choice(tracks[each], _PAIRS_PER_ENCOUNTER) for each in (number, other))
                impostor += [(int(one), int(two), number) for one, two in zip(*both, strict=True)]
    both = (np.array(pairs, np.int64).reshape(-1, 3) for pairs in (genuine, impostor))
    return FreePairs(*(_at_most(pairs, _MOST_PAIRS, rng) for pairs in both))


def separation(features: Features, pairs: FreePairs) -> float:
    """How far apart the distances of impostors and of genuine pairs are: d', their means over the mean deviation."""
    genuine, impostor = (_distances(features, some) for some in (pairs.genuine, pairs.impostor))
    spread = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((impostor.mean() - genuine.mean()) / max(spread, np.finfo(np.float64).tiny))


def suggested_threshold(features: Features, pairs: FreePairs) -> SuggestedThreshold:
    """The cosine distance that one impostor in a hundred passes; its interval by resampling tracks."""
    genuine, impostor = (_distances(features, some) for some in (pairs.genuine, pairs.impostor))
    order = np.argsort(impostor)
    distances, (_, tracks) = impostor[order], np.unique(pairs.impostor[order, 2], return_inverse=True)
    rng = np.random.default_rng(0)
    num_tracks = int(tracks.max()) + 1
    resampled = []
    for counts in rng.multinomial(num_tracks, np.full(num_tracks, 1 / num_tracks), _NUM_RESAMPLED):
        passed = np.cumsum(counts[tracks])
        resampled.append(distances[np.searchsorted(passed, _FPR * passed[-1])])
    threshold = distances[int(_FPR * len(distances))]
    low, high = np.quantile(resampled, ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return SuggestedThreshold(
        fpr=_FPR,
        tpr=float((genuine <= threshold).mean()),
        threshold=float(threshold),
        low=float(low),
        high=float(high),
        confidence=_CONFIDENCE,
        num_tracks=num_tracks,
    )


def _tracks(crops: SiteCrops) -> list[list[int]]:
    """The places of the boxes of each track, in order of time; a track ends where a longer gap begins."""
    by_track: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    is_known = (crops.tracks > 0) & (crops.times != UNLABELED)
    for place in np.flatnonzero(is_known)[np.argsort(crops.times[is_known], kind="stable")].tolist():
        by_track[int(crops.camids[place]), int(crops.tracks[place])].append(place)
    gaps = [
        crops.times[other] - crops.times[one] for track in by_track.values() for one, other in pairwise(track)
    ]
    real = [gap for gap in gaps if gap > 0]
    longest = _LONGEST_GAP * float(np.median(real)) if real else 0.0
    tracks = []
    for track in by_track.values():
        ends = [
            i
            for i, (one, other) in enumerate(pairwise(track), 1)
            if crops.times[other] - crops.times[one] > longest
        ]
        tracks += [track[start:end] for start, end in pairwise([0, *ends, len(track)])]
    return tracks


def _at_most(pairs: Ints, count: int, rng: np.random.Generator) -> Ints:
    return pairs if len(pairs) <= count else pairs[np.sort(rng.permutation(len(pairs))[:count])]


def _distances(features: Features, pairs: Ints) -> Distances:
    """1 - cosine of each pair."""
    rows = unit_rows(features)
    cosines: Distances = np.einsum("nd,nd->n", rows[pairs[:, 0]], rows[pairs[:, 1]], dtype=np.float64)
    return 1 - cosines
