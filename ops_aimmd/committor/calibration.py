r"""Is the committor right? Predictions against the outcomes of shots that the model has not been trained on.

A committor is calibrated if of all legs that were given a probability p of reaching B, a fraction p does. Three
views of it: the logistic regression :math:`\ln[f/(1-f)] = a + b\,q` of the outcomes on the predicted log-odds q (slope
b < 1: the model is too sure, over-fitted; b > 1: too careful; D. R. Cox, Biometrika 45, 562 (1958),
doi:10.1093/biomet/45.3-4.562), a reliability table, and the root mean square error (RMSE) of the committor without the
noise of the shots. A fourth number sees memorising in training shots: the entropy of an outcome obeys
:math:`H(p) \ge 4 \ln 2\; p(1-p)`, so a true model cannot lose less per leg than :math:`4 \ln 2 \langle p(1-p) \rangle`,
and the right-hand side can be measured without a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, xlogy

SMALLEST_PROBABILITY = 1e-9
"""Predictions are taken no closer to 0 and 1 than this, so that a saturated sigmoid has a finite log-odds and loss."""


@dataclass(frozen=True)
class Calibration:
    r"""The verdict on predicted committors. Every ``*_error`` is a standard error.

    Attributes
    ----------
    n_shots : int
    n_legs : float
    slope, slope_error, intercept, intercept_error : float
        Of observed against predicted log-odds; 1 and 0 for a calibrated model. NaN where the outcomes do not
        determine them (all alike, predictions all alike, or perfectly separated).
    rmse, rmse_error : float
        Root mean square error of the committor with the shot noise subtracted, from shots of two or more legs (NaN
        without such shots): the root of the mean of :math:`n_B(n_B-1)/[N(N-1)] - 2 p\,n_B/N + p^2`, which is an unbiased
        estimate of the squared error. Zero where noise left a negative mean. ``rmse_error`` is that of the mean square
        over twice the RMSE, or over twice its own root where that is larger.
    loss_per_leg, loss_per_leg_error : float
        Negative log-likelihood in nats.
    loss_floor : float
        :math:`4 \ln 2 \langle n_A n_B / [N(N-1)] \rangle` over shots of two or more legs; for two-way shots
        :math:`2 \ln 2` times the fraction that gave a transition path. NaN without such shots.
    below_floor : bool
        The alarm: the loss of those shots lies more than two standard errors (of the difference) below the floor. The
        model has memorised the outcomes.
    table : pandas.DataFrame
        One row per bin of the predicted committor: predicted, observed, observed_error (binomial, at the predicted
        value), shots, legs.
    """

    n_shots: int
    n_legs: float
    slope: float
    slope_error: float
    intercept: float
    intercept_error: float
    rmse: float
    rmse_error: float
    loss_per_leg: float
    loss_per_leg_error: float
    loss_floor: float
    below_floor: bool
    table: Any

    def __str__(self) -> str:
        alarm = (
            " - BELOW THE FLOOR: these shots were memorised, or inertia lets the legs of a shot part"
            if self.below_floor
            else ""
        )
        return (
            f"{self.n_shots} shots ({self.n_legs:g} legs): slope {self.slope:.2f} +- {self.slope_error:.2f}, intercept "
            f"{self.intercept:.2f} +- {self.intercept_error:.2f}, RMSE {self.rmse:.3f} +- {self.rmse_error:.3f} (shot "
            f"noise subtracted), loss per leg {self.loss_per_leg:.3f} +- {self.loss_per_leg_error:.3f} (floor "
            f"{self.loss_floor:.3f}{alarm})"
        )


def calibration(predicted, counts, n_bins: int = 10) -> Calibration:
    """Compare predicted committors with the outcomes of shots.

    Parameters
    ----------
    predicted : array-like, shape (n,) or (n, 2)
        Probability of the last state, or of both.
    counts : array-like, shape (n, 2)
        Legs that reached each state. One-leg shots count in slope, intercept, loss and table.
    n_bins : int
        Bins of the reliability table, equal in the committor.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        For shapes that do not fit, no shots, probabilities outside [0, 1], or rows without a leg.
    """
    predicted, counts = _checked(predicted, counts)
    p = np.clip(predicted, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    reached, legs = counts[:, 1], counts.sum(axis=1)
    (intercept, slope), (intercept_error, slope_error) = _logistic_regression(logit(p), reached, legs)
    loss = -xlogy(counts[:, 0], 1 - p) - xlogy(reached, p)
    loss_per_leg = loss.sum() / legs.sum()
    loss_per_leg_error = np.sqrt(((loss - loss_per_leg * legs) ** 2).sum()) / legs.sum()

    several = legs >= 2
    p2, b, n = p[several], reached[several], legs[several]
    rmse = rmse_error = floor = np.nan
    below_floor = False
    if len(n):
        square, square_error = _mean(b * (b - 1) / (n * (n - 1)) - 2 * p2 * b / n + p2**2)
        rmse = np.sqrt(max(square, 0.0))
        rmse_error = square_error / (2 * max(rmse, np.sqrt(square_error))) if square_error > 0 else square_error
        floors = 4 * np.log(2) * b * (n - b) / (n * (n - 1))
        floor = floors.mean()
        excess, excess_error = _mean(loss[several] / n - floors)
        below_floor = bool(excess < -2 * excess_error)
    return Calibration(
        n_shots=len(p),
        n_legs=float(legs.sum()),
        slope=slope,
        slope_error=slope_error,
        intercept=intercept,
        intercept_error=intercept_error,
        rmse=float(rmse),
        rmse_error=float(rmse_error),
        loss_per_leg=float(loss_per_leg),
        loss_per_leg_error=float(loss_per_leg_error),
        loss_floor=float(floor),
        below_floor=below_floor,
        table=_reliability_table(p, reached, legs, n_bins),
    )


def _checked(predicted, counts) -> tuple[np.ndarray, np.ndarray]:
    predicted = np.asarray(predicted, dtype=np.float64)
    counts = np.asarray(counts, dtype=np.float64)
    if predicted.ndim == 2 and predicted.shape[1] == 2:
        predicted = predicted[:, 1]
    if predicted.ndim != 1 or counts.shape != (len(predicted), 2):
        raise ValueError(
            "calibration takes predictions (n,) or (n, 2) and counts (n, 2) of two states (of more states take two and "
            f"their conditional committor); got shapes {predicted.shape} and {counts.shape}"
        )
    if len(predicted) == 0:
        raise ValueError("calibration needs at least one shot")
    bad = np.flatnonzero(~((predicted >= 0) & (predicted <= 1)))
    if len(bad):
        raise ValueError(f"predicted committors must lie in [0, 1]; rows {bad[:10].tolist()} do not")
    bad = np.flatnonzero(~((counts >= 0).all(axis=1) & (counts.sum(axis=1) > 0) & np.isfinite(counts).all(axis=1)))
    if len(bad):
        raise ValueError(f"counts must be non-negative with a leg per shot; rows {bad[:10].tolist()} are not")
    return predicted, counts


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error; infinite for a single value."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf


def _logistic_regression(x, reached, legs) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood (intercept, slope) and standard errors from the Fisher information, by Newton's method."""
    design = np.stack([np.ones_like(x), x], axis=1)
    unknown = np.full(2, np.nan)
    if np.ptp(x) == 0 or reached.sum() == 0 or reached.sum() == legs.sum():
        return unknown, unknown
    theta = np.array([0.0, 1.0])
    log_likelihood = _log_likelihood(design @ theta, reached, legs)
    for _ in range(100):
        p = expit(design @ theta)
        information = design.T @ (design * (legs * p * (1 - p))[:, None])
        if np.linalg.cond(information) > 1e12:
            break
        step = np.linalg.solve(information, design.T @ (reached - legs * p))
        while True:
            new = _log_likelihood(design @ (theta + step), reached, legs)
            if new >= log_likelihood - 1e-12 * abs(log_likelihood):
                break
            step /= 2
        theta, log_likelihood = theta + step, new
        if np.abs(step).max() < 1e-8:
            return theta, np.sqrt(np.diag(np.linalg.inv(information)))
    return unknown, unknown


def _log_likelihood(log_odds, reached, legs) -> float:
    return float((reached * log_odds - legs * np.logaddexp(0, log_odds)).sum())


def _reliability_table(p, reached, legs, n_bins):
    import pandas as pd

    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    total = lambda values: np.bincount(bins, weights=values, minlength=n_bins)  # noqa: E731
    shots, n_legs = np.bincount(bins, minlength=n_bins), total(legs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(
            {
                "predicted": total(legs * p) / n_legs,
                "observed": total(reached) / n_legs,
                "observed_error": np.sqrt(total(legs * p * (1 - p))) / n_legs,
                "shots": shots,
                "legs": n_legs,
            },
            index=pd.Index([f"{k / n_bins:g}-{(k + 1) / n_bins:g}" for k in range(n_bins)], name="committor"),
        )
