r"""The log-likelihood of shooting results: the only place in the package where it is written.

A shot from configuration :math:`x` ends in state :math:`i` with probability :math:`p_i(x)`, the committor. The counts
:math:`n_i` of the legs that reached each state are therefore multinomial, and up to a constant

.. math::  -\ln L = -\sum_i n_i \ln p_i(x).

With two states the network gives the log-odds :math:`q = \ln p_B / (1 - p_B)` of the last state and this becomes
:math:`n_A \,\mathrm{softplus}(q) + n_B\,\mathrm{softplus}(-q)`, which is finite for every finite :math:`q` (unlike
:math:`\ln(1 + e^q)`). With more states :math:`p = \mathrm{softmax}(\mathrm{logits})`.

References: Jung et al., Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z; Peters and Trout,
J. Chem. Phys. 125, 054108 (2006), doi:10.1063/1.2234477.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softplus


def log_committor(logits: Tensor) -> Tensor:
    """Logarithm of the committor to each state.

    Parameters
    ----------
    logits : tensor, shape (..., 1) or (..., n_states)
        One column: the log-odds of the last of two states. More columns: unnormalised log-probabilities.

    Returns
    -------
    tensor, shape (..., n_states)
        ``ln p_i``; exponentials sum to one.
    """
    if logits.shape[-1] == 1:
        return -softplus(torch.cat([logits, -logits], dim=-1))
    return log_softmax(logits, dim=-1)


def negative_log_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of shooting results, in nats per shot (not averaged, not weighted).

    Parameters
    ----------
    logits : tensor, shape (..., n, 1) or (..., n, n_states)
        Output of the network; leading dimensions (members of an ensemble) are kept.
    counts : tensor, shape (n, n_states)
        Number of legs of each shot that reached each state.

    Returns
    -------
    tensor, shape (..., n)
    """
    return -(counts * log_committor(logits)).sum(dim=-1)


def binomial_derivatives(log_odds: np.ndarray, reached: np.ndarray, legs: np.ndarray) -> tuple[np.ndarray, ...]:
    r"""Negative log-likelihood of two-state shots with its derivatives by the log-odds, for fits without autograd.

    .. math::  N \ln(1 + e^q) - n_B q, \qquad N p - n_B, \qquad N p (1 - p),

    the last of which is both the second derivative and the Fisher information.

    Parameters
    ----------
    log_odds : array, shape (n,)
        Of the last state.
    reached, legs : array, shape (n,)
        Legs of each shot that reached the last state, and all its legs; both times the weight of the shot.

    Returns
    -------
    loss, gradient, curvature : arrays, shape (n,)
    """
    rest = np.exp(-np.abs(log_odds))
    total = 1 + rest
    likelier = 1 / total
    other = rest * likelier
    loss = legs * (np.maximum(log_odds, 0) + np.log(total)) - reached * log_odds
    gradient = legs * np.where(log_odds > 0, likelier, other) - reached
    return loss, gradient, legs * (likelier * other)
