"""``load_dataset``, and the folder trees that data sets come in: how each is recognized, and how each is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reidexport.data.image_paths import Log, is_wanted, left_out_text
from reidexport.data.person_folders import has_person_folders, records_from_person_folders
from reidexport.data.records import Dataset, ImageRecord, SameCamera, records_from_folder
from reidexport.errors import DatasetError

# The names under which people keep data sets that share Market-1501's tree, in lower case.
USUAL_FOLDERS = {
    "market1501": "market1501",
    "market-1501": "market1501",
    "market-1501-v15.09.15": "market1501",
    "dukemtmcreid": "dukemtmcreid",
    "dukemtmc-reid": "dukemtmcreid",
    "detected": "cuhk03-detected",
    "labeled": "cuhk03-labeled",
}

_BOXES = ("bounding_box_train", "query", "bounding_box_test")
_BOXES_TREE = """{}/
    bounding_box_train/  0002_c1s1_000451_03.jpg …
    query/               0001_c1s1_001051_00.jpg …
    bounding_box_test/   0001_c1s1_002301_00.jpg …"""
_VERI776 = ("image_train", "image_query", "image_test")
_LISTS = ("list_train.txt", "list_query.txt", "list_gallery.txt")
_MSMT17_FOLDERS = {"msmt17-v1": ("train", "test"), "msmt17-v2": ("mask_train_v2", "mask_test_v2")}
_MSMT17_TREE = (
    "{}/\n    list_train.txt  list_query.txt  list_gallery.txt\n    {}/  0000/0000_000_01_….jpg …\n    {}/"
)
_SPLITS_FILE = "splits_new_{}.json"
_CUHK03_HELP = (
    "\nor what torchreid makes of the raw cuhk-03.mat: images_{0}/ beside splits_new_{0}.json. The .mat file "
    "itself is not read: run torchreid's CUHK03 loader on it once, or get the CUHK03-NP images."
)

TREES = {
    "market1501": _BOXES_TREE.format("market1501"),
    "dukemtmcreid": _BOXES_TREE.format("DukeMTMC-reID"),
    "msmt17-v1": _MSMT17_TREE.format("MSMT17_V1", *_MSMT17_FOLDERS["msmt17-v1"]),
    "msmt17-v2": _MSMT17_TREE.format("MSMT17_V2", *_MSMT17_FOLDERS["msmt17-v2"]),
    "cuhk03-detected": _BOXES_TREE.format("cuhk03-np/detected") + _CUHK03_HELP.format("detected"),
    "cuhk03-labeled": _BOXES_TREE.format("cuhk03-np/labeled") + _CUHK03_HELP.format("labeled"),
    "veri776": """VeRi/
    image_train/  0001_c001_00016450_0.jpg …
    image_query/  0002_c002_00030600_0.jpg …
    image_test/   0002_c002_00030605_1.jpg …""",
    "folder": """ANY NAME/
    query/    1_c1_anything.jpg …  or a folder for each person: alice/anything.jpg …
    gallery/  1_c2_anything.jpg …
    train/    (optional)""",
}

_SEARCH_DEPTH = 2  # root/dukemtmc-reid/DukeMTMC-reID, root/cuhk03-np/detected
_MAX_LISTED = 12


@dataclass(frozen=True)
class Found:
    """A data set that was recognized in a folder and not read yet; ``names`` are those it answers to."""

    folder: Path
    names: tuple[str, ...]
    read: Callable[[Path, str], Dataset]


def load_dataset(
    root: str | Path,
    name: str | None = None,
    *,
    same_camera: SameCamera = "drop",
    log: Log = lambda _: None,
) -> Dataset:
    """Read a data set into records; images are listed, not opened.

    Args:
        root: the data set's own folder, or one that holds it up to two levels down.
        name: ``market1501``, ``dukemtmcreid``, ``msmt17-v1``, ``msmt17-v2``, ``cuhk03-detected``,
            ``cuhk03-labeled``, ``veri776``, or ``folder`` for ``query/`` and ``gallery/`` (and ``train/``) of images
            named ``<pid>_c<camera>_<anything>.jpg``, or with a folder for each person. None: whatever is recognized,
            which must be one data set; a tree like Market-1501's in a folder of another name is called by the
            folder's name.
        same_camera: how it is to be scored, as :class:`reidexport.data.Dataset` says.
        log: called with a line where files beside the images are left out.

    Raises:
        DatasetError: no data set or more than one is found, or it is empty or has an ill-named image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Expected{_expected(name)}")
    found = _search(root, _SEARCH_DEPTH)
    fitting = [each for each in found if name is None or name in each.names]
    if len(fitting) == 1:
        called = name if name not in (None, "folder") else fitting[0].names[0]
        dataset = replace(fitting[0].read(fitting[0].folder, called), same_camera=same_camera)
        if left_out := left_out_of(dataset):
            log(f"{fitting[0].folder}: {left_out}")
        return dataset
    if not fitting:
        raise DatasetError(_none(root, name, found))
    listed = "\n".join(f"    {each.names[0]:16} in {each.folder}" for each in fitting)
    raise DatasetError(f"{root} holds more than one data set; name one, or pass its own folder:\n{listed}")


