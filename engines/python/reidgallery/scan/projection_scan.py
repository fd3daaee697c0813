"""Inner products in fewer dimensions, with a bound on what the others can add.

ReID features lie almost entirely along a few hundred directions. With an orthonormal basis V of these, a row x is
``V p + residual``; the inner product of two rows is that of their p, more or less ``|q_residual| * |g_residual|``.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidgallery.scan.blas_threads import single_threaded_blas

Features = NDArray[np.float32]
Floats64 = NDArray[np.float64]

NUM_SAMPLED = 4096  # rows that the basis is made from
# Of the mean squared norm: left out where the dimensions suffice; more would leave too many rows to look at closely.
_RESIDUAL, _MAX_RESIDUAL = 0.025, 0.06
# The basis has a multiple of _STEP vectors, at most _MAX_RANK and half of the dimensions.
_STEP, _MAX_RANK = 32, 512
_NUM_POWERS = 2
_ROWS_AT_ONCE = 256
# Of a squared norm: what rounding in float64 can have taken from it.
_SLACK = 1e-11


class ProjectedRows(NamedTuple):
    """Rows along a basis.

    Attributes:
        basis: float64, (D, R): orthonormal columns.
        rows: float32, (N, R): the rows along it.
        residuals: float64, (N,): at least the norm of what the basis leaves out.
    """

    basis: Floats64
    rows: Features
    residuals: Floats64


@single_threaded_blas()  # more threads take 30 times as long for these factorizations
def principal_basis(sample: Features) -> Floats64 | None:
    """The directions in which rows extend most, by randomized subspace iteration (Halko et al., 2011, algorithm 4.4).

    Args:
        sample: (n, D), rows of unit norm.

    Returns:
        float64, (D, R), orthonormal columns; None where so many leave out too much.
    """
    largest = min(sample.shape[1] // 2, _MAX_RANK, len(sample)) // _STEP * _STEP
    if not largest:
        return None
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((sample.shape[1], largest), np.float32)
    for _ in range(1 + _NUM_POWERS):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    coordinates = sample @ basis
    energies, rotation = np.linalg.eigh(coordinates.T.astype(np.float64) @ coordinates)
    residuals = 1 - np.cumsum(energies[::-1]) / np.square(sample, dtype=np.float64).sum()
    if residuals[-1] > _MAX_RESIDUAL:
        return None
    rank = min(largest, _STEP * (1 + int(np.count_nonzero(residuals[_STEP - 1 :: _STEP] > _RESIDUAL))))
    # Rotated at random, so that rows extend about as far along every vector: their codes in 8 bits then lose least.
    rotated = rotation[:, ::-1][:, :rank] @ np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    # In float64 the columns are orthonormal to 1e-15: the bound takes them to be.
    principal: Floats64 = np.linalg.qr(basis.astype(np.float64) @ rotated)[0]
    return principal


def project(rows: Features, norms: Floats64, basis: Floats64, threads: int) -> ProjectedRows:
    """Rows (n, D) of these norms along a basis (D, R)."""
    projected = ProjectedRows(basis, np.empty((len(rows), basis.shape[1]), np.float32), np.empty(len(rows)))

    def project_some(start: int) -> None:
        some = slice(start, start + _ROWS_AT_ONCE)
        along = rows[some].astype(np.float64) @ basis
        squares = norms[some] ** 2
        left = np.maximum(squares - np.einsum("nr,nr->n", along, along), 0) + _SLACK * squares
        projected.rows[some], projected.residuals[some] = along, np.sqrt(left)

    with single_threaded_blas(), ThreadPoolExecutor(threads, "project") as workers:
        list(workers.map(project_some, range(0, len(rows), _ROWS_AT_ONCE)))
    return projected
