"""Configurations for a committor simulation: frames of paths, spread evenly over predicted committors from 0 to 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from numbers import Integral

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot

from ops_aimmd.sampling.learner import CommittorLearner

NEAR_ENOUGH = 0.05
"""Distance in committor from a wanted value, half a bin of the reliability table, up to which a frame may stand for it."""


def spread_along_committor(
    trajectories: Iterable[paths.Trajectory], learner: CommittorLearner, n_configurations: int = 50, seed=None
) -> list[BaseSnapshot]:
    """Pick configurations with predicted committors spread evenly over 0 to 1.

    The range of the committor is divided into `n_configurations` equal intervals, and each gives one frame: of a trajectory
    that has given the fewest so far, drawn at random, the one nearest to the middle of the interval (most frames of an
    interval may lie at its edge, as they do next to the states). Where an interval has no frame, the nearest free one
    takes its place, if it is less than 0.05 away from the middle. With more than two states, each state gets its share of
    the configurations, spread along the probability of reaching it.

    Frames inside the states and the two end frames of each trajectory are left out. A trajectory or frame that occurs
    several times, as after rejected moves and in one-way shooting, counts once.

    Parameters
    ----------
    trajectories : iterable of openpathsampling.Trajectory
        Transition paths, for instance ``[step.active[0].trajectory for step in storage.steps]``, or plain dynamics. For a
        test of the model, best of a run from which it has not learned.
    learner : CommittorLearner
        Its current model predicts the committor.
    n_configurations : int
    seed : int, optional
        Fixes the choice. No global generator is touched.

    Returns
    -------
    list of Snapshot
        In the order of the committor, at most `n_configurations`.

    Raises
    ------
    ValueError
        If the trajectories are of another kind, they have no frame outside of the states, or descriptors are not finite.
    RuntimeError
        If the learner has no model yet.

    Warns
    -----
    UserWarning
        If ranges of the committor have no frames; the message names them.
    """
    check_positive("n_configurations", n_configurations)
    learner.version  # noqa: B018 - raises where there is no model
    snapshots, trajectory_of, descriptors = _frames_outside_states(trajectories, learner)
    committor = np.exp(learner.model.log_committor(descriptors))
    picker = _Picker(trajectory_of, np.random.default_rng(seed))
    last = learner.n_states - 1
    states = [last] if last == 1 else range(learner.n_states)
    chosen, gaps = [], []
    for state, intervals in zip(states, np.array_split(np.arange(n_configurations), len(states)), strict=True):
        rows = picker.pick(committor[:, state], len(intervals))
        chosen.extend(row for row in rows if row >= 0)
        empty = _ranges(rows < 0)
        gaps.extend([f"{' and '.join(empty)} of {learner.states[state].name}"] if empty else [])
    if gaps:
        warnings.warn(
            f"no frames have a predicted committor of {', '.join(gaps)}, so that only {len(chosen)} of {n_configurations} "
            "configurations were chosen and the model is not tested there: give more trajectories, or, if there are "
            "plenty, look at the model, which may not be able to tell these frames apart",
            stacklevel=2,
        )
    return [snapshots[row] for row in chosen]


def _frames_outside_states(trajectories, learner) -> tuple[list, np.ndarray, np.ndarray]:
    """Snapshots, the number of the trajectory that each belongs to, and their descriptors; each frame once."""
    snapshots, numbers, descriptors, known = [], [], [], set()
    for number, trajectory in enumerate(trajectories):
        if not isinstance(trajectory, paths.Trajectory):
            raise ValueError(
                "trajectories are openpathsampling.Trajectory objects, for instance [step.active[0].trajectory for step in "
                f"storage.steps]; number {number} is a {trajectory.__class__.__name__} (one trajectory alone: put it in a "
                "list)"
            )
        if trajectory.__uuid__ in known:
            continue
        known.add(trajectory.__uuid__)
        frames = learner.path_frames(trajectory)
        for index in np.flatnonzero(frames.selectable):
            snapshot = trajectory[int(index)]
            key = int(snapshot.__uuid__) & ~1  # a snapshot and its time reversal are one configuration
            if key not in known:
                known.add(key)
                snapshots.append(snapshot)
                numbers.append(number)
                descriptors.append(frames.descriptors[index])
    if not snapshots:
        raise ValueError(
            "there are no configurations to choose from: no trajectory was given that has frames outside of the states "
            f"{[state.name for state in learner.states]} besides its two ends"
        )
    return snapshots, np.array(numbers), np.array(descriptors)


class _Picker:
    """Picks frames, each once, from as many different trajectories as there are."""

    def __init__(self, trajectory_of: np.ndarray, rng: np.random.Generator):
        self._trajectory_of = trajectory_of
        self._rng = rng
        self._free = np.ones(len(trajectory_of), dtype=bool)
        self._times_used = np.zeros(trajectory_of.max() + 1, dtype=int)

    def pick(self, values: np.ndarray, n: int) -> np.ndarray:
        """A frame for each of n equal intervals of 0 to 1, by values (m,); int array (n,), -1 where there is none."""
        rows = np.full(n, -1)
        interval = np.minimum((values * n).astype(int), n - 1)
        for k in range(n):
            inside = np.flatnonzero(self._free & (interval == k))
            if len(inside):
                inside = self._of_least_used(inside)
                rows[k] = self._take(inside[np.abs(values[inside] - (k + 0.5) / n).argmin()])
        for k in np.flatnonzero(rows < 0):
            distance = np.where(self._free, np.abs(values - (k + 0.5) / n), np.inf)
            if distance.min() < NEAR_ENOUGH:
                rows[k] = self._take(distance.argmin())
        return rows

    def _of_least_used(self, candidates: np.ndarray) -> np.ndarray:
        """The candidates of one trajectory."""
        trajectory_of = self._trajectory_of[candidates]
        owners = np.unique(trajectory_of)
        used = self._times_used[owners]
        return candidates[trajectory_of == self._rng.choice(owners[used == used.min()])]

    def _take(self, row: int) -> int:
        self._free[row] = False
        self._times_used[self._trajectory_of[row]] += 1
        return row


def _ranges(empty: np.ndarray) -> list[str]:
    """Neighbouring empty intervals of 0 to 1 joined, in words."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], empty, [False]])))
    return [f"{low / len(empty):.2f}-{high / len(empty):.2f}" for low, high in edges.reshape(-1, 2)]


def check_positive(name: str, number) -> None:
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name} must be a positive integer; got {number!r}")
