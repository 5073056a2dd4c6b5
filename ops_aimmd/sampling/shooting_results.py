"""From a finished MC step to shooting results: which legs reached which state, and from where.

Reads the moves of this package, whose details hold everything, and the shooting moves of OPS, whose details hold
neither the shooting index nor the legs. What is no shot is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import openpathsampling as paths
from openpathsampling import pathmover

from ops_aimmd.committor.training_set import BOLTZMANN, PATH, UNKNOWN, LegFrames, ShootingResult

from .learner import CommittorLearner
from .movers import LEGS, ShootingMover
from .states import state_index
from .velocities import BoltzmannVelocities

FRAMES_PER_LEG = 10
"""Frames of a leg that are kept as auxiliary data, evenly spaced, beside its end frame."""


@dataclass(frozen=True)
class Shot:
    """One shooting move, read from OPS objects.

    Attributes
    ----------
    path : Trajectory
        The path that was shot from.
    index : int
        Index of the shooting point in it.
    legs : list of (Trajectory, int)
        Each new leg, shooting point first, with the index of the state that it reached, -1 for none.
    velocity_origin : str
    accepted : bool
    trial : Trajectory
    predicted_committor : list of float or None
    replica : int
    kept_end : int or None
        One-way shots: index of the state in which the kept part of the path ends, -1 for none.
    """

    path: paths.Trajectory
    index: int
    legs: list
    velocity_origin: str
    accepted: bool
    trial: paths.Trajectory
    predicted_committor: list | None
    replica: int
    kept_end: int | None = None


def shots(change, states) -> Iterator[Shot]:
    """All shots in a move change, each once.

    Parameters
    ----------
    change : openpathsampling.MoveChange
        `step.change`.
    states : sequence of openpathsampling.Volume
    """
    mixed_directions = any(isinstance(part.mover, pathmover.TwoWayShootingMover) for part in change)
    for part in change:
        if not part.samples or not isinstance(part.mover, pathmover.EngineMover):
            continue
        if isinstance(part.mover, ShootingMover):
            yield _own_shot(part, states)
        elif isinstance(
            part.mover,
            (pathmover.ForwardShootMover, pathmover.BackwardShootMover, pathmover.AbstractTwoWayShootingMover),
        ):
            shot = _ops_shot(part, states, mixed_directions)
            if shot is not None:
                yield shot


def is_transition(shot: Shot) -> bool:
    """Whether the trial as a whole joins two different states."""
    outcomes = [outcome for _, outcome in shot.legs]
    ends = outcomes if shot.kept_end is None else [*outcomes, shot.kept_end]
    return len(ends) == 2 and min(ends) >= 0 and ends[0] != ends[1]


def _own_shot(part, states) -> Shot:
    details = part.details
    mover = part.mover
    trial = part.samples[0].trajectory
    start = details.modified_shooting_snapshot
    index = trial.index_symmetric(start)
    if _holds(trial, start):
        pieces = {"backward": trial[: index + 1].reversed, "forward": trial[index:]}
    else:  # the trial was accepted in reverse
        pieces = {"backward": trial[index:], "forward": trial[: index + 1].reversed}
    outcomes = dict(zip(LEGS["both"], details.leg_outcomes, strict=True))
    redrawn = mover.legs == "both"
    return Shot(
        path=details.initial_trajectory,
        index=int(details.shooting_index),
        legs=[(pieces[name], int(outcomes[name])) for name in LEGS[mover.legs]],
        velocity_origin=_velocity_origin(mover.modifier) if redrawn else PATH,
        accepted=bool(part.accepted),
        trial=trial,
        predicted_committor=details.predicted_committor,
        replica=int(part.samples[0].replica),
        kept_end=_kept_end(details.initial_trajectory, mover.legs, states),
    )


def _ops_shot(part, states, mixed_directions: bool) -> Shot | None:
    """A shot of an OPS mover, whose trial holds its shooting point and ends where a leg was stopped."""
    details = part.details
    mover = part.mover
    if part.__class__ in (paths.RejectedMaxLengthSampleMoveChange, paths.RejectedNaNSampleMoveChange):
        return None  # OPS keeps only the unfinished leg
    trial = part.samples[0].trajectory
    two_way = isinstance(mover, pathmover.AbstractTwoWayShootingMover)
    start = details.modified_shooting_snapshot if two_way else details.shooting_snapshot
    index = trial.index_symmetric(start)
    ends = {"backward": trial[: index + 1].reversed, "forward": trial[index:]}
    if two_way:
        names = list(LEGS["both"])
        if not mixed_directions:  # the second leg is missing where the first decides: only the first is unbiased
            first_forward = isinstance(mover, pathmover.ForwardFirstTwoWayShootingMover)
            names = ["forward"] if first_forward else ["backward"]
    else:
        names = ["forward"] if isinstance(mover, pathmover.ForwardShootMover) else ["backward"]
    return Shot(
        path=details.initial_trajectory,
        index=int(details.initial_trajectory.index(details.shooting_snapshot)),
        legs=[(ends[name], state_index(ends[name][-1], states)) for name in names if len(ends[name]) > 1],
        velocity_origin=_velocity_origin(mover.modifier) if two_way else PATH,
        accepted=bool(part.accepted),
        trial=trial,
        predicted_committor=None,
        replica=int(part.samples[0].replica),
        kept_end=None if two_way else _kept_end(details.initial_trajectory, names[0], states),
    )


def _kept_end(path, legs: str, states) -> int | None:
    """State at the end of the path that a one-way move keeps; None for a two-way move."""
    if legs == "both":
        return None
    return state_index(path[0] if legs == "forward" else path[-1], states)


def shooting_result(shot: Shot, learner: CommittorLearner, step: int) -> ShootingResult | None:
    """What the learner learns from a shot; None if no leg reached a state.

    A prediction that the move did not record is made now, before the learner has seen the shot.
    """
    reached = [outcome for _, outcome in shot.legs if outcome >= 0]
    if not reached:
        return None
    descriptors = learner.path_frames(shot.path).descriptors[shot.index]
    predicted = shot.predicted_committor
    if predicted is None:
        predicted = np.exp(learner.model.log_committor(descriptors[None])[0])
    return ShootingResult(
        descriptors=descriptors,
        counts=np.bincount(reached, minlength=learner.n_states),
        step=step,
        chain=shot.replica,
        velocity_origin=shot.velocity_origin,
        predicted_committor=np.asarray(predicted),
        leg_frames=_leg_frames(shot, learner),
    )


def _leg_frames(shot: Shot, learner: CommittorLearner) -> LegFrames:
    frames, outcomes, is_end = [], [], []
    for leg, outcome in shot.legs:
        if outcome < 0:
            continue
        last = len(leg) - 1
        chosen = np.unique(np.linspace(1, last, FRAMES_PER_LEG + 1).astype(int))
        frames.extend(leg[int(i)] for i in chosen)
        outcomes.extend([outcome] * len(chosen))
        is_end.extend(chosen == last)
    descriptors = learner.evaluate_descriptors(paths.Trajectory(frames))
    finite = np.isfinite(descriptors).all(axis=1)  # an undefined descriptor inside a state is no reason to stop
    return LegFrames(descriptors[finite], np.array(outcomes)[finite], np.array(is_end, dtype=bool)[finite])


def _velocity_origin(modifier) -> str:
    return BOLTZMANN if isinstance(modifier, (BoltzmannVelocities, paths.RandomVelocities)) else UNKNOWN


def _holds(trial, snapshot) -> bool:
    try:
        trial.index(snapshot)
    except ValueError:
        return False
    return True
