"""What a gallery accepts, wherever it keeps its rows; every check raises InputError, which states what was expected."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
        needed = []
        if self.other_cameras:
            needed.append(NeededLabel("other_cameras", "camid"))
        if self.exclude_junk:
            needed.append(NeededLabel("exclude_junk", "pid"))
            needed.append(NeededLabel("exclude_junk", "camid", of_persons=True))
        if self.among_camids is not None:
            needed.append(NeededLabel("among_camids", "camid"))
        if self.since is not None or self.until is not None:
            needed.append(NeededLabel("A time window", "time"))
        return needed


ALL_ROWS = SearchFilter()


class RowLabels(NamedTuple):
    """What is known of some rows beside their embeddings: pids, camids and times, int64, and paths."""

    pids: Ints
    camids: Ints
    times: Ints
    paths: list[str]


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


def check_artifact(known: str | None, manifest_sha256: str | None, name: str) -> None:
    """Two artifacts, where both are known, are the same; ``name`` is what the other one made."""
    if manifest_sha256 is not None and known is not None and manifest_sha256 != known:
        raise InputError(
            f"{name} were made by another artifact than this gallery's (manifest {manifest_sha256[:12]}…, expected "
            f"{known[:12]}…): their distances mean nothing. Embed both with the same file."
        )


def checked_features(rows: npt.ArrayLike, dim: int, name: str) -> Features:
    """Float32 of shape (N, dim), contiguous."""
    array = np.asarray(rows)
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != dim:
        raise InputError(
            f"{name} must be float32 of shape (N, {dim}), got {array.dtype} of shape {array.shape}."
        )
    return np.ascontiguousarray(array)


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


def checked_labels(
    length: int,
    pids: npt.ArrayLike | None,
    camids: npt.ArrayLike | None,
    times: npt.ArrayLike | None,
    paths: Sequence[str] | None,
) -> RowLabels:
    """Labels of that many rows, not known where none are given."""
    return RowLabels(
        checked_ids(pids, "pids", length),
        checked_ids(camids, "camids", length),
        checked_ids(times, "times", length),
        checked_paths(paths, length),
    )


def checked_rows(
    embeddings: npt.ArrayLike,
    dim: int,
    pids: npt.ArrayLike | None,
    camids: npt.ArrayLike | None,
    times: npt.ArrayLike | None,
    paths: Sequence[str] | None,
) -> tuple[Features, Floats64, RowLabels]:
    """Rows of that dimension to be added, their norms and their labels."""
    rows = checked_features(embeddings, dim, "embeddings")
    norms = row_norms(rows, "embeddings")
    return rows, norms, checked_labels(len(rows), pids, camids, times, paths)


def checked_queries(
    queries: npt.ArrayLike,
    k: int,
    dim: int,
    filter: SearchFilter,
    pids: npt.ArrayLike | None,
    camids: npt.ArrayLike | None,
) -> Queries:
    """Rows of that dimension, to be searched for k each, with the labels that the filter compares."""
    rows = checked_features(queries, dim, "queries")
    norms = row_norms(rows, "queries")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    found = Queries(
        rows, norms, checked_ids(pids, "pids", len(rows)), checked_ids(camids, "camids", len(rows))
    )
    if filter.since is not None and filter.until is not None and filter.since > filter.until:
        raise InputError(f"since must not be after until, got {filter.since} and {filter.until}.")
    has_no_camid = found.camids == UNLABELED
    if filter.other_cameras and has_no_camid.any():
        raise InputError("other_cameras needs the camids of the queries.")
    if filter.exclude_junk and (has_no_camid | (found.pids == UNLABELED)).any() and not filter.other_cameras:
        raise InputError("exclude_junk needs the pids and camids of the queries.")
    return found


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
