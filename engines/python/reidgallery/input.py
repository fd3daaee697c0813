"""What a gallery accepts, wherever it keeps its rows; every check raises InputError, which states what was expected."""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from reidruntime.errors import InputError

from reidgallery.rows import Features, Floats64, Ints, Metric, row_norms

UNLABELED = -2  # a pid, camid or time that is not known; equal to no other
JUNK_PID = -1
_LOWEST = {"pids": JUNK_PID, "camids": 0, "times": 0}


@dataclass(frozen=True)
class SearchFilter:
    """Which rows of a gallery a query may find; by default all.

    Attributes:
        other_cameras: leave out rows of the query's own camera; needs the camid of every query and row.
        exclude_junk: leave out what evaluation ignores: pid -1, and the query's person seen by its camera; needs the
            pid of every row, the camid of those of a person, and both of every query.
        among_camids: only rows of these cameras; needs the camid of every row.
        since: only rows of this time or later; needs the time of every row.
        until: only rows of this time or earlier; likewise.
    """

    other_cameras: bool = False
    exclude_junk: bool = False
    among_camids: Collection[int] | None = None
    since: int | None = None
    until: int | None = None

    def needed_labels(self) -> list["NeededLabel"]:
        """The labels that every row must have."""
        is_needed = {
            NeededLabel("other_cameras", "camid"): self.other_cameras,
            NeededLabel("exclude_junk", "pid"): self.exclude_junk,
            NeededLabel("exclude_junk", "camid", of_persons=True): self.exclude_junk,
            NeededLabel("among_camids", "camid"): self.among_camids is not None,
            NeededLabel("A time window", "time"): (self.since, self.until) != (None, None),
        }
        return [label for label, needed in is_needed.items() if needed]


ALL_ROWS = SearchFilter()


class RowLabels(NamedTuple):
    """What is known of some rows beside their embeddings: pids, camids and times, int64, and paths."""

    pids: Ints
    camids: Ints
    times: Ints
    paths: list[str]


class LabeledRows(NamedTuple):
    """Some rows of a gallery: float32 of shape (n, dim), with n pids, camids, times and paths."""

    embeddings: Features
    pids: Ints
    camids: Ints
    times: Ints
    paths: Sequence[str]

    def of(self, some: slice) -> "LabeledRows":
        """Some of them."""
        ids = self.pids[some], self.camids[some], self.times[some]
        return LabeledRows(self.embeddings[some], *ids, self.paths[some])

    def where(self, kept: npt.NDArray[np.bool_]) -> "LabeledRows":
        """Those for which ``kept``, (n,), is true."""
        ids = self.pids[kept], self.camids[kept], self.times[kept]
        return LabeledRows(self.embeddings[kept], *ids, list(compress(self.paths, kept)))


class Forgotten(NamedTuple):
    """Whom a gallery has forgotten: persons by pid, and images by path. Who imports again leaves them out.

    Attributes:
        pids: the persons.
        paths: of images that were forgotten by path.
        pid_paths: (pid, path) of each image that was removed with its person, who is found by it without labels, too.
    """

    pids: frozenset[int] = frozenset()
    paths: frozenset[str] = frozenset()
    pid_paths: frozenset[tuple[int, str]] = frozenset()

    @property
    def all_paths(self) -> frozenset[str]:
        """Of all images, forgotten by path or with their persons."""
        return self.paths | {path for _, path in self.pid_paths}

    def among(self, rows: LabeledRows) -> npt.NDArray[np.bool_]:
        """Which of n rows are on the list: bool, (n,)."""
        return np.isin(rows.pids, sorted(self.pids)) | are_among(rows.paths, self.all_paths)

    def __or__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(self.pids | other.pids, self.paths | other.paths, self.pid_paths | other.pid_paths)

    def __sub__(self, other: "Forgotten") -> "Forgotten":
        """Without the other's persons, all their images, and the other's images."""
        gone = other.all_paths
        pid_paths = {
            (pid, path) for pid, path in self.pid_paths if pid not in other.pids and path not in gone
        }
        return Forgotten(self.pids - other.pids, self.paths - gone, frozenset(pid_paths))


NOBODY_FORGOTTEN = Forgotten()


