"""Embeddings in a file: ``.npz``, Parquet, or a gallery to search; use Parquet for millions of images.

A ``.npz`` or Parquet file is written block by block, a gallery from memory.
"""

import lzma
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from reidgallery import Gallery, MilvusGallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX
from reidgallery.input import LabeledRows
from reidruntime.artifact.manifest import Manifest, Metric, manifest_from_json

from reidexport.data.label_file import LabelFile
from reidexport.data.name_labels import labels_from_names
from reidexport.embed.table import TABLE_SUFFIX, check_claim, embeddings_writer, open_table, write_table
from reidexport.errors import InputError
from reidexport.files import replaced_when_whole

SUFFIXES = (".npz", TABLE_SUFFIX, GALLERY_SUFFIX)
# What zipfile, its decompressors and NumPy raise for damage.
_DAMAGED = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, EOFError, SyntaxError,
    OverflowError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, UserWarning,
)  # fmt: skip
Blocks = Iterable[NDArray[np.float32]]
Progress = Callable[[int], None]
_METRICS: tuple[Metric, ...] = get_args(Metric)
_LABELS = ("pids", "camids", "times")


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


def write_embeddings(
    path: Path, paths: list[str], blocks: Blocks, manifest: Manifest, table: LabelFile | None = None
) -> None:
    """Write embeddings in the format that the suffix names; an old file is replaced by a whole new one.

    ``.npz`` holds the arrays ``paths`` (N,), ``embeddings`` (N, D) float32, ``manifest_sha256`` and
    ``manifest`` (JSON text). Its ``paths`` are made in memory and padded to the longest, 4 bytes a character:
    use Parquet for millions of images. Parquet holds the columns ``path``, ``embedding`` (fixed-size list of D float32)
    and ``manifest_sha256``, and the manifest in the file's metadata under ``reidexport.manifest``. With a table of
    labels both hold ``pid``, ``camid`` and ``time``, too (``pids``, ``camids``, ``times`` in ``.npz``). A ``.gallery``
    is that of :class:`reidgallery.Gallery`.

    Args:
        path: the file, replaced if it exists.
        paths: N image paths.
        blocks: arrays of shape (n, D) whose rows are, in order, those of ``paths``.
        manifest: of the artifact that made them.
        table: what is known of persons, cameras and times beside what the names encode.

    Raises:
        InputError: the path is invalid, or the table says two things of one image.
    """
    check_suffix(path)
    if path.suffix == GALLERY_SUFFIX:
        gallery = gallery_from_manifest(manifest)
        for part in labeled_parts(paths, blocks, table):
            gallery.add(**part._asdict())
        gallery.save(path)
        return
    labels = None if table is None else table.labels_of(paths)
    with replaced_when_whole(path) as temporary:
        if path.suffix == ".npz":
            texts = {"manifest_sha256": manifest.sha256, "manifest": manifest.to_json()}
            _write_npz(temporary, paths, blocks, manifest.architecture.feature_dim, texts, labels)
        else:
            _write_parquet(temporary, paths, blocks, manifest, labels)


def write_gallery(path: Path, gallery: Gallery | MilvusGallery, progress: Progress | None = None) -> int:
    """Write the rows of a gallery, with their labels, to ``.npz`` or Parquet: the whole file, or none.

    The files are those of :func:`write_embeddings`, with the metric in place of the manifest, of which a gallery knows
    no more than the hash.

    Returns:
        How many rows.

    Raises:
        InputError: the path is invalid, or the gallery cannot be read.
    """
    if path.suffix == TABLE_SUFFIX:
        return write_table(path, gallery, progress)
    labels = gallery.labels(gallery.row_numbers())
    texts = {"manifest_sha256": gallery.manifest_sha256 or "", "metric": gallery.metric}
    blocks = (part.embeddings for part in gallery.labeled_parts())
    with replaced_when_whole(path) as temporary:
        _write_npz(temporary, labels.paths, blocks, gallery.dim, texts, np.stack(labels[:3]))
    return len(labels.paths)


