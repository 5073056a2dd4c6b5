"""From a finished MC step to shooting results: which legs reached which state, and from where.

Reads the moves of this package (their details hold everything) and the shooting moves of OPS (their details hold
neither the shooting index nor the legs). What is no shot is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import openpathsampling as paths
from openpathsampling import pathmover

from ops_aimmd.committor.training_set import BOLTZMANN, PATH, UNKNOWN, LegFrames, ShootingResult
from ops_aimmd.sampling.joining_ensembles import allowed_ends
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import LEGS, ShootingMover
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.states import state_index

FRAMES_PER_LEG = 12
"""Frames kept as auxiliary data of a leg of half the length of the path that was shot from; its end comes on top."""

MAX_FRAMES_PER_LEG = 48
"""Frames kept of a longer leg at most, counted from the shooting point."""


@dataclass(frozen=True)
class Shot:
    """One shooting move, read from OPS objects.

    Attributes
    ----------
    path : Trajectory
        The path that was shot from.
    index : int
        Index of the shooting point in it, before a storage was told to keep fewer frames.
    trial : Trajectory
        The new path, as far as it is known or stored.
    trial_index : int
        Index of the shooting point in it.
    trial_reversed : bool
        Whether the trial runs against the time of `path`.
    leg_lengths, leg_outcomes : dict of str to int
        Frames of each new leg with the shooting point, and index of the state that it reached, -1 for none, by name:
        "backward", "forward" in the time of `path`.
    unbiased_legs : tuple of str
        Legs with an outcome that is a fair trial; see `counted_legs`.
    new_frames : int
        Frames of dynamics that the move cost.
    kept_end : int or None
        One-way shots: index of the state in which the kept part of the path ends, -1 for none.
    details : openpathsampling.Details
        Details of the move.
    """

    path: paths.Trajectory
    index: int
    trial: paths.Trajectory
    trial_index: int
    trial_reversed: bool
    leg_lengths: dict
    leg_outcomes: dict
    unbiased_legs: tuple
    new_frames: int
    velocity_origin: str
    accepted: bool
    predicted_committor: list | None
    replica: int
    kept_end: int | None
    details: paths.Details

    def leg(self, name: str) -> paths.Trajectory:
        """Frames of a leg in the order of generation, shooting point first."""
        if (name == "forward") != self.trial_reversed:
            leg = self.trial[self.trial_index :]
        else:
            leg = self.trial[: self.trial_index + 1].reversed
        return leg[: self.leg_lengths[name]]


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
            yield _ops_shot(part, states, mixed_directions)


def is_transition(shot: Shot) -> bool:
    """Whether the trial as a whole joins two different states."""
    ends = list(shot.leg_outcomes.values())
    if shot.kept_end is not None:
        ends.append(shot.kept_end)
    return len(ends) == 2 and min(ends) >= 0 and ends[0] != ends[1]


def _own_shot(part, states) -> Shot:
    details = part.details
    mover = part.mover
    trial = samples_of(part)[0].trajectory
    index = int(details.shooting_index)
    made = LEGS[mover.legs]
    lengths = dict(zip(LEGS["both"], (int(n) for n in details.leg_lengths), strict=True))
    outcomes = dict(zip(LEGS["both"], (int(i) for i in details.leg_outcomes), strict=True))
    trial_index = int(trial.index_symmetric(details.modified_shooting_snapshot))
    names = [name for name in made if lengths[name] > 1]  # a leg without dynamics is no trial
    shot = Shot(
        path=details.initial_trajectory,
        index=index,
        trial=trial,
        trial_index=trial_index,
        trial_reversed=bool(details.trial_reversed),
        leg_lengths={name: lengths[name] for name in names},
        leg_outcomes={},
        unbiased_legs=tuple(names),
        new_frames=sum(lengths[name] - 1 for name in made),
        velocity_origin=velocity_origin_of(mover.modifier) if mover.legs == "both" else PATH,
        accepted=bool(part.accepted),
        predicted_committor=details.predicted_committor,
        replica=int(samples_of(part)[0].replica),
        kept_end=_kept_end(details.initial_trajectory, mover.legs, states),
        details=details,
    )
    shot.leg_outcomes.update({name: _renumbered(outcomes[name], shot, name, mover.states, states) for name in names})
    return shot


def _renumbered(outcome: int, shot: Shot, name: str, mover_states, states) -> int:
    """A state's index in the order of the mover, in the order that is asked for."""
    if outcome < 0:
        return -1
    for index, state in enumerate(states):
        if state.__uuid__ == mover_states[outcome].__uuid__:
            return index
    return state_index(shot.leg(name)[-1], states)


