"""Free runs: unguided dynamics from configurations, for what path sampling cannot tell, how often a state is left.

A run goes from state to state and ends only where it enters one. Any other end, such as a fixed time, would leave out long
excursions more often than short ones (`ops_aimmd.runs.cut_at_states`). It is made in segments of a fixed number of frames.
Each is on disk before the next begins, and has random numbers of its own: one that was interrupted is made again as it was.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot, DynamicsEngine
from tqdm.auto import tqdm

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import can_be_kept, has_unit
from ops_aimmd.runs.configurations import check_positive
from ops_aimmd.runs.cut_at_states import OUTSIDE, Stretch, cut, frames_to_keep, has_ended
from ops_aimmd.runs.own_checkpoint import own_checkpoint
from ops_aimmd.sampling.collective_variables import describe
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.executors.choose import opened
from ops_aimmd.shooting.executors.in_this_process import WithSnapshots
from ops_aimmd.shooting.legs import check_engine, length_limit
from ops_aimmd.shooting.loop import ShotLoop
from ops_aimmd.shooting.shots import ShotFailure, legs_from_result
from ops_aimmd.shooting.states import check_states, state_index
from ops_aimmd.shooting.streams import (
    check_seed,
    frames_key,
    generators_kept,
    own_random_numbers,
    seed_from,
    seed_of_member,
    settled_seed,
)
from ops_aimmd.version import __version__

KIND = "free runs"
"""Marks the checkpoint of free runs in its metadata."""

SEED_FILE = "seed_of_free_runs"
"""Name, in the checkpoint, of the seed that was drawn where the user gave none."""

FRAMES_OF_A_SEGMENT = 500


@dataclass(frozen=True, eq=False)
class FreeRuns:
    """Excursions of free runs, in the order of run and time.

    Attributes
    ----------
    run, order : int arrays, shape (n,)
        Number of the run, and of the excursion in it.
    ends : int array, shape (n, 2)
        State that each excursion left, and state that it entered.
    length : int array, shape (n,)
        Frames of each outside of all states.
    descriptors : float32 array, shape (m, d)
        Descriptors of every `stride`-th of these frames; of the middle frame of a short excursion.
    offsets : int array, shape (n + 1,)
        The descriptors of excursion i are rows ``offsets[i]`` to ``offsets[i + 1]``.
    internal_frames : int array, shape (n,)
        Frames in the state between its entry and the beginning of the excursion.
    internal_descriptors : float32 array, shape (l, d)
        Descriptors of every `internal_stride`-th of these frames.
    internal_owner : int array, shape (l,)
        Excursion that follows on each of these.
    n_frames : int array, shape (n_runs,)
        Frames that each run has made.
    finished, failed : bool arrays, shape (n_runs,)
        Runs that have come to their end; runs that broke off (NaN).
    state_names : tuple of str
    stride, internal_stride : int
    time_per_frame : (float, str) or None
    """

    run: np.ndarray
    order: np.ndarray
    ends: np.ndarray
    length: np.ndarray
    descriptors: np.ndarray
    offsets: np.ndarray
    internal_frames: np.ndarray
    internal_descriptors: np.ndarray
    internal_owner: np.ndarray
    n_frames: np.ndarray
    finished: np.ndarray
    failed: np.ndarray
    state_names: tuple[str, ...]
    stride: int
    internal_stride: int
    time_per_frame: tuple[float, str] | None

    @classmethod
    def load(cls, checkpoint: str | os.PathLike) -> FreeRuns:
        """All that a checkpoint holds, also while the runs go on.

        Raises
        ------
        ValueError
            If it is the checkpoint of something else.
        ops_aimmd.checkpoint.CheckpointError, FileNotFoundError
            If the file cannot be read.
        """
        with Checkpoint.open(checkpoint, read_only=True) as file:
            _check_kind(file)
            runs = [_Run.stored(file, number) for number in range(file.metadata["n_runs"])]
            return _result(file.metadata, runs)

    def __str__(self) -> str:
        names = self.state_names
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, tuple(self.ends.T), 1)
        left = ", ".join(f"{counts[i].sum()} from {name}" for i, name in enumerate(names))
        crossed = [f"{counts[i, j]} {names[i]} -> {names[j]}" for i, j in np.argwhere(counts) if i != j]
        open_runs = int((~self.finished & ~self.failed).sum())
        lines = [
            f"{len(self.finished)} free runs of {self.n_frames.sum()} frames: excursions {left}; "
            f"transitions: {', '.join(crossed) or 'none'}"
        ]
        lines += [f"{open_runs} runs have not come to their end"] if open_runs else []
        lines += [f"WARNING {self.failed.sum()} runs broke off (NaN): a smaller time step"] if self.failed.any() else []
        return "\n".join(lines)


def free_runs(
    snapshots: Iterable[BaseSnapshot],
    states,
    engine: DynamicsEngine,
    learner: CommittorLearner,
    n_frames: int = 100_000,
    executor=None,
    checkpoint: str | os.PathLike | None = None,
    seed: int | None = None,
    stride: int = 1,
    internal_stride: int = 10,
    modifier=None,
    progress: bool = True,
) -> FreeRuns:
    """Free dynamics from each snapshot, to the first entry into a state after `n_frames` frames.

    What lies before the first entry into a state is left out, so that the configurations need no distribution. Start some
    runs in each state. With a checkpoint each segment of a run is on disk when it ends; the same call again goes on after
    an interruption and, with a larger `n_frames`, makes the runs longer.

    Parameters
    ----------
    snapshots : iterable of Snapshot
        One run from each. Their velocities do not matter.
    states : sequence of openpathsampling.Volume
        In the order of the learner.
    engine : openpathsampling.engines.DynamicsEngine
    learner : CommittorLearner
        Its descriptors are kept, so that any later version of its model can be asked.
    n_frames : int
        Frames of each run, and then as many as it takes to enter a state.
    executor : optional
        Where the runs are made: see `ParallelPathSampling`. None: one segment after another in this process.
    checkpoint : str or path, optional
        File that keeps the runs; made if it does not exist.
    seed : int, optional
        Each segment has its own random numbers, which follow from the seed, the snapshots and the numbers of run and
        segment. None: a fresh seed, which the checkpoint keeps.
    stride : int
        Descriptors of every so many frames of an excursion are kept, and always of one.
    internal_stride : int
        Descriptors of every so many frames inside the states are kept.
    modifier : openpathsampling.SnapshotModifier, optional
        Draws the first velocities; `BoltzmannVelocities(engine)` by default.
    progress : bool
        Show a progress bar.

    Returns
    -------
    FreeRuns

    Raises
    ------
    ValueError
        If something given is of the wrong kind, states are not those of the learner, or the checkpoint is another one.
    RuntimeError
        If an executor could not make a segment; all others are in the checkpoint.
    ops_aimmd.checkpoint.CheckpointError
        If the checkpoint cannot be read or written.

    Warns
    -----
    UserWarning
        If runs broke off (NaN).
    """
    snapshots = list(snapshots)
    _check_arguments(snapshots, states, engine, learner, seed)
    for name, number in (("n_frames", n_frames), ("stride", stride), ("internal_stride", internal_stride)):
        check_positive(name, number)
    if checkpoint is not None and not can_be_kept(snapshots[0]):
        raise ValueError(
            f"frames of {engine.__class__.__name__} lie in files of the engine, a checkpoint keeps only frames that are in "
            "memory: leave the checkpoint out"
        )
    modifier = BoltzmannVelocities(engine) if modifier is None else modifier
    with generators_kept():
        modifier(snapshots[0])  # an error of the modifier shows before there is a checkpoint
    setup = {
        "ops_aimmd": __version__,
        "kind": KIND,
        "n_runs": len(snapshots),
        "states": [state.name for state in learner.states],
        "descriptors": describe(learner.descriptors),
        "seed": None if seed is None else int(seed),
        "snapshots": str(frames_key(snapshots)),
        "stride": int(stride),
        "internal_stride": int(internal_stride),
        "frames_of_a_segment": int(min(FRAMES_OF_A_SEGMENT, length_limit(engine, None) - 1)),
        "time_per_frame": adapter_of(engine).time_per_frame,
    }
    with (
        own_checkpoint(checkpoint, setup, _check_same) as file,
        opened(WithSnapshots() if executor is None else executor) as ready,
    ):
        runs = [_Run() if file is None else _Run.stored(file, number) for number in range(len(snapshots))]
        runner = _Runner(runs, snapshots, n_frames, engine, learner, modifier, setup, file)
        runner.run(ready, settled_seed(seed, file, SEED_FILE), progress)
        result = _result(setup, runs, n_frames)
    if result.failed.any():
        warnings.warn(
            f"{result.failed.sum()} of {len(runs)} free runs broke off (NaN). What they hold is biased towards short "
            "excursions: leave their excursions out (FreeRuns.failed), use a smaller time step",
            stacklevel=2,
        )
    return result


@dataclass
class _Run:
    """What is known of a run."""

    stretches: list[Stretch] = field(default_factory=list)
    last: dict | None = None
    """Its last frame, as arrays."""
    n_frames: int = 0
    n_outside: int = 0
    """Frames since it was in a state."""
    asked_for: int = 0
    failed: bool = False

    @classmethod
    def stored(cls, file: Checkpoint, number: int) -> _Run:
        keys = {*file.state_keys()}
        if _key(number) not in keys:
            return cls()
        document = file.state(_key(number))
        n_segments = document.pop("n_segments")
        run = cls(**document)
        run.stretches = [Stretch(**file.state(_key(number, segment))) for segment in range(n_segments)]
        return run

    def document(self) -> dict:
        """All but the stretches."""
        names = ("last", "n_frames", "n_outside", "asked_for", "failed")
        return {name: getattr(self, name) for name in names} | {"n_segments": len(self.stretches)}

    def append(self, states: np.ndarray, kept: np.ndarray, descriptors: np.ndarray) -> None:
        self.stretches.append(Stretch(states.astype(np.int8), kept, descriptors.astype(np.float32)))
        inside = np.flatnonzero(states != OUTSIDE)
        self.n_outside = len(states) - 1 - inside[-1] if len(inside) else self.n_outside + len(states)
        self.n_frames += len(states)

    def is_done(self, n_frames: int) -> bool:
        """Whether it has entered a state after so many frames, or broke off."""
        return self.failed or has_ended(self.stretches, n_frames)


class _Runner:
    """Makes the missing segments, of each run one after another."""

    def __init__(self, runs, snapshots, n_frames: int, engine, learner, modifier, setup: dict, file: Checkpoint | None):
        self.runs, self.snapshots, self.n_frames = runs, snapshots, n_frames
        self.engine, self.learner, self.modifier, self.setup, self.file = engine, learner, modifier, setup, file
        self._frames: dict[int, BaseSnapshot] = {}
        """Last frame of each run."""
        self._under_way: dict[str, int] = {}
        self._failures: dict[int, ShotFailure] = {}
        self._run_id = uuid.uuid4().hex

    def run(self, executor: Executor, seed: int, progress: bool) -> None:
        """Make all runs long enough; RuntimeError if some segments could not be made."""
        done = [run.is_done(self.n_frames) for run in self.runs]
        if all(done):
            return
        key, loop = executor.start(self.engine, [], self._run_id), ShotLoop(executor)
        waiting = [number for number, is_done in enumerate(done) if not is_done]

        def more():
            while waiting and len(loop.waiting) < executor.n_wanted:
                yield self._specification(executor, key, seed, waiting.pop(0))

        total = len(self.runs) * self.n_frames
        made = sum(min(run.n_frames, self.n_frames) for run in self.runs)
        with tqdm(total=total, initial=made, unit="frame", disable=not progress, dynamic_ncols=True) as bar:

            def take(outcome):
                number = self._under_way.pop(outcome.shot_id)
                if isinstance(outcome, ShotFailure):
                    self._failures[number] = outcome
                    return
                before = min(self.runs[number].n_frames, self.n_frames)
                self._take(number, outcome)
                bar.update(min(self.runs[number].n_frames, self.n_frames) - before)
                if not self.runs[number].is_done(self.n_frames):
                    waiting.append(number)

            if loop.run(more, take):
                raise KeyboardInterrupt
        if self._failures:
            reasons = "\n".join(f"run {number}: {failure}" for number, failure in sorted(self._failures.items()))
            raise RuntimeError(
                f"segments of {len(self._failures)} free runs could not be made. Take away the cause and call again, with "
                f"a checkpoint: all other segments are in it, and none is made twice\n{reasons}"
            )

    def _specification(self, executor: Executor, key: str, seed: int, number: int):
        run = self.runs[number]
        seed = seed_of_member(seed, int(self.setup["snapshots"]), number)
        if number not in self._frames and run.last is not None:
            with_units = has_unit(self.snapshots[number].coordinates)
            self._frames[number] = adapter_of(self.engine).frame_of(run.last, with_units)
        elif number not in self._frames:
            with own_random_numbers(seed, 0):
                self._frames[number] = self.modifier(self.snapshots[number])
        shot_id = f"{self._run_id}/{number}-{len(run.stretches)}"
        self._under_way[shot_id] = number
        limit = self.setup["frames_of_a_segment"] + 1  # with the frame before
        return executor.specification(
            shot_id, key, self._frames[number], ("forward",), limit, seed_from([seed, len(run.stretches), 1])
        )

    def _take(self, number: int, outcome) -> None:
        """Keep a segment; it is on disk when this returns, if there is a checkpoint."""
        run = self.runs[number]
        run.asked_for = self.n_frames
        (leg,) = legs_from_result(outcome, self._frames[number], self.engine).values()
        if leg.failure == "nan":
            run.failed = True
        else:
            frames = leg.trajectory[1:]
            states = np.array([state_index(frame, self.learner.states) for frame in frames], dtype=np.int8)
            strides = self.setup["stride"], self.setup["internal_stride"]
            kept = frames_to_keep(states, run.n_outside, run.n_frames, *strides)
            descriptors = self.learner.evaluate_descriptors(paths.Trajectory([frames[int(i)] for i in kept]))
            run.append(states, kept, descriptors)
            self._frames[number] = frames[-1]
            run.last = adapter_of(self.engine).arrays_of(frames[-1]) if self.file is not None else None
        if self.file is not None:
            state = {_key(number): run.document()}
            if not run.failed:
                newest = run.stretches[-1]
                state[_key(number, len(run.stretches) - 1)] = vars(newest)
            self.file.record_step(self.file.step + 1, state=state)


def _key(run: int, segment: int | None = None) -> str:
    return f"run {run}" if segment is None else f"run {run}, segment {segment}"


def _result(setup: dict, runs: list[_Run], n_frames: int | None = None) -> FreeRuns:
    asked_for = [run.asked_for if n_frames is None else n_frames for run in runs]
    parts = [cut(run.stretches, n, setup["stride"]) for run, n in zip(runs, asked_for, strict=True)]
    excursions = [each for found, _ in parts for each in found]
    n_of_run = [len(found) for found, _ in parts]
    n_descriptors = next((run.stretches[0].descriptors.shape[1] for run in runs if run.stretches), 0)

    def joined(name: str) -> np.ndarray:
        arrays = [getattr(each, name) for each in excursions]
        return np.concatenate([np.zeros((0, n_descriptors), np.float32), *arrays])

    return FreeRuns(
        run=np.repeat(np.arange(len(runs)), n_of_run),
        order=np.concatenate([np.arange(n) for n in n_of_run]),
        ends=np.array([each.ends for each in excursions], dtype=int).reshape(-1, 2),
        length=np.array([each.length for each in excursions], dtype=int),
        descriptors=joined("descriptors"),
        offsets=np.cumsum([0, *(len(each.descriptors) for each in excursions)]),
        internal_frames=np.array([each.internal_frames for each in excursions], dtype=int),
        internal_descriptors=joined("internal_descriptors"),
        internal_owner=np.repeat(np.arange(len(excursions)), [len(each.internal_descriptors) for each in excursions]),
        n_frames=np.array([run.n_frames for run in runs]),
        finished=np.array([done for _, done in parts]),
        failed=np.array([run.failed for run in runs]),
        state_names=tuple(setup["states"]),
        stride=setup["stride"],
        internal_stride=setup["internal_stride"],
        time_per_frame=None if setup["time_per_frame"] is None else tuple(setup["time_per_frame"]),
    )


def _check_arguments(snapshots, states, engine, learner, seed) -> None:
    for name, thing, kind in (("learner", learner, CommittorLearner), ("engine", engine, DynamicsEngine)):
        if not isinstance(thing, kind):
            raise ValueError(f"{name} must be a {kind.__name__}; got a {thing.__class__.__name__}")
    check_states(states)
    if [*states] != [*learner.states]:
        raise ValueError(
            f"states are {[state.name for state in states]}, those of the learner "
            f"{[state.name for state in learner.states]}: give learner.states"
        )
    check_seed(seed)
    check_engine(engine, None)
    if not snapshots:
        raise ValueError("there are no snapshots to start from; give some in each state, for example ends of paths")
    for index, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, BaseSnapshot):
            raise ValueError(f"snapshots are OPS snapshots; number {index} is a {snapshot.__class__.__name__}")


# ---- on disk ---------------------------------------------------------------------------------------------------------


def _check_same(file: Checkpoint, setup: dict) -> None:
    _check_kind(file)
    for name, now in setup.items():
        before = file.metadata[name]
        if name not in ("ops_aimmd", "time_per_frame") and before != now:
            raise ValueError(
                f"the free runs in {file.path} have {name.replace('_', ' ')} {before!r}, this call {now!r}: give what the "
                "first call was given, or another checkpoint for other runs"
            )


def _check_kind(file: Checkpoint) -> None:
    if file.metadata.get("kind") != KIND:
        raise ValueError(
            f"{file.path} holds {file.metadata.get('kind', 'a run that learns')!r}, not free runs: give free runs a "
            "checkpoint of their own"
        )