def labeled_parts(
    paths: Sequence[str], blocks: Blocks, table: LabelFile | None = None
) -> Iterator[LabeledRows]:
    """Rows with the persons, cameras and times that a table tells, or else the names of their files."""
    start = 0
    for block in blocks:
        own = paths[start : start + len(block)]
        start += len(block)
        pids, camids, times = labels_from_names(own) if table is None else table.labels_of(own)
        yield LabeledRows(block, pids, camids, times, own)


def read_gallery(path: Path) -> Gallery:
    """The embeddings of a file that :func:`write_embeddings` wrote, or of a folder of Parquet files, as a gallery.

    Persons, cameras and times come from the file where it has them, or from names such as ``0002_c1s1_000451_03.jpg``
    (:mod:`reidexport.data.name_labels`).

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
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path}: expected embeddings, in a file that ends in {' or '.join(SUFFIXES)} or a folder of them. "
            "`reidexport embed ARTIFACT IMAGES -o NAME.gallery` makes them of images."
        )
    return load_gallery(path) if path.suffix == GALLERY_SUFFIX else _read_npz(path)


def add_embeddings(
    gallery: Gallery, embeddings: NDArray[np.float32], paths: Sequence[str], table: LabelFile | None = None
) -> None:
    """Add rows (N, D) with the persons, cameras and times of their N files, as :func:`labeled_parts` has them."""
    for part in labeled_parts(paths, [embeddings], table):
        gallery.add(**part._asdict())


def _write_npz(
    path: Path,
    paths: Sequence[str],
    blocks: Blocks,
    dim: int,
    texts: Mapping[str, str],
    labels: NDArray[np.int64] | None,
) -> None:
    arrays = {"paths": np.asarray(paths, dtype=str)}
    arrays |= {name: np.asarray(text, dtype=str) for name, text in texts.items()}
    if labels is not None:
        arrays |= zip(_LABELS, labels, strict=True)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), dim)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        with archive.open("embeddings.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for block in blocks:
                entry.write(np.ascontiguousarray(block, "<f4").tobytes())


def _write_parquet(
    path: Path, paths: list[str], blocks: Blocks, manifest: Manifest, labels: NDArray[np.int64] | None
) -> None:
    start = 0
    with embeddings_writer(path, manifest, labeled=labels is not None) as write:
        for block in blocks:
            some = slice(start, start + len(block))
            write(paths[some], block, *(() if labels is None else labels[:, some]))
            start += len(block)


def _read_npz(path: Path) -> Gallery:
    try:
        # NumPy reads some damaged headers with a warning.
        with (
            warnings.catch_warnings(action="error", category=UserWarning),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            check_claim(path, sum(info.file_size for info in arrays.zip.infolist()))
            sha256, paths, embeddings = (
                _texts(arrays["manifest_sha256"]),
                _texts(arrays["paths"]),
                arrays["embeddings"],
            )
            facts = {name: str(_texts(arrays[name])) for name in ("manifest", "metric") if name in arrays}
            told = {name: arrays[name] for name in _LABELS if name in arrays}
            dim, texts = int(embeddings.shape[1]), paths.ravel().tolist()
    except _DAMAGED as error:
        raise InputError(f"{path}: not a file that reidexport embed wrote, or damaged ({error}).") from error
    metric = next((known for known in _METRICS if known == facts.get("metric")), None)
    if "manifest" in facts:
        manifest = manifest_from_json(facts["manifest"], str(path))
        gallery = Gallery(
            manifest.architecture.feature_dim, metric=manifest.metric, manifest_sha256=str(sha256)
        )
    elif metric:
        gallery = Gallery(dim, metric=metric, manifest_sha256=str(sha256) or None)
    else:
        raise InputError(
            f"{path}: not a file that reidexport embed wrote: it has neither manifest nor metric."
        )
    labels = dict(zip(_LABELS, labels_from_names(texts), strict=True)) | told
    gallery.add(embeddings, **labels, paths=texts)
    return gallery


def _texts(array: NDArray[Any]) -> NDArray[np.str_]:
    """An array of texts; raises ValueError for others: NumPy makes of damaged ones strings that break Python."""
    codes = np.frombuffer(array.tobytes(), f"{array.dtype.byteorder}u4") if array.dtype.kind == "U" else None
    if codes is None or codes.max(initial=0) > sys.maxunicode:
        raise ValueError(f"{array.dtype} of shape {array.shape}, expected texts")
    return array
