"""Equilibrium from shots and free runs: weights of excursions, and what follows from them, with errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ops_aimmd.committor.selection import log_weight_function, selection_log_weights
from ops_aimmd.reweighting.bootstrap import Blocks, find_blocks
from ops_aimmd.reweighting.ensembles import Ensembles, build, usable
from ops_aimmd.reweighting.excursions import EXCHANGE, FREE, SHOT, Excursions
from ops_aimmd.reweighting.free_energy import FreeEnergy, free_energy
from ops_aimmd.reweighting.rates import Kinetics, kinetics
from ops_aimmd.reweighting.solver import normalisations, shares
from ops_aimmd.reweighting.transition_probability import independent_legs, orientations

FEWEST_EFFECTIVE = 20.0
"""Effective number of excursions below which an estimate is refused: its relative error is above 1/sqrt(20) = 22 %, and
estimates of that error from so few are unreliable."""


MOST_LOST = 0.01
"""Share of the shots that may have no outcome without a warning."""


class TooFewExcursions(ValueError):
    """Too few excursions are behind an estimate; `effective` says how many, by name."""

    def __init__(self, message: str, effective: dict[str, float]):
        super().__init__(message)
        self.effective = effective


def reweight(
    excursions: Excursions,
    *,
    transitions: Sequence[tuple[int, int]] | None = None,
    log_u: Callable[[np.ndarray], np.ndarray] | None = None,
    window: float = np.inf,
    log_t: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    n_folds: int = 5,
    n_replicates: int = 200,
    fewest: float = FEWEST_EFFECTIVE,
    seed: int = 0,
) -> Equilibrium:
    r"""Weights of excursions in equilibrium, from shots, exchange shots and free runs together.

    Parameters
    ----------
    excursions : Excursions
    transitions : sequence of (int, int), optional
        Ordered pairs (first state, last state) of the path ensemble. All pairs of two different states by default.
    log_u : callable, optional
        ln u (n,) from ln p (n, n_states): with which weight a frame counts as a shooting point. Every u is right. The
        nearer it is to the selection weight of the shots, the smaller are the errors. A Lorentzian of the log-odds by
        default.
    window : float
        Leave out shooting points beyond these log-odds; with more than two states, where the independent-leg transition
        probability is smaller than with two states there. Every window is right.
    log_t : callable, optional
        ln of the probability (n,) that a shot lies in the path ensemble, from ln p (n, n_states) and features (n, d).
        Fitted by default.
    n_folds : int
        t of an excursion comes from a fit without its part of the chain; so many parts. 1: in-sample.
    n_replicates : int
        Replicates of the bootstrap.
    fewest : float
        Refuse estimates with a smaller effective number of excursions.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Equilibrium

    Raises
    ------
    TooFewExcursions
        If fewer effective excursions than `fewest` are behind the transitions or behind the overlap of shots and free runs.
    ValueError
        If there are no shots or no free runs from a state, the committor is constant, or an excursion has zero probability.

    References
    ----------
    doi:10.1021/acs.jctc.3c00821, doi:10.1063/1.3491817, doi:10.1063/1.2978177
    """
    used, left_out = usable(excursions)
    _check(excursions, used)
    _warn_of_lost_shots(excursions, left_out)
    n_states = excursions.n_states
    if transitions is None:
        transitions = [(i, j) for i in range(n_states) for j in range(n_states) if i != j]
    chosen_u = _within(log_u or _lorentzian, window, orientations(transitions, n_states))
    ensembles = build(excursions, used, chosen_u, transitions, n_folds, log_t)
    f = normalisations(ensembles.log_s, ensembles.counts, ensembles.ensemble)
    blocks = find_blocks(excursions, _contributions(excursions, used, ensembles, f))
    estimate = Equilibrium(excursions, used, left_out, ensembles, f, blocks, n_replicates, seed)
    _refuse_few(estimate, fewest)
    return estimate


@dataclass(frozen=True)
class Equilibrium:
    """Equilibrium averages from weighted excursions; made by :func:`reweight`. Times are in frames, energies in kT.

    Attributes
    ----------
    excursions : Excursions
    used : bool array, shape (n,)
        Excursions that are weighted.
    left_out : dict of str to int
        Number of excursions that are not, by reason.
    ensembles : Ensembles
    normalisations : array, shape (n_ensembles,)
        -ln Z.
    blocks : Blocks
    n_replicates, seed : int
        Replicates and seed of the bootstrap.
    """

    excursions: Excursions
    used: np.ndarray
    left_out: dict[str, int]
    ensembles: Ensembles
    normalisations: np.ndarray
    blocks: Blocks
    n_replicates: int
    seed: int

    @cached_property
    def weights(self) -> np.ndarray:
        """W (n,): occurrences of each excursion, in either direction, per frame of equilibrium time; 0 where left out."""
        return self._estimate[0][0] * self.kinetics.scale[0]

    @cached_property
    def kinetics(self) -> Kinetics:
        """Kinetics of the estimate, with a leading dimension of 1."""
        return kinetics(self.excursions, *self._estimate)

    @property
    def rates(self) -> np.ndarray:
        """Rate constants (n_states, n_states) from the first index to the second, per frame; NaN on the diagonal."""
        return self.kinetics.rates[0]

    @property
    def mean_first_passage_times(self) -> np.ndarray:
        """(n_states, n_states), from the first index to the second, in frames."""
        return self.kinetics.mean_first_passage_times[0]

    @property
    def populations(self) -> np.ndarray:
        """Share of the time (n_states,) in which each state was the last one."""
        return self.kinetics.populations[0]

    @cached_property
    def replicates(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (r, n), float32, not normalised, and repeats (r, n) of the bootstrap."""
        return self._replicates(self.n_replicates, self.seed)

    @cached_property
    def replicated_kinetics(self) -> Kinetics:
        """Kinetics of each replicate of the bootstrap."""
        return kinetics(self.excursions, *self.replicates)

    def log_error(self, name: str = "rates") -> np.ndarray:
        """Standard errors of ln of "rates", "mean_first_passage_times", "populations" or "flux", in the shape of these.

        1.96 of them hold 95 %, also with few blocks: exp(ln k +- 1.96 error) is the interval.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(getattr(self.replicated_kinetics, name)).std(axis=0, ddof=1) * self.blocks.factor()

    def error_budget(self, n_replicates: int = 100) -> dict[str, np.ndarray]:
        """Variances of ln k (n_states, n_states) that shots, and free runs from each state, bring in.

        Extend the part with the largest one: twice as many of these halve it.
        """
        budget = {}
        for stratum in np.unique(self.blocks.stratum):
            name = "shots" if stratum == 0 else f"free runs of state {stratum - 1}"
            replicates = self._replicates(n_replicates, self.seed, only=int(stratum))
            with np.errstate(divide="ignore", invalid="ignore"):
                budget[name] = np.log(kinetics(self.excursions, *replicates).rates).var(axis=0, ddof=1)
        return budget

    @cached_property
    def effective(self) -> dict[str, float]:
        r"""Effective number of excursions behind each kind of transition, and behind the overlap with free runs.

        :math:`(\sum W)^2 / \sum W^2` over the transitions; :math:`\sum_i c_i p_i (1 - p_i)` with :math:`p_i` the share
        of the free runs of a state in the denominator of excursion i: its inverse is the variance of the ratio of
        normalisations.
        """
        x, found = self.excursions, {}
        for i in range(x.n_states):
            for j in range(i):
                w = self.weights[(x.ends == [i, j]).all(axis=1) | (x.ends == [j, i]).all(axis=1)]
                if len(w) and w.sum() > 0:
                    found[f"transitions between states {j} and {i}"] = float(w.sum() ** 2 / (w**2).sum())
        _, share = shares(self.ensembles.log_s, self.ensembles.sizes(), self.normalisations)
        for state in range(x.n_states):
            p, of_shots = share[:, state], share[:, x.n_states :].sum(axis=1)
            found[f"overlap of shots and free runs of state {state}"] = float(self.ensembles.counts @ (p * of_shots))
        return found

    def free_energy(self, values, bins, internal_values=None, internal_owner=None) -> FreeEnergy:
        """-ln of the equilibrium probability per bin of one or two functions of configurations.

        Parameters
        ----------
        values : array, shape (m,) or (m, 2)
            One or two numbers for each stored frame of the excursions.
        bins : array (b + 1,), or two of them for two functions
            Edges.
        internal_values : array, shape (l,) or (l, 2), optional
            The same for frames within the states, from the internal stretches of free runs, evenly taken.
        internal_owner : int array, shape (l,), optional
            Excursion (of a free run) that follows on the stretch of each internal frame.

        Returns
        -------
        FreeEnergy
            In kT, 0 at its minimum.
        """
        weights, repeats = self.replicates
        together = np.concatenate([self._estimate[0], weights]), np.concatenate([self._estimate[1], repeats])
        return free_energy(self.excursions, *together, values, bins, internal_values, internal_owner, self.blocks.factor())

    @cached_property
    def _estimate(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (1, n), not normalised, and repeats (1, n) of the estimate itself."""
        weights = np.zeros((1, len(self.used)))
        weights[0, self.used] = _weights(self.ensembles, self.ensembles.log_s, self.ensembles.counts, self.normalisations)
        return weights, np.ones(weights.shape)

    def _replicates(self, n_replicates: int, seed: int, only: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        repeats = self.blocks.repeats(n_replicates, np.random.default_rng(seed), only)
        weights = np.zeros(repeats.shape, dtype=np.float32)
        changes = [shots.change_of_log_s(repeats) for shots in self.ensembles.shots]
        for row, times in enumerate(repeats):
            log_s = self.ensembles.log_s.copy()
            for shots, change in zip(self.ensembles.shots, changes, strict=True):
                log_s[:, shots.column] += change[row]
            counts = self.ensembles.counts * times[self.used]
            f = normalisations(log_s, counts, self.ensembles.ensemble, self.normalisations)
            weights[row, self.used] = _weights(self.ensembles, log_s, counts, f)
        return weights, repeats


def _weights(ensembles: Ensembles, log_s, counts, f) -> np.ndarray:
    """W (n_used,) with the sum 1."""
    log_d, _ = shares(log_s, np.bincount(ensembles.ensemble, counts, minlength=len(f)), f)
    found = counts * np.exp(log_d.min() - log_d)
    return found / found.sum()


def _contributions(x: Excursions, used, ensembles: Ensembles, f) -> np.ndarray:
    """What each excursion brings into the flux and into the normalisations, (n, 2): it tells how long blocks have to be."""
    found = np.zeros((len(used), 2))
    weights = _weights(ensembles, ensembles.log_s, ensembles.counts, f)
    found[used, 0], found[used, 1] = weights * x.is_transition()[used], ensembles.counts
    return found / np.maximum(found.mean(axis=0), 1e-300)


def _lorentzian(log_committor: np.ndarray) -> np.ndarray:
    return selection_log_weights(log_committor, log_weight_function("lorentzian", 1.0))


def _within(log_u, window: float, m: np.ndarray):
    """u, zero beyond the window."""
    if not window > 0:
        raise ValueError(f"window is {window}; expected a positive number of log-odds, or inf")
    lowest = independent_legs(-np.logaddexp(0, np.array([[window, -window]])), orientations([(0, 1)], 2))[0]

    def log_u_within(log_committor):
        return np.where(independent_legs(log_committor, m) >= lowest, log_u(log_committor), -np.inf)

    return log_u if np.isinf(window) else log_u_within


def _check(x: Excursions, used: np.ndarray) -> None:
    kinds = dict(zip(*(each.tolist() for each in np.unique(x.kind, return_counts=True)), strict=True))
    if not (used & np.isin(x.kind, (SHOT, EXCHANGE))).any():
        raise ValueError(
            f"no shots that can be weighted; kinds are {kinds}. Expected two-way shots with Boltzmann velocities, from the "
            "paths of a transition path ensemble ('shot') or from configurations ('exchange'); one-way shots say "
            "nothing here"
        )
    for state in range(x.n_states):
        if not ((x.kind == FREE) & (x.ends[:, 0] == state)).any():
            raise ValueError(
                f"no free runs with excursions from state {state}; kinds are {kinds}. Shots alone do not tell how "
                f"often the "
                "state is left: run free trajectories from there"
            )
    if np.ptp(x.log_committor, axis=0).max(initial=0) < 1e-6:
        raise ValueError(
            "the committor is the same in all frames: the model is constant. Train it, or give the log_committor of "
            "the model "
            "that guided the shots"
        )


def _warn_of_lost_shots(x: Excursions, left_out: dict[str, int]) -> None:
    lost = left_out["broke off"] + left_out["over the length limit"]
    n_shots = int(np.isin(x.kind, (SHOT, EXCHANGE)).sum())
    if lost > MOST_LOST * n_shots:
        warnings.warn(
            f"{lost} of {n_shots} shots broke off or are over the length limit; expected at most {MOST_LOST:.0%}. "
            "Long excursions then have weights from free runs only: raise the limit",
            stacklevel=3,
        )


def _refuse_few(estimate: Equilibrium, fewest: float) -> None:
    effective = estimate.effective
    few = {name: number for name, number in effective.items() if number < fewest}
    if estimate.used.any() and not any(name.startswith("transitions") for name in effective):
        few["transitions"] = 0.0
    if few:
        listed = ", ".join(f"{name}: {number:.1f}" for name, number in few.items())
        raise TooFewExcursions(
            f"too few excursions: {listed} (effective numbers); expected at least {fewest:g}. For few transitions "
            f"make more "
            "shots; for little overlap run longer free runs, or shoot closer to the states (log-odds near -6 and 6)",
            effective,
        )
