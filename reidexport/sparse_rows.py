"""Just enough of a sparse matrix for re-ranking: rows of (column, value) pairs in three arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reidexport.distances import Floats

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SparseRows:
    """Rows of (column, value) pairs: row i is ``columns[starts[i]:starts[i + 1]]``."""

    starts: Indices
    columns: Indices
    values: Floats


def mean_of_rows(encoding: SparseRows, neighbours: Indices) -> SparseRows:
    """Local query expansion: each row becomes the mean of its neighbours' rows, ``neighbours`` (N, k2)."""
    num_images, k2 = neighbours.shape
    counts, columns, values = [], [], []
    for start in range(0, num_images, 4096):
        part = neighbours[start : start + 4096]
        entries, owner = entries_of(encoding, part.ravel())
        keys, place = np.unique(owner // k2 * num_images + encoding.columns[entries], return_inverse=True)
        counts.append(np.bincount(keys // num_images, minlength=len(part)))
        columns.append(keys % num_images)
        values.append((np.bincount(place, encoding.values[entries]) / k2).astype(encoding.values.dtype))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return SparseRows(starts, np.concatenate(columns), np.concatenate(values))


def entries_of(sparse: SparseRows, rows: npt.NDArray[Any]) -> tuple[Indices, Indices]:
    """Positions of all entries of the rows, row by row, and which of ``rows`` each belongs to."""
    lengths = sparse.starts[rows + 1] - sparse.starts[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    first = np.cumsum(lengths) - lengths
    return np.arange(len(owner)) - first[owner] + sparse.starts[rows][owner], owner


def transposed(sparse: SparseRows, first_row: int) -> SparseRows:
    """The rows from ``first_row`` on, transposed; row numbers are counted from there."""
    num_rows = len(sparse.starts) - 1
    begin = sparse.starts[first_row]
    row = np.repeat(np.arange(num_rows - first_row), np.diff(sparse.starts[first_row:]))
    order = np.argsort(sparse.columns[begin:], kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(sparse.columns[begin:], minlength=num_rows))])
    return SparseRows(starts, row[order], sparse.values[begin:][order])
