"""A gallery in Milvus: in a file, through milvus-lite, or on a server, for more rows than one machine holds.

>>> with MilvusGallery("people.db", dim=2048, metric="cosine") as gallery:  # or "http://host:19530"
...     gallery.add(embeddings, pids=pids, camids=camids, times=times, paths=paths)
...     gallery.search(queries, k=10).indices

A ``.gallery`` is copied with ``gallery.extend(load_gallery("people.gallery"))``.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from reidruntime.errors import InputError

from reidgallery.gallery import Gallery
from reidgallery.input import (
    ALL_ROWS,
    UNLABELED,
    BaseGallery,
    Forgotten,
    LabeledRows,
    NeededLabel,
    RowLabels,
    SearchFilter,
    check_dim_and_metric,
    check_removed_pids,
    checked_rows,
    missing_labels,
)
from reidgallery.milvus.client import Client, is_file
from reidgallery.milvus.collection import (
    LABEL_FIELDS,
    IndexKind,
    check_index,
    create_collection,
    load_collection,
    read_facts,
    replace_index,
    search_params,
)
from reidgallery.milvus.filters import queries_by_condition
from reidgallery.milvus.forgotten import add_forgotten, read_forgotten, remove_forgotten
from reidgallery.milvus.rows import Records, check_paths, embeddings_of, labels_of, numbers_of, records_of
from reidgallery.rows import Features, Floats64, Ints, Metric
from reidgallery.scan.candidates import Neighbors, no_neighbors

_MESSAGE_BYTES = 2**24  # of embeddings in one call; servers take 64 MiB
_QUERIES_AT_ONCE = 256
_PATHS_AT_ONCE = 4096
_ROWS_AT_ONCE = 16_384  # the most that a server answers with


class MilvusGallery(BaseGallery):
    """As :class:`reidgallery.Gallery`, with the rows in a collection of Milvus, searched exactly unless told otherwise.

    Rows are found as soon as they are added. They have numbers in the order of adding, which stay theirs; so the
    ``indices`` of a search are those of a Gallery filled alike, until persons are removed. Distances are Milvus' own,
    in float32: those of a Gallery to 1e-5, and rows that are nearer to each other than that may change places.

    A path stands for one row: adding it again replaces that row. So a program that was killed while adding, or that
    Milvus failed, run again with the same paths, leaves every row once, and in order. Rows without a path are always
    new. A path that occurs twice among added rows, or that Milvus cannot store, is an InputError.

    One program at a time may add rows; milvus-lite refuses to open a file that another one has open.

    Attributes:
        dim, metric, manifest_sha256: those of every gallery.
        index: what searches; see :meth:`use_index`.
    """

    def __init__(
        self,
        address: str,
        dim: int | None = None,
        *,
        metric: Metric | None = None,
        manifest_sha256: str | None = None,
        token: str = "",
        collection: str = "gallery",
    ) -> None:
        """Open a gallery; where it does not exist and ``dim`` is given, make it.

        Args:
            address: a file ``NAME.db`` for milvus-lite, or ``http(s)://HOST:PORT`` of a server.
            dim: dimension of the embeddings; default: that of the existing gallery.
            metric: how to compare them; default: as the existing gallery, cosine for a new one.
            manifest_sha256: ``Manifest.sha256`` of the artifact, where it is known.
            token: ``USER:PASSWORD`` or a key, for a server that asks for it.
            collection: its name in Milvus.

        Raises:
            InputError: Milvus cannot be reached, or has no such gallery, or one of another dimension, metric,
                artifact or version.
            NotInstalledError: pymilvus or milvus-lite is not installed.
        """
        check_dim_and_metric(1 if dim is None else dim, metric or "cosine")
        self._address, self._collection = address, collection
        self._client = Client(address, token, is_new_allowed=dim is not None)
        try:
            if not self._client.has_collection(collection):
                if dim is None:
                    raise InputError(f"{address}: has no gallery {collection}. Pass dim to make one.")
                create_collection(self._client, collection, dim, metric or "cosine", manifest_sha256)
            self.dim, self.metric, self.manifest_sha256, index = read_facts(self._client, collection)
            if self.dim != (dim or self.dim) or self.metric != (metric or self.metric):
                raise InputError(
                    f"{address}: the gallery has {self.dim} dimensions and compares by {self.metric}, expected "
                    f"{dim or self.dim} and {metric or self.metric}. Choose another address or collection."
                )
            self.check_artifact(manifest_sha256, "embeddings")
            if index is None:
                self.use_index("exact")
            else:
                self.index: IndexKind = index
                load_collection(self._client, collection, index, self.metric)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server; or the file, which is closed when no gallery of this process is in it any more."""
        self._client.disconnect()

    def __len__(self) -> int:
        return self._count("")

    def use_index(self, index: IndexKind) -> None:
        """Search by another index from now on; it is built over all rows, and follows those that are added.

        Args:
            index: ``exact`` compares every row (FLAT). ``approximate`` is faster where there are many rows, misses some
                of the nearest and takes more memory (HNSW). ``gpu-exact`` and ``gpu-approximate`` do the same on the
                server's GPU (GPU_BRUTE_FORCE, GPU_CAGRA). What an index finds is
                measured by :func:`reidgallery.milvus.recall.measured_recall`.

        Raises:
            InputError: the index does not exist, or not in this Milvus.
        """
        check_index(self._address, index)
        replace_index(self._client, self._collection, index, self.metric)
        self.index = index

    def _add(self, rows: LabeledRows, norms: Floats64) -> None:
        check_paths(rows.paths)
        self._store(rows, self._next_row())

    def extend(self, other: Gallery, progress: Callable[[int], None] | None = None) -> None:
        """Add all rows of a gallery.

        Args:
            other: the gallery.
            progress: called with the number of rows added.

        Raises:
            InputError: it has another dimension, metric or artifact, or two rows of one path; or as :meth:`add`.
        """
        self._check_metric(other)
        check_paths(other.paths)
        self.add_parts(other.labeled_parts(), manifest_sha256=other.manifest_sha256, progress=progress)

    def add_parts(
        self,
        parts: Iterable[LabeledRows],
        *,
        manifest_sha256: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Add parts as :meth:`add` does, one after the other: of a path that comes twice, the later row stays.

        Args:
            parts: the rows; only one part is in memory at a time.
            manifest_sha256: of the artifact that made them; None leaves the check to the caller.
            progress: called with the number of rows added.

        Raises:
            InputError: as :meth:`add`; the parts before the one that does not fit have been added.
        """
        self.check_artifact(manifest_sha256, "embeddings")
        done, next_row = 0, self._next_row()
        for part in parts:
            rows, _ = checked_rows(self.dim, *part)
            check_paths(rows.paths)
            for some in _slices(len(rows.paths), _ROWS_AT_ONCE):
                next_row = self._store(rows.of(some), next_row)
                done += some.stop - some.start
                if progress:
                    progress(done)

    def numbered_parts(self) -> Iterator[tuple[Ints, LabeledRows]]:
        """All rows with their numbers, in order, a few MiB at a time; raises InputError where Milvus fails."""
        for some in _slices(self._next_row(), self._rows_in_message()):
            if found := self._records(_within(some), [*LABEL_FIELDS, "embedding"]):
                yield numbers_of(found), LabeledRows(embeddings_of(found, self.dim), *labels_of(found))

    def labeled_parts(self) -> Iterator[LabeledRows]:
        """The rows alone, as :meth:`numbered_parts` has them."""
        return (part for _, part in self.numbered_parts())

    def sample(self, count: int, seed: int) -> tuple[Ints, Features]:
        """Some rows, drawn: their numbers and embeddings, at most ``count``; raises InputError where Milvus fails."""
        num_rows = self._next_row()
        drawn = np.random.default_rng(seed).permutation(num_rows)
        found = Records()
        for some in _slices(num_rows, max(1, min(count, self._rows_in_message()))):
            if len(found) >= count:
                break
            found += self._records(f"row in {drawn[some].tolist()}", ["embedding"])
        return numbers_of(found[:count]), embeddings_of(found[:count], self.dim)

    def labels(self, rows: Ints) -> RowLabels:
        """As :meth:`Gallery.labels`; raises InputError where a row does not exist."""
        return labels_of(self._existing_records(rows, LABEL_FIELDS, _ROWS_AT_ONCE))

    def row_numbers(self) -> Ints:
        """The numbers of all rows, ascending; where persons were removed, some are missing."""
        numbers = [np.empty(0, np.int64)]
        for some in _slices(self._next_row(), _ROWS_AT_ONCE):
            numbers.append(numbers_of(self._records(_within(some), [])))
        return np.concatenate(numbers)

    def embeddings(self, rows: Ints) -> Features:
        """As :meth:`Gallery.embeddings`, few rows at a time; raises InputError where Milvus refuses, too."""
        found = self._existing_records(rows, ["embedding"], self._rows_in_message())
        return embeddings_of(found, self.dim)

    @property
    def forgotten(self) -> Forgotten:
        """Whom :meth:`forget` removed, read from Milvus; raises InputError where that fails."""
        return read_forgotten(self._client, self._collection)

    def bring_back(self, listed: Forgotten) -> None:
        """Take persons, with their images, and paths off the list of the forgotten; their rows must be added anew."""
        remove_forgotten(self._client, self._collection, listed)

    def list_forgotten(self, added: Forgotten) -> None:
        """Put persons and paths on the list of the forgotten, as another gallery has it; no row is removed."""
        add_forgotten(self._client, self._collection, added)

    def _paths_by_pid(self, pids: Sequence[int]) -> list[tuple[int, str]]:
        found = self._records(f"pid in {list(pids)}", ["pid", "path"]) if pids else []
        return [(int(record["pid"]), record["path"]) for record in found]

    def known_paths(self, paths: Sequence[str]) -> set[str]:
        """Those of some paths that rows of the gallery have; raises InputError where Milvus fails."""
        found = set[str]()
        texts = [path for path in paths if path]
        for some in _slices(len(texts), _PATHS_AT_ONCE):
            found |= {record["path"] for record in self._records(_path_in(texts[some]), ["path"])}
        return found

    def remove(self, pids: Collection[int] = (), *, paths: Collection[str] = ()) -> int:
        """Remove rows as :meth:`Gallery.remove` does, at once; but the other rows keep their numbers.

        Their embeddings leave the disk when Milvus next rewrites its files: a server is asked to do so now, and keeps
        what it deleted for as long as it is configured to; milvus-lite does so by itself as more rows are added. Until
        then they can be dug up: where they may not, fill another file without them, and delete this one.
        """
        removed, texts = check_removed_pids(pids), sorted(paths)
        conditions = [_path_in(texts[some]) for some in _slices(len(texts), _PATHS_AT_ONCE)]
        if removed:
            conditions.append(f"pid in {removed}")
        num_rows = 0
        for condition in conditions:
            num_rows += self._count(condition)
            self._client.delete(self._collection, filter=condition)
            self._client.flush(self._collection)
        if conditions:
            self._client.compact(self._collection)
        return num_rows

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        filter: SearchFilter = ALL_ROWS,
        pids: npt.ArrayLike | None = None,
        camids: npt.ArrayLike | None = None,
        manifest_sha256: str | None = None,
    ) -> Neighbors:
        """Find the k nearest rows of each query, as :meth:`Gallery.search` does and with its arguments.

        Queries that may find the same rows share a call: with ``other_cameras`` one call for each camera, with
        ``exclude_junk`` one for each person and camera. Milvus servers find up to 16,384 rows.

        Raises:
            InputError: an argument does not fit, the filter needs labels that are missing, or Milvus refuses.
        """
        checked = self._checked_queries(queries, k, filter, pids, camids, manifest_sha256)
        found = no_neighbors(len(checked.rows), k)
        for condition, numbers in queries_by_condition(checked, filter).items():
            for some in _slices(len(numbers), _QUERIES_AT_ONCE):
                own = numbers[some]
                answers = self._client.search(
                    self._collection,
                    data=list(checked.rows[own]),
                    limit=k,
                    filter=condition,
                    search_params=search_params(self.index, k),
                )
                for i, hits in zip(own, answers, strict=True):
                    distances = np.array([hit["distance"] for hit in hits], np.float32)
                    if self.metric == "cosine":
                        distances = np.float32(1) - distances
                    rows = numbers_of(hits)
                    order = np.lexsort((rows, distances))
                    found.indices[i, : len(hits)] = rows[order]
                    found.distances[i, : len(hits)] = distances[order]
        return found

    def _store(self, rows: LabeledRows, next_row: int) -> int:
        """Put rows that have been checked where their paths are, the new ones from ``next_row`` on.

        Returns:
            The number of the next new row.
        """
        for some in _slices(len(rows.paths), self._rows_in_message()):
            part = rows.of(some)
            texts = [path for path in part.paths if path]
            records = self._records(_path_in(texts), ["path"]) if texts else []
            known = {record["path"]: record["row"] for record in records}
            numbers = []
            for path in part.paths:
                numbers.append(known.get(path, next_row))
                next_row += path not in known
            self._client.upsert(self._collection, records_of(part, numbers))
        if is_file(self._address):
            # milvus-lite searches its files five times as fast as its log; a server knows when to flush.
            self._client.flush(self._collection)
        return next_row

    def _rows_in_message(self) -> int:
        return min(_ROWS_AT_ONCE, max(1, _MESSAGE_BYTES // (4 * self.dim)))

    def _existing_records(self, rows: Ints, fields: list[str], at_once: int) -> Records:
        """The records of rows, in their order; raises InputError for one that is missing."""
        wanted, found = np.unique(rows), Records()
        for some in _slices(len(wanted), at_once):
            found += self._records(f"row in {wanted[some].tolist()}", fields)
        numbers = numbers_of(found)
        if missing := sorted(set(rows.tolist()) - set(numbers.tolist())):
            raise InputError(f"{self._address}: has no row {missing[0]}.")
        return [found[i] for i in np.searchsorted(numbers, rows)]

    def _check_needed_label(self, needed: NeededLabel) -> None:
        condition = f"{needed.name} == {UNLABELED}" + " and pid > 0" * needed.of_persons
        if unlabeled := self._records(condition, ["path"], limit=_ROWS_AT_ONCE):
            first, count = unlabeled[0], self._count(condition)
            raise missing_labels(needed, count, len(self), first["row"], first["path"])

    def _next_row(self) -> int:
        """One more than the last row's number; usually that is their count, so nothing has to be read."""
        row = len(self)
        while later := self._records(f"row >= {row}", [], limit=_ROWS_AT_ONCE):
            row = 1 + int(later[-1]["row"])
        return row

    def _records(self, condition: str, fields: list[str], limit: int | None = None) -> Records:
        """The numbers and some other fields of the rows that a condition holds for, in order."""
        found = self._client.query(self._collection, condition, ["row", *fields], limit=limit)
        return sorted(found, key=lambda record: int(record["row"]))

    def _count(self, condition: str) -> int:
        return int(self._client.query(self._collection, condition, ["count(*)"])[0]["count(*)"])


def _path_in(paths: Sequence[str]) -> str:
    return f"path in {json.dumps(list(paths), ensure_ascii=False)}"


def _within(numbers: slice) -> str:
    return f"row >= {numbers.start} and row < {numbers.stop}"


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
