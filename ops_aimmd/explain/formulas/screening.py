r"""Which of many inputs are worth a search? A screen by the score test of all single terms and all products of two inputs.

With the standardised inputs Z, one matrix product :math:`Z^\top \mathrm{diag}(r)\,Z` gives the score of every product
:math:`z_i z_j`, and :math:`(Z^2)^\top \mathrm{diag}(W)\,Z^2` its information. The best terms enter a logistic
regression, and its residuals are screened again.
"""

from __future__ import annotations

import numpy as np

from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.logistic_regression import logistic_regression
from ops_aimmd.explain.formulas.constants import Shots

MOST_INPUTS = 40
"""Inputs up to which the search takes all."""

KEPT, ROUNDS, TERMS_PER_ROUND = 30, 3, 8

SHOTS_SCREENED = 30000


def screen(shots: Shots) -> list[int]:
    """Positions of the inputs that are kept, in ascending order."""
    stride = max(len(shots) // SHOTS_SCREENED, 1)
    few = shots.rows(slice(None, None, stride))
    z = few.columns - few.columns.mean(axis=1, keepdims=True)
    z = z / np.maximum(z.std(axis=1, keepdims=True), 1e-300)
    terms = [np.ones(z.shape[1])]
    kept: list[int] = []
    for _ in range(ROUNDS):
        design = np.array(terms).T
        coefficients = logistic_regression(design, few.reached, few.legs, np.zeros(len(terms)), ridge=1.0)
        _, gradient, curvature = binomial_derivatives(design @ coefficients, few.reached, few.legs)
        single, pairs = _gains(z, -gradient, curvature)
        strength = np.maximum(single, pairs.max(axis=1))
        new = [i for i in np.argsort(strength)[::-1] if i not in kept][: KEPT // ROUNDS]
        kept += [int(i) for i in new]
        rows, cols = np.triu_indices(len(z))
        order = np.argsort(np.concatenate([single, pairs[rows, cols]]))[::-1][:TERMS_PER_ROUND]
        terms += [z[k] if k < len(z) else z[rows[k - len(z)]] * z[cols[k - len(z)]] for k in order]
    return sorted(kept)


def _gains(z: np.ndarray, residual: np.ndarray, curvature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain in nats of every input and every product of two."""
    single = (z @ residual) ** 2 / (2 * np.maximum((z**2) @ curvature, 1e-300))
    information = ((z**2) * curvature) @ (z**2).T
    pairs = ((z * residual) @ z.T) ** 2 / (2 * np.maximum(information, 1e-300))
    return single, pairs
