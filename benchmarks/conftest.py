"""What all measurements share: sides that take turns, and rows that are written with the machine they ran on.

pytest benchmarks --artifact FILE [--artifact FILE ...] [--checkpoint FILE] [--data ROOT] [--results DIR] [--quick]
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from reidruntime.errors import InputError, NotInstalledError

from benchmarks.other_processes import cpu_use, disturbance, others_share
from benchmarks.subjects import SEEDED, Subject, backends_for, open_subject, write_seeded_checkpoint
from benchmarks.turns import Measure, Side, all_of, one_call, rounded, spread
from reidexport import Checkpoint, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.datasets import Dataset, load_dataset
from reidexport.files import replaced_when_whole
from reidexport.machine import MachineInfo, machine_info, package_versions
from reidexport.progress import progress_bar
from reidexport.synthetic import draw_dataset

_PAUSE_S = 0.02  # in which the threads of the side before stop to spin

Row = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to measure, with which images, and where results go."""
    parser.addoption("--artifact", type=Path, action="append", help="ONNX file or plan; may be repeated")
    parser.addoption("--checkpoint", type=Path, help="what the artifacts were exported from: torch is a peer")
    parser.addoption("--data", type=Path, help="data set to take images from; default: a drawn one")
    parser.addoption("--results", type=Path, help="folder for NAME.json of each bench_NAME.py")
    parser.addoption(
        "--quick", action="store_true", help="small sizes and few rounds: tries the programs out"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every artifact and backend."""
    if "subject" in metafunc.fixturenames:
        seeded = list(SEEDED)[: 1 if metafunc.config.getoption("--quick") else None]
        paths = metafunc.config.getoption("--artifact") or [Path(name) for name in seeded]
        pairs = [(path, backend) for path in paths for backend in backends_for(path)]
        names = [f"{path.name}-{backend}" for path, backend in pairs]
        metafunc.parametrize("subject", pairs, ids=names, indirect=True)


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether small sizes are asked for."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quick: bool) -> Path:
    """The user's data set, or a drawn one of the same layout and image size."""
    if given := request.config.getoption("--data"):
        return Path(given)
    root = tmp_path_factory.mktemp("data") / "drawn"
    num_pids = 2 if quick else 20
    draw_dataset(root, num_train_pids=num_pids, num_test_pids=num_pids)
    return root


@pytest.fixture(scope="session")
def dataset(data_root: Path) -> Dataset:
    """Its images."""
    return load_dataset(data_root)


@pytest.fixture(scope="session")
def checkpoint_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quick: bool
) -> Path | None:
    """What the artifacts were made from: a seeded strong baseline where no artifact is given."""
    if request.config.getoption("--checkpoint") or request.config.getoption("--artifact"):
        given: Path | None = request.config.getoption("--checkpoint")
        return given
    path = tmp_path_factory.mktemp("seeded") / "seeded.pth"
    write_seeded_checkpoint(path, "osnet_x0_25" if quick else "resnet50")
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_file: Path | None) -> Checkpoint | None:
    """The same, read."""
    return load_checkpoint(checkpoint_file) if checkpoint_file else None


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where seeded artifacts are exported to, each when it is first asked for."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def subject(
    request: pytest.FixtureRequest, checkpoint: Checkpoint | None, data_root: Path, artifact_folder: Path
) -> Iterator[Subject]:
    """One artifact on one backend; skipped with the reason where that backend does not take it."""
    path, backend = request.param
    if not request.config.getoption("--artifact"):
        path = artifact_folder / path
        if checkpoint and not path.exists():
            precision = SEEDED[path.name]
            graph = graph_from_checkpoint(checkpoint)
            calibration = data_root if precision == "int8" else None
            onnx_from_graph(
                graph, path, precision=precision, calibration=calibration, progress_bar=progress_bar
            )
    try:
        opened = open_subject(path, backend, checkpoint)
    except (InputError, NotInstalledError) as error:
        pytest.skip(str(error))
    with opened.session:
        yield opened


@pytest.fixture(scope="session")
def machine() -> MachineInfo:
    """The machine before the first measurement."""
    return machine_info()


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, machine: MachineInfo) -> Iterator[list[Row]]:
    """The rows of one file, to be appended to; written when all of them are there."""
    found: list[Row] = []
    yield found
    disturbances = [disturbance(row["others_cpu_share"], machine) for row in found]
    for row, found_out in zip(found, disturbances, strict=True):
        if found_out:
            row["ratios"] = f"not given: {found_out}"
        print(f"\n{row['name']}: {json.dumps(row['ratios'])}")
    folder, question = request.config.getoption("--results"), Path(request.path).stem.removeprefix("bench_")
    if folder is not None and found:
        result = {
            "kind": "benchmark",
            "question": question,
            "machine": machine,
            "versions": package_versions(),
            "is_busy": any(disturbances),
            "rows": found,
        }
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(folder / f"{question}.json") as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


@pytest.fixture
def compare(benchmark: BenchmarkFixture, rows: list[Row], quick: bool) -> Callable[..., Row]:
    """Measure sides in turns, A B A B, and append a row: ``compare(name, timed, ours, peers, rounds=5)``.

    ``ours`` is what pytest-benchmark reports the turns of; each is preceded by one of every peer, a function by
    name. ``timed`` says what is inside the timed region. A ratio is a peer's time over ours of the same
    round: above 1, ours is faster. ``measure`` takes a side and returns its figures of one turn, in ``unit``;
    default: the seconds of one call. ``percentiles`` adds those of all of our calls.
    """

    def compare(
        name: str,
        timed: str,
        ours: Side,
        peers: dict[str, Side],
        *,
        rounds: int = 5,
        measure: Measure = one_call,
        unit: str = "seconds",
        percentiles: bool = False,
    ) -> Row:
        ours()  # compiles what is not compiled yet
        turns: dict[str, list[list[float]]] = {"reidexport": [], **{peer: [] for peer in peers}}

        def peers_turn() -> None:
            for peer, run in peers.items():
                time.sleep(_PAUSE_S)
                turns[peer].append(measure(run))
            time.sleep(_PAUSE_S)

        before = cpu_use()
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: turns["reidexport"].append(measure(ours)),
            setup=peers_turn,
            rounds=min(rounds, 2) if quick else rounds,
            iterations=1,
        )
        row: Row = {
            "name": name,
            "timed": timed,
            unit: {side: spread(all_of(figures)) for side, figures in turns.items()},
            "ratios": {
                peer: spread([statistics.median(a) / statistics.median(b) for a, b in pairs])
                for peer in peers
                if (pairs := list(zip(turns[peer], turns["reidexport"], strict=True)))
            },
            "others_cpu_share": others_share(before, cpu_use()),
        }
        if percentiles:
            for percent in (50, 90, 99):
                value = np.percentile(all_of(turns["reidexport"]), percent)
                row[f"p{percent}_ms"] = rounded(value * 1000)
        benchmark.extra_info.update(row)
        rows.append(row)
        return row

    return compare
