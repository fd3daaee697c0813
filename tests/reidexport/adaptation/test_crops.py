"""A site's crops: whose camera they are of, by names, folders or a list; and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reidgallery.input import UNLABELED

from reidexport.adaptation.crops import find_site_crops
from reidexport.data import Dataset
from reidexport.errors import InputError


def write_images(folder: Path, names: list[str]) -> None:
    """Tiny images of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 8)).save(folder / name)


def test_names_tell_camera_track_and_time(tmp_path: Path) -> None:
    """``<track>_c<camera>s<sequence>_<frame>`` is read as everywhere; cameras count from 0."""
    write_images(
        tmp_path,
        [f"{track:04d}_c{camera}s1_{25 * track:06d}_00.jpg" for track in range(1, 41) for camera in (1, 3)],
    )
    crops = find_site_crops(tmp_path)
    assert crops.cameras == [0, 2]
    assert crops.tracks.tolist() == [track for track in range(1, 41) for _ in range(2)]
    assert crops.times[0] == 1_000_025
    assert crops.camera_names == {}


@pytest.mark.parametrize(
    ("folders", "camids"),
    [(["cam07", "cam12"], [6, 11]), (["entrance", "lobby 2"], [0, 1]), (["1", "2"], [0, 1])],
    ids=["numbered", "named", "bare"],
)
def test_a_folder_may_be_a_camera(tmp_path: Path, folders: list[str], camids: list[int]) -> None:
    """Folders are numbered as their names are, where all are, or else in their order; a line says which is which."""
    for folder in folders:
        write_images(tmp_path / folder, [f"{number}.png" for number in range(32)])
    lines: list[str] = []
    crops = find_site_crops(tmp_path, log=lines.append)
    assert crops.cameras == camids
    assert crops.camera_names == dict(zip(camids, folders, strict=True))
    assert lines == [
        f"the folder {folder} is taken for camera {camid + 1}" for camid, folder in crops.camera_names.items()
    ]


def test_a_list_names_crops_and_cameras(tmp_path: Path) -> None:
    """The column path is relative to the list; person is the track."""
    write_images(tmp_path / "crops", [f"{number}.jpg" for number in range(40)])
    lines = [
        f"crops/{number}.jpg,{1 + number % 2 * 4},{number // 4 + 1},{number}" for number in range(32, 40)
    ]
    lines += [f"crops/{number}.jpg,1,7,{number}" for number in range(32)]
    (tmp_path / "site.csv").write_text("\n".join(["path,camera,person,time", *lines]))
    with pytest.raises(
        InputError, match=r"too few crops of some cameras \(camera 5: 4\), expected at least 32"
    ):
        find_site_crops(tmp_path / "site.csv")
    crops = find_site_crops(tmp_path / "site.csv", ignore_cameras=True)
    assert crops.cameras == []
    assert (crops.camids == UNLABELED).all()
    assert (crops.tracks == UNLABELED).all()  # a tracker numbers each camera's anew
    assert Path(crops.paths[0]) == tmp_path / "crops/32.jpg"


def test_of_a_data_set_the_train_split_is_taken(drawn_dataset: Dataset) -> None:
    """Query and gallery are what accuracy is measured on."""
    root = drawn_dataset.query[0].path.parents[1]
    with pytest.raises(InputError, match="12 crops, expected at least 32"):
        find_site_crops(root)


def test_crops_that_tell_no_camera_are_one_cameras(tmp_path: Path) -> None:
    """Where no name and no folder tells a camera there is one profile for all."""
    write_images(tmp_path, [f"{number}.png" for number in range(32)])
    assert find_site_crops(tmp_path).cameras == []


def test_some_cameras_without_others_are_refused(tmp_path: Path) -> None:
    """Crops without a camera beside crops with one are an error, which names the first of them."""
    write_images(tmp_path, [f"1_c1_{number}.png" for number in range(32)] + ["stray.png"])
    with pytest.raises(
        InputError,
        match=r"1 of 33 crops tell no camera, the first .*stray\.png\. Name them.*--ignore-cameras",
    ):
        find_site_crops(tmp_path)
    (tmp_path / "stray.png").unlink()
    assert np.array_equal(find_site_crops(tmp_path).camids, np.zeros(32))
