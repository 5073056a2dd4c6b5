"""Initial transition paths for many chains: as many climbs at the same time, on an executor."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import openpathsampling as paths
from tqdm.auto import tqdm

from ops_aimmd.committor.clusters import SMALLEST, cluster, crossing_points, separation_asked, widest_gap
from ops_aimmd.runs.climb import Climb, check_beginning, stuck_in_state
from ops_aimmd.sampling.collective_variables import evaluate_descriptors
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.executors.choose import Executor, opened
from ops_aimmd.shooting.interrupts import Interrupts
from ops_aimmd.shooting.legs import check_engine, length_limit
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec, legs_from_result, specification
from ops_aimmd.shooting.states import state_index
from ops_aimmd.shooting.step_seeds import frames_key
from ops_aimmd.shooting.streams import own_random_numbers


class InitialPaths(list):
    """Transition paths, to be given to `ParallelPathSampling`, and how different they are. ``print`` says it in words.

    Parameters
    ----------
    trajectories : iterable of openpathsampling.Trajectory
    halfway : array, shape (n, d), optional
    channels : int array, shape (n,), optional

    Attributes
    ----------
    halfway : array, shape (n, d), or None
        Descriptors of each path where `progress` is half-way between the states for the last time. None: not known.
    channels : int array, shape (n,), or None
        Group of each of these points: 0 for the largest, and so on. None: not known.
    """

    def __init__(self, trajectories=(), halfway: np.ndarray | None = None, channels: np.ndarray | None = None):
        super().__init__(trajectories)
        self.halfway = halfway
        self.channels = channels

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each path, int array, shape (n,)."""
        return np.array([len(path) for path in self], dtype=int)

    @property
    def n_channels(self) -> int | None:
        """How many channels the paths show; None: not known."""
        return None if self.channels is None else int(self.channels.max()) + 1

    def __str__(self) -> str:
        if not self:
            return "no paths"
        lengths = self.lengths
        return (
            f"{len(self)} initial paths of {lengths.min()} to {lengths.max()} frames (median {np.median(lengths):.0f}). "
            f"{self._diversity()}"
        )

    def _diversity(self) -> str:
        if self.channels is None:
            return f"How many channels they take is not known: that needs descriptors and at least {2 * SMALLEST} paths."
        sizes = np.bincount(self.channels)
        if len(sizes) > 1:
            return f"Half-way they take {len(sizes)} channels, with {', '.join(map(str, sizes))} paths."
        separation, n_apart = widest_gap(self.halfway)
        asked = separation_asked(len(self))
        return (
            f"Half-way no two channels can be told apart: the widest gap has {n_apart} paths on one side and is "
            f"{separation:.1f} times as wide as the groups, where {len(self)} paths need {asked:.1f}. There may be "
            "channels that no path has taken: several functions of progress, another start, or more paths may find them."
        )


