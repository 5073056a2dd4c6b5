"""Velocities on the constraints of a molecular system."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

FEW_CONSTRAINTS = 60
"""Up to so many, full matrices are faster than sparse ones."""


def project_on_constraints(velocities, positions, inverse_masses, pairs):
    r"""Remove the components of velocities that would change constrained distances.

    :math:`v - M^{-1} J^T \lambda` with :math:`J M^{-1} J^T \lambda = J v`; the rows of the sparse matrix J are the
    derivatives of the constrained distances. Equals OpenMM's ``applyVelocityConstraints`` without its tolerance.

    Parameters
    ----------
    velocities, positions : numpy.ndarray, shape (n_atoms, 3)
    inverse_masses : numpy.ndarray, shape (n_atoms,)
    pairs : numpy.ndarray of int, shape (n_constraints, 2)
        atoms at constrained distances

    Returns
    -------
    numpy.ndarray, shape (n_atoms, 3)
    """
    if len(pairs) == 0:
        return velocities
    bonds = np.asarray(positions, dtype=np.float64)[pairs[:, 0]] - np.asarray(positions, dtype=np.float64)[pairs[:, 1]]
    bonds /= np.linalg.norm(bonds, axis=1, keepdims=True)
    if len(pairs) <= FEW_CONSTRAINTS:
        jacobian = np.zeros((len(pairs), len(velocities), 3))
        rows = np.arange(len(pairs))
        jacobian[rows, pairs[:, 0]], jacobian[rows, pairs[:, 1]] = bonds, -bonds
        jacobian = jacobian.reshape(len(pairs), -1)
        weighted = (jacobian * np.repeat(inverse_masses, 3)).T
        solve = _solve_or_nan
    else:
        columns = (3 * pairs[:, :, None] + np.arange(3)).reshape(-1)
        entries = np.hstack([bonds, -bonds]).reshape(-1)
        jacobian = csr_matrix((entries, columns, np.arange(0, len(entries) + 1, 6)), shape=(len(pairs), velocities.size))
        weighted = jacobian.multiply(np.repeat(inverse_masses, 3)).T.tocsc()
        solve = spsolve
    multipliers = solve(jacobian @ weighted, jacobian @ velocities.reshape(-1))
    return velocities - (weighted @ multipliers).reshape(velocities.shape)


def _solve_or_nan(matrix, right_side):
    try:
        return np.linalg.solve(matrix, right_side)
    except np.linalg.LinAlgError:  # as spsolve does
        return np.full_like(right_side, np.nan)
