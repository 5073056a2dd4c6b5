"""Free energies and rates of a run: its shots and free runs as excursions, reweighted to equilibrium.

The theory and its conditions are in `ops_aimmd.reweighting`. This module reads what it needs from an OPS file and from free
runs, evaluates the committor with networks that have not seen the shots that they judge, and puts names and units to the
results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from ops_aimmd.analysis.run_data import checked_states, or_those_stored
from ops_aimmd.committor.likelihood import log_committor
from ops_aimmd.reweighting import Equilibrium, Excursions, reweight
from ops_aimmd.reweighting.excursions import FREE, SHOT
from ops_aimmd.runs.free_runs import FreeRuns
from ops_aimmd.sampling.joining_ensembles import joined_states
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner
from ops_aimmd.sampling.movers import ShootingMover
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.storage.existing_files import opened, path_shots, read_steps


@dataclass(frozen=True, eq=False)
class RunEquilibrium:
    """Equilibrium averages of a run; made by `ops_aimmd.equilibrium`.

    Attributes
    ----------
    estimate : Equilibrium
        The same in frames and without names.
    descriptors : float32 array, shape (m, d)
        Descriptors of each stored frame of the excursions.
    descriptor_names : tuple of str
    state_names : tuple of str
    time_per_frame : (float, str)
    log_odds : array, shape (m,) or (m, n_states)
        Reaction coordinate of each stored frame: log-odds of the last of two states, ln p of more.
    internal_descriptors, internal_owner : arrays
        Frames of free runs within the states, and the excursion that follows on each.
    n_others : int
        Shots of the file that cannot be weighted: one-way, interface ensembles, exchange, OPS's own movers.
    """

    estimate: Equilibrium
    descriptors: np.ndarray
    descriptor_names: tuple[str, ...]
    state_names: tuple[str, ...]
    time_per_frame: tuple[float, str]
    log_odds: np.ndarray
    internal_descriptors: np.ndarray
    internal_owner: np.ndarray
    n_others: int = 0

    @property
    def rates(self) -> pd.DataFrame:
        """Rate constants, one row per pair of states.

        Columns: from, to; rate, error (standard error) and the ends low, high of the 95 % interval, per unit of time;
        mean_first_passage_time; unit of time.
        """
        time, unit = self.time_per_frame
        log_error = self.estimate.log_error("rates")
        rows = [
            {
                "from": one,
                "to": another,
                "rate": (rate := self.estimate.rates[i, j] / time),
                "error": rate * log_error[i, j],
                "low": rate * np.exp(-1.96 * log_error[i, j]),
                "high": rate * np.exp(1.96 * log_error[i, j]),
                "mean_first_passage_time": self.estimate.mean_first_passage_times[i, j] * time,
                "unit": unit,
            }
            for i, one in enumerate(self.state_names)
            for j, another in enumerate(self.state_names)
            if i != j
        ]
        return pd.DataFrame(rows)

    @property
    def weights(self) -> np.ndarray:
        """Weight of each excursion, array (n,): occurrences per frame of equilibrium time."""
        return self.estimate.weights

    def free_energy(self, function: str | int | Callable = "q", bins=40):
        """Free energy on a function of configurations.

        Parameters
        ----------
        function : str, int or callable
            "q" for the log-odds of the committor (two states), the name or number of a descriptor, or a function of
            descriptors (n, d) that returns (n,) or (n, 2).
        bins : int or array, or two arrays of edges for a function of two values
            Number of bins, or their edges.

        Returns
        -------
        FreeEnergy
            In kT, 0 at its minimum. The frames in the states count as well, but for "q", which is -inf and inf there.
        """
        values, internal = self._values(function)
        if np.ndim(bins) == 0:
            low, high = np.min(values, axis=0), np.max(values, axis=0)
            bins = np.linspace(low, high, int(bins) + 1)
            bins = bins if values.ndim == 1 else [*bins.T]
        if internal is None:
            return self.estimate.free_energy(values, bins)
        return self.estimate.free_energy(values, bins, internal, self.internal_owner)

    def _values(self, function) -> tuple[np.ndarray, np.ndarray | None]:
        if function == "q":
            if self.log_odds.ndim != 1:
                raise ValueError('"q" is for two states; give a function of the descriptors')
            return self.log_odds, None
        if isinstance(function, str):
            if function not in self.descriptor_names:
                raise ValueError(f"no descriptor is called {function!r}; there are {list(self.descriptor_names)[:20]}")
            function = self.descriptor_names.index(function)
        if not callable(function):
            return self.descriptors[:, function], self.internal_descriptors[:, function]
        return np.asarray(function(self.descriptors)), np.asarray(function(self.internal_descriptors))

    def __str__(self) -> str:
        time, unit = self.time_per_frame
        lines = [
            f"k({row['from']} -> {row['to']}) = {row.rate:.3g} (95 %: {row.low:.3g} to {row.high:.3g}) per {unit}"
            for _, row in self.rates.iterrows()
        ]
        effective = ", ".join(f"{name} {number:.0f}" for name, number in self.estimate.effective.items())
        left_out = ", ".join(
            f"{number} {reason}"
            for reason, number in (self.estimate.left_out | {"shots of other kinds": self.n_others}).items()
            if number
        )
        return "\n".join([*lines, f"effective excursions: {effective}", *([f"left out: {left_out}"] if left_out else [])])


def equilibrium(
    storage,
    checkpoint: str | os.PathLike | None = None,
    free_runs: str | os.PathLike | FreeRuns | None = None,
    learner: CommittorLearner | None = None,
    descriptors=None,
    states: Sequence | None = None,
    discard: int = 0,
    progress: bool = True,
    **options,
) -> RunEquilibrium:
    """Weights, free energies and rates from the shots of a run and from free runs.

    Shots are two-way shots of this package's movers in transition path ensembles. Shots of other moves, and exchange shots,
    are left out and counted. The current path must be in equilibrium: discard the steps in which it forgets its first path,
    and see that chains from different first paths agree on the reaction channels.

    Parameters
    ----------
    storage : openpathsampling.Storage, SimStore Storage, or path-like
        The OPS file of the run, with whole trials.
    checkpoint : path-like, optional
        The checkpoint of the run; gives the learner.
    free_runs : path-like or FreeRuns
        From `ops_aimmd.free_runs`, with the same descriptors and states.
    learner : CommittorLearner, optional
        Instead of a checkpoint.
    descriptors, states : optional
        As for `ops_aimmd.load_learner`, where the checkpoint cannot hold them.
    discard : int
        First steps that are left out.
    progress : bool
        Show a progress bar.
    **options
        Keyword arguments of `ops_aimmd.reweighting.reweight`.

    Returns
    -------
    RunEquilibrium

    Raises
    ------
    ValueError
        If trials were not stored whole, there are no shots or no free runs, or free runs and shots do not fit.
    TooFewExcursions
        If an estimate would rest on too few excursions.

    References
    ----------
    doi:10.1021/acs.jctc.3c00821
    """
    if free_runs is None:
        raise ValueError(
            "rates and free energies need free runs, which tell how often a state is left: make some with "
            "ops_aimmd.free_runs"
        )
    if learner is None and checkpoint is None:
        raise ValueError("give the checkpoint of the run, or its learner")
    runs = free_runs if isinstance(free_runs, FreeRuns) else FreeRuns.load(free_runs)
    with opened(storage) as file:
        if learner is None:
            descriptors, states = or_those_stored(file, descriptors, states)
            learner = load_learner(checkpoint, descriptors, checked_states(states, file))
        shots = _read_shots(file, learner, discard, progress)
    _check_fit(runs, shots, learner)
    excursions, stored, names, first = _excursions(shots, runs, learner)
    time = runs.time_per_frame or (1.0, "frame")
    log_odds = excursions.log_committor
    return RunEquilibrium(
        reweight(excursions, **{"transitions": sorted(shots.transitions or ()), **options}),
        stored,
        names,
        runs.state_names,
        time,
        log_odds[:, 1] - log_odds[:, 0] if log_odds.shape[1] == 2 else log_odds,
        runs.internal_descriptors,
        runs.internal_owner + first,
        shots.n_others,
    )


@dataclass
class _Shots:
    """Shots of a run, a list entry each."""

    chain: list = field(default_factory=list)
    step: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    length: list = field(default_factory=list)
    descriptors: list = field(default_factory=list)
    point: list = field(default_factory=list)
    log_selection_probability: list = field(default_factory=list)
    limit: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    frozen: list = field(default_factory=list)
    transitions: set | None = None
    """Pairs of states that the path ensemble joins."""
    n_others: int = 0
    """Shots of other kinds."""


def _read_shots(file, learner: CommittorLearner, discard: int, progress: bool) -> _Shots:
    found = _Shots()

    def read(step) -> list:
        return [(shot, mover, int(step.mccycle)) for shot, mover in path_shots(step, learner.states)]

    with closing(read_steps(file, read, progress, learner)) as steps:
        for shot, mover, step in steps:
            if step > discard:
                _append(found, shot, mover, step, learner)
    return found


def _append(found: _Shots, shot, mover, step: int, learner: CommittorLearner) -> None:
    """Keep a shot, or count it where it cannot be weighted."""
    details = shot.details
    two_way = {*shot.leg_outcomes} == {"backward", "forward"} and shot.velocity_origin == "boltzmann"
    own = isinstance(mover, ShootingMover) and not isinstance(mover, ShootingPointExchangeMover)
    joined = joined_states(mover.ensemble, learner.states) if own and two_way else None
    if not joined or found.transitions not in (None, joined):
        found.n_others += 1
        return
    if getattr(details, "stored_stride", 1) > 1 or getattr(details, "stored_trial", None) is not None:
        raise ValueError(
            f"step {step} was stored without all frames of its trial (rejected_trials or path_stride of the hook), and "
            "excursions need them: run with the default options of TrainingHook"
        )
    found.transitions = joined
    ends = shot.leg_outcomes["backward"], shot.leg_outcomes["forward"]
    limit = mover.length_limit
    unfinished = [name for name, outcome in shot.leg_outcomes.items() if outcome < 0]
    if unfinished:  # a trial of t at most: its frames say nothing else, and may be NaN
        values = learner.evaluate_descriptors(shot.trial[shot.trial_index : shot.trial_index + 1])
        point = values[0]
    else:
        values = learner.evaluate_descriptors(shot.trial)
        point, values = values[shot.trial_index], values[1:-1]
    found.chain.append(shot.replica)
    found.step.append(step)
    found.ends.append(ends)
    found.length.append(max(len(shot.trial) - 2, 1))
    found.point.append(point)
    found.descriptors.append(values.astype(np.float32))
    found.log_selection_probability.append(np.log(details.selection_probability_old))
    found.limit.append(limit - 2)
    found.failed.append(getattr(details, "stopping_reason", None) == "nan")
    found.frozen.append(bool(getattr(details, "frozen", False)))


def _check_fit(runs: FreeRuns, shots: _Shots, learner: CommittorLearner) -> None:
    if not len(runs.length):
        raise ValueError("the free runs hold no excursion: run them longer, from snapshots in each state")
    if not shots.step:
        raise ValueError(
            "the file holds no two-way shots of this package's movers after the discarded steps, and "
            f"{shots.n_others} shots of other kinds: one-way shots, interface ensembles, OPS's own movers"
        )
    names = tuple(state.name for state in learner.states)
    if names != runs.state_names or runs.descriptors.shape[1] != learner.model.n_descriptors:
        raise ValueError(
            f"the free runs have states {list(runs.state_names)} and {runs.descriptors.shape[1]} descriptors, the run "
            f"{list(names)} and {learner.model.n_descriptors}: make free runs with the learner of the run"
        )


def _excursions(shots: _Shots, runs: FreeRuns, learner: CommittorLearner):
    """All excursions; the descriptors of their frames; the names of descriptors; the number of the first free excursion."""
    if runs.failed.any():
        broken = np.flatnonzero(runs.failed).tolist()
        raise ValueError(f"free runs {broken} broke off (NaN): make new ones with a smaller time step")
    n_shots, n_free = len(shots.step), len(runs.run)
    frames = np.concatenate(shots.descriptors)
    owner = np.repeat(np.arange(n_shots), [len(each) for each in shots.descriptors])
    judge = _judges(shots, learner)
    of_frames = _log_committors(learner, frames, judge[owner])
    points = _log_committors(learner, np.array(shots.point), judge)
    of_free = learner.model.log_committor(runs.descriptors)
    excursions = Excursions(
        kind=np.array([SHOT] * n_shots + [FREE] * n_free),
        chain=np.append(shots.chain, runs.run),
        step=np.append(shots.step, runs.order),
        ends=np.concatenate([np.array(shots.ends), runs.ends]),
        length=np.append(shots.length, runs.length),
        offsets=np.append(np.cumsum([0, *map(len, shots.descriptors)]), len(frames) + runs.offsets[1:]),
        log_committor=np.concatenate([of_frames, of_free]),
        point_log_committor=np.concatenate([points, np.full((n_free, points.shape[1]), np.nan)]),
        log_selection_probability=np.append(shots.log_selection_probability, np.zeros(n_free)),
        limit=np.append(shots.limit, np.full(n_free, np.inf)),
        internal_frames=np.append(np.zeros(n_shots, int), runs.internal_frames),
        failed=np.append(shots.failed, np.zeros(n_free, bool)),
    )
    names = tuple(learner.descriptor_names or [str(i) for i in range(frames.shape[1])])
    return excursions, np.concatenate([frames, runs.descriptors]), names, n_shots


def _judges(shots: _Shots, learner: CommittorLearner) -> np.ndarray:
    """Which member of the judging network has not seen each shot, int array (n,); -1: the model itself, of a frozen run."""
    model, known = learner.model, learner.training_set
    nobody = np.full(len(shots.step), -1)
    if all(shots.frozen) or model.folds is None or getattr(model.of_judges.network, "n_members", 1) == 1 or not len(known):
        return nobody
    fold = model.folds.of(known.chains, known.steps)
    found = nobody.copy()
    for chain in np.unique(shots.chain):
        rows = np.flatnonzero(known.chains == chain)
        if not len(rows):
            continue
        rows = rows[np.argsort(known.steps[rows])]
        mine = np.flatnonzero(np.array(shots.chain) == chain)
        place = np.searchsorted(known.steps[rows], np.array(shots.step)[mine]).clip(0, len(rows) - 1)
        found[mine] = fold[rows[place]]
    return found


def _log_committors(learner: CommittorLearner, descriptors: np.ndarray, judge: np.ndarray) -> np.ndarray:
    """ln p (n, n_states) of each row by its judge."""
    found = np.empty((len(descriptors), learner.n_states))
    judges = learner.model.of_judges
    for member in np.unique(judge):
        rows = judge == member
        if member < 0:
            found[rows] = learner.model.log_committor(descriptors[rows])
            continue
        with torch.no_grad():
            x = torch.tensor(descriptors[rows], dtype=torch.float64, device=judges.device)
            found[rows] = log_committor(judges.member_logits(x)[int(member)]).double().cpu().numpy()
    return found