def left_out_of(dataset: Dataset) -> str:
    """How many files in a data set's folders of images are left out, and why; empty where none is."""
    folders = {record.path.parent for record in dataset.records}
    inside = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    nested = sorted(path for path in inside if path.parent not in folders and is_wanted(path.name))
    texts = [left_out_text(path for path in inside if path.parent in folders)]
    if nested:
        texts.append(
            f"left out {len(nested)} image{'s' * (len(nested) > 1)} in folders within those of the images, the first "
            f"{nested[0]}"
        )
    return "; ".join(filter(None, texts))


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


def recognized_in(folder: Path) -> list[Found]:
    """The data sets whose tree starts at ``folder``: none, one, or two for CUHK03's detected and labeled."""
    if all((folder / name).is_dir() for name in _BOXES):
        # A well-known folder name decides; any other one may be called what the user says it is.
        known = USUAL_FOLDERS.get(folder.absolute().name.lower())
        names = (known,) if known else (folder.absolute().name, *sorted(set(USUAL_FOLDERS.values())))
        return [Found(folder, names, partial(_read_parts, _BOXES))]
    if all((folder / name).is_file() for name in _LISTS):
        versions = [
            name for name, parts in _MSMT17_FOLDERS.items() if all((folder / p).is_dir() for p in parts)
        ]
        return [Found(folder, (name,), _read_msmt17) for name in versions]
    if all((folder / name).is_dir() for name in _VERI776):
        return [Found(folder, ("veri776",), partial(_read_parts, _VERI776))]
    if all((folder / name).is_dir() for name in ("query", "gallery")):
        parts = ("train", "query", "gallery")
        return [Found(folder, (folder.absolute().name, "folder"), partial(_read_parts, parts))]
    kinds = [kind for kind in ("detected", "labeled") if (folder / _SPLITS_FILE.format(kind)).is_file()]
    return [Found(folder, (f"cuhk03-{kind}",), _read_cuhk03_splits) for kind in kinds]


def _read_parts(parts: tuple[str, ...], folder: Path, name: str) -> Dataset:
    """Of train, which may be missing, query and gallery: as in Market-1501 (Zheng et al., ICCV 2015).

    Or each with a folder for every person.
    """
    folders = [folder / part for part in parts]
    present = [part for part in folders if part.is_dir()]
    by_person = [part for part in present if has_person_folders(part)]
    if by_person and by_person != present:
        other = next(part for part in present if part not in by_person)
        raise DatasetError(
            f"{by_person[0]} holds a folder for each person, and {other} does not. Expected the same in both."
        )
    read = records_from_person_folders(present) if by_person else map(records_from_folder, present)
    records = dict(zip(present, read, strict=True))
    train, query, gallery = (records.get(part, ()) for part in folders)
    return Dataset(name, train, query, gallery)


def _read_msmt17(folder: Path, name: str) -> Dataset:
    """MSMT17 (Wei et al., CVPR 2018): ``list_val.txt`` is left out, as in the published protocol."""
    train_folder, test_folder = _MSMT17_FOLDERS[name]
    # Both splits number their people from 0, which elsewhere means a distractor: shift, and keep them apart.
    train = _records_from_list(folder / "list_train.txt", folder / train_folder, first_pid=1)
    first_test_pid = max(record.pid for record in train) + 1
    query, gallery = (
        _records_from_list(folder / f"list_{part}.txt", folder / test_folder, first_pid=first_test_pid)
        for part in ("query", "gallery")
    )
    return Dataset(name, train, query, gallery)


def _records_from_list(listing: Path, folder: Path, *, first_pid: int) -> tuple[ImageRecord, ...]:
    lines = [line for line in listing.read_text().splitlines() if line.strip()]
    if not lines:
        raise DatasetError(
            f"{listing} is empty. Expected lines such as 0000/0000_000_01_0303morning_0008_0.jpg 0"
        )
    return tuple(_record_from_line(line, listing, folder, first_pid) for line in lines)


def _record_from_line(line: str, listing: Path, folder: Path, first_pid: int) -> ImageRecord:
    try:
        name, pid = line.split()
        camera = int(Path(name).name.split("_")[2])
        return ImageRecord(folder / name, first_pid + int(pid), camera - 1)
    except (ValueError, IndexError) as error:
        raise DatasetError(
            f"{listing}: cannot read the line {line!r}. Expected 0000/0000_000_01_0303morning_0008_0.jpg 0"
        ) from error


def _read_cuhk03_splits(folder: Path, name: str) -> Dataset:
    """CUHK03 (Li et al., CVPR 2014) in the protocol of Zhong et al., CVPR 2017, as torchreid unpacks it."""
    kind = name.removeprefix("cuhk03-")
    listing = folder / _SPLITS_FILE.format(kind)
    try:
        (split,) = json.loads(listing.read_text())
        parts = [split[part] for part in ("train", "query", "gallery")]
        records = [
            tuple(_cuhk03_record(folder / f"images_{kind}", path) for path, _, _ in part) for part in parts
        ]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DatasetError(
            f"{listing} is not a split file as torchreid writes it: {error!r}. Delete and remake it."
        ) from error
    train, query, gallery = records
    return Dataset(name, train, query, gallery)


def _cuhk03_record(folder: Path, path: str) -> ImageRecord:
    # The listed pids are labels that start at 0 in each split; the name encodes <camera pair>_<person>_<view>.
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    pair, person, view = (int(part) for part in name.split("_")[:3])
    return ImageRecord(folder / name, pid=1000 * pair + person, camid=view - 1)
