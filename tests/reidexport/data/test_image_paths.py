"""One list of suffixes for every command, and what is left out is counted with the reason."""

from pathlib import Path

import pytest
from PIL import Image

from reidexport.data import load_dataset
from reidexport.data.image_paths import IMAGE_SUFFIXES, find_images
from reidexport.embed.plan import DEFAULT_COLUMNS
from reidexport.embed.sources import shards_of
from reidexport.errors import InputError
from train.dataset import load_train_split

LEFT_OUT = "left out 5 files: 2 .heic, 1 .db, 1 hidden, 1 without suffix"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set whose every part holds an image of every suffix, in capitals too, and five other files."""
    for camera, part in enumerate(("bounding_box_train", "query", "bounding_box_test"), start=1):
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        for number, suffix in enumerate((*sorted(IMAGE_SUFFIXES), ".JPG")):
            Image.new("RGB", (2, 4)).save(folder / f"0001_c{camera}_{number}{suffix}")
    for name in ("a.heic", "b.HEIC", "._0001_c2_1.jpg", "Thumbs.db", "LICENSE"):
        (tmp_path / "data" / "query" / name).write_bytes(b"x")
    return tmp_path / "data"


def test_every_command_reads_the_same_images(root: Path) -> None:
    """Scoring and training, embed and the cluster, and search find the same files of a folder."""
    lines: list[str] = []
    dataset = load_dataset(root, log=lines.append)
    query = [str(record.path) for record in dataset.query]
    assert len(query) == len(IMAGE_SUFFIXES) + 1
    assert lines == [f"{root}: {LEFT_OUT}"]
    folder, lines = root / "query", []
    assert find_images([folder], log=lines.append) == query
    (shard,) = shards_of([str(folder)], 100, DEFAULT_COLUMNS, log=lines.append)
    assert shard.paths == query
    (shard,) = shards_of([f"file://{folder}"], 100, DEFAULT_COLUMNS, log=lines.append)
    assert len(shard.paths) == len(query)
    assert lines == [f"{folder}: {LEFT_OUT}", f"{folder}: {LEFT_OUT}", f"file://{folder}: {LEFT_OUT}"]
    assert len(load_train_split(root).train) == len(query)


def test_nothing_is_said_where_nothing_is_left_out(root: Path) -> None:
    """A folder of images only needs no line."""
    lines: list[str] = []
    find_images([root / "bounding_box_train"], log=lines.append)
    assert lines == []


def test_a_folder_of_other_files_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    """Where no image is left, the message says which files were seen."""
    (tmp_path / "a.heic").touch()
    with pytest.raises(InputError, match=r"holds no image \(\.bmp, .*\); left out 1 file: 1 \.heic\."):
        find_images([tmp_path])
