"""What several tests share: a real data set where there is one, and a drawn one everywhere."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymilvus  # noqa: F401 - closes all log handlers, with the captured stderr of OpenVINO's: so it comes first
import pytest
import torch
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Preprocess

from reidexport.checkpoint.loading import load_checkpoint, save_checkpoint
from reidexport.cli import main
from reidexport.data import Dataset
from reidexport.data.synthetic import draw_dataset
from reidexport.export.graph import graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.models import Baseline, BaselineArchitecture


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, with the reason."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: torch.cuda.is_available() is False")
    if item.get_closest_marker("data") and not os.environ.get("REIDEXPORT_DATA"):
        pytest.skip("needs real data: set REIDEXPORT_DATA to the folder that holds market1501")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; only for tests marked ``data``."""
    return Path(os.environ["REIDEXPORT_DATA"])


@pytest.fixture(scope="session")
def drawn_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small drawn data set: 6 test people, 3 cameras, 2 images each, distractors and junk."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    return draw_dataset(root, num_train_pids=2, num_test_pids=6, num_cameras=3, images_per_camera=2)


@dataclass(frozen=True)
class Exported:
    """A small seeded checkpoint in this project's format, and its FP32 and FP16 ONNX files."""

    checkpoint: Path
    onnx: Path
    fp16: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A ResNet-18 with BNNeck for images of 64x32 px, exported both ways."""
    folder = tmp_path_factory.mktemp("exported")
    files = Exported(folder / "small.pth", folder / "small.onnx", folder / "small_fp16.onnx")
    torch.manual_seed(0)
    model = Baseline(BaselineArchitecture("resnet18", last_stride=1, feature_dim=512, num_classes=4))
    preprocess = Preprocess(height_px=64, width_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=True)
    save_checkpoint(files.checkpoint, model, preprocess)
    graph = graph_from_checkpoint(load_checkpoint(files.checkpoint))
    onnx_from_graph(graph, files.onnx)
    onnx_from_graph(graph, files.fp16, precision="fp16")
    return files


@dataclass(frozen=True)
class Done:
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``reidexport ARGUMENTS`` through its entry point, in this process."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["reidexport", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def refuses(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in an empty folder, which must end with status 2 and these words, and leave no file."""

    def check(words: str, *arguments: object) -> None:
        monkeypatch.chdir(tmp_path)
        done = run(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert list(tmp_path.iterdir()) == []

    return check


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch, during a module: sums over other numbers of threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def precision_switches() -> Iterator[None]:
    """Restore, after the test, torch's switches for the precision of matrix products."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: REIDEXPORT_BROWSER, or the system's."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: make web-test"
    )
    path = os.environ.get("REIDEXPORT_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: make web-test installs it, or set REIDEXPORT_BROWSER")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
