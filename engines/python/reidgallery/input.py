"""What a gallery accepts, wherever it keeps its rows; every check raises InputError and says what it expected."""

import os
from collections.abc import Collection, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
from reidruntime.errors import InputError

from reidgallery.rows import Features, Ints, Metric

UNLABELED = -2  # a pid, camid or time that is not known; equal to no other
JUNK_PID = -1
_LOWEST = {"pids": JUNK_PID, "camids": 0, "times": 0}


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
    """That many pids, camids or times, as ``name`` says, as int64; ``UNLABELED`` where there are none."""
    if ids is None:
        return np.full(length, UNLABELED, np.int64)
    array, lowest = checked_integers(ids, name, length), _LOWEST[name]
    if bad := array[(array < lowest) & (array != UNLABELED)].tolist():
        raise InputError(f"{name} must be at least {lowest}, or UNLABELED ({UNLABELED}), got {bad[0]}.")
    return array


def check_window(since: int | None, until: int | None) -> None:
    """A window of time from ``since`` to ``until``, both within, has a first moment before its last."""
    if since is not None and until is not None and since > until:
        raise InputError(f"since must not be after until, got {since} and {until}.")


def checked_paths(paths: Sequence[str] | None, length: int) -> list[str]:
    """That many texts; empty ones where there are none."""
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
) -> tuple[Ints, Ints, Ints, list[str]]:
    """What is known of that many rows beside their embeddings."""
    return (
        checked_ids(pids, "pids", length),
        checked_ids(camids, "camids", length),
        checked_ids(times, "times", length),
        checked_paths(paths, length),
    )


def check_asked_labels(pids: Ints, camids: Ints, other_cameras: bool, exclude_junk: bool) -> None:
    """The queries have the labels that the filters compare with those of the rows."""
    if other_cameras and (camids == UNLABELED).any():
        raise InputError("other_cameras needs the camids of the queries.")
    if exclude_junk and not other_cameras and ((camids == UNLABELED) | (pids == UNLABELED)).any():
        raise InputError("exclude_junk needs the pids and camids of the queries.")


def check_removed_pids(pids: Collection[int]) -> list[int]:
    """Persons, or -1 for junk: rows whose person is not known cannot be asked for."""
    asked = sorted({int(pid) for pid in pids})
    if asked and asked[0] < JUNK_PID:
        raise InputError(f"pids to remove must be at least {JUNK_PID}, got {asked[0]}.")
    return asked


def missing_labels(option: str, name: str, count: int, total: int, row: int, path: str) -> InputError:
    """The error of a filter by labels that some rows do not have; ``row`` and ``path`` are those of the first."""
    return InputError(
        f"{option} needs the {name} of every row, which {count} of {total} do not have "
        f"(the first: row {row} {path}). Add the rows with {name}s."
    )
