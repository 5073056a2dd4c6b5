r"""Committor simulation: is the learned committor right where it matters? Shoot and see.

The committor of a configuration is the fraction of the trajectories from it, with velocities from the Boltzmann
distribution, that reach B before A. So N shots from configurations that are spread along the predicted committor tell
whether the prediction is right, with a standard deviation of :math:`\sqrt{p(1-p)/N}` each (Peters, J. Chem. Phys. 125,
241101 (2006), doi:10.1063/1.2409924; Geissler, Dellago, Chandler, J. Phys. Chem. B 103, 3706 (1999),
doi:10.1021/jp984837g). Only shots that the model has not been trained on are a test of it.

::

    snapshots = ops_aimmd.runs.spread_along_committor([step.active[0].trajectory for step in storage.steps], learner)
    result = ops_aimmd.committor_simulation(snapshots, learner, engine, checkpoint="validation.aimmd", seed=1)
    print(result)
"""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterable
from numbers import Integral

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot, DynamicsEngine
from tqdm.auto import tqdm

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.committor_outcomes import (
    BROKEN_DOWN,
    KIND,
    TOO_LONG,
    CommittorSimulation,
    check_kind,
    key_of,
    simulation_result,
    stored_outcomes,
)
from ops_aimmd.runs.configurations import check_positive
from ops_aimmd.runs.own_checkpoint import own_checkpoint
from ops_aimmd.sampling.collective_variables import describe
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.shooting_results import velocity_origin_of
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.executors.choose import opened
from ops_aimmd.shooting.executors.in_this_process import WithSnapshots
from ops_aimmd.shooting.legs import Leg, check_engine, length_limit
from ops_aimmd.shooting.loop import ShotLoop
from ops_aimmd.shooting.shots import ShotFailure, legs_from_result
from ops_aimmd.shooting.states import state_index
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

SEED_FILE = "seed_of_shots"
"""Name, in the checkpoint, of the seed that was drawn for shots where the user gave none."""

FAILURES = {"max_length": TOO_LONG, "nan": BROKEN_DOWN}

NOT_YET = -3
"""Outcome, in a checkpoint, of a shot that has not ended while a later one from the same configuration has."""

CHANGED = 1e-3
"""Difference in committor from which on a model is another one; single precision of stored coordinates stays below."""


def committor_simulation(
    snapshots: Iterable[BaseSnapshot],
    learner: CommittorLearner,
    engine: DynamicsEngine,
    n_shots: int = 50,
    modifier=None,
    max_length: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    seed: int | None = None,
    progress: bool = True,
    executor=None,
) -> CommittorSimulation:
    """Shoot from configurations with fresh velocities until the states are reached, and compare with the prediction.

    Each shot is one leg: the distribution of velocities is symmetric, so that forward and backward legs are the same
    trial. Shots are made in rounds, one from each configuration, so that an interrupted simulation is as even as a
    finished one.

    With a checkpoint every finished shot is on disk. The same call again goes on after an interruption or, with a larger
    `n_shots`, adds shots. The predictions stay those of the first call: shots that the model has learned from since would
    be no test of it.

    Parameters
    ----------
    snapshots : iterable of Snapshot
        Configurations outside of all states; their velocities do not matter. See `spread_along_committor`.
    learner : CommittorLearner
        Its model predicts the committor, in its states the shots end; it learns nothing here.
    engine : openpathsampling.engines.DynamicsEngine
    n_shots : int
        Shots from each configuration.
    modifier : openpathsampling.SnapshotModifier, optional
        Draws the velocities; `BoltzmannVelocities(engine)` by default. One that keeps velocities of paths makes biased
        trials.
    max_length : int, optional
        Largest number of frames of a shot, the configuration included; the engine's `n_frames_max` by default.
    checkpoint : str or path, optional
        File that keeps the simulation; made if it does not exist.
    seed : int, optional
        Each shot has its own random numbers, which follow from the seed and the numbers of configuration and shot alone:
        the result depends neither on interruptions nor on where the shots run. None: a fresh seed, which the checkpoint
        keeps. The generators of this process are left as they were.
    progress : bool
        Show a progress bar.
    executor : optional
        Where shots run: see `ParallelPathSampling`. None: one after another in this process, with any engine; an error of
        the engine or a state is then raised as it is. A simulation may go on with another executor, or without one.

    Raises
    ------
    ValueError
        If a configuration lies in a state, something given is of the wrong kind, the engine cannot make such shots, or
        the checkpoint is of something else.
    RuntimeError
        If the learner has no model yet, or an executor could not run some shots: the others were made, and are in the
        checkpoint.
    ops_aimmd.checkpoint.CheckpointError
        If the checkpoint cannot be read or written.

    Warns
    -----
    UserWarning
        If the model has changed since the simulation in the checkpoint began.
    """
    snapshots = list(snapshots)
    _check_arguments(snapshots, learner, engine, n_shots, max_length, seed)
    modifier = BoltzmannVelocities(engine) if modifier is None else modifier
    with generators_kept():
        modifier(snapshots[0])  # an error of the modifier shows before there is a checkpoint
    limit = length_limit(engine, max_length)
    setup = _setup(snapshots, learner, modifier, limit, seed)
    with (
        own_checkpoint(checkpoint, setup, _check_same) as file,
        opened(WithSnapshots() if executor is None else executor) as ready,
    ):
        trials = _Trials(snapshots, n_shots, setup, file)
        _Runner(trials, engine, learner.states, modifier, limit, settled_seed(seed, file, SEED_FILE), ready).run(progress)
        return trials.result


