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

LOG_WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lorentzian": lambda q: -np.log1p(q**2),
    "gaussian": lambda q: -0.5 * q**2,
    "p(1-p)": lambda q: np.log(4.0) - np.logaddexp(0, q) - np.logaddexp(0, -q),
    "uniform": np.zeros_like,
}
"""Logarithms of the built-in weights, 0 at log-odds 0, by name: functions of the log-odds (n,) in units of the scale."""


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
    if not isinstance(weight, str) or weight not in LOG_WEIGHTS:
        raise ValueError(f"weight must be one of {sorted(LOG_WEIGHTS)} or a function of the log-odds; got {weight!r}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number of log-odds units; got {scale!r}")
    return lambda log_odds: LOG_WEIGHTS[weight](log_odds / scale)


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
