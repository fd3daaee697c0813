"""From what a user names to shards: files, folders, patterns and URLs of images, tars and Parquet files."""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from reidexport.data.image_paths import IMAGE_SUFFIXES, Log, files_of, has_suffix, is_wanted, left_out_text
from reidexport.embed.opening import file_system, is_url, open_parquet
from reidexport.embed.plan import Columns, Kind, Shard
from reidexport.errors import InputError

_SUFFIXES: dict[Kind, frozenset[str]] = {
    "images": IMAGE_SUFFIXES,
    "tar": frozenset({".tar", ".tar.gz", ".tgz"}),
    "parquet": frozenset({".parquet"}),
}
_KNOWN = frozenset().union(*_SUFFIXES.values())


def shards_of(
    sources: Iterable[str],
    shard_size: int,
    columns: Columns,
    own: Collection[Path] = (),
    log: Log = lambda _: None,
) -> Iterator[Shard]:
    """Divide the images behind sources into shards.

    Image files come first, ``shard_size`` to a shard, in the order of the sources and each once. A tar is a shard of
    its own: without an index it can only be read from its beginning. A Parquet file is divided between row groups, at
    ``shard_size`` rows or soon after.

    Args:
        sources: as :func:`reidexport.data.image_paths.find_images` takes them, and URLs such as ``s3://bucket/folder``,
            which fsspec opens: one with ``*`` is a pattern, one with a known suffix a file, any other a folder.
        shard_size: images per shard.
        columns: of Parquet files.
        own: files and folders that the run itself writes; Parquet files there are not sources. Those that are found in
            a folder, and lack the columns, are none either.
        log: called with a line for each folder of which files are left out for their names.

    Raises:
        InputError: a source does not exist, holds nothing that is known, or lacks a column.
        NotInstalledError: fsspec has no package for a URL.
    """
    files: dict[Kind, dict[str, None]] = {kind: {} for kind in _SUFFIXES}
    for source in sources:
        for path in _files_at_url(source, log) if is_url(source) else files_of(source, _KNOWN, log):
            kind: Kind = next(
                (each for each, known in _SUFFIXES.items() if has_suffix(path, known)), "images"
            )
            is_found = path != source and not is_url(path)
            if kind != "parquet" or not is_found or _holds_images(Path(path), columns, own):
                files[kind][path] = None
    images = iter(files["images"])
    while paths := list(islice(images, shard_size)):
        yield Shard("images", paths)
    for path in files["tar"]:
        yield Shard("tar", [path])
    for path in files["parquet"]:
        for row_groups in _divided(path, shard_size, columns):
            yield Shard("parquet", [path], row_groups)


def _files_at_url(url: str, log: Log) -> Iterator[str]:
    system, path = file_system(url)
    try:
        if "*" in path:
            found = system.glob(path)
        elif has_suffix(path, _KNOWN):
            found = [path] if system.exists(path) else []
        else:
            found = system.find(path)
    except FileNotFoundError:
        found = []
    left_out = left_out_text(found, _KNOWN)
    found = sorted(entry for entry in found if is_wanted(entry, _KNOWN))
    if left_out and found:
        log(f"{url}: {left_out}")
    if not found:
        raise InputError(f"{url}: nothing there whose name ends in one of {', '.join(sorted(_KNOWN))}.")
    for entry in found:
        yield system.unstrip_protocol(entry)


def _holds_images(path: Path, columns: Columns, own: Collection[Path]) -> bool:
    """Whether a Parquet file that was found in a folder is a source."""
    if any(path.resolve().is_relative_to(place.resolve()) for place in own):
        return False
    with open_parquet(str(path)) as file:
        return set(columns) <= set(_leaves(file))


def _leaves(file: pq.ParquetFile) -> list[str]:
    return [file.schema.column(index).path for index in range(len(file.schema))]


def _divided(path: str, shard_size: int, columns: Columns) -> Iterator[list[int]]:
    """The row groups of a Parquet file, by shard."""
    with open_parquet(path) as file:
        leaves = _leaves(file)
        for column in columns:
            if column not in leaves:
                raise InputError(
                    f"{path}: there is no column {column!r}, only {', '.join(leaves)}. Name the columns that hold the "
                    "bytes of the images and their names: --columns IMAGE,NAME."
                )
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    gathered: list[int] = []
    num_rows = 0
    for index, size in enumerate(sizes):
        gathered.append(index)
        num_rows += size
        if num_rows >= shard_size:
            yield gathered
            gathered, num_rows = [], 0
    if gathered:
        yield gathered
