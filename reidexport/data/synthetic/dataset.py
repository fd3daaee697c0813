"""``draw_dataset``: people and cameras, photographed into Market-1501's folders."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reidexport.data import DISTRACTOR_PID, JUNK_PID, Dataset, load_dataset
from reidexport.data.synthetic.camera import Camera, Shot, install_camera, photograph
from reidexport.data.synthetic.pose import Pose
from reidexport.data.synthetic.wardrobe import DrawnPerson, dress
from reidexport.errors import DatasetError, InputError
from reidexport.files import folder_when_whole

_PEOPLE, _STRANGERS, _CAMERAS, _SHOTS = range(4)  # streams of random numbers, so that none depends on another
_DISTRACTORS_PER_TEST_PID, _JUNK_PER_TEST_PID = 3, 1
_TURN = 2 * np.pi


@dataclass(frozen=True)
class _Task:
    """One image to draw."""

    folder: str
    pid: int
    camid: int
    number: int
    person: DrawnPerson


def draw_dataset(
    root: str | Path,
    *,
    num_train_pids: int = 64,
    num_test_pids: int = 48,
    num_cameras: int = 4,
    images_per_camera: int = 4,
    seed: int = 0,
    size: tuple[int, int] = (128, 64),
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Draw a data set in Market-1501's layout; the same arguments draw the same images.

    Every person is seen by every camera, ``images_per_camera`` times; of a test person's images the first of
    each camera is a query and the others are gallery. The gallery also holds distractors (pid 0: people of no
    query) and junk (pid -1: boxes that miss most of a test person).

    Args:
        root: the folder to make; it must not exist, or be empty.
        num_train_pids: people in ``bounding_box_train``, at least 1.
        num_test_pids: other people, in ``query`` and ``bounding_box_test``, at least 1.
        num_cameras: at least 2, or no query had a match.
        images_per_camera: at least 2.
        seed: 0 or more.
        size: height and width of the images in pixels.
        progress: called with the number of images drawn and the number of all.

    Returns:
        The data set as :func:`reidexport.data.load_dataset` reads it from ``root``.

    Raises:
        DatasetError: ``root`` is in use, or cannot be made.
        InputError: a number is too small.
    """
    _check_numbers(num_train_pids, num_test_pids, num_cameras, images_per_camera, seed, size)
    root = Path(root)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise DatasetError(f"{root} exists already and is not an empty folder. Remove it, or choose another.")
    tasks = list(_tasks(num_train_pids, num_test_pids, num_cameras, images_per_camera, seed))
    cameras = [install_camera(_rng(seed, _CAMERAS, camid), *size) for camid in range(num_cameras)]

    def refusal(error: OSError) -> DatasetError:
        return DatasetError(f"{root}: cannot make a data set there ({error.strerror}).")

    with folder_when_whole(root, refusal, make_parents=True) as temporary:
        for folder in {task.folder for task in tasks}:
            (temporary / folder).mkdir()
        for done, task in enumerate(tasks, start=1):
            _draw(temporary, task, cameras[task.camid], seed, size)
            if progress:
                progress(done, len(tasks))
    return load_dataset(root)


def draw_people(
    count: int, *, seed: int = 0, size: tuple[int, int] = (128, 64)
) -> list[npt.NDArray[np.uint8]]:
    """Draw one image each of ``count`` people, under four cameras in turn.

    Returns:
        uint8 RGB arrays of shape (height, width, 3), ``size`` being (height, width) in pixels.
    """
    cameras = [install_camera(_rng(seed, _CAMERAS, camid), *size) for camid in range(4)]
    images = []
    for number in range(count):
        rng = _rng(seed, _STRANGERS, number)
        jpeg = photograph(
            dress(rng), cameras[number % 4], _shot(rng, rng.uniform(0, _TURN), missed=False), rng, size
        )
        images.append(np.asarray(Image.open(io.BytesIO(jpeg))))
    return images


def _tasks(num_train: int, num_test: int, num_cameras: int, per_camera: int, seed: int) -> Iterator[_Task]:
    for pid in range(1, num_train + num_test + 1):
        person = dress(_rng(seed, _PEOPLE, pid))
        for camid in range(num_cameras):
            for number in range(per_camera):
                test_folder = "bounding_box_test" if number else "query"
                folder = "bounding_box_train" if pid <= num_train else test_folder
                yield _Task(folder, pid, camid, number, person)
    for number in range(_DISTRACTORS_PER_TEST_PID * num_test):
        stranger = dress(_rng(seed, _STRANGERS, number))
        yield _Task("bounding_box_test", DISTRACTOR_PID, number % num_cameras, number, stranger)
    for number in range(_JUNK_PER_TEST_PID * num_test):
        person = dress(_rng(seed, _PEOPLE, num_train + 1 + number % num_test))
        yield _Task("bounding_box_test", JUNK_PID, number % num_cameras, number, person)


def _draw(root: Path, task: _Task, camera: Camera, seed: int, size: tuple[int, int]) -> None:
    rng = _rng(seed, _SHOTS, task.pid - JUNK_PID, task.camid, task.number)
    # A person crosses one camera's view in one direction: its images there resemble each other.
    facing = _rng(seed, _SHOTS, task.pid - JUNK_PID, task.camid).uniform(0, _TURN)
    jpeg = photograph(task.person, camera, _shot(rng, facing, missed=task.pid == JUNK_PID), rng, size)
    pid = str(task.pid) if task.pid < 0 else f"{task.pid:04d}"
    name = f"{pid}_c{task.camid + 1}s1_{25 * task.number + 1:06d}_00.jpg"
    (root / task.folder / name).write_bytes(jpeg)


def _shot(rng: np.random.Generator, facing: float, *, missed: bool) -> Shot:
    pose = Pose(facing + rng.normal(0, 0.3), rng.uniform(0, _TURN), rng.uniform(0.08, 0.19))
    if missed:
        aside = float(rng.choice([-1, 1]))
        return Shot(
            pose, aside * rng.uniform(0.34, 0.5), rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1.7), False
        )
    return Shot(pose, rng.normal(0, 0.045), rng.normal(0, 0.018), rng.normal(1, 0.03), rng.random() < 0.12)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _check_numbers(
    num_train_pids: int,
    num_test_pids: int,
    num_cameras: int,
    images_per_camera: int,
    seed: int,
    size: tuple[int, int],
) -> None:
    least = {
        "num_train_pids": (num_train_pids, 1),
        "num_test_pids": (num_test_pids, 1),
        "num_cameras": (num_cameras, 2),
        "images_per_camera": (images_per_camera, 2),
        "seed": (seed, 0),
        "the height": (size[0], 32),
        "the width": (size[1], 16),
    }
    for name, (number, minimum) in least.items():
        if number < minimum:
            raise InputError(f"A drawn data set needs {name} to be at least {minimum}, got {number}.")
