"""Inner products in fewer dimensions, with a bound on what the others can add.

ReID features have most of their length in a few hundred directions. Along an orthonormal basis V of these, a row x is
``V p + rest``; the inner product of two rows is that of their p, and at most ``|q_rest| * |g_rest|`` more or less.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidgallery.scan.blas_threads import single_threaded_blas

Features = NDArray[np.float32]
Floats64 = NDArray[np.float64]

NUM_SAMPLED = 4096  # rows that the basis is made from
# Of the mean squared length: left out where the dimensions suffice; more would leave too many rows to look at closely.
_REST, _MAX_REST = 0.025, 0.06
_STEP, _MOST = (
    32,
    512,
)  # the basis has a multiple of so many vectors, and at most so many, or half of the dimensions
_NUM_POWERS = 2
_ROWS_AT_ONCE = 256
# Of a squared length: what rounding in float64 can have taken from it.
_SLACK = 1e-11


class ProjectedRows(NamedTuple):
    """Rows along a basis.

    Attributes:
        basis: float64, (D, R): orthonormal columns.
        rows: float32, (N, R): the rows along it.
        rests: float64, (N,): at least the length of what the basis leaves out.
    """

    basis: Floats64
    rows: Features
    rests: Floats64


def principal_basis(sample: Features) -> Floats64 | None:
    """The directions in which rows are longest, by randomized subspace iteration (Halko et al., 2011, algorithm 4.4).

    Args:
        sample: (n, D), rows of unit length.

    Returns:
        float64, (D, R), orthonormal columns; None where so many leave out too much.
    """
    largest = min(sample.shape[1] // 2, _MOST, len(sample)) // _STEP * _STEP
    if not largest:
        return None
    with single_threaded_blas():  # more threads take 30 times as long for these factorizations
        return _principal_basis(sample, largest)


def _principal_basis(sample: Features, largest: int) -> Floats64 | None:
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((sample.shape[1], largest), np.float32)
    for _ in range(1 + _NUM_POWERS):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    coordinates = sample @ basis
    energies, rotation = np.linalg.eigh(coordinates.T.astype(np.float64) @ coordinates)
    rests = 1 - np.cumsum(energies[::-1]) / np.square(sample, dtype=np.float64).sum()
    if rests[-1] > _MAX_REST:
        return None
    rank = min(largest, _STEP * (1 + int(np.count_nonzero(rests[_STEP - 1 :: _STEP] > _REST))))
    # Turned at random, so that rows are about as long along every vector: their codes in 8 bits then lose least.
    turned = rotation[:, ::-1][:, :rank] @ np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    # In float64 the columns are orthonormal to 1e-15: the bound takes them to be.
    principal: Floats64 = np.linalg.qr(basis.astype(np.float64) @ turned)[0]
    return principal


def project(rows: Features, lengths: Floats64, basis: Floats64, threads: int) -> ProjectedRows:
    """Rows (n, D) of these lengths along a basis (D, R)."""
    projected = ProjectedRows(basis, np.empty((len(rows), basis.shape[1]), np.float32), np.empty(len(rows)))

    def project_some(start: int) -> None:
        some = slice(start, start + _ROWS_AT_ONCE)
        along = rows[some].astype(np.float64) @ basis
        squares = lengths[some] ** 2
        left = np.maximum(squares - np.einsum("nr,nr->n", along, along), 0) + _SLACK * squares
        projected.rows[some], projected.rests[some] = along, np.sqrt(left)

    with single_threaded_blas(), ThreadPoolExecutor(threads, "project") as workers:
        list(workers.map(project_some, range(0, len(rows), _ROWS_AT_ONCE)))
    return projected
