"""Open files on disks and behind URLs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from reidexport.errors import InputError, NotInstalledError


def is_url(path: str) -> bool:
    """Whether a path is for fsspec to open."""
    return "://" in path


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there.

    Raises:
        InputError: there is no such protocol.
        NotInstalledError: it needs a package that is not installed.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise NotInstalledError(f"{url}: {error}. On a cluster every node needs it.") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}.") from error
    return system, path


@contextmanager
def open_binary(path: str, folder: Path = Path()) -> Iterator[IO[bytes]]:
    """Open a file or a URL for reading; raises InputError where it is missing. Relative paths start in ``folder``."""
    try:
        if is_url(path):
            system, inner = file_system(path)
            opened = system.open(inner, "rb")
        else:
            opened = (folder / path).open("rb")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder / path}: {os.uname().nodename} finds no such file. Put it where every machine of the "
            "run can read it."
        ) from error
    with opened as stream:
        yield stream


@contextmanager
def open_parquet(path: str, folder: Path = Path()) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file or URL, to be read in small pieces.

    Raises:
        InputError: it is missing, not a Parquet file, or damaged.
    """
    with open_binary(path, folder) as stream:
        try:
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file, or damaged ({error}).") from error
        yield file
