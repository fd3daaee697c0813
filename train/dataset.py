"""The training split alone, for a machine that only trains."""

from pathlib import Path

from reidexport.data import Dataset, load_dataset
from reidexport.data.layouts import USUAL_FOLDERS
from reidexport.data.records import records_from_folder

_TRAIN = "bounding_box_train"


def load_train_split(root: Path, name: str | None = None) -> Dataset:
    """A data set without its test split, which need not be there.

    Args:
        root: a folder with ``bounding_box_train``, one that holds such a folder, or any whole data set.
        name: of the data set; None: as its folder is called.

    Raises:
        DatasetError: there is neither one ``bounding_box_train`` nor one whole data set, or an image is ill-named.
    """
    folders = [path.parent for path in (*root.glob(_TRAIN), *root.glob(f"*/{_TRAIN}"))]
    if len(folders) != 1:
        whole = load_dataset(root, name)
        return Dataset(whole.name, whole.train, (), ())
    usual = folders[0].absolute().name
    known = USUAL_FOLDERS.get(usual.lower(), usual)
    return Dataset(name or known, records_from_folder(folders[0] / _TRAIN), (), ())
