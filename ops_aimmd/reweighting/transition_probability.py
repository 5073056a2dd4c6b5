r"""The probability t(x) that a fresh two-way shot from x lies in the path ensemble, measured from shots.

With legs that are independent, given x, it is :math:`t_0(x) = \sum_{ij} m_{ij} p_i p_j`, which is 2p(1-p) for two
states. With inertia they are not: t is then no function of p alone. Every shot with Boltzmann velocities is a Bernoulli
trial of t. We fit

.. math::  \mathrm{logit}\, t(x) = \mathrm{logit}\, t_0(x) + \sum_k \beta_k b_k(p(x)) .

The functions b are humps between each two states, :math:`h = 4 p_i p_j`, :math:`h^4` and :math:`h (p_j - p_i)`; humps times
*features* of the configuration, such as its channel; and *tails*: towards each state a straight line in the log-odds, from
:math:`p_i` and :math:`\ln p_i`, for a committor that is wrong there. With a right committor t tends to :math:`t_0` in
the tails, where few shots succeed. So tails, and the features, have Gaussian priors around 0, of the widths with which
the shots are most probable (evidence; D. J. C. MacKay, Neural Comput. 4, 415 (1992), doi:10.1162/neco.1992.4.3.415).

Shots are weighted by c = u/P_sel, by which they represent all frames of transition paths. The mean of t at one p is then
that over transition paths, :math:`\bar t = \sum_c \rho_c t_c^2 / \sum_c \rho_c t_c` with channels c, and it is with this
mean that the weight of all transitions is right even if t differs between the channels: :math:`\sum_c \rho_c t_c \, t_c
/ \bar t = \sum_c \rho_c t_c`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from scipy.special import log_expit, logsumexp

from ops_aimmd.committor.likelihood import binomial_derivatives

PRECISION = 0.25
"""Precision of the Gaussian prior of humps: logit t differs from that of 2p(1-p) by 1 or so."""

PRECISIONS = (1.0, 10.0, 100.0, 1000.0)
"""Precisions of the priors of tails and of features. Log-odds wrong by a factor of 2 ask for tails of 0.5 or 1."""

LEAST_LOG_ODDS = -700.0
"""Log-odds stay where their exponential is a float64."""


def orientations(transitions, n_states: int) -> np.ndarray:
    """Matrix m (n_states, n_states): 1 for pairs of ends that are allowed in as many orientations as any, 0 for no path.

    Parameters
    ----------
    transitions : sequence of (int, int)
        Ordered pairs (first state, last state) that the path ensemble allows; (i, i) for paths that return.
    """
    found = np.zeros((n_states, n_states))
    for first, last in transitions:
        found[first, last] = 1
    found = found + found.T
    if not found.any():
        raise ValueError(f"transitions are {list(transitions)}; expected at least one pair of states (first, last)")
    return found / found.max()


def independent_legs(log_committor: np.ndarray, m: np.ndarray) -> np.ndarray:
    """ln of t if the legs were independent, shape (n,), from ln p (n, n_states); `m` from :func:`orientations`."""
    pairs = np.argwhere(m > 0)
    terms = [log_committor[:, i] + log_committor[:, j] + np.log(m[i, j]) for i, j in pairs]
    return np.maximum(np.minimum(logsumexp(terms, axis=0), -1e-12), LEAST_LOG_ODDS)


def basis(log_committor: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The functions b, shape (n, k), from ln p (n, n_states) and features (n, d): tails, humps, features times humps."""
    p = np.exp(log_committor)
    tails = [*p.T, *np.maximum(log_committor, LEAST_LOG_ODDS).T]
    humps, slanted = [], []
    for i, j in combinations(range(p.shape[1]), 2):
        hump = 4 * p[:, i] * p[:, j]
        humps += [hump, hump**4]
        slanted.append(hump * (p[:, j] - p[:, i]))
    return np.stack([*tails, *slanted, *humps, *(column * hump for column in features.T for hump in humps)], axis=1)


@dataclass(frozen=True)
class TransitionProbability:
    """ln t(x) as a function of the committor, for one path ensemble.

    Attributes
    ----------
    m : array, shape (n_states, n_states)
        From :func:`orientations`.
    coefficients : array, shape (k,)
        All zero: legs are independent, t = 2p(1-p) for two states.
    """

    m: np.ndarray
    coefficients: np.ndarray

    def __call__(self, log_committor: np.ndarray, features: np.ndarray) -> np.ndarray:
        """ln t, shape (n,), from ln p (n, n_states) and features (n, d)."""
        log_t0 = independent_legs(log_committor, self.m)
        return log_expit(log_t0 - np.log(-np.expm1(log_t0)) + basis(log_committor, features) @ self.coefficients)


