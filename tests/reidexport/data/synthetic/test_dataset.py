from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reidexport.data import Dataset, ImageRecord
from reidexport.data.synthetic import draw_dataset, draw_people
from reidexport.errors import DatasetError, InputError
from reidexport.evaluation.scoring import score_features

SMALL: dict[str, Any] = {"num_train_pids": 1, "num_test_pids": 2, "num_cameras": 2, "images_per_camera": 2}


def test_counts_and_layout(drawn_dataset: Dataset) -> None:
    """Train people are not test people; each test person is a query once per camera; junk and distractors exist."""
    assert len(drawn_dataset.train) == 2 * 3 * 2
    assert len(drawn_dataset.query) == 6 * 3
    pids = [record.pid for record in drawn_dataset.gallery]
    assert (pids.count(0), pids.count(-1), len(pids)) == (18, 6, 18 + 18 + 6)
    assert {record.pid for record in drawn_dataset.train} == {1, 2}
    assert {record.pid for record in drawn_dataset.query} == set(range(3, 9)) == set(pids) - {0, -1}
    assert drawn_dataset.train[0].path.name == "0001_c1s1_000001_00.jpg"


def test_images_are_market_sized_jpegs(drawn_dataset: Dataset) -> None:
    """Images are 64 x 128 RGB JPEG, as Market-1501's."""
    for record in drawn_dataset.gallery:
        with Image.open(record.path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_a_seed_decides_every_pixel(tmp_path: Path) -> None:
    """The same seed draws the same files; another seed, others."""
    first, again = (draw_dataset(tmp_path / name, seed=3, **SMALL) for name in ("a", "b"))
    other = draw_dataset(tmp_path / "c", seed=4, **SMALL)
    assert contents(first) == contents(again)
    assert contents(first).keys() == contents(other).keys()
    assert all(contents(first)[name] != contents(other)[name] for name in contents(first))


def contents(dataset: Dataset) -> dict[str, bytes]:
    """Every file by folder and name."""
    records = (*dataset.train, *dataset.query, *dataset.gallery)
    return {f"{r.path.parent.name}/{r.path.name}": r.path.read_bytes() for r in records}


def test_a_person_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    """More people, cameras or images leave those of a smaller data set as they are."""
    few = contents(draw_dataset(tmp_path / "few", **SMALL))
    many = contents(draw_dataset(tmp_path / "many", **{**SMALL, "num_cameras": 3, "images_per_camera": 3}))
    people = {name: image for name, image in few.items() if "/0000" not in name and "/-1" not in name}
    assert people.items() <= many.items()


def test_people_are_recognizable_but_not_by_pixels_alone(tmp_path: Path) -> None:
    """Raw pixels find the right person across cameras far more often than chance, and far from always."""
    dataset = draw_dataset(tmp_path / "drawn", num_train_pids=1, num_test_pids=16, images_per_camera=3)
    gallery = dataset.scored_gallery
    metrics = score_features(pixels(dataset.query), pixels(gallery), dataset.query, gallery, metric="cosine")
    assert 0.25 < metrics.rank1 < 0.75
    assert metrics.mAP < 0.5


def pixels(records: tuple[ImageRecord, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Raw pixels as features."""
    return np.stack([np.asarray(Image.open(record.path), np.float32).ravel() for record in records])


def test_other_sizes(tmp_path: Path) -> None:
    """Images of any size can be drawn."""
    dataset = draw_dataset(tmp_path / "large", size=(256, 128), **SMALL)
    assert Image.open(dataset.query[0].path).size == (128, 256)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    """Progress comes after each image and ends at the total."""
    calls: list[tuple[int, int]] = []
    dataset = draw_dataset(tmp_path / "drawn", progress=lambda *call: calls.append(call), **SMALL)
    total = len(dataset.train) + len(dataset.query) + len(dataset.gallery)
    assert calls == [(number, total) for number in range(1, total + 1)]


def test_a_used_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder with something in it is refused; an empty one is taken."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    with pytest.raises(DatasetError, match=r"used exists already and is not an empty folder"):
        draw_dataset(tmp_path / "used", **SMALL)
    (tmp_path / "empty").mkdir()
    assert draw_dataset(tmp_path / "empty", **SMALL).name == "empty"


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    """No half data set stays, under its own name or a temporary one."""

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "drawn", progress=interrupt, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A root below a file is an error of the data set's, not of the system's."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"drawn: cannot make a data set there"):
        draw_dataset(tmp_path / "file/drawn", **SMALL)


@pytest.mark.parametrize(
    "change",
    [{"num_train_pids": 0}, {"num_cameras": 1}, {"images_per_camera": 1}, {"seed": -1}, {"size": (16, 64)}],
)
def test_numbers_that_are_too_small(tmp_path: Path, change: dict[str, Any]) -> None:
    """A number that leaves nothing to draw or to match is refused by name, before anything is written."""
    with pytest.raises(InputError, match=r"needs .* to be at least"):
        draw_dataset(tmp_path / "drawn", **{**SMALL, **change})
    assert not (tmp_path / "drawn").exists()


def test_people_without_a_folder() -> None:
    """draw_people gives uint8 RGB arrays of different people, the same ones for the same seed."""
    images = draw_people(5, size=(64, 32))
    assert [(image.shape, image.dtype.name) for image in images] == [((64, 32, 3), "uint8")] * 5
    assert all(np.array_equal(a, b) for a, b in zip(images, draw_people(5, size=(64, 32)), strict=True))
    assert not np.array_equal(images[0], images[4])
