r"""Rates, mean first-passage times and populations from weighted excursions.

With weights W per frame of equilibrium time, :math:`d_s` = half the number of ends in state s and the mean length
:math:`t_{\mathrm{in}}` of the internal stretches,

.. math::  Z_s = \sum_i W_i d_s(X_i), \qquad \mu_{rs} = \tfrac12 \sum_i W_i [X_i \text{ joins r and s}], \qquad
           h_s = Z_s t_{\mathrm{in}}(s) + \sum_i W_i d_s(X_i)\, \mathrm{length}(X_i), \qquad k_{rs} = \mu_{rs} / h_r .

:math:`h_s` is the time in which s was the last state. An excursion counts in both directions of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops_aimmd.reweighting.excursions import FREE, Excursions


@dataclass(frozen=True)
class Kinetics:
    """Kinetics for r sets of weights; times in frames.

    Attributes
    ----------
    flux : array, shape (r, n_states, n_states)
        mu of transitions, per frame of equilibrium time; symmetric, 0 on the diagonal.
    populations : array, shape (r, n_states)
        h: share of the time in which each state was the last one; they sum to 1.
    departures : array, shape (r, n_states)
        Z: excursions from each state per frame.
    internal : array, shape (r, n_states)
        t_in: mean number of frames of an internal stretch.
    scale : array, shape (r,)
        Factor that turned the weights given into weights per frame.
    """

    flux: np.ndarray
    populations: np.ndarray
    departures: np.ndarray
    internal: np.ndarray
    scale: np.ndarray

    @property
    def rates(self) -> np.ndarray:
        """k, shape (r, n_states, n_states), from the first index to the second, per frame; NaN on the diagonal."""
        found = self.flux / self.populations[:, :, None]
        found[:, np.eye(found.shape[1], dtype=bool)] = np.nan
        return found

    @property
    def mean_first_passage_times(self) -> np.ndarray:
        """Frames from the entry into the first index to the first entry into the second, (r, n_states, n_states).

        From the semi-Markov equations :math:`T_i = \\tau_i + \\sum_j P_{ij} T_j`, which take the entry points of a state as
        independent of where the trajectory came from. With two states it is 1/k.
        """
        leaving = self.flux.sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            tau, jumps = self.populations / leaving, self.flux / leaving[:, :, None]
        found = np.zeros(self.flux.shape)
        n_states = self.flux.shape[1]
        for target in range(n_states):
            others = np.flatnonzero(np.arange(n_states) != target)
            matrix = np.eye(len(others)) - jumps[:, others[:, None], others]
            ok = np.isfinite(matrix).all(axis=(1, 2))
            ok[ok] = np.linalg.cond(matrix[ok]) < 1e12
            found[:, others, target] = np.nan
            found[np.ix_(ok, others, np.array([target]))] = np.linalg.solve(matrix[ok], tau[ok][:, others, None])
        return found


def kinetics(excursions: Excursions, weights: np.ndarray, repeats: np.ndarray) -> Kinetics:
    """Kinetics from weights (r, n) of the excursions; `repeats` (r, n) says how often each was drawn.

    Raises
    ------
    ValueError
        If a state has no excursion from free runs.
    """
    x = excursions
    half = 0.5 * (x.ends[:, :, None] == np.arange(x.n_states)).sum(axis=1)
    free = (x.kind == FREE)[:, None] & (x.ends[:, :1] == np.arange(x.n_states))
    internal = (repeats @ (free * x.internal_frames[:, None])) / (repeats @ free.astype(float))
    departures = weights @ half
    time = departures * internal + weights @ (half * x.length[:, None])
    flux = np.zeros((len(weights), x.n_states, x.n_states))
    for i in range(x.n_states):
        for j in range(i):
            joins = (x.ends == [i, j]).all(axis=1) | (x.ends == [j, i]).all(axis=1)
            flux[:, i, j] = flux[:, j, i] = 0.5 * weights[:, joins].sum(axis=1)
    scale = 1 / time.sum(axis=1)
    return Kinetics(flux * scale[:, None, None], time * scale[:, None], departures * scale[:, None], internal, scale)
