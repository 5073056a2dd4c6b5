r"""Weights of samples from many ensembles with unknown normalisations.

Sample i was drawn with the density :math:`\mu(X) S_k(X) / Z_k` of its ensemble k. The most precise estimate of
:math:`\mu` gives it the weight (M. R. Shirts, J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), doi:10.1063/1.2978177)

.. math::  W_i = \frac{c_i}{\sum_k N_k S_k(X_i) / Z_k}, \qquad Z_k = \sum_i W_i S_k(X_i).

With :math:`f_k = -\ln Z_k` these are the conditions for the minimum of the convex function

.. math::  \sum_i c_i \ln \sum_k N_k S_k(X_i) e^{f_k} - \sum_k N_k f_k, \qquad N_k = \sum_{i \in k} c_i .
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

CONVERGED = 1e-9
"""Largest relative deviation from self-consistency."""

UNLINKED = (
    "no excursion links some of the ensembles with the others, or next to none: their normalisations are undetermined. Run "
    "longer free runs, or shoot closer to the states"
)


def normalisations(log_s: np.ndarray, counts: np.ndarray, ensemble: np.ndarray, start=None) -> np.ndarray:
    """f = -ln Z of each ensemble, by Newton's method with step control.

    Parameters
    ----------
    log_s : array, shape (n, n_ensembles)
        ln S_k(X_i); -inf where ensemble k does not hold sample i.
    counts : array, shape (n,)
        c_i, scaled so that those of each ensemble sum to its effective number of samples.
    ensemble : int array, shape (n,)
        Ensemble of each sample.
    start : array, shape (n_ensembles,), optional

    Returns
    -------
    array, shape (n_ensembles,)
        The first is 0; NaN for ensembles without samples.

    Raises
    ------
    ValueError
        If no sample links some ensembles with the others.
    """
    sizes = np.bincount(ensemble, counts, minlength=log_s.shape[1])
    used = np.flatnonzero(sizes > 0)
    rows = counts > 0
    scaled = log_s[np.ix_(rows, used)] + np.log(sizes[used])
    peaks = scaled.max(axis=1, keepdims=True)
    scaled = np.exp(scaled - peaks)
    held = np.isfinite(log_s[np.ix_(rows, used)]).astype(float)
    if connected_components(csr_matrix(held.T @ held))[0] > 1:
        raise ValueError(UNLINKED)
    c, n = counts[rows], sizes[used]
    f = np.zeros(len(used)) if start is None else np.asarray(start, dtype=float)[used]
    f = f - f[0]

    constant = c @ peaks[:, 0]

    def evaluate(f):
        factors = np.exp(f - f.max())
        parts = scaled * factors
        totals = parts.sum(axis=1)
        return c @ np.log(totals) + c.sum() * f.max() + constant - n @ f, parts / totals[:, None]

    value, shares = evaluate(f)
    for _ in range(200):
        gradient = c @ shares - n
        if np.abs(gradient / n).max() < CONVERGED:
            break
        hessian = np.diag(c @ shares) - (shares.T * c) @ shares
        step = np.zeros(len(f))
        damping = 1e-12 * np.trace(hessian) * np.eye(len(f) - 1)
        step[1:] = -np.linalg.solve(hessian[1:, 1:] + damping, gradient[1:]) if len(f) > 1 else 0
        step *= min(1.0, 20 / max(np.abs(step).max(), 1e-300))
        while True:
            new, new_shares = evaluate(f + step)
            if new <= value + 1e-10 * abs(value) or np.abs(step).max() < 1e-12:
                break
            step = step / 2
        f, value, shares = f + step, new, new_shares
    else:
        raise ValueError(UNLINKED)
    found = np.full(log_s.shape[1], np.nan)
    found[used] = f
    return found


def shares(log_s: np.ndarray, sizes: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln of the denominators of the weights (n,), and the share of each ensemble in them (n, n_ensembles)."""
    with np.errstate(divide="ignore"):
        terms = log_s + np.log(sizes) + np.where(sizes > 0, f, 0.0)
    peaks = terms.max(axis=1, keepdims=True)
    parts = np.exp(terms - peaks)
    totals = parts.sum(axis=1, keepdims=True)
    return (np.log(totals) + peaks)[:, 0], parts / totals