@dataclass(frozen=True)
class Trials:
    """Shots as trials of t.

    Attributes
    ----------
    design : array, shape (n, k)
    offset : array, shape (n,)
        logit of t of independent legs.
    success : array, shape (n,)
        1 for a path of the ensemble, in as many orientations as any; 0 for none.
    weights : array, shape (n,)
    precision : array, shape (k,)
        Inverse variances of the prior.
    """

    design: np.ndarray
    offset: np.ndarray
    success: np.ndarray
    weights: np.ndarray
    precision: np.ndarray

    def newton_step(self, coefficients, repeats) -> np.ndarray:
        """Steps (r, k) to the maximum posterior if shots are repeated as often as `repeats` (r, n) says."""
        _, gradient, curvature = binomial_derivatives(self.offset + self.design @ coefficients, self.success, np.ones(1))
        gradients = (self.weights * gradient)[:, None] * self.design
        products = ((self.weights * curvature)[:, None] * self.design)[:, :, None] * self.design[:, None, :]
        scores = repeats @ gradients + self.precision * coefficients
        information = np.tensordot(repeats, products, axes=1) + np.diag(self.precision)
        return -np.linalg.solve(information, scores[..., None])[..., 0]

    def loss(self, coefficients) -> float:
        loss, _, _ = binomial_derivatives(self.offset + self.design @ coefficients, self.success, np.ones(1))
        return self.weights @ loss + 0.5 * self.precision @ coefficients**2

    def fit(self, rows) -> np.ndarray:
        """Coefficients (k,) of the largest posterior probability, from the shots `rows` (bool, n)."""
        chosen = replace(self, **{name: getattr(self, name)[rows] for name in ("design", "offset", "success", "weights")})
        coefficients = np.zeros(self.design.shape[1])
        once = np.ones((1, len(chosen.design)))
        loss = chosen.loss(coefficients)
        for _ in range(100):
            step = chosen.newton_step(coefficients, once)[0]
            while chosen.loss(coefficients + step) > loss + 1e-12 * abs(loss) and np.abs(step).max() > 1e-9:
                step = step / 2
            coefficients = coefficients + step
            loss = chosen.loss(coefficients)
            if np.abs(step).max() < 1e-8:
                break
        return coefficients

    def log_evidence(self) -> float:
        """ln of the probability of the shots under the prior, up to a constant (Laplace's approximation)."""
        coefficients = self.fit(np.ones(len(self.design), bool))
        _, _, curvature = binomial_derivatives(self.offset + self.design @ coefficients, self.success, np.ones(1))
        information = (self.design.T * (self.weights * curvature)) @ self.design + np.diag(self.precision)
        return 0.5 * (np.log(self.precision).sum() - np.linalg.slogdet(information)[1]) - self.loss(coefficients)


def trials(log_committor, features, ends, length, limit: float, log_c, m: np.ndarray) -> Trials:
    """Shots of one path ensemble as trials of its t, with the prior that has the largest evidence.

    Parameters
    ----------
    log_committor : array, shape (n, n_states)
        At the shooting points.
    features : array, shape (n, d)
    ends : int array, shape (n, 2)
    length : int array, shape (n,)
    limit : float
        A longer path is no member of the ensemble.
    log_c : array, shape (n,)
        ln u/P_sel of the shots.
    m : array, shape (n_states, n_states)
    """
    inside = (ends.min(axis=1) >= 0) & (length <= limit)
    success = np.where(inside, m[ends[:, 0], ends[:, 1]], 0.0)
    log_t0 = independent_legs(log_committor, m)
    design = basis(log_committor, features)
    plain = Trials(
        design, log_t0 - np.log(-np.expm1(log_t0)), success, effective_counts(log_c), np.full(design.shape[1], PRECISION)
    )
    candidates = []
    n_tails, n_plain = 2 * len(m), basis(log_committor[:0], features[:0, :0]).shape[1]
    for tails, of_features in product(PRECISIONS, PRECISIONS if features.shape[1] else (1.0,)):
        precision = plain.precision.copy()
        precision[:n_tails], precision[n_plain:] = tails, of_features
        candidates.append(replace(plain, precision=precision))
    return max(candidates, key=Trials.log_evidence)


def effective_counts(log_c: np.ndarray) -> np.ndarray:
    r"""c scaled to the sum :math:`N_{\mathrm{eff}} = (\sum c)^2 / \sum c^2`, shape (n,)."""
    c = np.exp(log_c - log_c.max()) if len(log_c) else np.zeros(0)
    return c * (c.sum() / max((c**2).sum(), 1e-300))
