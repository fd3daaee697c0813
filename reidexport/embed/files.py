"""Embeddings in a file: ``.npz``, Parquet, or a gallery to search; use Parquet for millions of images.

A ``.npz`` or Parquet file is written block by block, a gallery from memory.
"""

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reidgallery import Gallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX
from reidruntime.artifact.manifest import Manifest, manifest_from_json

from reidexport.data.name_labels import labels_from_names
from reidexport.embed.table import TABLE_SUFFIX, check_claim, embeddings_writer, open_table
from reidexport.errors import InputError
from reidexport.files import replaced_when_whole

SUFFIXES = (".npz", TABLE_SUFFIX, GALLERY_SUFFIX)
# What zipfile, its decompressors and NumPy raise for damage.
_DAMAGED = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, EOFError, SyntaxError,
    OverflowError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip
Blocks = Iterable[NDArray[np.float32]]


def gallery_from_manifest(manifest: Manifest) -> Gallery:
    """An empty gallery for the embeddings of an artifact, compared with the metric that it names."""
    return Gallery(manifest.architecture.feature_dim, metric=manifest.metric, manifest_sha256=manifest.sha256)


def check_suffix(path: Path) -> None:
    """Raise InputError for a file name with an unknown suffix."""
    if path.suffix not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise InputError(
            f"{path}: expected a name that ends in {known}, or one without a suffix for a folder."
        )


def check_names(names: Iterable[str]) -> None:
    """Raise InputError for an image whose name Parquet cannot hold: its text is UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name!r}: the name is not UTF-8, which Parquet cannot hold. Rename it or write a .npz file."
            ) from error


def write_embeddings(path: Path, paths: list[str], blocks: Blocks, manifest: Manifest) -> None:
    """Write embeddings in the format that the suffix names; an old file is replaced by a whole new one.

    ``.npz`` holds the arrays ``paths`` (N,), ``embeddings`` (N, D) float32, ``manifest_sha256`` and
    ``manifest`` (JSON text). Its ``paths`` are made in memory and padded to the longest, 4 bytes a character:
    use Parquet for millions of images. Parquet holds the columns ``path``, ``embedding`` (fixed-size list of D float32)
    and ``manifest_sha256``, and the manifest in the file's metadata under ``reidexport.manifest``. A ``.gallery`` is
    that of :class:`reidgallery.Gallery`, with the persons and cameras that the names encode.

    Args:
        path: the file, replaced if it exists.
        paths: N image paths.
        blocks: arrays of shape (n, D) whose rows are, in order, those of ``paths``.
        manifest: of the artifact that made them.

    Raises:
        InputError: the path is invalid.
    """
    check_suffix(path)
    if path.suffix == GALLERY_SUFFIX:
        gallery = gallery_from_manifest(manifest)
        for block in blocks:
            add_embeddings(gallery, block, paths[len(gallery) : len(gallery) + len(block)])
        gallery.save(path)
        return
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with replaced_when_whole(path) as temporary:
        write(temporary, paths, blocks, manifest)


def read_gallery(path: Path) -> Gallery:
    """The embeddings of a file that :func:`write_embeddings` wrote, or of a folder of Parquet files, as a gallery.

    Persons, cameras and times come from the gallery, from columns of the Parquet file, or from names such as
    ``0002_c1s1_000451_03.jpg`` (:mod:`reidexport.data.name_labels`).

    Raises:
        InputError: the file is missing, damaged, of another format, or holds embeddings of several artifacts; or the
            folder holds none, or an unfinished run.
        ArtifactError: its manifest is of another version.
    """
    if path.is_dir() or path.suffix == TABLE_SUFFIX:
        table = open_table(path)
        gallery = Gallery(table.dim, metric=table.metric, manifest_sha256=table.manifest_sha256)
        for part in table.labeled_parts():
            gallery.add(**part._asdict())
        return gallery
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    return load_gallery(path) if path.suffix == GALLERY_SUFFIX else _read_npz(path)


def add_embeddings(gallery: Gallery, embeddings: NDArray[np.float32], paths: Sequence[str]) -> None:
    """Add rows (N, D) with the persons, cameras and times that the names of their N files encode."""
    pids, camids, times = labels_from_names(paths)
    gallery.add(embeddings, pids=pids, camids=camids, times=times, paths=paths)


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
    start = 0
    with embeddings_writer(path, manifest) as write:
        for block in blocks:
            write(paths[start : start + len(block)], block)
            start += len(block)


def _read_npz(path: Path) -> Gallery:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            check_claim(path, sum(info.file_size for info in arrays.zip.infolist()))
            sha256, text = str(arrays["manifest_sha256"]), str(arrays["manifest"])
            paths, embeddings = arrays["paths"], arrays["embeddings"]
            if paths.dtype.kind != "U" or paths.ndim != 1:
                raise ValueError(f"paths of {paths.dtype} and shape {paths.shape}, expected a list of texts")
    except _DAMAGED as error:
        raise InputError(f"{path}: not a file that reidexport embed wrote, or damaged ({error}).") from error
    manifest = manifest_from_json(text, str(path))
    gallery = Gallery(manifest.architecture.feature_dim, metric=manifest.metric, manifest_sha256=sha256)
    add_embeddings(gallery, embeddings, paths.tolist())
    return gallery
