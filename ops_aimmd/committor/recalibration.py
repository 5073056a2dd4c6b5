r"""Recalibration: slope and shifts of the log-odds of a model, from predictions for shots that it was not trained on.

Networks that learn from few shots are too sure of themselves. One factor on their log-odds, :math:`z \to b z`, puts most of
that right (temperature scaling; C. Guo, G. Pleiss, Y. Sun, K. Weinberger 2017, arXiv:1706.04599). A model of another system
needs a shift for each of its outputs, too, :math:`z \to b z + a` (Platt scaling; A. Niculescu-Mizil, R. Caruana 2005,
doi:10.1145/1102351.1102430). Few shots can determine these numbers.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_softmax

AS_IT_IS = 0.7
"""Prior probability that a network needs no slope."""

TAUGHT_BY_FRAMES = 0.9
"""The same where frames of legs were learned from: few shots should hardly change what these have taught well."""

SPREAD = 0.5
"""Standard deviation of the logarithm of the slope where it needs one."""

LOG_SLOPES = np.arange(-40, 6) / 10
"""Logarithms of the slopes that are considered. Outcomes that the descriptors separate would ask for any."""


def expected_slope(logits: np.ndarray, counts: np.ndarray, as_it_is: float = AS_IT_IS) -> float:
    r"""Slope of the log-odds that shots ask for, which is 1 where they do not.

    The exponential of the posterior mean of its logarithm. The prior is 1 with the probability ``as_it_is``, else
    log-normal.

    Parameters
    ----------
    logits, counts
        As for :func:`slope_and_shifts`, of shots that the model was not trained on.
    """
    prior = np.exp(-((LOG_SLOPES / SPREAD) ** 2) / 2)
    prior *= (1 - as_it_is) / prior.sum()
    prior[np.argmin(np.abs(LOG_SLOPES))] += as_it_is
    likelihood = np.array([(counts * _log_probabilities(math.exp(t) * logits)).sum() for t in LOG_SLOPES])
    posterior = prior * np.exp(likelihood - likelihood.max())
    return math.exp(LOG_SLOPES @ posterior / posterior.sum())


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """ln p (n, n_states) from logits (n, 1) or (n, n_states)."""
    if logits.shape[1] > 1:
        return log_softmax(logits, axis=1)
    return -np.logaddexp(0, np.concatenate([logits, -logits], axis=1))


def slope_and_shifts(
    logits: np.ndarray, counts: np.ndarray, slope: float, spread_of_slope: float, spread_of_shift: float
) -> tuple[float, np.ndarray]:
    r"""The most probable slope :math:`b` and shifts :math:`a` under the likelihood of shots and a prior.

    The prior of the shifts and of :math:`\ln b` is normal.

    Parameters
    ----------
    logits : array, shape (n, 1) or (n, n_states)
        Log-odds of the last of two states, or unnormalised log-probabilities.
    counts : array, shape (n, n_states)
        Legs of each shot that reached each state, times the weight of the shot.
    slope, spread_of_slope : float
        Slope that the prior expects, and the standard deviation of its logarithm.
    spread_of_shift : float
        Standard deviation of the shifts.

    Returns
    -------
    slope : float
    shifts : array, shape (1,) or (n_states,)
    """
    from scipy.optimize import minimize  # takes long to import

    def loss(parameters: np.ndarray) -> float:
        log_p = _log_probabilities(math.exp(parameters[0]) * logits + parameters[1:])
        improbable = ((parameters[0] - math.log(slope)) / spread_of_slope) ** 2
        improbable += ((parameters[1:] / spread_of_shift) ** 2).sum()
        return improbable / 2 - float((counts * log_p).sum())

    first = np.concatenate([[math.log(slope)], np.zeros(logits.shape[1])])
    log_slope, *shifts = minimize(loss, first).x
    return math.exp(log_slope), np.array(shifts)
