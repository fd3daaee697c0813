"""Just enough of a sparse matrix for re-ranking; importing it needs numba."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reidruntime.compiled import compiled

from reidexport.metrics.kernels.row_threads import OverRows

Ints = npt.NDArray[np.int64]


class SparseRows(NamedTuple):
    """Rows of (column, value) pairs, in no order: row i is ``columns[starts[i]:starts[i + 1]]``."""

    starts: Ints
    columns: npt.NDArray[np.int32]
    values: npt.NDArray[np.floating[Any]]


def empty_rows(lengths: Ints, dtype: npt.DTypeLike) -> SparseRows:
    """Rows of these lengths, to be written."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return SparseRows(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], dtype))


def mean_of_rows(rows: SparseRows, groups: npt.NDArray[np.int32], over_rows: OverRows) -> SparseRows:
    """Local query expansion: row i becomes the mean of the rows ``groups[i]``, of a square matrix."""
    lengths = np.empty(len(groups), np.int64)
    over_rows(partial(_count_columns, rows, groups, lengths), len(groups))
    mean = empty_rows(lengths, rows.values.dtype)
    over_rows(partial(_take_mean, rows, groups, mean), len(groups))
    return mean


@compiled
def _count_columns(rows, groups, lengths, begin, end):  # type: ignore[no-untyped-def]
    seen_by = np.full(len(groups), -1, np.int32)
    for i in range(begin, end):
        lengths[i] = 0
        for row in groups[i]:
            for column in rows.columns[rows.starts[row] : rows.starts[row + 1]]:
                lengths[i] += seen_by[column] != i
                seen_by[column] = i


@compiled
def _take_mean(rows, groups, mean, begin, end):  # type: ignore[no-untyped-def]
    seen_by, total = np.full(len(groups), -1, np.int32), np.empty(len(groups))
    for i in range(begin, end):
        entry = mean.starts[i]
        for row in groups[i]:
            for k in range(rows.starts[row], rows.starts[row + 1]):
                column = rows.columns[k]
                if seen_by[column] != i:
                    seen_by[column], total[column] = i, 0
                    mean.columns[entry] = column
                    entry += 1
                total[column] += rows.values[k]
        for k in range(mean.starts[i], entry):
            mean.values[k] = total[mean.columns[k]] / groups.shape[1]


def transposed(rows: SparseRows, first_row: int) -> SparseRows:
    """The rows from ``first_row`` on of a square matrix, transposed; row numbers are counted from there."""
    columns = rows.columns[rows.starts[first_row] :]
    result = empty_rows(np.bincount(columns, minlength=len(rows.starts) - 1), rows.values.dtype)
    _transpose(rows, first_row, result, result.starts[:-1].copy())
    return result


@compiled
def _transpose(rows, first_row, result, next_entry):  # type: ignore[no-untyped-def]
    for row in range(first_row, rows.starts.size - 1):
        for k in range(rows.starts[row], rows.starts[row + 1]):
            entry = next_entry[rows.columns[k]]
            next_entry[rows.columns[k]] += 1
            result.columns[entry], result.values[entry] = row - first_row, rows.values[k]


@compiled
def add_jaccard(rows, holders, share, distmat, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of ``distmat``, (num_rows, num_columns): add ``share`` times the Jaccard distance.

    The first of ``rows``, each of which sums to 1, are those of the matrix; ``holders`` are its columns, transposed.
    """
    overlap = np.empty(distmat.shape[1])
    for i in range(begin, end):
        overlap[:] = 0
        for k in range(rows.starts[i], rows.starts[i + 1]):
            column, value = rows.columns[k], rows.values[k]
            for entry in range(holders.starts[column], holders.starts[column + 1]):
                overlap[holders.columns[entry]] += min(value, holders.values[entry])
        for j in range(overlap.size):
            # Both rows sum to 1, so the sum of the larger values is 2 - overlap.
            distmat[i, j] += share * (1 - overlap[j] / (2 - overlap[j]))
