"""Rows of a gallery as Milvus keeps them: a record each, with a number, an embedding and labels."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from reidruntime.errors import InputError

from reidgallery.input import LabeledRows, RowLabels
from reidgallery.milvus.collection import MAX_PATH_BYTES
from reidgallery.rows import Features, Ints

Records = list[dict[str, Any]]


def check_paths(paths: Iterable[str]) -> None:
    """Raise InputError unless the paths stand for one row each, and Milvus can store them."""
    seen = set()
    for path in filter(None, paths):
        if path in seen:
            raise InputError(f"{path}: the path occurs twice, but in Milvus it stands for one row.")
        seen.add(path)
        try:
            size = len(path.encode())
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path!r}: the path is not UTF-8, which Milvus cannot store. Rename it."
            ) from error
        if size > MAX_PATH_BYTES:
            raise InputError(f"{path[:40]}…: the path has {size} bytes, Milvus stores {MAX_PATH_BYTES}.")


def numbers_of(records: Records) -> Ints:
    """The numbers of the rows, int64."""
    return np.array([record["row"] for record in records], np.int64)


def embeddings_of(records: Records, dim: int) -> Features:
    """Their embeddings: float32, shape (len(records), dim)."""
    return np.array([record["embedding"] for record in records], np.float32).reshape(-1, dim)


def labels_of(records: Records) -> RowLabels:
    """Their labels."""
    pids, camids, times = (
        np.array([record[name] for record in records], np.int64) for name in ("pid", "camid", "time")
    )
    return RowLabels(pids, camids, times, [record["path"] for record in records])


def records_of(part: LabeledRows, numbers: Sequence[int]) -> Records:
    """The rows of a part, which get these numbers."""
    # Lists are half as fast again as arrays.
    arrays = part.embeddings, part.pids, part.camids, part.times
    columns = (numbers, *(array.tolist() for array in arrays), part.paths)
    names = ("row", "embedding", "pid", "camid", "time", "path")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