def _ops_shot(part, states, mixed_directions: bool) -> Shot:
    """A shot of an OPS mover: its trial holds the shooting point and ends where a leg was stopped."""
    details = part.details
    mover = part.mover
    trial = samples_of(part)[0].trajectory
    path = details.initial_trajectory
    two_way = isinstance(mover, pathmover.AbstractTwoWayShootingMover)
    if two_way:
        names = LEGS["both"]
    else:
        names = ("forward",) if isinstance(mover, pathmover.ForwardShootMover) else ("backward",)
    lengths, outcomes, trial_index = {}, {}, 0
    # of a trial that broke off OPS keeps only the unfinished leg: nothing is known of its outcomes
    finished = part.__class__ not in (paths.RejectedMaxLengthSampleMoveChange, paths.RejectedNaNSampleMoveChange)
    new_frames = len(trial) - 1
    if finished:
        trial_index = trial.index_symmetric(details.modified_shooting_snapshot if two_way else details.shooting_snapshot)
        legs = {"backward": trial[: trial_index + 1].reversed, "forward": trial[trial_index:]}
        new_frames = sum(len(legs[name]) - 1 for name in names)
        for name in names:
            length, outcome = until_state(legs[name], states)
            if length > 1:
                lengths[name], outcomes[name] = length, outcome
    counted = counted_legs(mover, mixed_directions) if two_way else names
    return Shot(
        path=path,
        index=int(path.index(details.shooting_snapshot)),
        trial=trial,
        trial_index=trial_index,
        trial_reversed=False,
        leg_lengths=lengths,
        leg_outcomes=outcomes,
        unbiased_legs=tuple(name for name in counted if name in lengths),
        new_frames=new_frames,
        velocity_origin=velocity_origin_of(mover.modifier) if two_way else PATH,
        accepted=bool(part.accepted),
        predicted_committor=None,
        replica=int(samples_of(part)[0].replica),
        kept_end=None if two_way else _kept_end(path, names[0], states),
        details=details,
    )


def counted_legs(mover, mixed_directions: bool) -> tuple[str, ...]:
    r"""Legs of OPS's two-way moves that may be counted, where OPS made them: both, or only the first one.

    OPS makes the second leg only if the first one ended where a path of the ensemble may end. Forward first, the backward
    leg is made if the forward one stopped in E, the volumes in which a path may end (`can_prepend`). Backward first, the
    forward leg is made if the backward one stopped in S, the volumes in which a path may begin (`can_append`).

    The first leg is always made: its outcome is unbiased. For both legs, let :math:`Q(s, t)` be the probability that one
    leg reaches state s and the other one stops in t. Fresh velocities v and -v are equally probable, so that Q is symmetric
    and :math:`\sum_t Q(s, t) = p_s` is the committor. The number of legs to s, :math:`n_s`, has the mean

    - :math:`p_s + \sum_{t \in E} Q(s, t)` forward first,
    - :math:`p_s + \sum_{t \in S} Q(s, t)` backward first,
    - :math:`p_s + \frac{1}{2} \sum_t c_t Q(s, t)`, :math:`c_t = [t \in E] + [t \in S]`, if both have equal probability.

    If :math:`c_t` is the same number c for all t in which legs stop, :math:`\langle n_s \rangle = (1 + c/2)\, p_s`: both
    legs are unbiased, whatever their correlation. If not, they are unbiased only if the legs are independent,
    :math:`Q(s, t) = p_s p_t`, and inertia makes them dependent. So both legs count

    - in ensembles from some states to all others (A to B; A to B or C): c = 1, the two rules are complementary;
    - in ensembles from all states to all states: c = 2, both legs are always made;

    and not in interface ensembles (A to A or B: :math:`c_A = 2`, :math:`c_B = 1`). Where one order is always used,
    :math:`c_t` is :math:`2 [t \in E]` or :math:`2 [t \in S]`, and both legs count in the second case only.

    Velocities that are kept from the path favour one direction: Q is not symmetric, and no leg is a fair trial.

    Parameters
    ----------
    mover : openpathsampling.pathmover.AbstractTwoWayShootingMover
    mixed_directions : bool
        Whether it is one of the two orders between which a `TwoWayShootingMover` chooses with equal probability.

    Returns
    -------
    tuple of str
        "backward", "forward"; only the first leg where the ensemble stops legs by a rule that is not known here.
    """
    forward_first = isinstance(mover, pathmover.ForwardFirstTwoWayShootingMover)
    ends = allowed_ends(mover.target_ensemble)
    if ends is not None:
        stops, begins, finishes = ends
        allowed = (begins, finishes) if mixed_directions else (finishes if forward_first else begins,)
        if len({sum(stop in volumes for volumes in allowed) for stop in stops}) == 1:
            return LEGS["both"]
    return ("forward",) if forward_first else ("backward",)


