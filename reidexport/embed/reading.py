"""The images of a shard, one after the other."""

import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from reidruntime import EncodedImage
from reidruntime.images.preprocess import Image

from reidexport.data.image_paths import is_wanted
from reidexport.embed.opening import file_system, is_url, open_binary, open_parquet
from reidexport.embed.plan import Columns, Shard
from reidexport.errors import ImageError

_CHUNK = 64  # images
_Item = TypeVar("_Item")
NamedImage = tuple[str, Image | ImageError]


def read_shard(shard: Shard, folder: Path, columns: Columns) -> Iterator[NamedImage]:
    """The name of each image of a shard, and the image: a path, the bytes of its file, or why it cannot be read.

    Names are the paths and URLs of files, ``FILE.tar/MEMBER`` in a tar, and the column of names of a Parquet file.
    Of a tar with one file in a dozen formats beside each other (WebDataset), the members with an image's suffix count,
    without hidden ones.

    Args:
        shard: what to read.
        folder: where relative paths start.
        columns: of a Parquet file.

    Raises:
        InputError: a tar or a Parquet file is missing.
        OSError: reading fails, and may not the next time.
    """
    if shard.kind == "images":
        return _files(shard.paths, folder)
    (path,) = shard.paths
    if shard.kind == "tar":
        return read_ahead(_tar_members(path, folder))
    return read_ahead(_parquet_rows(path, shard.row_groups, folder, columns))


def read_ahead(items: Iterable[_Item], num_chunks: int = 2) -> Iterator[_Item]:
    """The same items, read in chunks by a thread that is ``num_chunks`` ahead and no more: memory stays flat."""
    source = iter(items)
    with ThreadPoolExecutor(1, "read_ahead") as reader:
        ahead = deque(reader.submit(lambda: list(islice(source, _CHUNK))) for _ in range(num_chunks))
        while chunk := ahead.popleft().result():
            ahead.append(reader.submit(lambda: list(islice(source, _CHUNK))))
            yield from chunk


def _files(paths: Sequence[str], folder: Path) -> Iterator[NamedImage]:
    """Files on disks are left to the session, which reads them in its threads; URLs are read ahead."""
    urls = [path for path in paths if is_url(path)]
    contents = read_ahead(_downloads(urls))
    here = folder == Path()
    for path in paths:
        if is_url(path):
            yield next(contents)
        else:
            yield path, path if here else str(folder / path)


def _downloads(urls: Sequence[str]) -> Iterator[NamedImage]:
    """Contents of URLs, a chunk at a time, which fsspec gets at once."""
    for start in range(0, len(urls), _CHUNK):
        chunk = urls[start : start + _CHUNK]
        urls_of: dict[Any, dict[str, str]] = {}
        for url in chunk:
            system, path = file_system(url)
            urls_of.setdefault(system, {})[path] = url
        contents: dict[str, bytes | Exception] = {}
        for system, url_of in urls_of.items():
            # Not cat(), which takes [ for a pattern.
            answers = system.cat_ranges(list(url_of), None, None, on_error="return")
            contents |= zip(url_of.values(), answers, strict=True)
        for url in chunk:
            yield url, _downloaded(url, contents[url])


def _downloaded(url: str, content: bytes | Exception) -> EncodedImage | ImageError:
    if isinstance(content, bytes):
        return EncodedImage(url, content)
    if isinstance(content, FileNotFoundError):
        return ImageError(f"{url}: cannot be read (there is no such file).")
    raise OSError(f"{url}: cannot be read ({content!r}).") from content


def _tar_members(path: str, folder: Path) -> Iterator[NamedImage]:
    with open_binary(path, folder) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as tar:
                for member in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # or it would hold every header
                    if not member.isfile() or not is_wanted(member.name):
                        continue
                    content = tar.extractfile(member)
                    name = f"{path}/{member.name.removeprefix('./')}"
                    name = name.encode("utf-8", "backslashreplace").decode()
                    yield name, EncodedImage(name, b"" if content is None else content.read())
        except (tarfile.TarError, EOFError) as error:
            yield path, ImageError(f"{path}: the tar is damaged ({error}); what follows in it is missing.")


class _Member(tarfile.TarInfo):
    """A member whose header must be right: tarfile mistakes a damaged or a missing one for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _parquet_rows(
    path: str, row_groups: Sequence[int], folder: Path, columns: Columns
) -> Iterator[NamedImage]:
    with open_parquet(path, folder) as file:
        batches = file.iter_batches(_CHUNK, row_groups=list(row_groups), columns=list(columns))
        try:
            for batch in batches:
                contents, names = (_column(batch, column) for column in columns)
                for name, content in zip(names, contents, strict=True):
                    yield _row(path, name, content)
        except pa.ArrowException as error:
            yield path, ImageError(f"{path}: row groups {row_groups} are damaged ({error}).")


def _column(batch: pa.RecordBatch, column: str) -> list[Any]:
    """A column by its dotted name."""
    first, *inner = column.split(".")
    values = batch.column(first)
    for name in inner:
        values = values.field(name)
    found: list[Any] = values.to_pylist()
    return found


def _row(path: str, name: object, content: object) -> NamedImage:
    if not isinstance(name, str):
        return path, ImageError(f"{path}: an image's name is {name!r}, expected text.")
    if not isinstance(content, bytes):
        return name, ImageError(
            f"{name}: in {path}, expected the bytes of an image, got {type(content).__name__}."
        )
    return name, EncodedImage(name, content)