def initial_paths(
    n: int,
    snapshot,
    progress: Callable | Sequence[Callable],
    states: Sequence,
    seed: int | None = None,
    engine=None,
    modifier=None,
    executor=None,
    n_shots: int = 2000,
    descriptors=None,
    show_progress: bool = True,
) -> InitialPaths:
    """Independent transition paths between two states, one for each of many chains.

    Each is found as by `ops_aimmd.initial_path`: from the frame with the highest `progress` so far two legs are shot,
    without any force, until one shot joins the states. All climbs go on at the same time, each as soon as its own shot is
    back. They have only the first snapshot in common, which they leave with velocities of their own; path number k
    depends on the seed and on k alone, not on where the shots run, in which order they come back, or how many paths there
    are.

    Only the dynamics runs on the executor. Independent climbs need not find all channels, nor as often as transitions take
    them: what lies uphill in `progress` is found first, however many the paths. Several functions that agree on the two
    states and differ on the way, used by turns, find more.

    Parameters
    ----------
    n : int
        Number of paths.
    snapshot : openpathsampling snapshot
        In the first state, or between the states.
    progress : callable or sequence of callables
        A number for a snapshot (an OPS collective variable, for instance a distance), larger in the last state than in
        the first. Of m functions path number k climbs the one with the number k modulo m.
    states : two openpathsampling volumes
    seed : int, optional
        None: a fresh one. The generators of this process are left as they were.
    engine : openpathsampling engine, optional
        The snapshot's own, if left out.
    modifier : openpathsampling.SnapshotModifier, optional
        Draws velocities; `BoltzmannVelocities`, if left out.
    executor : optional
        Where shots run: see `ParallelPathSampling`.
    n_shots : int
        Shots of each climb before it gives up.
    descriptors : optional
        As for `CommittorLearner`. With them the paths are sorted into channels: groups of three or more that are far apart
        where `progress`, or the first of several, is half-way between the states.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    InitialPaths
        A list of openpathsampling.Trajectory from the first state to the last, no longer than the engine's
        ``n_frames_max``, in the order of the climbs, with lengths and channels.

    Raises
    ------
    ValueError
        If there are not two states, or something given is of the wrong kind.
    RuntimeError
        If no climb found a path; the message has the reasons.

    Warns
    -----
    UserWarning
        If some climbs found none; the message says which and why.
    """
    progress = list(progress) if isinstance(progress, Sequence) and not isinstance(progress, str) else [progress]
    engine = check_beginning(snapshot, progress, states, engine)  # what is wrong shows before hours of dynamics
    _check_numbers(n, n_shots, seed)
    check_engine(engine, None)
    modifier = BoltzmannVelocities(engine) if modifier is None else modifier
    if descriptors is not None:
        evaluate_descriptors(descriptors, paths.Trajectory([snapshot]))
    shooter = _Shooter(engine, modifier, progress, states, n_shots, uuid.uuid4().hex)
    seeds = _seeds(seed, frames_key([snapshot]), n)
    climbers = [_Climber(number, snapshot, shooter, seeds[number]) for number in range(n)]
    with opened(executor) as ready:
        shooter.start(ready, leaving=state_index(snapshot, states) >= 0)
        _climb_all(climbers, ready, show_progress)
    found = [climber.climb.path for climber in climbers if climber.failure is None]
    _report_failures(climbers)
    return _with_channels(found, progress[0], descriptors)


def _check_numbers(n, n_shots, seed) -> None:
    for name, number in (("n", n), ("n_shots", n_shots)):
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name} must be a positive integer; got {number!r}")
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise ValueError(f"seed must be a non-negative integer or None; got {seed!r}")


def _seeds(seed: int | None, key: int, n: int) -> list[int]:
    """A seed for each climb, independent of the number of climbs."""
    sequence = np.random.SeedSequence(None if seed is None else [seed, key])
    return [int(child.generate_state(1, np.uint64)[0]) for child in sequence.spawn(n)]


class _Shooter:
    """What all climbs have in common."""

    def __init__(self, engine, modifier, progress, states, n_shots, run_id):
        self.engine, self.modifier, self.progress, self.states = engine, modifier, progress, states
        self.n_shots, self.run_id = n_shots, run_id
        self.limit = length_limit(engine, None)
        self.leaving_key = self.climbing_key = ""

    def start(self, executor: Executor, leaving: bool) -> None:
        """Tell the executor where legs stop: outside of the states while these are left, inside afterwards."""
        self.climbing_key = executor.start(self.engine, self.states, self.run_id)
        if leaving:
            self.leaving_key = executor.start(self.engine, [~(self.states[0] | self.states[1])], self.run_id)


