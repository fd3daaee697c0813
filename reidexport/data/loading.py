"""``load_dataset``: find the one data set that is meant, or say what was looked for and what was found."""

from pathlib import Path

from reidexport.data.layouts import TREES, Found, recognized_in
from reidexport.data.records import Dataset
from reidexport.errors import DatasetError

_SEARCH_DEPTH = 2  # root/dukemtmc-reid/DukeMTMC-reID, root/cuhk03-np/detected
_MAX_LISTED = 12


def load_dataset(root: str | Path, name: str | None = None) -> Dataset:
    """Read a data set into records; images are listed, not opened.

    Args:
        root: the data set's own folder, or one that holds it up to two levels down.
        name: ``market1501``, ``dukemtmcreid``, ``msmt17-v1``, ``msmt17-v2``, ``cuhk03-detected``,
            ``cuhk03-labeled``, or ``folder`` for ``query/`` and ``gallery/`` (and ``train/``) of images named
            ``<pid>_c<camera>_<anything>.jpg``. None: whatever is recognized, which must be one data set;
            a tree like Market-1501's in a folder of another name is called by the folder's name.

    Raises:
        DatasetError: no data set or more than one is found, or it is empty or has an ill-named image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Expected{_expected(name)}")
    found = _search(root, _SEARCH_DEPTH)
    fitting = [each for each in found if name is None or name in each.names]
    if len(fitting) == 1:
        return fitting[0].read(
            fitting[0].folder, name if name not in (None, "folder") else fitting[0].names[0]
        )
    if not fitting:
        raise DatasetError(_none(root, name, found))
    listed = "\n".join(f"    {each.names[0]:16} in {each.folder}" for each in fitting)
    raise DatasetError(f"{root} holds more than one data set; name one, or pass its own folder:\n{listed}")


def _search(folder: Path, depth: int) -> list[Found]:
    found = recognized_in(folder)
    if found or depth == 0:
        return found
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    return [each for child in children for each in _search(child, depth - 1)]


def _none(root: Path, name: str | None, found: list[Found]) -> str:
    others = "".join(f"\nIt does hold {each.names[0]} in {each.folder}." for each in found)
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    more = f" … and {len(entries) - _MAX_LISTED} more" if len(entries) > _MAX_LISTED else ""
    listed = "  ".join(entries[:_MAX_LISTED]) or "nothing"
    found_text = f"Found: {listed}{more}{others}"
    return f"{root} holds no {name or 'known'} data set. Expected{_expected(name)}\n{found_text}"


def _expected(name: str | None) -> str:
    if name is None:
        return " one of:\n" + "\n".join(TREES.values())
    if name not in TREES:
        return f" a data set called {name!r}; the known names are {', '.join(TREES)}."
    return f":\n{TREES[name]}"
