"""First transition paths out of unbiased dynamics: as many climbs at the same time as there are chains."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot, NoEngine
from tqdm.auto import tqdm

from ops_aimmd.committor.clusters import SMALLEST, cluster, crossing_points, separation_asked, widest_gap
from ops_aimmd.runs.climb import Climber
from ops_aimmd.runs.configurations import check_positive
from ops_aimmd.sampling.collective_variables import evaluate_descriptors
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.executors.choose import opened
from ops_aimmd.shooting.executors.in_this_process import WithSnapshots
from ops_aimmd.shooting.legs import check_engine
from ops_aimmd.shooting.loop import ShotLoop
from ops_aimmd.shooting.states import state_index
from ops_aimmd.shooting.streams import check_seed, frames_key, seed_of_member, settled_seed


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
    snapshot, states, seed, engine, modifier
        As for `initial_paths`.
    progress : callable
        A number for a snapshot (an OPS collective variable, for instance a distance), larger in the last state than in
        the first.
    n_shots : int
        Shots before giving up; a barrier of 8 kT takes some hundreds, most of them of a few frames.

    Returns
    -------
    openpathsampling.Trajectory
        From the first state to the last, no longer than the engine's ``n_frames_max``: the first of `initial_paths`.

    Raises
    ------
    ValueError
        As `initial_paths`.
    RuntimeError
        If no shot joined the states, or the dynamics from the snapshot did not leave its state. Other errors of the engine
        or of a state are raised as they are.
    """
    return initial_paths(
        1, snapshot, progress, states, seed, engine, modifier, WithSnapshots(), n_shots, show_progress=False
    )[0]


class InitialPaths(list):
    """Transition paths, to be given to `ParallelPathSampling`, and how different they are. ``print`` says it in words.

    Parameters
    ----------
    trajectories : iterable of openpathsampling.Trajectory
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
    engine = check_beginning(snapshot, progress, states, engine)  # errors show before hours of dynamics
    check_positive("n", n)
    check_positive("n_shots", n_shots)
    check_seed(seed)
    check_engine(engine, None)
    modifier = BoltzmannVelocities(engine) if modifier is None else modifier
    if descriptors is not None:
        evaluate_descriptors(descriptors, paths.Trajectory([snapshot]))
    seed, key = settled_seed(seed), frames_key([snapshot])
    with opened(executor) as ready:
        run_id = uuid.uuid4().hex
        keys = {"climb": ready.start(engine, states, run_id)}
        if state_index(snapshot, states) >= 0:
            keys["leave"] = ready.start(engine, [~(states[0] | states[1])], run_id)
        climbers = [
            Climber(
                number=k,
                seed=seed_of_member(seed, key, k),
                start=snapshot,
                engine=engine,
                modifier=modifier,
                progress=progress[k % len(progress)],
                states=states,
                n_shots=n_shots,
                executor=ready,
                run_id=run_id,
                keys=keys,
            )
            for k in range(n)
        ]
        _climb_all(climbers, ready, show_progress)
    found = [climber.climb.path for climber in climbers if climber.failure is None]
    _report_failures(climbers)
    return _with_channels(found, progress[0], descriptors)


def check_beginning(snapshot, progress: Sequence[Callable], states: Sequence, engine=None):
    """The engine of a climb, the given one or that of the snapshot; ValueError if a climb cannot begin."""
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


def _climb_all(climbers: list[Climber], executor: Executor, show_progress: bool) -> None:
    """Each climb goes on as soon as its own shot is back, until all have ended."""
    loop, owners, ready = ShotLoop(executor), {}, list(climbers)
    with tqdm(total=len(climbers), unit="path", disable=not show_progress) as bar:

        def more():
            while ready and not loop.interrupted:
                climber = ready.pop(0)
                spec = climber.shot()
                owners[spec.shot_id] = climber
                yield spec

        def take(outcome):
            climber = owners.pop(outcome.shot_id)
            climber.take(outcome)
            bar.set_postfix(shots=loop.n_ended, refresh=False)
            bar.update(climber.has_ended)
            if not climber.has_ended:
                ready.append(climber)

        if loop.run(more, take):
            raise KeyboardInterrupt


def _report_failures(climbers: list[Climber]) -> None:
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
