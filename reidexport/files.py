"""Files that are either whole or not there."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reidexport.errors import InputError


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; rename it into place when the block succeeds.

    The temporary file keeps the suffix, and is removed when the block fails: an old file is never lost to
    a failed run, and no half-written one stays.

    Raises:
        InputError: the folder is missing or cannot be written to, or ``path`` is itself a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: this is a folder. Give the name of a file in it.")
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write there ({error.strerror}). Make the folder, or give another -o."
        ) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
