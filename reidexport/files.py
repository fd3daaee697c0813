"""Files and folders that are either whole or missing."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from reidexport.errors import InputError


def check_replaceable(path: Path, *, force: bool) -> None:
    """Refuse a path whose file nobody said to replace; call it before the work, whose result would be lost.

    Raises:
        InputError: ``path`` is a file, and ``force`` is false.
    """
    if path.is_file() and not force:
        raise InputError(f"{path}: exists. Pass --force to replace it, or choose another path.")


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; rename it into place when the block succeeds.

    The temporary file keeps the suffix, and is removed when the block fails: an old file is never lost to
    a failed run, and no half-written one stays. Where ``path`` is a link, the file that it points to is
    replaced.

    Raises:
        InputError: the folder is missing, full or cannot be written to, or ``path`` is a folder, a
            device, or anything else but a regular file.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is not a regular file. Choose another path.")
        target = path.resolve()
        temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write there ({error.strerror}). Make the folder, or choose another path."
        ) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"{path}: {error.strerror}. Make room, or choose another path.") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_when_whole(
    path: Path, refusal: Callable[[OSError], InputError], *, make_parents: bool = False, replace: bool = False
) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to fill; it takes the place of ``path`` when the block succeeds.

    When the block fails, what it wrote is removed, and an earlier ``path`` stays as it was.

    Args:
        path: where to.
        refusal: makes the error to raise where no folder can be made beside ``path``.
        make_parents: whether to make the folders above ``path``, too.
        replace: whether ``path`` may be a folder that holds something; else it is missing or empty.
    """
    path = path.resolve()  # "." has no name to put a neighbor beside
    try:
        if make_parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise refusal(error) from error
    with temporary as outer:
        made, old = Path(outer, "new"), Path(outer, "old")
        made.mkdir()  # of the usual permissions, which the outer one has not
        yield made
        if path.exists() and replace:
            path.rename(old)  # else the new one takes the place of an empty one, in one step
        try:
            made.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
