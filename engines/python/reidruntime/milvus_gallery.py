"""A gallery in Milvus: in a file, through milvus-lite, or on a server, for more rows than one machine holds.

>>> with MilvusGallery("people.db", dim=2048, metric="cosine") as gallery:  # or "http://host:19530"
...     gallery.add(embeddings, pids=pids, camids=camids, paths=paths)
...     gallery.search(queries, k=10).indices

A ``.gallery`` is copied with ``gallery.extend(load_gallery("people.gallery"))``.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from reidruntime.errors import InputError, NotInstalledError
from reidruntime.gallery import Gallery
from reidruntime.gallery_input import (
    JUNK_PID,
    UNLABELLED,
    check_artifact,
    check_asked_labels,
    check_dim_and_metric,
    check_removed_pids,
    checked_features,
    checked_ids,
    checked_paths,
    missing_labels,
)
from reidruntime.gallery_rows import Features, Ints, row_lengths
from reidruntime.manifest import Metric
from reidruntime.topk import Neighbours

_MILVUS_METRICS: dict[Metric, str] = {"cosine": "COSINE", "euclidean": "L2"}
_METRIC, _ARTIFACT = "reidruntime.metric", "reidruntime.manifest_sha256"  # properties of the collection
_MESSAGE_BYTES = 2**24  # of embeddings in one call; servers take 64 MiB
_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 16_384  # the most that a server answers with
_MAX_PATH_BYTES = 65_535


class MilvusGallery:
    """As :class:`reidruntime.Gallery`, with the rows in a collection of Milvus, searched exactly (a FLAT index).

    Rows are there as soon as they are added. They have numbers in the order of adding, which stay theirs; so the
    ``indices`` of a search are those of a Gallery filled alike, until persons are removed. Distances are Milvus' own,
    in float32: those of a Gallery to 1e-5, and rows that are nearer to each other than that may change places.

    A path stands for one row: adding it again replaces that row. So a program that was killed while adding, run again
    with the same paths, leaves every row once, and in order. Rows without a path are always new.

    One program at a time may add rows; milvus-lite refuses to open a file that another one has open.

    Attributes:
        dim: dimension of the embeddings.
        metric: ``cosine`` or ``euclidean``.
        manifest_sha256: of the artifact that made the embeddings; None where that is not known.
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
        """Open a gallery; where there is none and ``dim`` is given, make it.

        Args:
            address: a file ``NAME.db`` for milvus-lite, or ``http(s)://HOST:PORT`` of a server.
            dim: dimension of the embeddings; default: that of the gallery that is there.
            metric: how to compare them; default: as the gallery that is there, cosine for a new one.
            manifest_sha256: ``Manifest.sha256`` of the artifact, where it is known.
            token: ``USER:PASSWORD`` or a key, for a server that asks for it.
            collection: its name in Milvus.

        Raises:
            InputError: Milvus cannot be reached, or has no gallery there, or one of another dimension, metric or
                artifact.
            NotInstalledError: pymilvus or milvus-lite is not installed.
        """
        check_dim_and_metric(1 if dim is None else dim, metric or "cosine")
        self._address, self._collection = address, collection
        self._client = self._connected(token, is_new_allowed=dim is not None)
        try:
            with self._speaking():
                if not self._client.has_collection(collection):
                    if dim is None:
                        raise InputError(f"{address}: has no gallery {collection}. Give dim to make one.")
                    self._create(dim, metric or "cosine", manifest_sha256)
                self._client.load_collection(collection)
            self._read_facts()
            if self.dim != (dim or self.dim) or self.metric != (metric or self.metric):
                raise InputError(
                    f"{address}: the gallery has {self.dim} dimensions and compares by {self.metric}, expected "
                    f"{dim or self.dim} and {metric or self.metric}. Give another address or collection."
                )
            self.check_artifact(manifest_sha256, "embeddings")
        except BaseException:
            self.close()
            raise

    def _connected(self, token: str, is_new_allowed: bool) -> Any:
        is_file = _is_file(self._address)
        if is_file and not self._address.endswith(".db"):
            raise InputError(f"{self._address}: expected a name that ends in .db, or http://HOST:PORT.")
        if is_file and not (is_new_allowed or Path(self._address).exists()):
            raise InputError(f"{self._address}: there is no such file.")
        try:
            import pymilvus

            if is_file:
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise NotInstalledError(
                f'{error.name} is not installed: pip install "reidexport[milvus]"'
            ) from error
        try:
            return pymilvus.MilvusClient(self._address, token=token)
        except pymilvus.MilvusException as error:
            hint = "Does another program have it open?" if is_file else "Is the address right?"
            raise InputError(f"{self._address}: cannot be opened ({error.message}). {hint}") from error

    def _create(self, dim: int, metric: Metric, manifest_sha256: str | None) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("pid", DataType.INT64)
        schema.add_field("camid", DataType.INT64)
        schema.add_field("path", DataType.VARCHAR, max_length=_MAX_PATH_BYTES)
        indexes = self._client.prepare_index_params()
        indexes.add_index("embedding", index_type="FLAT", metric_type=_MILVUS_METRICS[metric])
        indexes.add_index("path", index_type="INVERTED")
        self._client.create_collection(
            self._collection,
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            properties={_METRIC: metric, _ARTIFACT: manifest_sha256 or ""},
        )

    def _read_facts(self) -> None:
        with self._speaking():
            found = self._client.describe_collection(self._collection)
        dims = [field["params"].get("dim") for field in found["fields"] if field["name"] == "embedding"]
        metric = found["properties"].get(_METRIC)
        if len(dims) != 1 or metric not in _MILVUS_METRICS:
            raise InputError(
                f"{self._address}: the collection {self._collection} is no gallery of reidruntime."
            )
        self.dim = int(dims[0])
        self.metric: Metric = metric
        self.manifest_sha256: str | None = found["properties"].get(_ARTIFACT) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server; or close the file, for every gallery of this process that is in it."""
        with self._speaking():
            self._client.close()
        if _is_file(self._address):
            from milvus_lite import server_manager_instance

            server_manager_instance.release_server(self._address)

    def __len__(self) -> int:
        return self._count("")

    def add(
        self,
        embeddings: npt.ArrayLike,
        *,
        pids: npt.ArrayLike | None = None,
        camids: npt.ArrayLike | None = None,
        paths: Sequence[str] | None = None,
        manifest_sha256: str | None = None,
    ) -> None:
        """Add rows as :meth:`Gallery.add` does, but in place of those that have the same path.

        Raises:
            InputError: shapes or artifacts do not fit, a path is there twice or cannot be stored; nothing has been
                added then. Or Milvus fails on the way: add the same again.
        """
        rows = checked_features(embeddings, self.dim, "embeddings")
        self.check_artifact(manifest_sha256, "embeddings")
        row_lengths(rows, "embeddings")
        new_pids, new_camids = checked_ids(pids, "pids", len(rows)), checked_ids(camids, "camids", len(rows))
        new_paths = checked_paths(paths, len(rows))
        _check_keys(new_paths)
        next_row = self._next_row()
        for some in _slices(len(rows), max(1, _MESSAGE_BYTES // (4 * self.dim))):
            known = self._rows_of(path for path in new_paths[some] if path)
            records = []
            for embedding, pid, camid, path in zip(
                rows[some].tolist(),  # half as fast again as arrays
                new_pids[some].tolist(),
                new_camids[some].tolist(),
                new_paths[some],
                strict=True,
            ):
                row = known.get(path)
                if row is None:
                    row, next_row = next_row, next_row + 1
                records.append({"row": row, "embedding": embedding, "pid": pid, "camid": camid, "path": path})
            with self._speaking():
                self._client.upsert(self._collection, records)
        if _is_file(self._address):
            # milvus-lite searches its files five times as fast as its log; a server knows when to flush.
            with self._speaking():
                self._client.flush(self._collection)

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
        _check_keys(other.paths)
        done = 0
        for part in other.labelled_parts():
            for some in _slices(max(len(part.pids), 1), _ROWS_AT_ONCE):
                self.add(
                    part.embeddings[some],
                    pids=part.pids[some],
                    camids=part.camids[some],
                    paths=part.paths[some],
                    manifest_sha256=other.manifest_sha256,
                )
                done += len(part.pids[some])
                if progress:
                    progress(done)

    def labels(self, rows: Ints) -> tuple[Ints, Ints, list[str]]:
        """The pids, camids and paths of some rows.

        Raises:
            InputError: there is no such row.
        """
        asked = np.unique(rows).tolist()
        found = {}
        for some in _slices(len(asked), _ROWS_AT_ONCE):
            for record in self._query(f"row in {asked[some]}", ["row", "pid", "camid", "path"]):
                found[record["row"]] = record
        if len(found) < len(asked):
            raise InputError(f"{self._address}: has no row {min(set(asked) - set(found))}.")
        records = [found[row] for row in rows.tolist()]
        pids, camids = ([record[name] for record in records] for name in ("pid", "camid"))
        return np.array(pids, np.int64), np.array(camids, np.int64), [record["path"] for record in records]

    def row_numbers(self) -> Ints:
        """The numbers of all rows, ascending; where persons were removed, some are missing."""
        numbers: list[int] = []
        for some in _slices(self._next_row(), _ROWS_AT_ONCE):
            records = self._query(f"row >= {some.start} and row < {some.stop}", ["row"])
            numbers += sorted(record["row"] for record in records)
        return np.array(numbers, np.int64)

    def embeddings(self, rows: Ints) -> Features:
        """The embeddings of some rows, few at a time.

        Returns:
            float32, shape (len(rows), dim).

        Raises:
            InputError: there is no such row, or Milvus refuses.
        """
        found = {}
        asked = np.unique(rows).tolist()
        for some in _slices(len(asked), max(1, _MESSAGE_BYTES // (4 * self.dim))):
            for record in self._query(f"row in {asked[some]}", ["row", "embedding"]):
                found[record["row"]] = record["embedding"]
        if len(found) < len(asked):
            raise InputError(f"{self._address}: has no row {min(set(asked) - set(found))}.")
        return np.array([found[row] for row in rows.tolist()], np.float32).reshape(-1, self.dim)

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
        asked = check_removed_pids(pids)
        if not asked:
            return 0
        condition = f"pid in {asked}"
        num_rows = self._count(condition)
        with self._speaking():
            self._client.delete(self._collection, filter=condition)
            self._client.flush(self._collection)
            self._client.compact(self._collection)
        return num_rows

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        pids: npt.ArrayLike | None = None,
        camids: npt.ArrayLike | None = None,
        other_cameras: bool = False,
        exclude_junk: bool = False,
        among_camids: Collection[int] | None = None,
        manifest_sha256: str | None = None,
    ) -> Neighbours:
        """Find the k nearest rows of each query, as :meth:`Gallery.search` does and with its arguments.

        Queries that may find the same rows are asked together: with ``other_cameras`` one call for each camera, with
        ``exclude_junk`` one for each person and camera. Milvus servers find up to 16,384 rows.

        Raises:
            InputError: an argument does not fit, a filter needs labels that are not there, or Milvus refuses.
        """
        rows = checked_features(queries, self.dim, "queries")
        self.check_artifact(manifest_sha256)
        row_lengths(rows, "queries")
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}.")
        q_pids, q_camids = checked_ids(pids, "pids", len(rows)), checked_ids(camids, "camids", len(rows))
        if other_cameras:
            self._need_camids("other_cameras")
        check_asked_labels(q_pids, q_camids, other_cameras, exclude_junk)
        if among_camids is not None:
            self._need_camids("among_camids")
        asking: dict[str, list[int]] = {}
        for i, (pid, camid) in enumerate(zip(q_pids.tolist(), q_camids.tolist(), strict=True)):
            terms = [f"pid != {JUNK_PID}"] if exclude_junk else []
            if among_camids is not None:
                terms.append(f"camid in {sorted(map(int, among_camids))}")
            if other_cameras:
                terms.append(f"camid != {camid}")
            elif exclude_junk:
                terms.append(f"(pid != {pid} or camid != {camid})")
            asking.setdefault(" and ".join(terms), []).append(i)
        indices = np.full((len(rows), k), -1, np.int64)
        distances = np.full((len(rows), k), np.inf, np.float32)
        for condition, numbers in asking.items():
            for some in _slices(len(numbers), _QUERIES_AT_ONCE):
                with self._speaking():
                    found = self._client.search(
                        self._collection, data=list(rows[numbers[some]]), limit=k, filter=condition
                    )
                for i, hits in zip(numbers[some], found, strict=True):
                    scores = np.array([hit["distance"] for hit in hits], np.float32)
                    to_rows = np.float32(1) - scores if self.metric == "cosine" else scores
                    hit_rows = np.array([hit["row"] for hit in hits], np.int64)
                    order = np.lexsort([hit_rows, to_rows])
                    indices[i, : len(hits)], distances[i, : len(hits)] = hit_rows[order], to_rows[order]
        return Neighbours(indices, distances)

    def _need_camids(self, option: str) -> None:
        condition = f"camid == {UNLABELLED}"
        if unlabelled := self._query(condition, ["row", "path"], limit=_ROWS_AT_ONCE):
            first = min(unlabelled, key=lambda record: int(record["row"]))
            count = self._count(condition)
            raise missing_labels(option, "camid", count, len(self), first["row"], first["path"])

    def _next_row(self) -> int:
        """One more than the last row's number; as a rule that is their count, so nothing has to be read."""
        row = len(self)
        while later := self._query(f"row >= {row}", ["row"], limit=_ROWS_AT_ONCE):
            row = 1 + max(record["row"] for record in later)
        return row

    def _rows_of(self, paths: Iterable[str]) -> dict[str, int]:
        """The numbers of the rows that have one of these paths."""
        if not (texts := list(paths)):
            return {}
        records = self._query(f"path in {json.dumps(texts, ensure_ascii=False)}", ["row", "path"])
        return {record["path"]: record["row"] for record in records}

    def _count(self, condition: str) -> int:
        return int(self._query(condition, ["count(*)"])[0]["count(*)"])

    def _query(self, condition: str, fields: list[str], limit: int | None = None) -> list[dict[str, Any]]:
        with self._speaking():
            return list(self._client.query(self._collection, condition, fields, limit=limit))

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """What Milvus refuses becomes an InputError."""
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            raise InputError(f"{self._address}: Milvus says: {error.message}") from error


def _check_keys(paths: Sequence[str]) -> None:
    """Paths that stand for one row each, and that Milvus can store."""
    seen = set()
    for path in filter(None, paths):
        if path in seen:
            raise InputError(f"{path}: the path is there twice, but in Milvus it stands for one row.")
        seen.add(path)
        try:
            size = len(path.encode())
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path!r}: the path is not UTF-8, which Milvus cannot store. Rename it."
            ) from error
        if size > _MAX_PATH_BYTES:
            raise InputError(f"{path[:40]}…: the path has {size} bytes, Milvus stores {_MAX_PATH_BYTES}.")


def _is_file(address: str) -> bool:
    return "://" not in address


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
