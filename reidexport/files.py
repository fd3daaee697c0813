"""Files that are either whole or missing."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reidexport.errors import InputError


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
