r"""Regressions that need no search: the score test of all single terms and all products of two inputs.

They say which of many inputs are worth a search, and what the inputs tell of the outcomes, whatever a search has found.

With the standardised inputs Z, one matrix product :math:`Z^\top \mathrm{diag}(r)\,Z` gives the score of every product
:math:`z_i z_j`, and :math:`(Z^2)^\top \mathrm{diag}(W)\,Z^2` its information. The best terms enter a logistic
regression, and its residuals are screened again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.logistic_regression import logistic_regression
from ops_aimmd.explain.formulas.archive import most_constants
from ops_aimmd.explain.formulas.constants import Shots

MOST_INPUTS = 40
"""Inputs up to which the search takes all."""

KEPT, ROUNDS, TERMS_PER_ROUND = 30, 3, 8

SHOTS_SCREENED = 30000

MOST_TERMS = 50
"""Terms of a flexible regression, the constant included."""


def screen(shots: Shots) -> list[int]:
    """Positions of the inputs that are kept, in ascending order."""
    stride = max(len(shots) // SHOTS_SCREENED, 1)
    kept: list[int] = []
    for _, strength in _regressions(shots.rows(slice(None, None, stride)), 1 + TERMS_PER_ROUND * (ROUNDS - 1)):
        new = [i for i in np.argsort(strength)[::-1] if i not in kept][: KEPT // ROUNDS]
        kept += [int(i) for i in new]
    return sorted(kept)


def flexible_log_odds(shots: Shots) -> np.ndarray:
    """Log-odds (n,) of a regression with as many terms as the shots can determine, at most `MOST_TERMS`."""
    *_, (q, _) = _regressions(shots, min(MOST_TERMS, most_constants(shots)))
    return q


def _regressions(shots: Shots, most_terms: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Log-odds (n,) of regressions of more and more terms, and what each input could still gain in nats, (d,)."""
    z = shots.columns - shots.columns.mean(axis=1, keepdims=True)
    z = z / np.maximum(z.std(axis=1, keepdims=True), 1e-300)
    rows, cols = np.triu_indices(len(z))
    terms, waiting = [np.ones(z.shape[1])], np.ones(len(z) + len(rows), dtype=bool)
    while True:
        design = np.array(terms).T
        coefficients = logistic_regression(design, shots.reached, shots.legs, np.zeros(len(terms)), ridge=1.0)
        q = design @ coefficients
        _, gradient, curvature = binomial_derivatives(q, shots.reached, shots.legs)
        single, pairs = _gains(z, -gradient, curvature)
        yield q, np.maximum(single, pairs.max(axis=1))
        gains = np.where(waiting, np.concatenate([single, pairs[rows, cols]]), 0.0)
        best = np.argsort(gains)[::-1][: min(TERMS_PER_ROUND, most_terms - len(terms))]
        best = best[gains[best] > 0]
        if not len(best):
            return
        waiting[best] = False
        terms += [z[k] if k < len(z) else z[rows[k - len(z)]] * z[cols[k - len(z)]] for k in best]


def _gains(z: np.ndarray, residual: np.ndarray, curvature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain in nats of every input and every product of two."""
    single = (z @ residual) ** 2 / (2 * np.maximum((z**2) @ curvature, 1e-300))
    information = ((z**2) * curvature) @ (z**2).T
    pairs = ((z * residual) @ z.T) ** 2 / (2 * np.maximum(information, 1e-300))
    return single, pairs
