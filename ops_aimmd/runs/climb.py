"""A first transition path for any system, out of unbiased dynamics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot, NoEngine

from ops_aimmd.engines.running import generate
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.legs import Leg, length_limit, run_leg
from ops_aimmd.shooting.states import state_index
from ops_aimmd.shooting.step_seeds import frames_key
from ops_aimmd.shooting.streams import seed_generators


def initial_path(
    snapshot,
    progress: Callable,
    states: Sequence,
    seed: int | None = None,
    engine=None,
    modifier=None,
    n_shots: int = 2000,
) -> paths.Trajectory:
    r"""A transition path between two states, found by shooting uphill.

    From the snapshot, and then from the frame with the highest `progress` that any leg has reached, two legs are shot
    forward and backward in time with fresh velocities. Both end in the first state: the climb goes on from the highest
    frame; if that is no higher than before, it still takes the place of the last step of the climb, as long as it is above
    the step before that. Both end in the last: one step down again. Each in another state: together they are the path. No
    force pulls, so that the path is a piece of the engine's own dynamics with its frame spacing and its temperature: every
    frame but the two ends lies outside the states. Only its shooting point was not drawn from the ensemble of transition
    paths: let the sampling forget it, and start several chains from several seeds.

    Works where `progress` rises along the reaction, even if it is a poor reaction coordinate: what else has to happen does
    happen during the legs.

    Parameters
    ----------
    snapshot : openpathsampling snapshot
        In the first state, or between the states.
    progress : callable
        A number for a snapshot (an OPS collective variable, for instance a distance), larger in the last state than in
        the first.
    states : two openpathsampling volumes
    seed : int, optional
        Seeds numpy's global generator and the engine for each shot, so that the path can be found again; None leaves them
        alone.
    engine : openpathsampling engine, optional
        The snapshot's own, if left out.
    modifier : openpathsampling.SnapshotModifier, optional
        Draws velocities; `BoltzmannVelocities`, if left out.
    n_shots : int
        Shots before giving up; a barrier of 8 kT takes some hundreds, most of them of a few frames.

    Returns
    -------
    openpathsampling.Trajectory
        From the first state to the last, no longer than the engine's ``n_frames_max``.

    Raises
    ------
    ValueError
        If there are not two states, something given is of the wrong kind, or no engine is given and that of the snapshot
        cannot run.
    RuntimeError
        If no shot joined the states, or the dynamics from the snapshot did not leave its state.
    """
    engine = check_beginning(snapshot, [progress], states, engine)
    modifier = BoltzmannVelocities(engine) if modifier is None else modifier
    limit = length_limit(engine, None)
    key = frames_key([snapshot])
    if seed is not None:
        seed_generators((seed, key, 0), [engine])
    climb = Climb(_leave(snapshot, engine, states, limit), progress, states, limit)
    while climb.path is None and climb.n_shots < n_shots:
        if seed is not None:
            seed_generators((seed, key, climb.n_shots + 1), [engine])
        start = modifier(climb.highest)
        climb.take(*(run_leg(engine, frame, states, limit) for frame in (start.reversed, start)))
    if climb.path is None:
        raise RuntimeError(climb.report)
    return climb.path


class Climb:
    """What a climb knows between two shots: where to shoot from next, and the path, if it has come to its end.

    Parameters
    ----------
    first : openpathsampling snapshot
        Outside of the states.
    progress : callable
        See `initial_path`.
    states : two openpathsampling volumes
    limit : float
        Largest number of frames of the path.

    Attributes
    ----------
    path : openpathsampling.Trajectory or None
        From the first state to the last.
    n_shots : int
        That were taken.
    """

    def __init__(self, first, progress: Callable, states: Sequence, limit: float):
        self.path: paths.Trajectory | None = None
        self.n_shots = 0
        self._progress = progress
        self._states = states
        self._limit = limit
        self._ladder = [first]

    @property
    def highest(self):
        """The frame from which the next shot starts, with fresh velocities."""
        return self._ladder[-1]

    def take(self, backward: Leg, forward: Leg) -> None:
        """Go on from the legs of a shot; backward starts with the velocities of the shooting point reversed."""
        self.n_shots += 1
        outcomes = {backward.outcome, forward.outcome}
        if outcomes == {0, 1}:
            path = _join(backward, forward) if backward.outcome == 0 else _join(forward, backward)
            if len(path) <= self._limit:
                self.path = path
        elif outcomes == {1}:
            self._ladder = self._ladder[:-1] if len(self._ladder) > 1 else self._ladder
        else:
            self._climb_on(leg for leg in (backward, forward) if leg.failure != "nan")

    def _climb_on(self, legs: Iterable[Leg]) -> None:
        ladder, progress = self._ladder, self._progress
        between = [frame for leg in legs for frame in leg.trajectory[1:] if state_index(frame, self._states) < 0]
        highest = max(between, key=progress, default=ladder[-1])
        if progress(highest) > progress(ladder[-1]):
            ladder.append(highest)
        elif len(ladder) > 1 and progress(highest) > progress(ladder[-2]):
            ladder[-1] = highest  # sideways: what `progress` does not see has to move, too

    @property
    def report(self) -> str:
        """How far a climb has come that found no path, and what to do."""
        low, high = (float(self._progress(frame)) for frame in (self._ladder[0], self._ladder[-1]))
        return (
            f"{self.n_shots} shots gave no path between the states of at most {self._limit} frames; the climb came from "
            f"{low:.4g} to {high:.4g} in {len(self._ladder) - 1} steps. Is `progress` larger in the last state? Raise "
            "n_shots, or the engine's n_frames_max"
        )


def check_beginning(snapshot, progress: Sequence[Callable], states: Sequence, engine=None):
    """The engine of a climb: the given one, or that of the snapshot.

    Raises
    ------
    ValueError
        If a climb cannot begin: no snapshot, no function of it, not two states, no engine that can run.
    """
    if isinstance(snapshot, paths.Trajectory):
        raise ValueError(
            f"snapshot is a trajectory of {len(snapshot)} frames: give one of them, for instance trajectory[0]"
        )
    if not isinstance(snapshot, BaseSnapshot):
        raise ValueError(f"snapshot must be an openpathsampling snapshot; got {type(snapshot).__name__}")
    if not isinstance(states, Sequence) or any(not isinstance(state, paths.Volume) for state in states):
        raise ValueError(f"states must be a list of two openpathsampling volumes; got {states!r}")
    if len(states) != 2:
        raise ValueError(f"got {len(states)} states, expected two: find a path for each pair of states")
    if not progress or not all(callable(function) for function in progress):
        raise ValueError(f"progress must be a function of a snapshot (an OPS collective variable), not {progress!r}")
    for function in progress:
        value = function(snapshot)
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"progress must give one number for a snapshot; got {value!r}") from error
    return _engine_that_runs(snapshot, engine)


def _engine_that_runs(snapshot, engine):
    given = engine is not None
    engine = engine if given else snapshot.engine
    if isinstance(engine, NoEngine) or not isinstance(engine, paths.engines.DynamicsEngine):
        owner = "the given engine" if given else "the engine of the snapshot"
        raise ValueError(
            f"{owner}, {type(engine).__name__}, cannot run dynamics (a snapshot from a PDB file knows only its topology): "
            "give engine=, the one that you sample with"
        )
    return engine


def stuck_in_state(limit: float) -> str:
    """What to say of dynamics that has not left its state."""
    return (
        f"the dynamics from the snapshot did not leave the state within {limit} frames: give a snapshot between the states"
    )


def _leave(snapshot, engine, states, limit):
    """The snapshot, or the first frame outside the states of dynamics that begin there."""

    def inside(trajectory, trusted=None):
        return state_index(trajectory[-1], states) >= 0 and len(trajectory) < limit

    last = generate(engine, snapshot, inside)[-1]
    if state_index(last, states) >= 0:
        raise RuntimeError(stuck_in_state(limit))
    return last


def _join(before, after):
    """Path from the end of one leg to the end of the other; both left the shooting point, with opposite velocities."""
    return before.trajectory.reversed + after.trajectory[1:]
