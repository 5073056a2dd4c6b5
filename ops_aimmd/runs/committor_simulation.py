"""Committor simulations whose shots run wherever an executor puts them: all shots are independent of each other."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable

import numpy as np
from openpathsampling.engines import BaseSnapshot, DynamicsEngine
from tqdm.auto import tqdm

from ops_aimmd.runs.trials import CommittorSimulation, Trials, begun_trials, seed_of_configuration
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.shooting.executors.choose import Executor, opened
from ops_aimmd.shooting.interrupts import Interrupts
from ops_aimmd.shooting.seeds import settled_seed
from ops_aimmd.shooting.shots import ShotFailure, ShotSpec, specification
from ops_aimmd.shooting.streams import own_random_numbers

SEED_FILE = "seed_of_shots"
"""Name, in the checkpoint, of the seed that was drawn for shots on executors where the user gave none."""

SHOTS_PER_WORKER = 2
"""Under way at the same time: the next one waits at the worker, and few are run again after an interruption."""


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
        with all of OPS's generators in reach (see `random_state`), the result does not depend on interruptions. None:
        without an executor the generators are left alone, but a simulation that is continued begins with fresh random
        numbers, so that a script that seeds numpy's generator does not repeat shots; with an executor a fresh seed is
        drawn, which the checkpoint keeps.
    progress : bool
        Show a progress bar.
    executor : optional
        Where shots run: see `ParallelPathSampling`. All executors give the same result for the same seed. None: one
        after another in this process, with any engine. There a shot draws its velocities and its dynamics from one
        generator, which others than this process do not share: with the same seed the outcomes are others, as good. A
        simulation may go on with another executor, or without one.

    Returns
    -------
    CommittorSimulation

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
    with begun_trials(snapshots, learner, engine, n_shots, modifier, max_length, checkpoint, seed) as trials:
        if executor is None:
            trials.make_here(progress)
            return trials.result
        with opened(executor) as ready:
            _Shooter(trials, ready).make_all(progress)
        return trials.result


class _Shooter:
    """Makes the missing shots of a committor simulation on an executor."""

    def __init__(self, trials: Trials, executor: Executor):
        self.trials, self.executor = trials, executor
        self._seed = settled_seed(trials.seed, trials.file, SEED_FILE)
        self._run_id = uuid.uuid4().hex
        self._under_way: dict[str, tuple[int, int]] = {}
        self._failures: dict[int, ShotFailure] = {}

    def make_all(self, progress: bool) -> None:
        missing = self.trials.missing
        if not missing:
            return
        key = self.executor.start(self.trials.engine, self.trials.states, self._run_id)
        waiting = iter(missing)
        with Interrupts() as interrupts, tqdm(total=len(missing), unit="shot", disable=not progress) as bar:
            try:
                self._hand_out(waiting, key)
                while self._under_way:
                    with interrupts.wait():
                        outcomes = self.executor.results()
                    bar.update(self._take_in(outcomes))
                    if interrupts.asked:
                        for shot in self.executor.withdraw():
                            self._under_way.pop(shot, None)
                    else:
                        self._hand_out(waiting, key)
            except BaseException:
                self.executor.withdraw()
                raise
        if interrupts.asked:
            raise KeyboardInterrupt
        self._report_failures()

    def _hand_out(self, waiting, key: str) -> None:
        room = SHOTS_PER_WORKER * max(self.executor.n_workers, 1) - len(self._under_way)
        while room > 0 and (shot := next(waiting, None)) is not None:
            if shot[0] not in self._failures:  # what no worker can do once it will hardly do later
                spec = self._specification(key, *shot)
                self._under_way[spec.shot_id] = shot
                self.executor.submit(spec)
                room -= 1

    def _specification(self, key: str, configuration: int, shot: int) -> ShotSpec:
        seed = seed_of_configuration(self._seed, self.trials.simulation_key, configuration)
        with own_random_numbers(seed, shot):
            start = self.trials.start(configuration)
        # one number more than the seed of the velocities
        leg_seed = int(np.random.SeedSequence([seed, shot, 1]).generate_state(1, np.uint64)[0])
        shot_id = f"{self._run_id}/{configuration}-{shot}"
        return specification(shot_id, key, start, ("forward",), self.trials.limit, leg_seed, last_frame_only=True)

    def _take_in(self, outcomes) -> int:
        """Record outcomes; how many there were."""
        n_recorded = 0
        for outcome in outcomes:
            shot = self._under_way.pop(outcome.shot_id, None)  # None: left over from an interrupted call
            if shot is None:
                continue
            if isinstance(outcome, ShotFailure):
                self._failures[shot[0]] = outcome
                continue
            (leg,) = outcome.legs
            self.trials.record(*shot, leg.outcome, None if leg.status == "ok" else leg.status)
            n_recorded += 1
        return n_recorded

    def _report_failures(self) -> None:
        if not self._failures:
            return
        reasons = "\n".join(
            f"configuration {configuration}: {failure.kind}, {failure.error}"
            for configuration, failure in sorted(self._failures.items())
        )
        raise RuntimeError(
            f"shots from {len(self._failures)} configurations could not be run. Leave these configurations out, or take "
            "away the cause and call again, with a checkpoint: all other shots are in it, and none is made twice\n"
            + reasons
        )