def are_among(paths: Sequence[str], wanted: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which of n paths are among others: bool, (n,)."""
    return np.fromiter((path in wanted for path in paths), np.bool_, len(paths))


class NeededLabel(NamedTuple):
    """A label (``pid``, ``camid`` or ``time``) that an option of a filter compares.

    With ``of_persons`` only rows of a person need it: junk is junk in any camera, and a distractor is nobody's match.
    """

    option: str
    name: str
    of_persons: bool = False


class Queries(NamedTuple):
    """Queries that have been checked: float32, (num_query, D), their norms, and labels, ``UNLABELED`` if not known."""

    rows: Features
    norms: Floats64
    pids: Ints
    camids: Ints


def check_dim_and_metric(dim: int, metric: str) -> None:
    """At least one dimension, and a metric that is known."""
    if dim < 1:
        raise InputError(f"dim must be at least 1, got {dim}.")
    if metric not in get_args(Metric):
        raise InputError(f"The metric must be cosine or euclidean, got {metric!r}.")


def checked_features(
    features: npt.ArrayLike, dim: int, name: str, paths: Sequence[str] | None = None
) -> tuple[Features, Floats64]:
    """Float32 of shape (N, dim), contiguous; and the norms of the rows."""
    array = np.asarray(features)
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != dim:
        raise InputError(
            f"{name} must be float32 of shape (N, {dim}), got {array.dtype} of shape {array.shape}."
        )
    rows = np.ascontiguousarray(array)
    return rows, row_norms(rows, name, paths)


def checked_integers(numbers: npt.ArrayLike, name: str, length: int) -> Ints:
    """That many integers as int64."""
    array = np.asarray(numbers)
    if array.shape != (length,) or (array.dtype.kind not in "iu" and length):
        raise InputError(f"{name} must be {length} integers, got {array.dtype} of shape {array.shape}.")
    if length and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} must be less than 2**63, got {array.max()}.")
    return array.astype(np.int64)


def checked_ids(ids: npt.ArrayLike | None, name: str, length: int) -> Ints:
    """That many pids, camids or times, by ``name``, as int64; ``UNLABELED`` where none are given."""
    if ids is None:
        return np.full(length, UNLABELED, np.int64)
    array, lowest = checked_integers(ids, name, length), _LOWEST[name]
    if bad := array[(array < lowest) & (array != UNLABELED)].tolist():
        raise InputError(f"{name} must be at least {lowest}, or UNLABELED ({UNLABELED}), got {bad[0]}.")
    return array


def checked_paths(paths: Sequence[str] | None, length: int) -> list[str]:
    """That many texts; empty ones where none are given."""
    texts = [""] * length if paths is None else [str(path) for path in paths]
    if len(texts) != length:
        raise InputError(f"paths must be {length} texts, got {len(texts)}.")
    try:
        os.fsencode("".join(texts))  # as a file of a gallery keeps them
    except UnicodeEncodeError as error:
        bad = next(text for text in texts if error.object[error.start] in text)
        raise InputError(f"paths must be text that can name a file, got {bad!r}. Rename it.") from error
    return texts


def checked_rows(
    dim: int,
    embeddings: npt.ArrayLike,
    pids: npt.ArrayLike | None,
    camids: npt.ArrayLike | None,
    times: npt.ArrayLike | None,
    paths: Sequence[str] | None,
) -> tuple[LabeledRows, Floats64]:
    """Rows of that dimension to be added, with labels, not known where none are given; and their norms."""
    rows, norms = checked_features(embeddings, dim, "embeddings", paths)
    labels = RowLabels(
        checked_ids(pids, "pids", len(rows)),
        checked_ids(camids, "camids", len(rows)),
        checked_ids(times, "times", len(rows)),
        checked_paths(paths, len(rows)),
    )
    return LabeledRows(rows, *labels), norms


def check_removed_pids(pids: Collection[int]) -> list[int]:
    """Persons, or -1 for junk: rows whose person is not known cannot be removed by pid."""
    removed = sorted({int(pid) for pid in pids})
    if removed and removed[0] < JUNK_PID:
        raise InputError(f"pids to remove must be at least {JUNK_PID}, got {removed[0]}.")
    return removed


def missing_labels(needed: NeededLabel, count: int, total: int, row: int, path: str) -> InputError:
    """The error of a filter by labels that some rows do not have; ``row`` and ``path`` are those of the first."""
    return InputError(
        f"{needed.option} needs the {needed.name} of every row, which {count} of {total} do not have "
        f"(the first: row {row} {path}). Add the rows with {needed.name}s."
    )


class BaseGallery(ABC):
    """Embeddings of one artifact, with the person, the camera, the time and the path of each image.

    Attributes:
        dim: dimension of the embeddings.
        metric: ``cosine`` or ``euclidean``.
        manifest_sha256: of the artifact that made the embeddings; None where that is not known.
    """

    dim: int
    metric: Metric
    manifest_sha256: str | None

    @property
    @abstractmethod
    def forgotten(self) -> Forgotten:
        """Whom :meth:`forget` removed, and nobody has brought back since; :meth:`add` adds them nevertheless."""

    @abstractmethod
    def remove(self, pids: Collection[int] = (), *, paths: Collection[str] = ()) -> int:
        """Remove the rows of these persons (-1 for junk) and of these paths; returns how many there were."""

    def forget(self, pids: Collection[int] = (), *, paths: Collection[str] = ()) -> int:
        """As :meth:`remove`, and put them on the list of the forgotten, where a repeated import finds them.

        A person's images are listed by their paths, too: the import may not know whose they are.

        Raises:
            InputError: a pid is less than -1.
        """
        removed = check_removed_pids(pids)
        pid_paths = frozenset((pid, path) for pid, path in self._paths_by_pid(removed) if path)
        self.list_forgotten(Forgotten(frozenset(removed), frozenset(paths) - {""}, pid_paths))
        return self.remove(pids, paths=paths)

    @abstractmethod
    def bring_back(self, listed: Forgotten) -> None:
        """Take persons, with their images, and paths off the list of the forgotten; their rows must be added anew."""

    @abstractmethod
    def list_forgotten(self, added: Forgotten) -> None:
        """Put persons and paths on the list of the forgotten, as another gallery has it; no row is removed."""

    @abstractmethod
    def _paths_by_pid(self, pids: Sequence[int]) -> Iterable[tuple[int, str]]:
        """The pid and the path of each row of these persons."""

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
        """Append rows, which are kept as they are, not normalized.

        Args:
            embeddings: float32, shape (N, dim).
            pids: N integers from -1; default: not known.
            camids: N integers from 0; default: not known.
            times: N integers from 0 of any one clock, such as milliseconds since 1970 (UTC) or frames; default: not
                known.
            paths: N paths; default: none.
            manifest_sha256: of the artifact that made them; None leaves the check to the caller.

        Raises:
            InputError: shapes, labels or artifacts do not fit; nothing has been added then.
        """
        rows, norms = checked_rows(self.dim, embeddings, pids, camids, times, paths)
        self.check_artifact(manifest_sha256, "embeddings")
        self._add(rows, norms)

    @abstractmethod
    def _add(self, rows: LabeledRows, norms: Floats64) -> None:
        """Append rows that have been checked."""

    def check_artifact(self, manifest_sha256: str | None, name: str = "queries") -> None:
        """Raise InputError if both artifacts are known and differ; ``name`` is what the other one made."""
        known = self.manifest_sha256
        if manifest_sha256 is not None and known is not None and manifest_sha256 != known:
            raise InputError(
                f"{name} were made by another artifact than this gallery's (manifest {manifest_sha256[:12]}…, expected "
                f"{known[:12]}…), or with another camera profile: their distances mean nothing. Embed both with the "
                "same files."
            )

    def _check_metric(self, other: "BaseGallery") -> None:
        """Raise InputError for a gallery that compares by another metric."""
        if other.metric != self.metric:
            raise InputError(f"This gallery compares by {self.metric}, the other one by {other.metric}.")

    def _checked_queries(
        self,
        queries: npt.ArrayLike,
        k: int,
        filter: SearchFilter,
        pids: npt.ArrayLike | None,
        camids: npt.ArrayLike | None,
        manifest_sha256: str | None,
    ) -> Queries:
        """The arguments of a search for k rows each, with the labels that the filter compares."""
        rows, norms = checked_features(queries, self.dim, "queries")
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}.")
        q_pids, q_camids = checked_ids(pids, "pids", len(rows)), checked_ids(camids, "camids", len(rows))
        if filter.since is not None and filter.until is not None and filter.since > filter.until:
            raise InputError(f"since must not be after until, got {filter.since} and {filter.until}.")
        has_no_camid = q_camids == UNLABELED
        if filter.other_cameras and has_no_camid.any():
            raise InputError("other_cameras needs the camids of the queries.")
        if filter.exclude_junk and (has_no_camid | (q_pids == UNLABELED)).any() and not filter.other_cameras:
            raise InputError("exclude_junk needs the pids and camids of the queries.")
        self.check_artifact(manifest_sha256)
        for needed in filter.needed_labels():
            self._check_needed_label(needed)
        return Queries(rows, norms, q_pids, q_camids)

    @abstractmethod
    def _check_needed_label(self, needed: NeededLabel) -> None:
        """Raise InputError where some rows do not have it."""
