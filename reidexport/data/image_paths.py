"""Which images a user means by files, folders and patterns."""

import glob
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from reidexport.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


def find_images(sources: Sequence[str | Path]) -> list[str]:
    """List the images behind files, folders and glob patterns.

    Args:
        sources: files (whatever their suffix), folders (searched with all their subfolders for
            ``IMAGE_SUFFIXES``, in order of name) and patterns such as ``"crops/**/*.jpg"``.

    Returns:
        Paths in the order of ``sources``, each once.

    Raises:
        InputError: a source does not exist, or holds no image.
    """
    return list(dict.fromkeys(path for source in sources for path in files_of(str(source), IMAGE_SUFFIXES)))


def files_of(source: str, suffixes: Collection[str]) -> Iterator[str]:
    """The files behind one source; folders are searched for ``suffixes``. As :func:`find_images` otherwise."""
    path = Path(source)
    if path.is_file():
        yield source
    elif path.is_dir():
        yield from _files_in(path, suffixes)
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - Path has no absolute patterns
        for match in map(Path, matches):
            yield from _files_in(match, suffixes) if match.is_dir() else [str(match)]
    else:
        raise InputError(f"{source}: no such file or folder, and no file matches it as a pattern.")


def _files_in(folder: Path, suffixes: Collection[str]) -> list[str]:
    found = sorted(str(p) for p in folder.rglob("*") if has_suffix(p.name, suffixes) and p.is_file())
    if not found:
        raise InputError(f"{folder}: the folder holds no image ({', '.join(sorted(suffixes))}).")
    return found


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether a name ends in one of the suffixes, in capitals or not."""
    return name.lower().endswith(tuple(suffixes))
