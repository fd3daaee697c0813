"""What is said about a data set before it is trained on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reidexport.data import Dataset, ImageRecord, load_dataset
from train.data_warnings import data_warnings
from train.dataset import load_train_split


def make_files(root: Path, *names: str) -> None:
    """Files that differ, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    """Two persons to train on, two images each, and another one to search for."""
    parts = "train/1_c1_a.jpg train/1_c2_b.jpg train/2_c1_c.jpg train/2_c2_d.jpg query/3_c1_e.jpg gallery/3_c2_f.jpg"
    make_files(tmp_path, *parts.split())
    return load_dataset(tmp_path)


def test_clean_data_is_not_warned_of(clean: Dataset) -> None:
    """No warning, with a test split or without; distractors in both splits are nobody."""
    assert list(data_warnings(clean, evaluate=True)) == list(data_warnings(clean, evaluate=False)) == []
    distractor = ImageRecord(clean.train[0].path, 0, 0)
    assert (
        list(data_warnings(replace(clean, train=(*clean.train, distractor, distractor)), evaluate=False))
        == []
    )


def test_persons_with_one_image(clean: Dataset) -> None:
    """They are counted, and the first is named."""
    (warning,) = data_warnings(replace(clean, train=clean.train[1:]), evaluate=True)
    assert warning.startswith(
        f"1 of 2 persons have one training image (first {clean.train[1].path}): batches repeat"
    )


def test_persons_of_both_splits(clean: Dataset, tmp_path: Path) -> None:
    """The same number in training and queries is said, with an image of each; without an evaluation it is not asked."""
    make_files(tmp_path, "query/2_c1_g.jpg", "gallery/2_c2_h.jpg")
    dataset = load_dataset(tmp_path)
    (warning,) = data_warnings(dataset, evaluate=True)
    assert warning.startswith(
        "1 of 2 persons of the queries are in the training split too (first person 2: "
        f"{tmp_path}/train/2_c1_c.jpg and {tmp_path}/query/2_c1_g.jpg)"
    )
    assert list(data_warnings(dataset, evaluate=False)) == []


def test_images_of_both_splits(clean: Dataset, tmp_path: Path) -> None:
    """The same bytes under other names and numbers are the same image, which the network has seen."""
    shutil.copy(clean.train[2].path, tmp_path / "gallery/4_c1_copy.jpg")
    (warning,) = data_warnings(load_dataset(tmp_path), evaluate=True)
    assert warning.startswith(
        "1 of 4 training images are in the test split too, byte for byte "
        f"(first {clean.train[2].path} and {tmp_path}/gallery/4_c1_copy.jpg)"
    )


def test_a_folder_for_each_person_can_be_trained_on_alone(tmp_path: Path) -> None:
    """train/ of folders needs no test split where none is evaluated."""
    make_files(tmp_path / "shop", "train/anna/1.jpg", "train/bert/2.jpg")
    split = load_train_split(tmp_path / "shop")
    assert (split.name, [record.pid for record in split.train], split.query) == ("shop", [1, 2], ())


@pytest.mark.data
def test_market1501_is_clean(data_root: Path) -> None:
    """Nothing is shared between its splits, and everybody has two images."""
    assert list(data_warnings(load_dataset(data_root, "market1501"), evaluate=True)) == []
