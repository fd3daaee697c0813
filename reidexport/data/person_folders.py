"""A folder for each person, as torchvision's ImageFolder and layumi's Person_reID_baseline_pytorch have them.

The folder says who, the image's name perhaps by which camera: ``query/0002/0002_c1s1_000451_03.jpg``,
``query/alice/0001.jpg``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from reidgallery.input import UNLABELED

from reidexport.data.records import ImageRecord, images_in, pid_and_camid
from reidexport.errors import DatasetError

_NUMBER = re.compile(r"-?\d{1,18}")


def has_person_folders(folder: Path) -> bool:
    """Whether it is a folder of folders, with no images beside them."""
    return folder.is_dir() and bool(_folders_in(folder)) and not images_in(folder)


def records_from_person_folders(parts: Sequence[Path]) -> list[tuple[ImageRecord, ...]]:
    """Records of some folders of persons, in order of name; one person has one pid in all of them.

    The pid is the folder's number. Where a folder has another name, or 0, or two names are one number, persons are
    counted from 1 in order of name: junk (-1) and distractors (0) are only what the images' names call so, too.
    Cameras are those of ``<pid>_c<camera>…``; other names tell none.

    Raises:
        DatasetError: a person has no image, or an image's name and its folder tell two persons.
    """
    images = {folder: _images_of_person(folder) for part in parts for folder in _folders_in(part)}
    special = {folder: _special_pid(folder, paths) for folder, paths in images.items()}
    names = sorted({folder.name for folder in images if special[folder] is None})
    numbers = {name: int(name) for name in names if _NUMBER.fullmatch(name) and int(name) > 0}
    if len(set(numbers.values())) < len(names):
        numbers = {name: pid for pid, name in enumerate(names, 1)}
    return [
        tuple(
            ImageRecord(path, numbers[folder.name] if (pid := special[folder]) is None else pid, _camid(path))
            for folder in _folders_in(part)
            for path in images[folder]
        )
        for part in parts
    ]


def _folders_in(part: Path) -> list[Path]:
    return sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_of_person(folder: Path) -> list[Path]:
    images = images_in(folder)
    if not images:
        raise DatasetError(
            f"{folder} holds no image: expected those of one person. Remove the folder if it is none."
        )
    for path in images:
        labels = pid_and_camid(path.name)
        if labels and _NUMBER.fullmatch(folder.name) and labels[0] != int(folder.name):
            raise DatasetError(
                f"{path}: the name is one of person {labels[0]}, in the folder of person {int(folder.name)}. Move it, "
                "or rename it so that it does not start like <pid>_c<camera>."
            )
    return images


def _special_pid(folder: Path, images: Sequence[Path]) -> int | None:
    """-1 or 0 where the names of all images say so; None for a person."""
    found = {labels[0] if (labels := pid_and_camid(path.name)) else None for path in images}
    pid = found.pop()
    return pid if pid is not None and pid <= 0 and not found and _NUMBER.fullmatch(folder.name) else None


def _camid(path: Path) -> int:
    labels = pid_and_camid(path.name)
    return labels[1] if labels else UNLABELED
