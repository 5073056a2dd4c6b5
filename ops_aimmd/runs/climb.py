"""Climbs from one state to another: each shot starts from the highest frame so far, until one joins the states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import openpathsampling as paths

from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.legs import Leg, length_limit
from ops_aimmd.shooting.shots import ResultHere, ShotFailure, ShotHere, ShotResult, ShotSpec, legs_from_result
from ops_aimmd.shooting.states import state_index
from ops_aimmd.shooting.streams import own_random_numbers, seed_from


class Climb:
    """The state of a climb between two shots: where to shoot from next, and the path once it is found.

    Attributes
    ----------
    path : openpathsampling.Trajectory or None
        From the first of the two states to the last, of at most `limit` frames.
    n_shots : int
        Number of shots taken so far.
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


@dataclass
class Climber:
    """One of many climbs, with its own random numbers. At most one shot is under way.

    Parameters
    ----------
    start : openpathsampling snapshot
        Inside a state it is left first, by dynamics with fresh velocities.
    engine, modifier, progress, states, n_shots
        See `ops_aimmd.initial_paths`.
    run_id : str
        Tells the shots of this call from those of others on the same executor.
    keys : mapping of str to str
        Engine keys on the executor: "climb" for legs that stop inside the states, "leave" for those that stop outside.

    Attributes
    ----------
    climb : Climb or None
        None while the first state is not left.
    failure : str or None
        Why there is no path.
    """

    number: int
    seed: int
    start: paths.engines.BaseSnapshot
    engine: paths.engines.DynamicsEngine
    modifier: paths.SnapshotModifier
    progress: Callable
    states: Sequence[paths.Volume]
    n_shots: int
    executor: Executor
    run_id: str
    keys: Mapping[str, str]
    climb: Climb | None = None
    failure: str | None = None

    def __post_init__(self):
        self.limit = length_limit(self.engine, None)
        if state_index(self.start, self.states) < 0:
            self._begin(self.start)

    @property
    def has_ended(self) -> bool:
        """Whether there is a path, or never will be."""
        return self.failure is not None or (self.climb is not None and self.climb.path is not None)

    def shot(self) -> ShotSpec | ShotHere:
        """The next shot: out of the state at first, then uphill."""
        leaving = self.climb is None
        number = 0 if leaving else self.climb.n_shots + 1
        with own_random_numbers(self.seed, number):
            self.start = self.modifier(self.start if leaving else self.climb.highest)
        return self.executor.specification(
            f"{self.run_id}/{self.number}-{number}",
            self.keys["leave" if leaving else "climb"],
            self.start,
            ("forward",) if leaving else ("backward", "forward"),
            None,
            seed=seed_from([self.seed, number, 1]),
        )

    def take(self, outcome: ShotResult | ResultHere | ShotFailure) -> None:
        """Go on from the result of the shot."""
        if isinstance(outcome, ShotFailure):
            self.failure = str(outcome)
            return
        legs = legs_from_result(outcome, self.start, self.engine)
        if self.climb is None:
            self._leave(legs["forward"])
            return
        self.climb.take(legs["backward"], legs["forward"])
        if self.climb.path is None and self.climb.n_shots >= self.n_shots:
            self.failure = self.climb.report

    def _leave(self, leg: Leg) -> None:
        if leg.failure == "nan":
            self.failure = "the dynamics from the snapshot broke down: relax it first"
        elif leg.failure == "max_length":
            self.failure = (
                f"the dynamics from the snapshot did not leave the state within {self.limit} frames: give a snapshot "
                "between the states"
            )
        else:
            self._begin(leg.trajectory[-1])

    def _begin(self, first) -> None:
        self.climb = Climb(first, self.progress, self.states, self.limit)


def _join(before, after):
    """Path from the end of one leg to the end of the other; both left the shooting point, with opposite velocities."""
    return before.trajectory.reversed + after.trajectory[1:]
