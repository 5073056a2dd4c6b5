r"""Is the committor right? Predictions against the outcomes of shots that the model has not been trained on.

A committor is calibrated if of all legs that were given a probability p of reaching B, a fraction p does. Three
views of it: the logistic regression :math:`\ln[f/(1-f)] = a + b\,q` of the outcomes on the predicted log-odds q (slope
b < 1: the model is too sure, over-fitted; b > 1: too careful; D. R. Cox, Biometrika 45, 562 (1958),
doi:10.1093/biomet/45.3-4.562), a reliability table, and the root mean square error (RMSE) of the committor without the
noise of the shots.

Legs are correlated given p: those of one configuration by the error of the model there, the two legs of one shot also by
inertia and by what the descriptors leave out. Standard errors are of the sums over what may be correlated
(:mod:`ops_aimmd.committor.correlated_shots`). The product of the residuals :math:`y - p` of two legs tells what they share:

- legs of *different shots* of one configuration share the error of the model only: its mean square is the mean product;
- the two legs of *one shot* share their covariance too. One shot from each configuration cannot tell the two apart, so it
  gives a correlation of legs and no RMSE.

A fourth number sees memorising in training shots: the entropy of an outcome obeys :math:`H(p) \ge 4 \ln 2\; p(1-p)`, so a
true model cannot lose less per leg than :math:`4 \ln 2 \langle p(1-p) \rangle`. The outcomes give that mean without a
model: half the fraction of shots with legs that part, plus the covariance C of the two legs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit, stdtrit, xlogy

from ops_aimmd.committor.correlated_shots import clustered_error, jackknife_covariance, sums_over
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.logistic_regression import logistic_regression

SMALLEST_PROBABILITY = 1e-9
"""Predictions are taken no closer to 0 and 1 than this, so that a saturated sigmoid has a finite log-odds and loss."""

FLOOR_MARGIN = 0.01
"""Nats per leg below the floor that are no alarm: `unseen` predictions with an RMSE of 0.06 raise the floor by as much."""


@dataclass(frozen=True)
class Calibration:
    r"""The verdict on predicted committors. Every ``*_error`` is a standard error.

    Attributes
    ----------
    n_shots : int
        Rows: shots, or configurations where every leg is a shot.
    n_legs : float
    slope, slope_error, intercept, intercept_error : float
        Of observed against predicted log-odds; 1 and 0 for a calibrated model. NaN where the outcomes do not
        determine them (all alike, predictions all alike, or perfectly separated); errors are NaN also where two clusters
        alone determine them. With few clusters m the errors contain the factor :math:`t_{m-2}/1.96`, so that 1.96 errors
        are a 95 % interval for any m.
    rmse, rmse_error : float
        Root mean square error of the committor with the shot noise subtracted: the root of the mean product of
        residuals of different shots of a configuration, which is an unbiased estimate of the squared error. Zero where
        noise left a negative mean; NaN where no configuration has two shots. ``rmse_error`` is that of the mean square
        over twice the RMSE, or over twice its own root where that is larger.
    leg_correlation, leg_correlation_error : float
        Sum of the products of residuals of two legs of one shot over that of p(1-p). Negative: inertia, legs of opposite
        velocities part. Positive: the model is rough, or something that the descriptors leave out decides. The squared
        error of the model is contained, so the correlation itself is no larger. NaN without shots of two legs.
    loss_per_leg, loss_per_leg_error : float
        Negative log-likelihood in nats.
    loss_floor : float
        :math:`4 \ln 2\, \langle n_A n_B / [N(N-1)] + C \rangle` over rows of two or more legs; for two-way shots
        :math:`2 \ln 2` times the fraction that gave a transition path, plus :math:`4 \ln 2\, C`. The covariance C of the
        legs is counted where it is negative by more than two standard errors, else it is taken for zero, as for different
        shots. NaN without such rows.
    below_floor : bool
        The alarm: the loss of those rows lies more than two standard errors (of the difference) and `FLOOR_MARGIN` below
        the floor. The model has memorised the outcomes. Shots that were memorised look like shots with anticorrelated
        legs, so the alarm needs `unseen` predictions, which tell the correlation of the legs, or rows of independent legs.
    table : pandas.DataFrame
        One row per bin of the predicted committor: predicted, observed, observed_error (binomial, at the predicted
        value, times the root of the ratio in which the correlation of legs raises the variance in all bins), shots, legs.
    """

    n_shots: int
    n_legs: float
    slope: float
    slope_error: float
    intercept: float
    intercept_error: float
    rmse: float
    rmse_error: float
    leg_correlation: float
    leg_correlation_error: float
    loss_per_leg: float
    loss_per_leg_error: float
    loss_floor: float
    below_floor: bool
    table: Any

    def __str__(self) -> str:
        rmse = "RMSE unknown (no configuration has two shots)"
        if np.isfinite(self.rmse):
            rmse = f"RMSE {self.rmse:.3f} +- {self.rmse_error:.3f} (shot noise subtracted)"
        correlation = ""
        if np.isfinite(self.leg_correlation):
            correlation = (
                f", correlation of the legs of a shot {self.leg_correlation:.2f} +- {self.leg_correlation_error:.2f}"
            )
        alarm = " - BELOW THE FLOOR: the model has memorised these shots" if self.below_floor else ""
        return (
            f"{self.n_shots} shots ({self.n_legs:g} legs): slope {self.slope:.2f} +- {self.slope_error:.2f}, intercept "
            f"{self.intercept:.2f} +- {self.intercept_error:.2f}, {rmse}{correlation}, loss per leg "
            f"{self.loss_per_leg:.3f} +- {self.loss_per_leg_error:.3f} (floor {self.loss_floor:.3f}{alarm})"
        )


def calibration(
    predicted, counts, n_bins: int = 10, *, legs_are_shots: bool = False, configurations=None, clusters=None, unseen=None
) -> Calibration:
    """Compare predicted committors with the outcomes of shots.

    Parameters
    ----------
    predicted : array-like, shape (n,) or (n, 2)
        Probability of the last state, or of both.
    counts : array-like, shape (n, 2)
        Legs that reached each state. One-leg shots count in slope, intercept, loss and table.
    n_bins : int
        Bins of the reliability table, equal in the committor.
    legs_are_shots : bool
        True: a row holds a configuration, and each of its legs is a shot of its own, with its own velocities, as in a
        committor simulation. False: a row holds the legs of one shot, as in a training set.
    configurations : array-like, shape (n,), optional
        Rows of one configuration have the same value. By default each row is another configuration.
    clusters : array-like, shape (n,), optional
        Rows that may be correlated have the same value: blocks of a chain, :func:`correlated_shots.blocks`. By default
        the configurations.
    unseen : array-like, shape (n,) or (n, 2), optional
        For shots that the model was trained on: predictions for them by models that were not, NaN where there are none.
        They tell the correlation of the legs. By default, and where they are of fewer than two clusters, `predicted`.

    Raises
    ------
    ValueError
        For shapes that do not fit, no shots, probabilities outside [0, 1], or rows without a leg.
    """
    predicted, counts = _checked(predicted, counts)
    configurations = _labels("configurations", configurations, np.arange(len(predicted)))
    clusters = _labels("clusters", clusters, configurations)
    unseen = predicted if unseen is None else _unseen(unseen, len(predicted))
    if len(np.unique(clusters[np.isfinite(unseen)])) < 2:
        unseen = predicted
    p = np.clip(predicted, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    reached, legs = counts[:, 1], counts.sum(axis=1)
    (intercept, slope), (intercept_error, slope_error) = _logistic_regression(logit(p), reached, legs, clusters)
    loss = -xlogy(counts[:, 0], 1 - p) - xlogy(reached, p)
    loss_per_leg = loss.sum() / legs.sum()
    rmse, rmse_error = _root_mean_square(predicted, counts, configurations, legs_are_shots)
    correlation, covariance = (np.nan, np.nan), (0.0, 0.0)
    if not legs_are_shots:
        correlation, covariance = _leg_correlation(unseen, counts, clusters)
    floor, below_floor = _floor(loss, counts, clusters, *covariance)
    return Calibration(
        n_shots=len(p),
        n_legs=float(legs.sum()),
        slope=slope,
        slope_error=slope_error,
        intercept=intercept,
        intercept_error=intercept_error,
        rmse=rmse,
        rmse_error=rmse_error,
        leg_correlation=correlation[0],
        leg_correlation_error=correlation[1],
        loss_per_leg=float(loss_per_leg),
        loss_per_leg_error=float(clustered_error(loss - loss_per_leg * legs, clusters)[0] / legs.sum()),
        loss_floor=floor,
        below_floor=below_floor,
        table=_reliability_table(p, reached, legs, clusters, n_bins),
    )


def _checked(predicted, counts) -> tuple[np.ndarray, np.ndarray]:
    predicted = _of_last_state(predicted)
    counts = np.asarray(counts, dtype=np.float64)
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


def _of_last_state(predicted) -> np.ndarray:
    predicted = np.asarray(predicted, dtype=np.float64)
    return predicted[:, 1] if predicted.ndim == 2 and predicted.shape[1] == 2 else predicted


def _unseen(unseen, n: int) -> np.ndarray:
    unseen = _of_last_state(unseen)
    if unseen.shape != (n,):
        raise ValueError(f"unseen predictions have the shape {unseen.shape}; expected one for each row, ({n},) or ({n}, 2)")
    bad = np.flatnonzero((unseen < 0) | (unseen > 1))
    if len(bad):
        raise ValueError(f"unseen predictions must lie in [0, 1] or be NaN; rows {bad[:10].tolist()} do not")
    return unseen


def _labels(name: str, labels, default: np.ndarray) -> np.ndarray:
    labels = default if labels is None else np.asarray(labels)
    if labels.shape != default.shape:
        raise ValueError(f"{name} have the shape {labels.shape}; expected one value for each row, {default.shape}")
    return labels


def _same_leg_products(p, counts) -> np.ndarray:
    """Sum over the legs of each row of the squared residual."""
    return counts[:, 1] * (1 - p) ** 2 + counts[:, 0] * p**2


def _root_mean_square(p, counts, configurations, legs_are_shots: bool) -> tuple[float, float]:
    """Error of the committor, from the products of residuals of different shots of a configuration."""
    legs = counts.sum(axis=1)
    residuals = counts[:, 1] - legs * p
    same, same_pairs = (_same_leg_products(p, counts), legs) if legs_are_shots else (residuals**2, legs**2)
    pairs = sums_over(configurations, legs) ** 2 - sums_over(configurations, same_pairs)
    products = sums_over(configurations, residuals) ** 2 - sums_over(configurations, same)
    several = pairs > 0
    if not several.any():
        return np.nan, np.nan
    squares = products[several] / pairs[several]
    square_error = squares.std(ddof=1) / np.sqrt(len(squares)) if len(squares) > 1 else np.inf
    rmse = np.sqrt(max(squares.mean(), 0.0))
    return float(rmse), float(square_error / (2 * max(rmse, np.sqrt(square_error))) if square_error > 0 else square_error)


def _leg_correlation(p, counts, clusters) -> tuple[tuple[float, float], tuple[float, float]]:
    """Correlation and covariance of two legs of a shot, given the prediction, with their standard errors."""
    legs = counts.sum(axis=1)
    rows = (legs >= 2) & np.isfinite(p)
    if not rows.any():
        return (np.nan, np.nan), (np.nan, np.nan)
    p, counts, legs, clusters = p[rows], counts[rows], legs[rows], clusters[rows]
    products = ((counts[:, 1] - legs * p) ** 2 - _same_leg_products(p, counts)) / (legs * (legs - 1))
    covariance = products.mean()
    covariance_error = clustered_error(products - covariance, clusters)[0] / len(products)
    variance = (p * (1 - p)).sum()
    if variance == 0:
        return (np.nan, np.nan), (float(covariance), float(covariance_error))
    correlation = products.sum() / variance
    error = clustered_error(products - correlation * p * (1 - p), clusters)[0] / variance
    return (float(correlation), float(error)), (float(covariance), float(covariance_error))


def _floor(loss, counts, clusters, covariance: float, covariance_error: float) -> tuple[float, bool]:
    """Least loss per leg of a true model, and whether these rows lose less."""
    legs = counts.sum(axis=1)
    several = legs >= 2
    if not several.any():
        return np.nan, False
    counts, legs, clusters, loss = counts[several], legs[several], clusters[several], loss[several]
    if not covariance < -2 * covariance_error:
        covariance, covariance_error = 0.0, 0.0
    floors = 4 * np.log(2) * (counts.prod(axis=1) / (legs * (legs - 1)) + covariance)
    above = loss / legs - floors
    error = np.hypot(clustered_error(above - above.mean(), clusters)[0] / len(above), 4 * np.log(2) * covariance_error)
    return float(max(floors.mean(), 0.0)), bool(above.mean() < -max(2 * error, FLOOR_MARGIN))


def _logistic_regression(x, reached, legs, clusters) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood (intercept, slope), and standard errors from the clusters; NaN where undetermined."""
    design = np.stack([np.ones_like(x), x], axis=1)
    unknown = np.full(2, np.nan)
    if np.ptp(x) == 0 or reached.sum() == 0 or reached.sum() == legs.sum():
        return unknown, unknown
    theta = logistic_regression(design, reached, legs, start=np.array([0.0, 1.0]))
    if theta is None:
        return unknown, unknown
    _, gradient, curvature = binomial_derivatives(design @ theta, reached, legs)
    information = curvature[:, None, None] * design[:, :, None] * design[:, None, :]
    freedom = len(np.unique(clusters)) - 2
    few = stdtrit(freedom, 0.975) / 1.96 if freedom > 0 else np.nan
    return theta, few * np.sqrt(np.diag(jackknife_covariance(-design * gradient[:, None], information, clusters)))


