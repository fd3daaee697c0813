"""Embeddings in Parquet: one file, or a folder of parts, read and written a few thousand rows at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from reidgallery import Gallery, MilvusGallery
from reidgallery.input import UNLABELED, LabeledRows
from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Metric, manifest_from_json

from reidexport.data.name_labels import labels_from_names
from reidexport.embed.plan import check_finished, text_array, texts_of
from reidexport.errors import InputError
from reidexport.files import replaced_when_whole

TABLE_SUFFIX = ".parquet"
_METRIC_KEY = "reidexport.metric"  # in place of the manifest, where a gallery knows no more
_BATCH_ROWS = 4096
_LABELS = ("pid", "camid", "time")
_DAMAGED = (OSError, pa.ArrowException, LookupError, ValueError, TypeError, AttributeError, OverflowError)
_MOST_PER_BYTE = 1000
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class EmbeddingTable:
    """Files that hold embeddings of one artifact.

    Attributes:
        files: the parts, in order.
        dim: dimension of the embeddings.
        metric: how to compare them.
        manifest_sha256: of the artifact; None where that is not known.
        num_rows: in all parts.
    """

    files: tuple[Path, ...]
    dim: int
    metric: Metric
    manifest_sha256: str | None
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def labeled_parts(self) -> Iterator[LabeledRows]:
        """The rows, a few thousand at a time; persons, cameras and times are those of the columns, else of the names.

        Raises:
            InputError: a file is damaged.
        """
        return self._read(self._labeled_rows, "path", "embedding", *_LABELS)

    def embeddings(self) -> Iterator[NDArray[np.float32]]:
        """The embeddings alone, as :meth:`labeled_parts` has them; raises InputError likewise."""
        return self._read(self._rows, "embedding")

    @property
    def paths(self) -> Iterator[str]:
        """The path of every row, in order; raises InputError likewise."""
        return chain.from_iterable(self._read(lambda batch: texts_of(batch.column("path")), "path"))

    def _read(self, read: Callable[[pa.RecordBatch], _Read], *columns: str) -> Iterator[_Read]:
        """What ``read`` makes of a few thousand rows at a time, with those of the columns that the files have."""
        for path in self.files:
            with _opened(path) as file:
                yield from map(read, file.iter_batches(_BATCH_ROWS, columns=list(columns)))

    def _rows(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = batch.column("embedding").flatten().to_numpy()
        return rows.reshape(-1, self.dim)

    def _labeled_rows(self, batch: pa.RecordBatch) -> LabeledRows:
        paths = texts_of(batch.column("path"))
        labels = dict(zip(_LABELS, labels_from_names(paths), strict=True))
        for name in set(_LABELS).intersection(batch.schema.names):
            labels[name] = batch.column(name).fill_null(UNLABELED).cast(pa.int64()).to_numpy()
        return LabeledRows(self._rows(batch), labels["pid"], labels["camid"], labels["time"], paths)


def open_table(path: Path) -> EmbeddingTable:
    """Inspect what ``reidexport embed`` or ``reidexport store`` wrote: a file, or every part of a folder of such files.

    Other Parquet files of a folder, which have no embeddings, are left out.

    Raises:
        InputError: the path is missing, a file is damaged, they are not of one artifact, dimension and metric, or the
            folder is that of an unfinished run.
        ArtifactError: a manifest is of another version.
    """
    if path.is_dir():
        check_finished(path)
        files = [file for file in sorted(path.rglob(f"*{TABLE_SUFFIX}")) if not file.name.startswith(".")]
        tables = [_table_of(file) for file in files if _holds_embeddings(file)]
    elif path.is_file():
        tables = [_table_of(path)]
    else:
        raise InputError(f"{path}: there is no such file.")
    if not tables:
        raise InputError(f"{path}: no {TABLE_SUFFIX} file in this folder holds embeddings.")
    first = tables[0]
    for other in tables:
        for name in ("dim", "metric", "manifest_sha256"):
            if getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"{path}: {other.files[0].name} and {first.files[0].name} differ in their {name} "
                    f"({getattr(other, name)}, {getattr(first, name)}), expected the embeddings of one artifact."
                )
    parts = tuple(table.files[0] for table in tables)
    return replace(first, files=parts, num_rows=sum(table.num_rows for table in tables))


def check_claim(path: Path, num_bytes: int) -> None:
    """Raise InputError where a file claims to unpack into more bytes than embeddings can have been packed from."""
    size = path.stat().st_size
    if num_bytes > _MOST_PER_BYTE * size:
        raise InputError(
            f"{path}: claims {num_bytes} bytes of embeddings in a file of {size}: it is damaged. Embed them again."
        )


def write_table(
    path: Path, gallery: Gallery | MilvusGallery, progress: Callable[[int], None] | None = None
) -> int:
    """Write the rows of a gallery into one Parquet file; an old file is replaced by a whole new one.

    The columns are those of ``reidexport embed`` and ``pid``, ``camid`` and ``time``. The file's metadata holds the
    metric in place of the manifest, of which a gallery knows no more than the hash.

    Args:
        path: ``*.parquet``.
        gallery: the gallery; a few MiB of it are in memory at a time.
        progress: called with the number of rows written.

    Returns:
        How many rows.

    Raises:
        InputError: the path is invalid.
    """
    num_rows, metadata = 0, {_METRIC_KEY: gallery.metric}
    with (
        replaced_when_whole(path) as temporary,
        _rows_writer(temporary, gallery.dim, gallery.manifest_sha256, metadata, _LABELS) as write,
    ):
        for part in gallery.labeled_parts():
            write(part.paths, part.embeddings, part.pids, part.camids, part.times)
            num_rows += len(part.paths)
            if progress:
                progress(num_rows)
    return num_rows


def embeddings_writer(
    path: Path, manifest: Manifest, *, labeled: bool = False
) -> AbstractContextManager[Callable[..., None]]:
    """Open what writes an artifact's embeddings into a new Parquet file.

    It takes paths and rows of shape (n, D); where ``labeled``, also their pids, camids and times.
    """
    metadata, labels = {METADATA_KEY: manifest.to_json()}, _LABELS if labeled else ()
    return _rows_writer(path, manifest.architecture.feature_dim, manifest.sha256, metadata, labels)


@contextmanager
def _rows_writer(
    path: Path, dim: int, manifest_sha256: str | None, metadata: Mapping[str, str], labels: Sequence[str] = ()
) -> Iterator[Callable[..., None]]:
    columns = {
        "path": pa.string(),
        "embedding": pa.list_(pa.float32(), dim),
        "manifest_sha256": pa.dictionary(pa.int32(), pa.string()),
        **dict.fromkeys(labels, pa.int64()),
    }
    schema = pa.schema(columns, metadata=metadata)
    # A dictionary of floats takes most of the time, and more room.
    with pq.ParquetWriter(path, schema, use_dictionary=["manifest_sha256"]) as writer:

        def write(paths: Sequence[str], embeddings: NDArray[np.float32], *labels: NDArray[np.int64]) -> None:
            rows = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel(), pa.float32()), dim)
            hashes = pa.array([manifest_sha256] * len(paths), pa.string()).dictionary_encode()
            writer.write_table(pa.table([text_array(paths), rows, hashes, *labels], schema=schema))

        yield write


def _table_of(path: Path) -> EmbeddingTable:
    with _opened(path) as file:
        schema = file.schema_arrow
        dim = schema.field("embedding").type.list_size
        metadata = {key.decode(): text.decode() for key, text in (schema.metadata or {}).items()}
        num_rows, hashes = file.metadata.num_rows, set()
        check_claim(path, 4 * dim * num_rows)
        for batch in file.iter_batches(columns=["manifest_sha256"]):
            hashes |= set(pc.unique(batch.column(0)).to_pylist())
    if len(hashes) > 1:
        raise InputError(f"{path}: holds the embeddings of {len(hashes)} artifacts, expected those of one.")
    if text := metadata.get(METADATA_KEY):
        manifest = manifest_from_json(text, str(path))
        sha256 = hashes.pop() if hashes else manifest.sha256
        return EmbeddingTable((path,), dim, manifest.metric, sha256, num_rows)
    metric = metadata.get(_METRIC_KEY)
    if metric == "cosine" or metric == "euclidean":
        return EmbeddingTable((path,), dim, metric, hashes.pop() if hashes else None, num_rows)
    raise InputError(f"{path}: not a file that reidexport embed wrote: it has neither manifest nor metric.")


def _holds_embeddings(path: Path) -> bool:
    with _opened(path) as file:
        return "embedding" in file.schema_arrow.names


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose pages are compared with their checksums; damage becomes an InputError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except _DAMAGED as error:
        raise InputError(f"{path}: not a file that reidexport embed wrote, or damaged ({error}).") from error
