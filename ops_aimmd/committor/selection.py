r"""Selection weights: how much a configuration is wanted as the next shooting point.

With two states and log-odds :math:`q`, a configuration has the weight :math:`f(q) / \rho(p_B)` with
:math:`f(q) = \gamma^2 / (\gamma^2 + q^2)` by default and :math:`\rho` the density of transition-path frames. With more
states every transition counts,

.. math::  w = \sum_{i<j} (p_i + p_j)^2 \, f(\ln p_j - \ln p_i) \,/\, \rho_{ij}(p_j / (p_i + p_j)),

over the allowed pairs, so that a point between any two states is a good shooting point.

All weights are even under velocity reversal as long as the descriptors are, and are handled as logarithms.

Reference: Jung et al., Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import logsumexp

from ops_aimmd.committor.density import CommittorDensity, Pair, all_pairs, log_pair_probability, pair_log_odds


def _lorentzian(log_odds: np.ndarray, scale: float) -> np.ndarray:
    return -np.log1p((log_odds / scale) ** 2)


def _gaussian(log_odds: np.ndarray, scale: float) -> np.ndarray:
    return -0.5 * (log_odds / scale) ** 2


def _committor_variance(log_odds: np.ndarray, scale: float) -> np.ndarray:
    return np.log(4.0) - np.logaddexp(0, log_odds / scale) - np.logaddexp(0, -log_odds / scale)


def _uniform(log_odds: np.ndarray, scale: float) -> np.ndarray:
    return np.zeros_like(log_odds)


LOG_WEIGHTS = {
    "lorentzian": _lorentzian,
    "gaussian": _gaussian,
    "p(1-p)": _committor_variance,
    "uniform": _uniform,
}
"""Logarithms of the built-in weights, 0 at log-odds 0, by name."""


def log_weight_function(weight: str | Callable, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """The logarithm of a weight as a function of the log-odds.

    Parameters
    ----------
    weight : {"lorentzian", "gaussian", "p(1-p)", "uniform"} or callable
        A callable takes log-odds (n,) and returns positive weights (n,).
    scale : float
        Width in units of log-odds: gamma of the Lorentzian, standard deviation of the Gaussian.
    """
    if callable(weight):
        return lambda log_odds: _log_of_user_weight(weight, log_odds)
    if weight not in LOG_WEIGHTS:
        raise ValueError(f"weight must be one of {sorted(LOG_WEIGHTS)} or a function of the log-odds; got {weight!r}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number of log-odds units; got {scale!r}")
    return lambda log_odds: LOG_WEIGHTS[weight](log_odds, scale)


def _log_of_user_weight(weight: Callable, log_odds: np.ndarray) -> np.ndarray:
    values = np.asarray(weight(log_odds), dtype=np.float64)
    if values.shape != log_odds.shape:
        raise ValueError(f"the weight function returned shape {values.shape} for log-odds of shape {log_odds.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise ValueError(
            f"the weight function must return finite positive weights; it gave {values[bad[0]]} at log-odds "
            f"{log_odds[bad[0]]:.4g}"
        )
    return np.log(values)


def selection_log_weights(
    log_committor: np.ndarray,
    log_weight: Callable[[np.ndarray], np.ndarray],
    density: CommittorDensity | None = None,
    pairs: Sequence[Pair] | None = None,
) -> np.ndarray:
    """Logarithms of the selection weights of configurations.

    Parameters
    ----------
    log_committor : array, shape (n, n_states)
    log_weight : callable
        From `log_weight_function`.
    density : CommittorDensity, optional
        Divides the weights; must hold every pair that is used.
    pairs : sequence of (int, int), optional
        Pairs of states between which transitions are sampled; all by default.

    Returns
    -------
    array, shape (n,)
    """
    pairs = all_pairs(log_committor.shape[1]) if pairs is None else pairs
    terms = []
    for pair in pairs:
        log_odds = pair_log_odds(log_committor, pair)
        term = 2 * log_pair_probability(log_committor, pair) + log_weight(log_odds)
        if density is not None:
            term = term - density.log_density(log_odds, pair)
        terms.append(term)
    return terms[0] if len(terms) == 1 else logsumexp(terms, axis=0)


def transition_probability(log_committor: np.ndarray, pairs: Sequence[Pair] | None = None) -> np.ndarray:
    """Probability that the two legs of a shot join two states of an allowed pair, ``sum 2 p_i p_j``; shape (n,)."""
    pairs = all_pairs(log_committor.shape[1]) if pairs is None else pairs
    return sum(2 * np.exp(log_committor[:, i] + log_committor[:, j]) for i, j in pairs)