def _reliability_table(p, reached, legs, clusters, n_bins):
    import pandas as pd

    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    total = lambda values: np.bincount(bins, weights=values, minlength=n_bins)  # noqa: E731
    shots, n_legs = np.bincount(bins, minlength=n_bins), total(legs)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = total(reached - legs * p) / n_legs
        ratio = _variance_ratio(reached - legs * (p + shift[bins]), legs, (total(reached) / n_legs)[bins], clusters, bins)
        return pd.DataFrame(
            {
                "predicted": total(legs * p) / n_legs,
                "observed": total(reached) / n_legs,
                "observed_error": np.sqrt(ratio * total(legs * p * (1 - p))) / n_legs,
                "shots": shots,
                "legs": n_legs,
            },
            index=pd.Index([f"{k / n_bins:g}-{(k + 1) / n_bins:g}" for k in range(n_bins)], name="committor"),
        )


def _variance_ratio(residuals, legs, observed, clusters, bins) -> float:
    """Variance of the legs that reached the state in a bin, over that of independent legs; of all bins together."""
    _, clusters = np.unique(clusters, return_inverse=True)
    cells, cell = np.unique(np.stack([bins, clusters], axis=1), axis=0, return_inverse=True)
    n_cells = np.bincount(cells[:, 0], minlength=bins.max() + 1)[bins]
    independent = (legs * observed * (1 - observed) * (1 - 1 / n_cells)).sum()
    return float((sums_over(cell.ravel(), residuals) ** 2).sum() / independent) if independent > 0 else 1.0
