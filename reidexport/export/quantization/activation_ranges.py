"""How large the tensors between a network's layers get, and the range that INT8 should cover of each.

A range that covers every value wastes codes on outliers; one that cuts them off clips what may matter. Which is better
depends on the network, so several rules are offered, all from one pass over the images.
"""

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
from numba import njit
from numpy.typing import NDArray
from reidruntime.artifact.manifest import RangeMethod
from reidruntime.threads import default_threads

from reidexport.errors import InputError

_NUM_BINS = 4096
_SMALLEST_LIMIT = 2.0**-10
_LEVELS = 256
_PERCENTILES: dict[RangeMethod, float] = {"percentile-99.99": 99.99, "percentile-99.999": 99.999}
_TRIED_SHARES = np.linspace(0.3, 1.0, 36)
Range = tuple[float, float]


class Histogram:
    """Counts of a tensor's values between −limit and limit; the limit doubles when a value lies outside.

    Attributes:
        lowest: smallest value seen.
        highest: largest value seen.
    """

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self._limit = _SMALLEST_LIMIT
        self._counts = np.zeros(_NUM_BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count float32 values of any shape, all of them finite."""
        flat = np.ascontiguousarray(values).reshape(-1)
        self.lowest = min(self.lowest, float(flat.min()))
        self.highest = max(self.highest, float(flat.max()))
        while max(-self.lowest, self.highest) > self._limit:
            # Twice the limit: every two bins become one in the middle half.
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts[:] = 0
            self._counts[_NUM_BINS // 4 : -_NUM_BINS // 4] = pairs
            self._limit *= 2
        _count(flat, self._limit, self._counts)

    def range_by(self, method: RangeMethod, *, symmetric: bool) -> Range:
        """The range to cover, lowest and highest; it holds zero, and is symmetric about it if asked for.

        ``"min-max"`` covers everything, ``"percentile-P"`` cuts the same share off both ends, ``"least-squares"`` uses
        the share of the whole range that rounding and clipping together change least.
        """
        found = self.lowest, self.highest
        if method in _PERCENTILES:
            found = self._central(_PERCENTILES[method])
        lowest, highest = min(found[0], 0.0), max(found[1], 0.0)
        if symmetric:
            lowest, highest = -max(-lowest, highest), max(-lowest, highest)
        return self._least_squares(lowest, highest) if method == "least-squares" else (lowest, highest)

    def _central(self, percent: float) -> Range:
        edges = np.linspace(-self._limit, self._limit, _NUM_BINS + 1)
        below = np.cumsum(self._counts)
        cut = below[-1] * (1 - percent / 100)
        first = np.searchsorted(below, cut, side="right")
        last = np.searchsorted(below, below[-1] - cut)
        return max(float(edges[first]), self.lowest), min(float(edges[last + 1]), self.highest)

    def _least_squares(self, lowest: float, highest: float) -> Range:
        width = 2 * self._limit / _NUM_BINS
        centers = (np.arange(_NUM_BINS) + 0.5) * width - self._limit
        centers, counts = centers[self._counts > 0], self._counts[self._counts > 0]
        candidates = [(float(lowest * share), float(highest * share)) for share in _TRIED_SHARES]
        return min(candidates, key=lambda each: _squared_error(centers, counts, *each))


def collect_histograms(
    model: onnx.ModelProto,
    names: Collection[str],
    batches: Iterable[NDArray[Any]],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """Run a network and count the values of some of its tensors.

    Args:
        model: with one input, and the types of its inner tensors inferred.
        names: float32 tensors.
        batches: what the network takes.
        progress: called with the number of images done.

    Raises:
        InputError: a tensor is not finite.
    """
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    values = {each.name: each for each in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    watched.graph.output.extend(values[name] for name in sorted(names))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    input_name, done = session.get_inputs()[0].name, 0
    histograms = {name: Histogram() for name in sorted(names)}

    def add(name: str, values: NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            raise InputError(f"tensor {name} of the network is not finite on the calibration images")
        histograms[name].add(values)

    with ThreadPoolExecutor(default_threads()) as workers:
        for batch in batches:
            list(workers.map(add, histograms, session.run(None, {input_name: batch})))
            done += len(batch)
            if progress:
                progress(done)
    return histograms


def _squared_error(
    values: NDArray[np.floating[Any]], counts: NDArray[np.int64], lowest: float, highest: float
) -> float:
    """Of values that are clipped to a range and rounded to one of its 256 codes."""
    scale = (highest - lowest) / (_LEVELS - 1)
    if scale == 0:
        return 0.0
    rounded = np.clip(np.round(values / scale), np.round(lowest / scale), np.round(highest / scale)) * scale
    return float(np.sum(counts * (rounded - values) ** 2))


@njit(nogil=True, cache=True)
def _count(values: NDArray[np.float32], limit: float, counts: NDArray[np.int64]) -> None:
    scale = counts.size / (2 * limit)
    for value in values:
        counts[min(int((value + limit) * scale), counts.size - 1)] += 1
