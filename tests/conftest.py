"""What several tests share: a real data set where there is one, and a drawn one everywhere."""

import os
from pathlib import Path

import pytest

from reidexport.datasets import Dataset
from reidexport.synthetic import draw_dataset


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, with the reason."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
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
