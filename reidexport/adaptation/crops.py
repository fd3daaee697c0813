"""The crops of a site: whose cameras they are, and which of them follow each other in a track."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import UNLABELED

from reidexport.data.image_paths import Log, find_images
from reidexport.data.label_file import read_label_file
from reidexport.data.layouts import load_dataset, recognized_in
from reidexport.data.name_labels import labels_from_names
from reidexport.errors import InputError

FEWEST, FEW = 32, 128  # crops of a camera: fewer are refused, and warned of
_LIST_SUFFIXES = (".csv", ".parquet")
_LAST_NUMBER = re.compile(r"(\d{1,9})\D*$")

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SiteCrops:
    """Unlabeled crops of a site.

    Attributes:
        paths: of N crops.
        camids: int64 (N,), from 0; ``UNLABELED`` for all of a site whose crops tell no camera.
        tracks: int64 (N,), the number that a name has before its camera, positive for a track: a tracker's number, or
            a person's. It is compared within one camera only.
        times: int64 (N,), by any one clock; ``UNLABELED`` where it is not known.
        camera_names: of cameras that are folders, by camid.
    """

    paths: Sequence[str]
    camids: Ints
    tracks: Ints
    times: Ints
    camera_names: dict[int, str]

    def of_camera(self, camid: int) -> "SiteCrops":
        """Those of one camera."""
        own = self.camids == camid
        paths = list(compress(self.paths, own))
        return SiteCrops(paths, self.camids[own], self.tracks[own], self.times[own], self.camera_names)

    @property
    def cameras(self) -> list[int]:
        """The camids, in order; none where crops tell no camera."""
        found: list[int] = np.unique(self.camids[self.camids != UNLABELED]).tolist()
        return found


def find_site_crops(source: Path, *, ignore_cameras: bool = False, log: Log = lambda _: None) -> SiteCrops:
    """Find the crops of a site, and what their names or folders tell.

    Args:
        source: a folder of crops, whose names begin ``<track>_c<camera>``, or with a folder for each camera; a data
            set, whose train split is used; or a list, CSV or Parquet, as
            :func:`reidexport.data.label_file.read_label_file` reads it, whose persons are tracks.
        ignore_cameras: treat all crops as those of one camera.
        log: called with a line for what is left out, and for cameras that are folders.

    Raises:
        InputError: the source does not exist; only some crops tell their camera; or there are fewer than ``FEWEST``
            crops in all, or of a camera.
        DatasetError: a data set cannot be read.
    """
    names: dict[int, str] = {}
    if source.suffix.lower() in _LIST_SUFFIXES:
        table = read_label_file(source)
        paths = [str(source.parent / image) for image in table.images]
        tracks, camids, times = table.labels_of(paths)
    elif source.is_dir() and recognized_in(source):
        records = load_dataset(source, log=log).train
        paths = [str(record.path) for record in records]
        tracks, camids = (
            np.array([(record.pid, record.camid) for record in records], np.int64).reshape(-1, 2).T
        )
        times = labels_from_names(paths)[2]
    else:
        paths = find_images([source], log=log)
        tracks, camids, times = labels_from_names(paths)
        if (camids == UNLABELED).all() and source.is_dir() and not ignore_cameras:
            camids, names = _cameras_by_folder(source, paths)
            for camid, name in names.items():
                log(f"the folder {name} is taken for camera {camid + 1}")
    if ignore_cameras:  # a track is one camera's, too
        camids, tracks = (np.full(len(paths), UNLABELED, np.int64) for _ in range(2))
    _check_numbers(source, paths, camids)
    return SiteCrops(paths, camids, tracks, times, names)


def _cameras_by_folder(source: Path, paths: Sequence[str]) -> tuple[Ints, dict[int, str]]:
    """The cameras of crops that lie in folders: numbered as these are, where all are, or else in their order."""
    folders = [Path(path).relative_to(source).parts[0] for path in paths]
    if any(Path(path).parent == source for path in paths):
        return np.full(len(paths), UNLABELED, np.int64), {}
    names = sorted(set(folders))
    found = [_LAST_NUMBER.search(name) for name in names]
    numbers = [int(match[1]) for match in found if match]
    if len(set(numbers)) < len(names) or min(numbers) < 1:
        numbers = list(range(1, len(names) + 1))
    camid_of = {name: number - 1 for name, number in zip(names, numbers, strict=True)}
    camids = np.array([camid_of[folder] for folder in folders], np.int64)
    return camids, dict(sorted((camid, name) for name, camid in camid_of.items()))


def _check_numbers(source: Path, paths: Sequence[str], camids: Ints) -> None:
    if len(paths) < FEWEST:
        raise InputError(
            f"{source}: {len(paths)} crops, expected at least {FEWEST}, better 256 of each camera. Collect more."
        )
    unknown = np.flatnonzero(camids == UNLABELED)
    if 0 < len(unknown) < len(paths):
        raise InputError(
            f"{source}: {len(unknown)} of {len(paths)} crops tell no camera, the first {paths[unknown[0]]}. Name them "
            "<track>_c<camera>_…, write them into a list (CSV with the columns path and camera), or pass "
            "--ignore-cameras: then all are treated as one camera's."
        )
    counts = Counter(camids.tolist())
    if few := {camid: count for camid, count in sorted(counts.items()) if count < FEWEST}:
        listed = ", ".join(f"camera {camid + 1}: {count}" for camid, count in few.items())
        raise InputError(
            f"{source}: too few crops of some cameras ({listed}), expected at least {FEWEST} of each, better 256. "
            "Collect more, leave those cameras out, or pass --ignore-cameras: then all crops are treated as one "
            "camera's."
        )
