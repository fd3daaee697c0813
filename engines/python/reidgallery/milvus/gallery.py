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

from reidgallery.gallery import Gallery, LabeledRows
from reidgallery.input import (
    ALL_ROWS,
    UNLABELED,
    NeededLabel,
    RowLabels,
    SearchFilter,
    check_artifact,
    check_dim_and_metric,
    check_removed_pids,
    checked_queries,
    checked_rows,
    missing_labels,
)
from reidgallery.milvus.client import connect, disconnect, is_file, refusals_as_errors
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
from reidgallery.milvus.rows import Records, check_paths, embeddings_of, labels_of, numbers_of, records_of
from reidgallery.rows import Features, Ints, Metric
from reidgallery.scan.candidates import Neighbors, no_neighbors

_MESSAGE_BYTES = 2**24  # of embeddings in one call; servers take 64 MiB
_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 16_384  # the most that a server answers with


class MilvusGallery:
    """As :class:`reidgallery.Gallery`, with the rows in a collection of Milvus, searched exactly unless told otherwise.

    Rows are found as soon as they are added. They have numbers in the order of adding, which stay theirs; so the
    ``indices`` of a search are those of a Gallery filled alike, until persons are removed. Distances are Milvus' own,
    in float32: those of a Gallery to 1e-5, and rows that are nearer to each other than that may change places.

    A path stands for one row: adding it again replaces that row. So a program that was killed while adding, run again
    with the same paths, leaves every row once, and in order. Rows without a path are always new.

    One program at a time may add rows; milvus-lite refuses to open a file that another one has open.

    Attributes:
        dim: dimension of the embeddings.
        metric: ``cosine`` or ``euclidean``.
        manifest_sha256: of the artifact that made the embeddings; None where that is not known.
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
        self._client = connect(address, token, is_new_allowed=dim is not None)
        try:
            with refusals_as_errors(address):
                exists = self._client.has_collection(collection)
            if not exists:
                if dim is None:
                    raise InputError(f"{address}: has no gallery {collection}. Pass dim to make one.")
                create_collection(self._client, address, collection, dim, metric or "cosine", manifest_sha256)
            facts = read_facts(self._client, address, collection)
            self.dim, self.metric, self.manifest_sha256 = facts.dim, facts.metric, facts.manifest_sha256
            if self.dim != (dim or self.dim) or self.metric != (metric or self.metric):
                raise InputError(
                    f"{address}: the gallery has {self.dim} dimensions and compares by {self.metric}, expected "
                    f"{dim or self.dim} and {metric or self.metric}. Choose another address or collection."
                )
            self.check_artifact(manifest_sha256, "embeddings")
            if facts.index is None:
                self.use_index("exact")
            else:
                self.index: IndexKind = facts.index
                load_collection(self._client, address, collection, facts.index, facts.metric)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server; or the file, which is closed when no gallery of this process is in it any more."""
        disconnect(self._client, self._address)

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
        replace_index(self._client, self._address, self._collection, index, self.metric)
        self.index = index

    def add(
        self,
        embeddings: npt.ArrayLike,
        *,
        pids: npt.ArrayLike | None = None,
        camids: npt.ArrayLike | None = None,
        times: npt.ArrayLike | None = None,
        paths: Sequence[str] | None = None,
        manifest_sha256: str | None = None,
    ) -> None:
        """Add rows as :meth:`Gallery.add` does, but in place of those that have the same path.

        Raises:
            InputError: shapes, labels or artifacts do not fit, a path occurs twice or cannot be stored; nothing has
                been added then. Or Milvus fails on the way: add the same again.
        """
        self.check_artifact(manifest_sha256, "embeddings")
        self._store(self._checked(embeddings, pids, camids, times, paths), self._next_row())

    def check_artifact(self, manifest_sha256: str | None, name: str = "queries") -> None:
        """As :meth:`Gallery.check_artifact`."""
        check_artifact(self.manifest_sha256, manifest_sha256, name)

    def extend(self, other: Gallery, progress: Callable[[int], None] | None = None) -> None:
        """Add all rows of a gallery.

        Args:
            other: the gallery.
            progress: called with the number of rows added.

        Raises:
            InputError: it has another dimension, metric or artifact, or two rows of one path; or as :meth:`add`.
        """
        if other.metric != self.metric:
            raise InputError(f"This gallery compares by {self.metric}, the other one by {other.metric}.")
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
            rows, pids, camids, times, paths = self._checked(*part)
            for some in _slices(len(rows), _ROWS_AT_ONCE):
                labels = pids[some], camids[some], times[some], paths[some]
                next_row = self._store(LabeledRows(rows[some], *labels), next_row)
                done += some.stop - some.start
                if progress:
                    progress(done)

    def numbered_parts(self) -> Iterator[tuple[Ints, LabeledRows]]:
        """All rows with their numbers, in order, a few MiB at a time.

        Raises:
            InputError: Milvus fails on the way.
        """
        for some in _slices(self._next_row(), self._rows_in_message()):
            found = self._records(range(some.start, some.stop), [*LABEL_FIELDS, "embedding"])
            if found:
                yield numbers_of(found), LabeledRows(embeddings_of(found, self.dim), *labels_of(found))

    def labeled_parts(self) -> Iterator[LabeledRows]:
        """All rows, in order, a few MiB at a time; raises InputError where Milvus fails on the way."""
        for _, part in self.numbered_parts():
            yield part

    def sample(self, count: int, seed: int) -> tuple[Ints, Features]:
        """Some rows, drawn: their numbers and embeddings, at most ``count``, fewer where there are not as many.

        Raises:
            InputError: Milvus fails.
        """
        num_rows = self._next_row()
        drawn = np.random.default_rng(seed).permutation(num_rows)
        found = Records()
        for some in _slices(num_rows, max(1, min(count, self._rows_in_message()))):
            if len(found) >= count:
                break
            found += self._records(drawn[some].tolist(), ["row", "embedding"])
        return numbers_of(found[:count]), embeddings_of(found[:count], self.dim)

    def labels(self, rows: Ints) -> RowLabels:
        """The pids, camids, times and paths of some rows.

        Raises:
            InputError: a row does not exist.
        """
        return labels_of(self._existing_records(rows, LABEL_FIELDS, _ROWS_AT_ONCE))

    def row_numbers(self) -> Ints:
        """The numbers of all rows, ascending; where persons were removed, some are missing."""
        numbers = [np.empty(0, np.int64)]
        for some in _slices(self._next_row(), _ROWS_AT_ONCE):
            found = self._query(f"row >= {some.start} and row < {some.stop}", ["row"])
            numbers.append(np.sort(numbers_of(found)))
        return np.concatenate(numbers)

    def embeddings(self, rows: Ints) -> Features:
        """The embeddings of some rows, few at a time.

        Returns:
            float32, shape (len(rows), dim).

        Raises:
            InputError: a row does not exist, or Milvus refuses.
        """
        found = self._existing_records(rows, ["row", "embedding"], self._rows_in_message())
        return embeddings_of(found, self.dim)

    def remove(self, pids: Collection[int]) -> int:
        """Forget persons: from now on no search and no count finds them. The other rows keep their numbers.

        Their embeddings leave the disk when Milvus next rewrites its files: a server is asked to do so now, and keeps
        what it deleted for as long as it is configured to; milvus-lite does so by itself as more rows are added. Until
        then they can be dug up: where they may not, fill another file without them, and delete this one.

        Args:
            pids: the persons; -1 for junk.

        Returns:
            How many rows they had.

        Raises:
            InputError: a pid is less than -1.
        """
        removed = check_removed_pids(pids)
        if not removed:
            return 0
        condition = f"pid in {removed}"
        num_rows = self._count(condition)
        with refusals_as_errors(self._address):
            self._client.delete(self._collection, filter=condition)
            self._client.flush(self._collection)
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
        checked = checked_queries(queries, k, self.dim, filter, pids, camids)
        self.check_artifact(manifest_sha256)
        for needed in filter.needed_labels():
            self._check_needed_label(needed)
        found = no_neighbors(len(checked.rows), k)
        for condition, numbers in queries_by_condition(checked, filter).items():
            for some in _slices(len(numbers), _QUERIES_AT_ONCE):
                own = numbers[some]
                with refusals_as_errors(self._address):
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

    def _checked(
        self,
        embeddings: npt.ArrayLike,
        pids: npt.ArrayLike | None,
        camids: npt.ArrayLike | None,
        times: npt.ArrayLike | None,
        paths: Sequence[str] | None,
    ) -> LabeledRows:
        rows, _, labels = checked_rows(embeddings, self.dim, pids, camids, times, paths)
        check_paths(labels.paths)
        return LabeledRows(rows, *labels)

    def _store(self, part: LabeledRows, next_row: int) -> int:
        """Put rows that have been checked where their paths are, the new ones from ``next_row`` on.

        Returns:
            The number of the next new row.
        """
        for some in _slices(len(part.paths), self._rows_in_message()):
            texts = json.dumps([path for path in part.paths[some] if path], ensure_ascii=False)
            records = self._query(f"path in {texts}", ["row", "path"]) if any(part.paths[some]) else []
            known = {record["path"]: record["row"] for record in records}
            numbers = []
            for path in part.paths[some]:
                numbers.append(known.get(path, next_row))
                next_row += path not in known
            with refusals_as_errors(self._address):
                self._client.upsert(self._collection, records_of(part, some, numbers))
        if is_file(self._address):
            # milvus-lite searches its files five times as fast as its log; a server knows when to flush.
            with refusals_as_errors(self._address):
                self._client.flush(self._collection)
        return next_row

    def _rows_in_message(self) -> int:
        return min(_ROWS_AT_ONCE, max(1, _MESSAGE_BYTES // (4 * self.dim)))

    def _existing_records(self, rows: Ints, fields: list[str], at_once: int) -> Records:
        """The records of rows, in their order; raises InputError for one that is missing."""
        wanted, found = np.unique(rows), Records()
        for some in _slices(len(wanted), at_once):
            found += self._records(wanted[some].tolist(), fields)
        numbers = numbers_of(found)
        if missing := sorted(set(rows.tolist()) - set(numbers.tolist())):
            raise InputError(f"{self._address}: has no row {missing[0]}.")
        return [found[i] for i in np.searchsorted(numbers, rows)]

    def _check_needed_label(self, needed: NeededLabel) -> None:
        condition = f"{needed.name} == {UNLABELED}" + " and pid > 0" * needed.of_persons
        if unlabeled := self._query(condition, ["row", "path"], limit=_ROWS_AT_ONCE):
            first = min(unlabeled, key=lambda record: int(record["row"]))
            count = self._count(condition)
            raise missing_labels(needed, count, len(self), first["row"], first["path"])

    def _next_row(self) -> int:
        """One more than the last row's number; usually that is their count, so nothing has to be read."""
        row = len(self)
        while later := self._query(f"row >= {row}", ["row"], limit=_ROWS_AT_ONCE):
            row = 1 + max(record["row"] for record in later)
        return row

    def _records(self, rows: Iterable[int], fields: list[str]) -> Records:
        """The records of those of some rows that exist, in order."""
        found = self._query(f"row in {list(rows)}", fields)
        return sorted(found, key=lambda record: int(record["row"]))

    def _count(self, condition: str) -> int:
        return int(self._query(condition, ["count(*)"])[0]["count(*)"])

    def _query(self, condition: str, fields: list[str], limit: int | None = None) -> Records:
        with refusals_as_errors(self._address):
            return list(self._client.query(self._collection, condition, fields, limit=limit))


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
