"""One turn of a side in a comparison, and what is reported of all its turns."""

import statistics
import time
from collections.abc import Callable, Sequence

Side = Callable[[], object]
Measure = Callable[[Side], list[float]]


def one_call(run: Side) -> list[float]:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return [time.perf_counter() - start]


def calls_in_a_row(run: Side, at_least_s: float, measure: Measure = one_call) -> list[float]:
    """Seconds of each of several calls, one after the other, as a side is really used."""
    run()  # brings its own weights back into the caches
    began, seconds = time.perf_counter(), measure(run)
    while time.perf_counter() - began < at_least_s:
        seconds += measure(run)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        "median": rounded(statistics.median(values)),
        "lowest": rounded(min(values)),
        "highest": rounded(max(values)),
    }


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")
