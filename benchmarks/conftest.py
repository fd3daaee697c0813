"""What all measurements share: sides that take turns, and rows that are written with the machine they ran on.

pytest benchmarks/bench_ranking.py --results benchmarks/results/MACHINE
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from reidexport.files import replaced_when_whole
from reidexport.machine import machine_info, package_versions

_BUSY_LOAD = 0.3  # a core; above that others had a share in what was measured

Row = dict[str, Any]
Sides = dict[str, Callable[[], object]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where results go."""
    parser.addoption("--results", type=Path, help="folder for NAME.json of each bench_NAME.py")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The rows of one file, to be appended to; written when all of them are there."""
    machine = machine_info()
    found: list[Row] = []
    yield found
    is_busy = (machine["load_average"] or 0) > _BUSY_LOAD * machine["cores"]
    if is_busy:
        for row in found:
            row["ratios"] = f"not given: the load was {machine['load_average']} before the first measurement"
    folder = request.config.getoption("--results")
    if folder is not None:
        result = {"machine": machine, "versions": package_versions(), "is_busy": is_busy, "rows": found}
        name = Path(request.path).stem.removeprefix("bench_")
        with replaced_when_whole(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")
    for row in found:
        print(f"\n{row['name']}: {json.dumps(row['ratios'])}")


@pytest.fixture
def compare(benchmark: BenchmarkFixture, rows: list[Row]) -> Callable[..., Row]:
    """Measure sides in turns, A B A B, and append a row: ``compare(name, timed, ours, peers, rounds=5)``.

    ``ours`` is what pytest-benchmark reports; each round of it is preceded by one of every peer, a function by
    name. ``timed`` says what is inside the timed region. A ratio is a peer's time over ours of the same
    round: above 1, ours is faster.
    """

    def compare(name: str, timed: str, ours: Callable[[], object], peers: Sides, *, rounds: int = 5) -> Row:
        ours()  # compiles what is not compiled yet
        seconds: dict[str, list[float]] = {"reidexport": [], **{peer: [] for peer in peers}}

        def run_peers() -> None:
            for peer, run in peers.items():
                seconds[peer].append(_seconds(run))

        benchmark.pedantic(
            lambda: seconds["reidexport"].append(_seconds(ours)), setup=run_peers, rounds=rounds, iterations=1
        )
        row = {
            "name": name,
            "timed": timed,
            "seconds": {side: _spread(times) for side, times in seconds.items()},
            "ratios": {
                peer: _spread([a / b for a, b in zip(seconds[peer], seconds["reidexport"], strict=True)])
                for peer in peers
            },
        }
        benchmark.extra_info.update(row)
        rows.append(row)
        return row

    return compare


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _spread(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {name: float(f"{value:.4g}") for name, value in
            {"median": middle, "lowest": min(values), "highest": max(values)}.items()}  # fmt: skip
