"""Which images INT8 is calibrated on, and which are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reidruntime.artifact.manifest import Preprocess

from reidexport.data import Dataset
from reidexport.data.synthetic import draw_people
from reidexport.errors import InputError
from reidexport.export.quantization.calibration import (
    find_calibration_images,
    load_calibration_images,
    looks_like_noise,
)

PREPROCESS = Preprocess(height_px=64, width_px=32, mean=(0, 0, 0), std=(1, 1, 1), in_graph=True)


def write_people(folder: Path, number: int) -> Path:
    """A folder of drawn people."""
    folder.mkdir(parents=True)
    for index, person in enumerate(draw_people(number)):
        Image.fromarray(person).save(folder / f"{index:04}.png")
    return folder


def test_the_train_split_of_a_data_set_is_taken(drawn_dataset: Dataset) -> None:
    """The folder of a data set, or one above it, gives its train images and no other."""
    root = drawn_dataset.train[0].path.parents[1]
    expected = [str(record.path) for record in drawn_dataset.train]
    assert find_calibration_images(root) == expected
    assert find_calibration_images(root.parent) == expected


@pytest.mark.parametrize("part", ["query", "bounding_box_test"])
def test_query_and_gallery_images_are_refused(drawn_dataset: Dataset, part: str, tmp_path: Path) -> None:
    """By their content: in their folder, through a link, and as a single copy of another name among others."""
    folder = drawn_dataset.train[0].path.parents[1] / part
    (tmp_path / "innocent").symlink_to(folder)
    for source in (folder, tmp_path / "innocent"):
        with pytest.raises(InputError, match=f"of {source} are query or gallery images of drawn, {source}"):
            find_calibration_images(source)
    copies = write_people(tmp_path / "copies", 9)
    shutil.copy(next(folder.glob("*.jpg")), copies / "harmless.jpg")
    with pytest.raises(
        InputError, match=f"^1 of the 10 images of {copies} are .*harmless.jpg first: they are what"
    ):
        find_calibration_images(copies, drawn_dataset)
    (copies / "harmless.jpg").unlink()
    assert len(find_calibration_images(copies, drawn_dataset)) == 9


def test_a_folder_is_not_judged_by_its_name(tmp_path: Path) -> None:
    """Images of one's own may lie in a folder called gallery, which is no data set."""
    assert len(find_calibration_images(write_people(tmp_path / "gallery", 9))) == 9


def test_a_data_set_around_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Its query and gallery cannot be told from the others: it is named, with what to do."""
    for part in ("query", "gallery", "train"):
        write_people(tmp_path / part, 9)
    with pytest.raises(InputError, match=f"{tmp_path} looks like a data set.*outside of it"):
        find_calibration_images(tmp_path / "train")


def test_too_few_images_are_refused_and_few_are_warned_of(tmp_path: Path) -> None:
    """Seven cannot be calibrated on, twelve are warned of with what would be better."""
    with pytest.raises(InputError, match="7 images to calibrate on, expected at least 8, better 200 or more"):
        load_calibration_images(write_people(tmp_path / "seven", 7), PREPROCESS)
    images = load_calibration_images(write_people(tmp_path / "twelve", 12), PREPROCESS)
    assert (images.calibrated.shape, images.held_out.shape) == ((10, 64, 32, 3), (2, 64, 32, 3))
    (warning,) = images.warnings
    assert "only 12 images to calibrate on; use 200 or more" in warning


def test_held_out_images_are_others_and_always_the_same(tmp_path: Path) -> None:
    """No image is on both sides, and a second call draws the same ones."""
    folder = write_people(tmp_path / "people", 24)
    images, again = (load_calibration_images(folder, PREPROCESS) for _ in range(2))
    sides = [{image.tobytes() for image in side} for side in (images.calibrated, images.held_out)]
    assert sides[0].isdisjoint(sides[1])
    np.testing.assert_array_equal(images.held_out, again.held_out)


@pytest.mark.parametrize("scale", [1, 2])
def test_noise_is_warned_of(scale: int, tmp_path: Path) -> None:
    """Random pixels, enlarged ones too, and images of one color look like noise; drawn people do not."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (12, 64 // scale, 32 // scale, 3), dtype=np.uint8)
    for index, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    assert any(
        "look like noise" in warning for warning in load_calibration_images(tmp_path, PREPROCESS).warnings
    )
    assert looks_like_noise(np.full((4, 64, 32, 3), 127, np.uint8))
    people = [np.asarray(Image.fromarray(person).resize((32, 64))) for person in draw_people(12)]
    assert not looks_like_noise(np.stack(people))
