"""Logistic regression: coefficients of the log-odds by the outcomes of shots."""

from __future__ import annotations

import numpy as np

from ops_aimmd.committor.likelihood import binomial_derivatives

LARGEST_CONDITION = 1e12
"""Condition number of the information matrix beyond which coefficients count as undetermined."""


def logistic_regression(design: np.ndarray, reached, legs, start: np.ndarray, ridge: float = 0.0) -> np.ndarray | None:
    """Coefficients (k,) of the log-odds ``design @ coefficients`` of maximum likelihood, by Newton's method.

    Parameters
    ----------
    design : array, shape (n, k)
    reached, legs : array, shape (n,)
        Legs of each shot that reached the last state, and all its legs.
    start : array, shape (k,)
    ridge : float
        Precision of a Gaussian prior of the coefficients.

    Returns
    -------
    array, shape (k,)
        None where the shots do not determine the coefficients.
    """

    def loss_and_derivatives(coefficients):
        loss, gradient, curvature = binomial_derivatives(design @ coefficients, reached, legs)
        return loss.sum() + 0.5 * ridge * coefficients @ coefficients, gradient, curvature

    coefficients = np.asarray(start, dtype=np.float64)
    loss, gradient, curvature = loss_and_derivatives(coefficients)
    for _ in range(100):
        information = (design.T * curvature) @ design + ridge * np.eye(len(coefficients))
        if np.linalg.cond(information) > LARGEST_CONDITION:
            return None
        step = -np.linalg.solve(information, design.T @ gradient + ridge * coefficients)
        while True:
            new, gradient, curvature = loss_and_derivatives(coefficients + step)
            if new <= loss + 1e-12 * abs(loss):
                break
            step /= 2
        coefficients, loss = coefficients + step, new
        if np.abs(step).max() < 1e-8:
            return coefficients
    return coefficients if ridge else None
