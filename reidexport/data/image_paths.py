"""Which images a user means by files, folders and patterns."""

import glob
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from reidexport.errors import InputError

# What every command looks for in folders, and takes from data sets.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})

Log = Callable[[str], None]


def find_images(sources: Sequence[str | Path], *, log: Log = lambda _: None) -> list[str]:
    """List the images behind files, folders and glob patterns.

    Args:
        sources: files (whatever their suffix), folders (searched with all their subfolders for
            ``IMAGE_SUFFIXES``, in order of name; hidden files are left out) and patterns such as
            ``"crops/**/*.jpg"``.
        log: called with a line for each folder of which files are left out.

    Returns:
        Paths in the order of ``sources``, each once.

    Raises:
        InputError: a source does not exist, or holds no image.
    """
    return list(
        dict.fromkeys(path for source in sources for path in files_of(str(source), IMAGE_SUFFIXES, log))
    )


def files_of(source: str, suffixes: Collection[str], log: Log) -> Iterator[str]:
    """The files behind one source; folders are searched for ``suffixes``. As :func:`find_images` otherwise."""
    path = Path(source)
    if path.is_file():
        yield source
    elif path.is_dir():
        yield from _files_in(path, suffixes, log)
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - Path has no absolute patterns
        for match in map(Path, matches):
            yield from _files_in(match, suffixes, log) if match.is_dir() else [str(match)]
    else:
        raise InputError(f"{source}: no such file or folder, and no file matches it as a pattern.")


def _files_in(folder: Path, suffixes: Collection[str], log: Log) -> list[str]:
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    found = [path for path in files if is_wanted(path, suffixes)]
    left_out = left_out_text(files, suffixes)
    if not found:
        others = f"; {left_out}" if left_out else ""
        raise InputError(f"{folder}: the folder holds no image ({', '.join(sorted(suffixes))}){others}.")
    if left_out:
        log(f"{folder}: {left_out}")
    return found


def left_out_text(paths: Iterable[str | PurePath], suffixes: Collection[str] = IMAGE_SUFFIXES) -> str:
    """How many of these files are left out for their names, and why: ``"left out 3 files: 2 .heic, 1 hidden"``.

    Empty where none is.
    """
    counts = Counter(
        "hidden" if name.startswith(".") else PurePath(name).suffix.lower() or "without suffix"
        for name in (PurePath(path).name for path in paths)
        if not is_wanted(name, suffixes)
    )
    if not counts:
        return ""
    listed = ", ".join(f"{counts[why]} {why}" for why in sorted(counts, key=lambda why: (-counts[why], why)))
    return f"left out {counts.total()} file{'s' * (counts.total() > 1)}: {listed}"


def is_wanted(path: str, suffixes: Collection[str] = IMAGE_SUFFIXES) -> bool:
    """Whether a file that is found in a folder has one of the suffixes, and is not hidden."""
    return has_suffix(path, suffixes) and not PurePath(path).name.startswith(".")


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether a name ends in one of the suffixes, in capitals or not."""
    return name.lower().endswith(tuple(suffixes))
