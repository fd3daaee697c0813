"""Products along a basis: what it leaves out is bounded."""

import numpy as np
from reidgallery.rows import row_norms
from reidgallery.scan.projection_scan import principal_basis, project


def test_what_a_projection_leaves_out_is_bounded() -> None:
    """Inner products along the basis are off by at most the product of the residuals; noise has no basis."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((500, 120)) @ (np.eye(120) * np.geomspace(1, 0.001, 120))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    basis = principal_basis(unit)
    assert basis is not None
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-14)
    projected = project(unit, row_norms(unit, "rows"), basis, 2)
    exact = unit.astype(np.float64)
    residuals = np.linalg.norm(exact - exact @ basis @ basis.T, axis=1)
    np.testing.assert_allclose(projected.residuals, residuals, atol=4e-6)
    assert (projected.residuals >= residuals - 1e-15).all()
    along = projected.rows.astype(np.float64)
    off = np.abs(exact @ exact.T - along @ along.T)
    assert (off <= np.outer(projected.residuals, projected.residuals) + 4 * 2.0**-24).all()
    assert principal_basis(rng.standard_normal((500, 120)).astype(np.float32) / 11) is None