class _Climber:
    """One climb, of which at most one shot is under way."""

    def __init__(self, number: int, snapshot, shooter: _Shooter, seed: int):
        self.number = number
        self.climb: Climb | None = None
        self.failure: str | None = None
        self._shooter = shooter
        self._seed = seed
        self._start = snapshot
        if state_index(snapshot, shooter.states) < 0:
            self._begin(snapshot)

    @property
    def has_ended(self) -> bool:
        return self.failure is not None or (self.climb is not None and self.climb.path is not None)

    def shot(self) -> ShotSpec:
        """The next shot: out of the state at first, uphill then."""
        shooter, leaving = self._shooter, self.climb is None
        number = 0 if leaving else self.climb.n_shots + 1
        with own_random_numbers(self._seed, number):
            self._start = shooter.modifier(self._start if leaving else self.climb.highest)
        return specification(
            f"{shooter.run_id}/{self.number}-{number}",
            shooter.leaving_key if leaving else shooter.climbing_key,
            self._start,
            ("forward",) if leaving else ("backward", "forward"),
            None,
            # one number more than the seed of the velocities
            seed=int(np.random.SeedSequence([self._seed, number, 1]).generate_state(1, np.uint64)[0]),
        )

    def take(self, outcome: ShotResult | ShotFailure) -> None:
        """Go on from what came of the shot."""
        if isinstance(outcome, ShotFailure):
            self.failure = f"{outcome.kind}, {outcome.error}"
            return
        legs = legs_from_result(outcome, self._start, self._shooter.engine)
        if self.climb is None:
            self._leave(legs["forward"])
            return
        self.climb.take(legs["backward"], legs["forward"])
        if self.climb.path is None and self.climb.n_shots >= self._shooter.n_shots:
            self.failure = self.climb.report

    def _leave(self, leg) -> None:
        if leg.failure == "nan":
            self.failure = "the dynamics from the snapshot broke down: relax it first"
        elif leg.failure == "max_length":
            self.failure = stuck_in_state(self._shooter.limit)
        else:
            self._begin(leg.trajectory[-1])

    def _begin(self, first) -> None:
        shooter = self._shooter
        progress = shooter.progress[self.number % len(shooter.progress)]
        self.climb = Climb(first, progress, shooter.states, shooter.limit)


def _climb_all(climbers: list[_Climber], executor: Executor, show_progress: bool) -> None:
    """Each climb goes on as soon as its own shot is back, until all have ended."""
    waiting: dict[str, _Climber] = {}
    ready, made = climbers, 0
    with Interrupts() as interrupts, tqdm(total=len(climbers), unit="path", disable=not show_progress) as bar:
        try:
            while True:
                for climber in ready if not interrupts.asked else []:
                    spec = climber.shot()
                    executor.submit(spec)
                    waiting[spec.shot_id] = climber
                if interrupts.asked:
                    for shot in executor.withdraw():
                        waiting.pop(shot, None)
                if not waiting:
                    break
                with interrupts.wait():
                    outcomes = [outcome for outcome in executor.results() if outcome.shot_id in waiting]
                owners = [waiting.pop(outcome.shot_id) for outcome in outcomes]
                for climber, outcome in zip(owners, outcomes, strict=True):
                    climber.take(outcome)
                ready = [climber for climber in owners if not climber.has_ended]
                made += len(owners)
                bar.set_postfix(shots=made, refresh=False)
                bar.update(len(owners) - len(ready))
        except BaseException:
            executor.withdraw()
            raise
    if interrupts.asked:
        raise KeyboardInterrupt


def _report_failures(climbers: list[_Climber]) -> None:
    failed = [climber for climber in climbers if climber.failure is not None]
    if not failed:
        return
    reasons = "\n".join(f"climb {climber.number}: {climber.failure}" for climber in failed)
    n_found = len(climbers) - len(failed)
    if n_found == 0:
        raise RuntimeError(f"none of {len(climbers)} climbs found a path.\n{reasons}")
    warnings.warn(f"only {n_found} of {len(climbers)} initial paths were found.\n{reasons}", stacklevel=3)


def _with_channels(found: list[paths.Trajectory], progress: Callable, descriptors) -> InitialPaths:
    if descriptors is None:
        return InitialPaths(found)
    values = [evaluate_descriptors(descriptors, path) for path in found]
    heights = [np.array([float(progress(frame)) for frame in path]) for path in found]
    level = np.mean([(height[0] + height[-1]) / 2 for height in heights])
    halfway = np.array([crossing_points(x, height - level)[-1] for x, height in zip(values, heights, strict=True)])
    if len(found) < 2 * SMALLEST or not np.isfinite(halfway).all():
        return InitialPaths(found, halfway)
    return InitialPaths(found, halfway, cluster(halfway, np.concatenate(values).std(axis=0)))
