"""What all measurements share: sides that take turns, and rows that are written with the machine they ran on.

pytest benchmarks --artifact FILE [--artifact FILE ...] [--checkpoint FILE] [--data ROOT] [--results DIR | --quick]
"""

import json
import os
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from reidruntime.errors import ArtifactError, InputError, NotInstalledError

from benchmarks.harness import comparison
from benchmarks.harness.comparison import Compare
from benchmarks.harness.result_file import save_left_out, save_row
from benchmarks.harness.subjects import (
    Subject,
    backends_for,
    open_subject,
    seeded_artifacts,
    write_seeded_checkpoint,
)
from benchmarks.peers.gpu_peers import CompileMode
from reidexport import Checkpoint, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.data import Dataset, load_dataset
from reidexport.data.synthetic import draw_dataset
from reidexport.machine import MachineInfo, machine_info
from reidexport.progress import progress_bar
from reidexport.records.speed import BenchmarkRow


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to measure, with which images, and where results go."""
    parser.addoption("--artifact", type=Path, action="append", help="ONNX file or engine; may be repeated")
    parser.addoption("--checkpoint", type=Path, help="what the artifacts were exported from: torch is a peer")
    parser.addoption("--data", type=Path, help="data set to take images from; default: a drawn one")
    parser.addoption(
        "--results", type=Path, help="folder for NAME.json of each bench_NAME.py: rows are merged"
    )
    parser.addoption(
        "--quick", action="store_true", help="small sizes and few rounds: tries the programs out"
    )
    parser.addoption(
        "--compile-mode",
        choices=get_args(CompileMode),
        default="max-autotune",
        help="of torch.compile on a GPU; max-autotune needs minutes for each batch size",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what would give wrong figures."""
    if config.getoption("--quick") and config.getoption("--results"):
        raise pytest.UsageError("The figures of --quick are not results: leave out --quick or --results.")
    if "OPENBLAS_CORETYPE" in os.environ:
        raise pytest.UsageError("Unset OPENBLAS_CORETYPE: its kernels slow NumPy and faiss down.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every artifact and backend."""
    if "subject" in metafunc.fixturenames:
        seeded = list(seeded_artifacts())[: 1 if metafunc.config.getoption("--quick") else None]
        paths = metafunc.config.getoption("--artifact") or seeded
        pairs = [(path, backend) for path in paths for backend in backends_for(path)]
        names = [f"{path.name}-{backend}" for path, backend in pairs]
        metafunc.parametrize("subject", pairs, ids=names, indirect=True)


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether small sizes are requested."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def compile_mode(request: pytest.FixtureRequest) -> CompileMode:
    """How torch.compile looks for the fastest kernels on a GPU."""
    mode: CompileMode = request.config.getoption("--compile-mode")
    return mode


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quick: bool) -> Path:
    """The user's data set, or a drawn one of the same layout and image size."""
    if root := request.config.getoption("--data"):
        return Path(root)
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
    """What the artifacts were made from: a seeded strong baseline without an artifact."""
    if request.config.getoption("--checkpoint") or request.config.getoption("--artifact"):
        file: Path | None = request.config.getoption("--checkpoint")
        return file
    path = tmp_path_factory.mktemp("seeded") / "seeded.pth"
    write_seeded_checkpoint(path, "osnet_x0_25" if quick else "resnet50")
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_file: Path | None) -> Checkpoint | None:
    """The same, read."""
    return load_checkpoint(checkpoint_file) if checkpoint_file else None


@pytest.fixture
def subject(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint | None,
    data_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Subject]:
    """One artifact on one backend; skipped with the reason where that backend does not run it."""
    path, backend = request.param
    if not request.config.getoption("--artifact"):
        precision = seeded_artifacts()[path]
        path = tmp_path_factory.getbasetemp() / path  # of all tests: exported when it is first asked for
        if checkpoint and not path.exists():
            graph = graph_from_checkpoint(checkpoint)
            calibration = data_root if precision == "int8" else None
            onnx_from_graph(
                graph, path, precision=precision, calibration=calibration, progress_bar=progress_bar
            )
    try:
        opened = open_subject(path, backend, checkpoint)
    except ArtifactError as error:
        pytest.fail(str(error), pytrace=False)
    except (InputError, NotInstalledError) as error:
        pytest.skip(str(error))
    with opened.session:
        yield opened


@pytest.fixture(scope="session")
def machine() -> MachineInfo:
    """The machine before the first measurement."""
    return machine_info()


@pytest.fixture
def compare(
    request: pytest.FixtureRequest, benchmark: BenchmarkFixture, machine: MachineInfo, quick: bool
) -> Iterator[Compare]:
    """:func:`benchmarks.harness.comparison.compare`, whose row is printed and written once the test has passed.

    So is a row that names peers which failed, though the test failed for them.
    """
    failed = request.session.testsfailed
    yield partial(comparison.compare, benchmark, machine=machine, quick=quick)
    row = benchmark.extra_info
    if not row or (request.session.testsfailed > failed and not row.get("failed_peers")):
        return
    print(f"\n{row['name']}: {json.dumps(row['ratios'])}")
    record = BenchmarkRow(**row)
    if folder := request.config.getoption("--results"):
        save_row(_result_file(folder, request.path), record, machine, request.node.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write down what was left out, and why."""
    report = yield
    folder = item.config.getoption("--results")
    if folder and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        save_left_out(_result_file(folder, item.path), item.name, reason, machine_info())
    return report


def _result_file(folder: Path, program: Path) -> Path:
    return folder / f"{program.stem.removeprefix('bench_')}.json"
