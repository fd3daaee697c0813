"""Where a run's images come from: a data set, its training split alone, or one drawn for the run."""

import os
from pathlib import Path
from typing import NamedTuple

from reidexport.data import Dataset, load_dataset
from reidexport.data.layouts import USUAL_FOLDERS
from reidexport.data.person_folders import has_person_folders, records_from_person_folders
from reidexport.data.records import records_from_folder
from reidexport.data.synthetic import draw_dataset
from reidexport.errors import InputError
from reidexport.progress import progress_bar
from train.recipe import Recipe

_TRAIN = "bounding_box_train"


class DataSource(NamedTuple):
    """A data set, or a folder that holds it; ``name``: which one, where the folder holds several."""

    root: Path
    name: str | None = None


def load_train_split(root: Path, name: str | None = None) -> Dataset:
    """A data set without its test split, which may be missing.

    Args:
        root: a folder with ``bounding_box_train``, one that holds such a folder, one with ``train`` and in it a folder
            for each person, or any whole data set.
        name: of the data set; None: as its folder is named.

    Raises:
        DatasetError: there is neither one ``bounding_box_train`` nor one whole data set, or an image name is invalid.
    """
    folders = [path.parent for path in (*root.glob(_TRAIN), *root.glob(f"*/{_TRAIN}"))]
    if not folders and not (root / "query").is_dir() and has_person_folders(root / "train"):
        (train,) = records_from_person_folders([root / "train"])
        return Dataset(name or root.absolute().name, train, (), ())
    if len(folders) != 1:
        whole = load_dataset(root, name)
        return Dataset(whole.name, whole.train, (), ())
    usual = folders[0].absolute().name
    known = USUAL_FOLDERS.get(usual.lower(), usual)
    return Dataset(name or known, records_from_folder(folders[0] / _TRAIN), (), ())


def data_of_recipe(
    recipe: Recipe, source: DataSource | None, out: Path, *, resume: bool, evaluate: bool = True
) -> Dataset:
    """The data set of a run, which may lack a test split unless ``evaluate``, or the one drawn into ``out/data``.

    Raises:
        InputError: the recipe draws its own data set and ``source`` is given, or it does not and there is none.
    """
    num_drawn_pids = recipe.synthetic.num_train_pids
    if source is not None:
        if num_drawn_pids:
            raise InputError(
                "this recipe draws its own data set: leave --data out, or --set synthetic.num_train_pids=0"
            )
        return load_dataset(*source) if evaluate else load_train_split(*source)
    if not num_drawn_pids:
        raise InputError("this recipe needs a data set: --data ROOT")
    root = out / "data"
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if (resume or several) and root.is_dir():
        return load_dataset(root)
    if several:
        raise InputError(
            "several processes cannot draw a data set: start this recipe with one process first, or pass --data and "
            "--set synthetic.num_train_pids=0"
        )
    with progress_bar("drawing", 100) as show:
        return draw_dataset(
            root,
            num_train_pids=num_drawn_pids,
            num_test_pids=recipe.synthetic.num_test_pids,
            seed=recipe.seed,
            progress=show and (lambda done, total: show(100 * done // total)),
        )
