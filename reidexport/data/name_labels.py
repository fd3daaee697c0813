"""What the names of image files encode: the person, the camera and the time."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import UNLABELED

from reidexport.data.records import pid_and_camid

_FRAMES = 1_000_000  # of a sequence, at most: Market-1501 writes six digits
_TIME = re.compile(r"-?\d+_c\d+(?:s(\d{1,12})_(\d{6})|_f(\d{7})|_t(\d{1,18}))(?!\d)")


def time_from_name(name: str) -> int | None:
    """When an image was taken, by the clock of its name; None where the name encodes no time.

    ``…_c1s2_000451_…`` (Market-1501) is frame 451 of sequence 2: 2000451. ``…_c2_f0046182…`` (DukeMTMC-reID) is frame
    46182. ``…_c1_t1764086400000…`` is in milliseconds since 1970 (UTC).
    """
    found = _TIME.match(name)
    if found is None:
        return None
    sequence, frame, frame_of_all, time_ms = found.groups()
    return int(sequence) * _FRAMES + int(frame) if sequence else int(frame_of_all or time_ms)


def labels_from_names(paths: Sequence[str]) -> NDArray[np.int64]:
    """The person, camera (from 0) and time of N images by their names: int64, (3, N), ``UNLABELED`` where missing."""
    labels = np.full((3, len(paths)), UNLABELED, np.int64)
    for column, path in enumerate(paths):
        name = Path(path).name
        labels[:2, column] = pid_and_camid(name) or UNLABELED
        time = time_from_name(name)
        labels[2, column] = UNLABELED if time is None else time
    return labels