class _Trials:
    """Which of `n_shots` shots from each configuration are missing, and the outcomes of the others, in any order."""

    def __init__(self, snapshots: list[BaseSnapshot], n_shots: int, setup: dict, file: Checkpoint | None):
        self.snapshots = snapshots
        self._n_shots, self._file = n_shots, file
        self._setup = setup if file is None else file.metadata
        self._outcomes = [[] for _ in snapshots] if file is None else stored_outcomes(file)

    @property
    def simulation_key(self) -> int | None:
        """What tells its random numbers from those of others with the same seed; version 0.1.0 has none."""
        key = self._setup.get("simulation_key")
        return None if key is None else int(key)

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Numbers of configuration and shot, in rounds of one shot from each configuration."""
        return [
            (configuration, shot)
            for shot in range(self._n_shots)
            for configuration, made in enumerate(self._outcomes)
            if shot >= len(made) or made[shot] == NOT_YET
        ]

    def record(self, configuration: int, shot: int, leg: Leg) -> None:
        """Keep the outcome of a shot; it is on disk when this returns, if there is a checkpoint."""
        made = self._outcomes[configuration]
        made.extend([NOT_YET] * (shot + 1 - len(made)))
        made[shot] = leg.outcome if leg.failure is None else FAILURES[leg.failure]
        if self._file is not None:
            self._file.record_step(self._file.step + 1, state={key_of(configuration): np.array(made)})

    @property
    def result(self) -> CommittorSimulation:
        """The outcomes so far, of as many shots as were asked for."""
        return simulation_result(self._setup, [made[: self._n_shots] for made in self._outcomes])


class _Runner:
    """Makes the missing shots on an executor."""

    def __init__(self, trials: _Trials, engine, states, modifier, limit: float, seed: int, executor: Executor):
        self.trials, self.engine, self.states, self.modifier = trials, engine, states, modifier
        self.limit, self.seed, self.executor = limit, seed, executor
        self._run_id = uuid.uuid4().hex
        self._under_way: dict[str, tuple] = {}
        self._failures: dict[int, ShotFailure] = {}

    def run(self, progress: bool) -> None:
        """Make all missing shots, one after another or many at a time; RuntimeError if some could not be made."""
        missing = self.trials.missing
        if not missing:
            return
        key = self.executor.start(self.engine, self.states, self._run_id)
        waiting, loop = iter(missing), ShotLoop(self.executor)

        def more():
            while len(loop.waiting) < self.executor.n_wanted and (shot := next(waiting, None)) is not None:
                if shot[0] not in self._failures:  # what no worker can do once it will hardly do later
                    yield self._specification(key, *shot)

        with tqdm(total=len(missing), unit="shot", disable=not progress, dynamic_ncols=True) as bar:

            def take(outcome):
                configuration, shot, start = self._under_way.pop(outcome.shot_id)
                if isinstance(outcome, ShotFailure):
                    self._failures[configuration] = outcome
                    return
                (leg,) = legs_from_result(outcome, start, self.engine).values()
                self.trials.record(configuration, shot, leg)
                bar.update()

            if loop.run(more, take):
                raise KeyboardInterrupt
        self._report_failures()

    def _specification(self, key: str, configuration: int, shot: int):
        seed = seed_of_member(self.seed, self.trials.simulation_key, configuration)
        with own_random_numbers(seed, shot):
            start = self.modifier(self.trials.snapshots[configuration])
        shot_id = f"{self._run_id}/{configuration}-{shot}"
        self._under_way[shot_id] = configuration, shot, start
        return self.executor.specification(
            shot_id, key, start, ("forward",), self.limit, seed_from([seed, shot, 1]), last_frame_only=True
        )

    def _report_failures(self) -> None:
        if not self._failures:
            return
        reasons = "\n".join(
            f"configuration {configuration}: {failure}" for configuration, failure in sorted(self._failures.items())
        )
        raise RuntimeError(
            f"shots from {len(self._failures)} configurations could not be run. Leave these configurations out, or take "
            "away the cause and call again, with a checkpoint: all other shots are in it, and none is made twice\n"
            + reasons
        )


def _check_arguments(snapshots, learner, engine, n_shots, max_length, seed) -> None:
    for name, thing, kind in (("learner", learner, CommittorLearner), ("engine", engine, DynamicsEngine)):
        if not isinstance(thing, kind):
            raise ValueError(f"{name} must be a {kind.__name__}; got a {thing.__class__.__name__}")
    check_positive("n_shots", n_shots)
    if max_length is not None and not (isinstance(max_length, Integral) and max_length >= 2):
        raise ValueError(f"max_length is the largest number of frames of a shot, at least 2; got {max_length!r}")
    check_seed(seed)
    check_engine(engine, max_length)
    learner.version  # noqa: B018 - raises where there is no model
    if not snapshots:
        raise ValueError("there are no configurations to shoot from; pick some with ops_aimmd.runs.spread_along_committor")
    for index, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, BaseSnapshot):
            raise ValueError(f"snapshots are OPS snapshots; number {index} is a {snapshot.__class__.__name__}")
    inside = [index for index, snapshot in enumerate(snapshots) if state_index(snapshot, learner.states) >= 0]
    if inside:
        raise ValueError(
            f"configurations {inside[:10]} lie in states, where the committor is 0 or 1 and there is nothing to shoot for: "
            "leave them out"
        )


# ---- on disk ---------------------------------------------------------------------------------------------------------


def _setup(snapshots, learner, modifier, limit, seed) -> dict:
    """The part of a committor simulation that never changes: the metadata of its checkpoint."""
    frames = paths.Trajectory(snapshots)
    committor = learner.committor(frames)
    return {
        "ops_aimmd": __version__,
        "kind": KIND,
        "states": [state.name for state in learner.states],
        "descriptors": describe(learner.descriptors),
        "seed": None if seed is None else int(seed),
        "simulation_key": str(frames_key(snapshots)),  # JSON readers round large numbers
        "max_length": None if np.isinf(limit) else int(limit),
        "velocity_origin": velocity_origin_of(modifier),
        "configurations": {
            "coordinates": [_digest(snapshot) for snapshot in snapshots],
            "descriptors": learner.evaluate_descriptors(frames),
            "predicted": np.stack([1 - committor, committor], axis=1) if committor.ndim == 1 else committor,
        },
    }


def _digest(snapshot) -> str:
    """The same for a frame and for what OPS stored of it, in single precision."""
    return hashlib.sha256(np.ascontiguousarray(snapshot.xyz, dtype="<f4").tobytes()).hexdigest()


def _check_same(file: Checkpoint, setup: dict) -> None:
    check_kind(file)
    advice = "give what the first call was given, or another checkpoint for another simulation"
    old = file.metadata
    for name in ("states", "descriptors", "seed", "max_length", "velocity_origin"):
        if old[name] != setup[name]:
            raise ValueError(
                f"the committor simulation in {file.path} has {name.replace('_', ' ')} {old[name]!r}, this call "
                f"{setup[name]!r}: {advice}"
            )
    before, now = old["configurations"], setup["configurations"]
    if before["coordinates"] != now["coordinates"]:
        n_before, n_now = len(before["coordinates"]), len(now["coordinates"])
        pairs = zip(before["coordinates"], now["coordinates"], strict=False)
        other = [index for index, (one, another) in enumerate(pairs) if one != another]
        raise ValueError(
            f"the committor simulation in {file.path} is of {n_before} configurations, this call of {n_now}"
            + (f", and numbers {other[:10]} are not the same" if other else "")
            + f": {advice}"
        )
    if np.abs(before["predicted"] - now["predicted"]).max() > CHANGED:
        warnings.warn(
            f"the model has changed since the committor simulation in {file.path} began; the result holds the predictions "
            "of that time. For the present model, if it has not learned from these shots, call ops_aimmd.calibration("
            "learner.model.committor(result.descriptors), result.counts, legs_are_shots=True)",
            stacklevel=5,  # the caller of `committor_simulation`
        )