def samples_of(change) -> list[paths.Sample]:
    """Samples of a move change. OPS gives a list of samples, but a bare sample where a trial broke off."""
    return [change.samples] if isinstance(change.samples, paths.Sample) else list(change.samples or [])


def until_state(leg, states) -> tuple[int, int]:
    """Frames of a leg up to the first one in a state, and the index of that state; -1 if it reached none.

    Where the ensemble of an OPS mover lets paths pass through states, the legs go on beyond their outcome.
    """
    for index, snapshot in enumerate(leg):
        outcome = state_index(snapshot, states)
        if outcome >= 0:
            return index + 1, outcome
    return len(leg), -1


def _kept_end(path, legs: str, states) -> int | None:
    """State at the end of the path that a one-way move keeps; None for a two-way move."""
    if legs == "both":
        return None
    return state_index(path[0] if legs == "forward" else path[-1], states)


def shooting_result(shot: Shot, learner: CommittorLearner, step: int) -> ShootingResult | None:
    """What the learner learns from a shot; None if no leg reached a state.

    A prediction that the move did not record is made now, before the learner has seen the shot.
    """
    reached = [shot.leg_outcomes[name] for name in shot.unbiased_legs if shot.leg_outcomes[name] >= 0]
    if not reached:
        return None
    if getattr(shot.details, "stored_stride", 1) > 1:  # the index counts frames that were not stored, too
        descriptors = learner.evaluate_descriptors(paths.Trajectory([shot.details.shooting_snapshot]))[0]
    else:
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


def _leg_frames(shot: Shot, learner: CommittorLearner) -> LegFrames | None:
    """Frames at intervals that depend on the old path alone, so that they know nothing of where their leg will go."""
    frames, outcomes, is_end = [], [], []
    stride = max(1, round(len(shot.path) / 2 / FRAMES_PER_LEG))
    all_stored = getattr(shot.details, "stored_stride", 1) == 1 and getattr(shot.details, "stored_trial", None) is None
    for name in shot.unbiased_legs:
        outcome = shot.leg_outcomes[name]
        if outcome < 0:
            continue
        leg = shot.leg(name)
        last = len(leg) - 1
        if last < 1:
            continue
        chosen = [*range(stride, last, stride)[:MAX_FRAMES_PER_LEG], last]
        frames.extend(leg[i - before] for i in chosen for before in (1, 0))
        outcomes.extend([outcome] * len(chosen))
        is_end.extend(i == last for i in chosen)
    if not frames:
        return None
    descriptors = learner.evaluate_descriptors(paths.Trajectory(frames))
    before, descriptors = descriptors[::2], descriptors[1::2]
    displacements = descriptors - before if all_stored else np.full_like(descriptors, np.nan)
    is_end = np.array(is_end)
    known = np.isfinite(descriptors).all(axis=1)  # an undefined descriptor inside a state is no reason to stop
    known &= known[is_end][np.cumsum(is_end) - is_end]  # but a leg is told from the next one by its end
    return LegFrames(descriptors[known], np.array(outcomes)[known], is_end[known], displacements[known])


def velocity_origin_of(modifier) -> str:
    if isinstance(modifier, (BoltzmannVelocities, paths.RandomVelocities)):
        return BOLTZMANN
    return PATH if isinstance(modifier, paths.NoModification) else UNKNOWN
