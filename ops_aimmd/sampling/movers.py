"""The shooting move: one or two legs that always run to a state, whatever the ensemble asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np
import openpathsampling as paths
from openpathsampling.pathmover import (
    EngineMover,
    SampleMaxLengthError,
    SampleNaNError,
    SpecializedRandomChoiceMover,
)

from ops_aimmd.bounded_memory import BoundedMemory
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import is_at_rest
from ops_aimmd.sampling.joining_ensembles import joined_states
from ops_aimmd.sampling.path_frames import PATHS_REMEMBERED
from ops_aimmd.sampling.selectors import CommittorSelector, Pick
from ops_aimmd.shooting.legs import Leg, check_engine, length_limit, make_legs
from ops_aimmd.shooting.states import state_index

KEEP_VELOCITIES = (paths.NoModification, paths.VelocityDirectionModifier, paths.SingleAtomVelocityDirectionModifier)
"""Modifiers that keep velocities of the frame, in part or in whole."""

NO_VELOCITIES = (
    "the legs would start at rest, at 0 K, and the committor would be learned from them. Files such as DCD, XTC and PDB "
    'hold no velocities. Draw new ones: shooting="two-way", for the first steps at least; or give the frames theirs, '
    "for instance trajectory_from_mdtraj(..., velocities=...)"
)

LEGS = {"both": ("backward", "forward"), "forward": ("forward",), "backward": ("backward",)}


class ShootingMover(EngineMover):
    r"""Shooting move with new legs that always run until they reach a state.

    One shooting point is picked from the path; with both legs, the modifier draws new velocities. Each leg runs
    until it is in one of the `states`, so that every shot gives its outcomes, accepted or not, without bias. A trial
    that is valid only with its time reversed is reversed: under time-reversible dynamics a path B -> A is as good as its
    image A -> B. With m the number of orientations in which a path is in the ensemble, the acceptance is

    .. math::  \min\left[1, \frac{P(x|new)}{P(x|old)} \frac{m(new)}{m(old)}\right],

    m = 1 for all paths of an A -> B ensemble. Paths with more than `max_length` frames are rejected; each leg may run
    up to `max_length` frames, so that its outcome does not depend on the other leg.

    Parameters
    ----------
    ensemble : openpathsampling.Ensemble
    selector : openpathsampling.ShootingPointSelector
        For both legs its weights must be even under velocity reversal.
    states : sequence of openpathsampling.Volume
        Where legs stop; their order is the order of the outcomes.
    modifier : openpathsampling.SnapshotModifier, optional
        Draws velocities from a symmetric distribution; only with both legs.
    engine : openpathsampling.engines.DynamicsEngine
    legs : {"both", "forward", "backward"}
        Two-way shooting, or one leg of one-way shooting, which keeps the rest of the path and its velocities.
    max_length : int, optional
        Limit on the frames of the whole path; the engine's `n_frames_max` by default.

    Notes
    -----
    The details of each step hold `shooting_index, predicted_committor, model_version, frozen, leg_outcomes, leg_lengths`
    (backward, forward in the old path's time; outcome -1 and length 0 for a leg that a one-way move does not make),
    `trial_reversed` (whether the trial runs against the old path's time), `selection_probability_old,
    selection_probability_new, weight_sum_old, weight_sum_new, seed`; None where a value does not exist.

    References
    ----------
    Dellago, Bolhuis, Chandler, J. Chem. Phys. 108, 9236 (1998), doi:10.1063/1.476378; Jung, Okazaki, Hummer, J. Chem.
    Phys. 147, 152716 (2017), doi:10.1063/1.4997378.
    """

    def __init__(self, ensemble, selector, states, modifier=None, engine=None, legs="both", max_length=None):
        super().__init__(ensemble=ensemble, target_ensemble=ensemble, selector=selector, engine=engine, modifier=modifier)
        self.states = states
        self.legs = legs
        self.max_length = max_length
        self._orientation_counts = BoundedMemory(PATHS_REMEMBERED)
        if legs not in LEGS:
            raise ValueError(f"legs must be one of {sorted(LEGS)}; got {legs!r}")
        if max_length is not None and not (isinstance(max_length, Integral) and max_length >= 3):
            raise ValueError(
                f"max_length is the largest number of frames of a path, at least 3 (two ends and a shooting point); got "
                f"{max_length!r}"
            )
        if legs != "both" and modifier is not None and not isinstance(modifier, paths.NoModification):
            raise ValueError("a one-way move keeps the velocities of the path; leave out the modifier")

    @property
    def direction(self) -> str:
        return self.legs

    @property
    def length_limit(self) -> float:
        """Largest number of frames of a path; infinite where neither the mover nor the engine has a limit."""
        return length_limit(self.engine, self.max_length)

    def check_engine(self) -> None:
        """Check that the engine makes legs as they must be.

        Raises
        ------
        ValueError
            If there is no engine, it cannot make legs of `max_length` frames, or it repeats dynamics that failed.
        """
        check_engine(self.engine, self.max_length)

    def __call__(self, input_sample):
        """Make a trial; returns the list of one sample and the details of the step."""
        old = self._current_path(input_sample)
        pick = self._pick(old)
        index = pick.index
        point = old[index]
        details = {
            "initial_trajectory": old,
            "shooting_snapshot": point,
            "shooting_index": index,
            **self._selection_details(old, pick),
        }
        start = self.modifier(point) if self.legs == "both" else point
        if is_at_rest(start) and adapter_of(self.engine).has_inertia:
            raise ValueError(f"frame {index} of the current path of {len(old)} frames has no velocities: {NO_VELOCITIES}")
        trial, trial_index, orientations = self._make_trial(input_sample, old, index, start, details)
        bias = 0.0
        if orientations:
            ratio = self._selection_ratio(old, pick, trial, trial_index, details)
            bias = ratio * self.modifier.probability_ratio(point, start)
            if self.legs == "both":
                bias *= orientations / self._orientations(old)
                self._orientation_counts[trial.__uuid__] = orientations
        return [self._sample(input_sample, trial, bias)], details

    def _current_path(self, input_sample) -> paths.Trajectory:
        """The path to move, after a look at the engine and at its length."""
        self.check_engine()
        path = input_sample.trajectory
        if len(path) > self.length_limit:
            raise ValueError(
                f"the current path has {len(path)} frames, more than the limit of {self.length_limit} (max_length, or the "
                "engine's n_frames_max): start from a shorter path or raise the limit"
            )
        return path

    def _make_trial(self, input_sample, old, index: int, start, details: dict):
        """Run the legs from `start`, which replaces frame `index` of `old`, and join them; note the shot in the details.

        Returns the trial, the index of the shooting point in it, and in how many orientations it is in the ensemble. Raises
        the errors with which OPS counts a trial that broke off as rejected.
        """
        details["modified_shooting_snapshot"] = start
        details["trial_reversed"] = False
        legs = make_legs(self.engine, start, LEGS[self.legs], self.states, self.length_limit)
        details["leg_outcomes"] = [legs[name].outcome if name in legs else -1 for name in LEGS["both"]]
        details["leg_lengths"] = [len(legs[name].trajectory) if name in legs else 0 for name in LEGS["both"]]

        trial = self._join(old, index, legs)
        failures = {leg.failure for leg in legs.values()} - {None}
        if "nan" not in failures and len(trial) > self.length_limit:
            failures.add("max_length")
        for failure, error in (("nan", SampleNaNError), ("max_length", SampleMaxLengthError)):
            if failure in failures:
                details["stopping_reason"] = failure
                raise error(f"shot ended by {failure}", self._sample(input_sample, trial, 0.0), details)

        trial_index = len(legs["backward"].trajectory) - 1 if "backward" in legs else index
        trial, trial_index, orientations = self._orient(trial, trial_index, self._ends(old, legs))
        details["trial_reversed"] = trial[trial_index].__uuid__ != start.__uuid__
        details["modified_shooting_snapshot"] = trial[trial_index]  # as it is stored: SimStore keeps no reversed partners
        if orientations and self._legs_tell_the_states:
            self.selector.learner.path_frames(trial, interior_is_outside=True)
        return trial, trial_index, orientations

    @property
    def _legs_tell_the_states(self) -> bool:
        """Whether frames of a trial between its ends lie outside of the states of the selector's learner: legs that end at
        these states have looked at all others already."""
        if self.legs != "both" or not isinstance(self.selector, CommittorSelector):
            return False
        states = self.selector.learner.states
        return len(states) == len(self.states) and all(a is b for a, b in zip(states, self.states, strict=True))

    def _pick(self, path) -> Pick:
        if isinstance(self.selector, CommittorSelector):
            return self.selector.choose(path)
        return Pick(int(self.selector.pick(path)))

    def _selection_ratio(self, old, pick: Pick, trial, trial_index: int, details: dict) -> float:
        """Ratio of the probabilities of the shooting point on the new and on the old path; notes the new one."""
        new = self._selection_probability(trial, trial_index, pick)
        details["selection_probability_new"], details["weight_sum_new"] = new
        if pick.weights is not None:
            return self.selector.ratio(pick, trial, trial_index)
        return float(self.selector.probability_ratio(old[pick.index], old, trial, new_snapshot=trial[trial_index]))

    def _selection_probability(self, path, index: int, pick: Pick) -> tuple[float, float]:
        """Probability of picking a frame from a path, and the sum of weights, by the version of the pick."""
        if pick.weights is not None:
            weights = self.selector.path_weights(path, pick.version)
            return math.exp(weights.log_probability(index)), math.exp(weights.log_sum)
        return float(self.selector.probability(path[index], path)), float(self.selector.sum_bias(path))

    def _selection_details(self, old, pick: Pick) -> dict:
        details = dict.fromkeys(["model_version", "frozen", "predicted_committor", "seed"])
        if pick.weights is not None:
            learner = self.selector.learner
            details["model_version"] = pick.version.number
            details["frozen"] = learner.learned_for_step.frozen
            details["predicted_committor"] = np.exp(pick.weights.log_committor[pick.index]).tolist()
            details["seed"] = learner.simulations.step_seed
        probability, weight_sum = self._selection_probability(old, pick.index, pick)
        details |= {"selection_probability_old": probability, "weight_sum_old": weight_sum}
        return details | {"selection_probability_new": None, "weight_sum_new": None}

    def _join(self, old, index: int, legs: dict[str, Leg]) -> paths.Trajectory:
        if "backward" in legs and "forward" in legs:
            return legs["backward"].trajectory.reversed + legs["forward"].trajectory[1:]
        if "forward" in legs:
            return old[:index] + legs["forward"].trajectory
        return legs["backward"].trajectory.reversed + old[index + 1 :]

    def _orient(self, trial, index: int, ends: tuple[int, int]):
        """The trial in a valid orientation, the index of the shooting point in it, and in how many it is valid.

        Ends are the states of the first and the last frame; between them the trial is in no state.
        """
        joined = joined_states(self.ensemble, self.states) if len(trial) > 2 else None
        valid = self.ensemble(trial, candidate=True) if joined is None else ends in joined
        if self.legs != "both":
            return trial, index, int(valid)
        if joined is None:
            reversed_valid = self.ensemble(trial.reversed, candidate=True)
        else:
            reversed_valid = ends[::-1] in joined
        if reversed_valid and not valid:
            return trial.reversed, len(trial) - 1 - index, 1
        return trial, index, int(valid) + int(reversed_valid)

    def _ends(self, old, legs: dict[str, Leg]) -> tuple[int, int]:
        """States of the first and the last frame of the trial."""
        return tuple(
            legs[name].outcome if name in legs else state_index(old[frame], self.states)
            for name, frame in (("backward", 0), ("forward", -1))
        )

    def _accept(self, trials):
        """Metropolis acceptance by the bias of the trial, which is 0 for one that is in no orientation in the ensemble."""
        (trial,) = trials
        random = self._rng.random()
        accepted = trial.bias > 0 and random <= trial.bias
        return accepted, {"metropolis_acceptance": trial.bias, "metropolis_random": random}

    def _orientations(self, path) -> int:
        return self._orientation_counts.recall(path.__uuid__, lambda: self._count_orientations(path))

    def _count_orientations(self, path) -> int:
        n_valid = sum(bool(self.ensemble(p, candidate=True)) for p in (path, path.reversed))
        if n_valid == 0:
            raise ValueError(
                f"the current path of {len(path)} frames is not in the ensemble {self.ensemble.name!r}; start from a "
                "path that is, for instance through scheme.initial_conditions_from_trajectories"
            )
        return n_valid

    def to_dict(self):
        return {**super().to_dict(), "max_length": None if self.max_length is None else int(self.max_length)}

    def _sample(self, input_sample, trial, bias: float) -> paths.Sample:
        return paths.Sample(
            replica=input_sample.replica,
            trajectory=trial,
            ensemble=self.ensemble,
            parent=input_sample,
            mover=self,
            bias=bias,
        )


class OneWayShooting(SpecializedRandomChoiceMover):
    """One-way shooting: with equal probability a new forward or a new backward leg, each run to a state.

    Parameters as for `ShootingMover`.
    """

    def __init__(self, ensemble, selector, states: Sequence, engine=None, max_length=None):
        super().__init__(
            movers=[
                ShootingMover(ensemble, selector, states, engine=engine, legs=legs, max_length=max_length)
                for legs in ("forward", "backward")
            ]
        )


def check_velocities(root, samples) -> None:
    """Check that moves which keep the velocities of a path find some in it.

    Parameters
    ----------
    root : openpathsampling.PathMover
        It and all movers below it are looked at; those of OPS, too.
    samples : iterable of openpathsampling.Sample
        The first paths.

    Raises
    ------
    ValueError
        If no frame of a path has velocities, its mover keeps those of the path, and the dynamics has inertia.
    """
    samples = list(samples)
    movers = [m for m in submovers(root) if isinstance(m, EngineMover) and isinstance(m.modifier, KEEP_VELOCITIES)]
    for mover in movers:
        if not adapter_of(mover.engine).has_inertia:
            continue
        for sample in samples:
            path = sample.trajectory
            if sample.ensemble in mover.input_ensembles and all(is_at_rest(frame) for frame in path):
                raise ValueError(
                    f"the path of {len(path)} frames has no velocities, and {mover.name!r} keeps them: {NO_VELOCITIES}"
                )


def submovers(mover) -> Iterator:
    """A mover and all movers below it."""
    yield mover
    for submover in mover.submovers:
        yield from submovers(submover)
