"""Embeddings in a file: ``.npz``, Parquet, or a gallery to search; use Parquet for millions of images.

A ``.npz`` or Parquet file is written block by block, a gallery from memory.
"""

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from reidruntime import Gallery, gallery_from_manifest, load_gallery
from reidruntime.gallery import UNLABELLED
from reidruntime.gallery_file import SUFFIX as GALLERY_SUFFIX
from reidruntime.manifest import METADATA_KEY, Manifest, manifest_from_json

from reidexport.bulk.plan import finished_parts
from reidexport.datasets.records import pid_and_camid
from reidexport.errors import InputError
from reidexport.files import replaced_when_whole

SUFFIXES = (".npz", ".parquet", GALLERY_SUFFIX)
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
    """Write embeddings in the format that the suffix names; an old file is replaced by a whole new one.

    ``.npz`` holds the arrays ``paths`` (N,), ``embeddings`` (N, D) float32, ``manifest_sha256`` and
    ``manifest`` (JSON text). Its ``paths`` are made in memory and padded to the longest, 4 bytes a character:
    use Parquet for millions of images. Parquet holds the columns ``path``, ``embedding`` (fixed-size list of D float32)
    and ``manifest_sha256``, and the manifest in the file's metadata under ``reidexport.manifest``. A ``.gallery`` is
    that of :class:`reidruntime.Gallery`, with the persons and cameras that the names tell.

    Args:
        path: the file, replaced if it exists.
        paths: N image paths.
        blocks: arrays of shape (n, D) whose rows are, in order, those of ``paths``.
        manifest: of the artifact that made them.

    Raises:
        InputError: the path will not do.
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
    """The embeddings of a file that :func:`write_embeddings` wrote, or of a folder of its Parquet files, as a gallery.

    Persons and cameras come from the gallery, or from names such as ``0002_c1s1_000451_03.jpg``.

    Raises:
        InputError: the file is missing, damaged, of another format, or holds embeddings of several artifacts; or the
            folder holds none, or an unfinished run of ``embed --ray``.
        ArtifactError: its manifest is of another version.
    """
    if path.is_dir():
        return _read_parts(path)
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.suffix == GALLERY_SUFFIX:
        return load_gallery(path)
    read = _read_npz if path.suffix == ".npz" else _read_parquet
    paths, embeddings, manifest_sha256, manifest_text = read(path)
    manifest = manifest_from_json(manifest_text, str(path))
    gallery = Gallery(
        manifest.architecture.feature_dim, metric=manifest.metric, manifest_sha256=manifest_sha256
    )
    add_embeddings(gallery, embeddings, paths)
    return gallery


def _read_parts(folder: Path) -> Gallery:
    parts = finished_parts(folder)
    gallery = read_gallery(parts[0])
    for part in parts[1:]:
        gallery.extend(read_gallery(part))
    return gallery


def add_embeddings(gallery: Gallery, embeddings: NDArray[np.float32], paths: Sequence[str]) -> None:
    """Add rows (N, D) with the persons and cameras that the names of their N files tell."""
    labels = [pid_and_camid(Path(path).name) or (UNLABELLED, UNLABELLED) for path in paths]
    pids, camids = np.array(labels, np.int64).reshape(-1, 2).T
    gallery.add(embeddings, pids=pids, camids=camids, paths=paths)


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


_Content = tuple[list[str], NDArray[np.float32], str, str]


def _read_npz(path: Path) -> _Content:
    """Paths, embeddings, the manifest's sha256 and the manifest."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            texts = str(arrays["manifest_sha256"]), str(arrays["manifest"])
            return arrays["paths"].tolist(), arrays["embeddings"], *texts
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a file that reidexport embed wrote, or damaged ({error}).") from error


def _read_parquet(path: Path) -> _Content:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            manifest = file.schema_arrow.metadata[METADATA_KEY.encode()].decode()
            dim = file.schema_arrow.field("embedding").type.list_size
            table = file.read(["path", "manifest_sha256"])
            batches = file.iter_batches(columns=["embedding"])
            blocks = [batch.column(0).flatten().to_numpy().reshape(-1, dim) for batch in batches]
    except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a file that reidexport embed wrote, or damaged ({error}).") from error
    hashes = set(table["manifest_sha256"].to_pylist())
    if len(hashes) > 1:
        raise InputError(f"{path}: holds the embeddings of {len(hashes)} artifacts, expected those of one.")
    embeddings = np.concatenate([np.empty((0, dim), np.float32), *blocks])
    manifest_sha256 = hashes.pop() if hashes else manifest_from_json(manifest, str(path)).sha256
    return table["path"].to_pylist(), embeddings, manifest_sha256, manifest
