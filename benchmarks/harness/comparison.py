"""Sides that take turns, and the row with their figures."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.turns import Measure, Side, one_call, rounded, spread
from benchmarks.peers.peers import num_threads
from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.machine import MachineInfo, machine_info

Row = dict[str, Any]  # the fields of a BenchmarkRow, as pytest-benchmark keeps them
# ``compare`` as measurements call it: with name, timed, ours, peers and options.
Compare = Callable[..., Row]

_PAUSE_S = 0.02  # in which the threads of the side before stop to spin
_OF_THE_MOMENT = ("cpu_mhz", "governor", "load_average")
_THREADING = ("MKL_", "OMP_", "OPENBLAS_")


@dataclass(frozen=True)
class ComparisonOptions:
    """How sides take turns, and what their row holds.

    Attributes:
        rounds: turns of each side.
        measure: runs a side and returns its figures of one turn.
        unit: of the figures.
        percentiles: add those of all of our calls, in milliseconds.
    """

    rounds: int = 5
    measure: Measure = one_call
    unit: str = "seconds"
    percentiles: bool = False


def compare(
    benchmark: BenchmarkFixture,
    name: str,
    timed: str,
    ours: Side,
    peers: dict[str, Side],
    options: ComparisonOptions = ComparisonOptions(),
    *,
    machine: MachineInfo,
    quick: bool,
) -> Row:
    """Measure sides in turns, A B A B.

    Args:
        benchmark: pytest-benchmark's fixture, which times our turns; the row is its ``extra_info``.
        name: of the row.
        timed: what is inside the timed region.
        ours: a call of our side; before each of its turns, every peer has one.
        peers: calls of the others, by name.
        options: how.
        machine: before the first measurement.
        quick: two rounds at most.

    Returns:
        The row, to be added to. A ratio is a peer's figure over ours of the same round: above 1, ours is faster. Where
        other processes disturbed the measurement, a text stands in the place of the ratios.
    """
    ours()  # compiles what is not compiled yet
    now, before = machine_info(), cpu_use()
    rounds = min(options.rounds, 2) if quick else options.rounds
    turns = _turns(benchmark, ours, peers, options.measure, rounds)
    share = others_share(before, cpu_use())
    disturbed = disturbance(share, machine)
    medians = {side: np.array([*map(statistics.median, figures)]) for side, figures in turns.items()}
    row: Row = benchmark.extra_info
    row |= {
        "name": name,
        "timed": timed,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": num_threads(),
        "rounds": rounds,
        options.unit: {side: spread([*chain(*figures)]) for side, figures in turns.items()},
        "ratios": f"not given: {disturbed}"
        if disturbed
        else {peer: spread(medians[peer] / medians["reidexport"]) for peer in peers},
        "others_cpu_share": share,
        **{key: value for key, value in now.items() if key in _OF_THE_MOMENT},
        "environment": {key: value for key, value in os.environ.items() if key.startswith(_THREADING)},
    }
    if options.percentiles:
        for percent in (50, 90, 99):
            row[f"p{percent}_ms"] = rounded(1000 * np.percentile([*chain(*turns["reidexport"])], percent))
    return row


def _turns(
    benchmark: BenchmarkFixture, ours: Side, peers: dict[str, Side], measure: Measure, rounds: int
) -> dict[str, list[list[float]]]:
    """The figures of every turn, by side."""
    turns: dict[str, list[list[float]]] = {side: [] for side in ("reidexport", *peers)}

    def peers_turn() -> None:
        for peer, run in peers.items():
            time.sleep(_PAUSE_S)
            turns[peer].append(measure(run))
        time.sleep(_PAUSE_S)

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: turns["reidexport"].append(measure(ours)), setup=peers_turn, rounds=rounds
    )
    return turns
