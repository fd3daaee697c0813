"""Embeddings in a file: ``.npz`` or Parquet, embeddings written block by block; use Parquet for millions of images."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from reidruntime.manifest import METADATA_KEY, Manifest

from reidexport.errors import InputError

SUFFIXES = (".npz", ".parquet")
Blocks = Iterable[NDArray[np.float32]]


def check_suffix(path: Path) -> None:
    """Raise InputError for a file name that tells no known format."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}.")


def check_names(path: Path, paths: Sequence[str]) -> None:
    """Raise InputError for an image whose name the format cannot hold: Parquet's text is UTF-8."""
    if path.suffix == ".parquet":
        for name in paths:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{name!r}: the name is not UTF-8, which Parquet cannot hold. Rename it or write a .npz file."
                ) from error


def write_embeddings(path: Path, paths: list[str], blocks: Blocks, manifest: Manifest) -> None:
    """Write embeddings in the format that the suffix names.

    ``.npz`` holds the arrays ``paths`` (N,), ``embeddings`` (N, D) float32, ``manifest_sha256`` and
    ``manifest`` (JSON text). Its ``paths`` are made in memory and padded to the longest, 4 bytes a character:
    use Parquet for millions of images. Parquet holds the columns ``path``, ``embedding`` (fixed-size list of D float32)
    and ``manifest_sha256``, and the manifest in the file's metadata under ``reidexport.manifest``.

    Args:
        path: the file, replaced if it exists.
        paths: N image paths.
        blocks: arrays of shape (n, D) whose rows are, in order, those of ``paths``.
        manifest: of the artifact that made them.
    """
    check_suffix(path)
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    write(path, paths, blocks, manifest)


def _write_npz(path: Path, paths: list[str], blocks: Blocks, manifest: Manifest) -> None:
    texts = {"paths": paths, "manifest_sha256": manifest.sha256, "manifest": manifest.to_json()}
    shape = (len(paths), manifest.architecture.feature_dim)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(text, dtype=str), allow_pickle=False)
        with archive.open("embeddings.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for block in blocks:
                entry.write(np.ascontiguousarray(block, "<f4").tobytes())


def _write_parquet(path: Path, paths: list[str], blocks: Blocks, manifest: Manifest) -> None:
    dim = manifest.architecture.feature_dim
    columns = {
        "path": pa.string(),
        "embedding": pa.list_(pa.float32(), dim),
        "manifest_sha256": pa.dictionary(pa.int32(), pa.string()),
    }
    schema = pa.schema(columns, metadata={METADATA_KEY: manifest.to_json()})
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            stop = start + len(block)
            embeddings = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel(), pa.float32()), dim)
            sha256 = pa.array([manifest.sha256] * len(block)).dictionary_encode()
            writer.write_table(pa.table([pa.array(paths[start:stop]), embeddings, sha256], schema=schema))
            start = stop
