"""Learning from OPS files that exist already, and the selection weights of their paths under any model.

A file is read step by step, in memory that does not depend on the number of steps.
"""

from __future__ import annotations

import os
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from numbers import Integral

import numpy as np
import openpathsampling as paths
import pandas as pd
from openpathsampling import pathmover
from tqdm.auto import tqdm

from ops_aimmd.checkpoint import FileUnavailableError
from ops_aimmd.committor.training_set import ShootingResult, TrainingSet
from ops_aimmd.engines.frames import CONTAINERS
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import LEGS, ShootingMover
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.sampling.shooting_results import Shot, samples_of, shooting_result, shots, until_state, velocity_origin_of
from ops_aimmd.storage.file_access import why_unavailable
from ops_aimmd.storage.ops_files import NETCDF, check_frames, file_of, forget_closed_files, kind_of, open_storage

ELSEWHERE = 0.01
"""Fraction of legs that may have stopped outside of the given states: single precision moves frames across boundaries."""

WEIGHTS = ("selection_probability_old", "selection_probability_new", "weight_sum_old", "weight_sum_new")

SAMPLED = (
    paths.MCStep,
    paths.MoveChange,
    paths.Details,
    paths.SampleSet,
    paths.Sample,
    paths.Trajectory,
    paths.BaseSnapshot,
    *CONTAINERS,
)
"""What a file holds more of with every step."""

BLOCK_ROWS = 128
BLOCK_VALUES = 2**20
"""Largest numbers of rows and of values that are read from a netCDF variable at once: 4 MB of coordinates."""


def training_set_from_storage(storage, descriptors, states: Sequence, progress: bool = True) -> TrainingSet:
    """A training set from an OPS file: the body of `TrainingSet.from_storage`, which says what the arguments are."""
    learner = CommittorLearner(descriptors, states, seed=0)  # the seed leaves torch's own generator alone
    census = Census(learner.n_states)

    def read(step) -> list[tuple]:
        census.n_reactive_flux += isinstance(step.simulation, paths.ReactiveFluxSimulation)
        found = [*path_shots(step, learner.states), *_snapshot_shots(step, learner.states)]
        return [(shot, mover, result_of(shot, mover, learner, int(step.mccycle))) for shot, mover in found]

    with opened(storage) as file, closing(read_steps(file, read, progress, learner, stacklevel=4)) as found_shots:
        name = file_of(file)
        for shot, mover, result in found_shots:
            census.count(shot, mover)
            if result is not None:
                learner.add(result)
    census.check(learner.states, name)
    return learner.training_set


def selection_table(storage, selector: CommittorSelector, progress: bool = True) -> pd.DataFrame:
    r"""Selection weights of the paths of a stored run, under any model.

    For a shot at frame x the probability that the selector picks it is :math:`w(x) / \sum_k w(x_k)` over the frames of
    the old path, and of the new one. With the model that guided a step, these are the values in the details of the step;
    with another one, they are what that model would have given, and ``new / old`` is its acceptance ratio.

    Parameters
    ----------
    storage : openpathsampling.Storage, SimStore Storage, or path-like
        As for `TrainingSet.from_storage`; the paths must be stored whole.
    selector : CommittorSelector
        With the current model version of its learner, for instance of `ops_aimmd.load_learner(checkpoint, descriptors,
        states)`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per shot of path sampling; exchanges of shooting points, which pick by a weight of their own, are left out.
        Columns: step; replica; accepted; selection_probability_old,
        selection_probability_new, weight_sum_old, weight_sum_new. The new ones are NaN where the trial is no path of the
        ensemble, which no weight would have made acceptable, and where only its ends were stored.

    Raises
    ------
    ValueError
        If paths were stored with a stride, or a shooting point has no chance under the selector.
    """

    def read(step) -> list[dict]:
        return [
            _selection_row(step, shot, mover, selector)
            for shot, mover in path_shots(step, selector.learner.states)
            if not isinstance(mover, ShootingPointExchangeMover)
        ]

    with opened(storage) as file:
        rows = list(read_steps(file, read, progress, selector.learner))
    return pd.DataFrame(rows, columns=["step", "replica", "accepted", *WEIGHTS])


# ---- steps of a file -------------------------------------------------------------------------------------------------


@contextmanager
def opened(storage) -> Iterator:
    """An open storage as it is, or the one at a path until the end of the block."""
    if not isinstance(storage, (str, os.PathLike)):
        forget_closed_files()  # the same file may have been open a second time
        yield storage
        return
    with closing(open_storage(storage)) as file:
        yield file


def read_steps(
    storage, read: Callable, progress: bool, learner: CommittorLearner | None = None, stacklevel: int = 3
) -> Iterator:
    """Apply `read` to each step that can be read, and yield its items one by one.

    Paths are not read again where the learner remembers their descriptors. A warning names the line that is `stacklevel`
    calls above.
    """
    unreadable = []
    with _streaming(storage) as caches:
        for index in tqdm(range(len(storage.steps)), unit="step", disable=not progress, dynamic_ncols=True):
            for cache in caches:
                cache.step()
            try:
                step = storage.steps[index]
                _check_whole(step, learner)
            except Exception as error:  # what is missing shows in many ways
                why = why_unavailable(file_of(storage), error)
                if why is not None:
                    raise FileUnavailableError(f"step {index} of {file_of(storage)} cannot be read now: {why}") from error
                unreadable.append((index, error))
                continue
            yield from read(step)
    if unreadable:
        index, error = unreadable[0]
        warnings.warn(
            f"{len(unreadable)} of {len(storage.steps)} steps in {file_of(storage)} cannot be read and were passed over, "
            f"as after a run was killed; the first is number {index} in the file ({type(error).__name__}: {error})",
            stacklevel=stacklevel,
        )


class _LastTwoSteps(ChainMap):
    """Keeps what was read in the current step and in the one before, in which the path of this one was often made."""

    def __init__(self):
        super().__init__({}, {})

    def step(self) -> None:
        """Begin a new step."""
        self.maps = [{}, self.maps[0]]

    def __getitem__(self, key):
        now, before = self.maps
        if key not in now:
            now[key] = before[key]
        return now[key]

    def __delitem__(self, key):
        if key not in self:
            raise KeyError(key)
        for step in self.maps:
            step.pop(key, None)


class _InBlocks:
    """A netCDF variable, read many rows at a time: OPS reads them one by one, 0.3 ms each."""

    def __init__(self, variable):
        self._variable = variable
        self._rows = int(np.clip(BLOCK_VALUES // np.prod(variable.shape[1:], dtype=int), 1, BLOCK_ROWS))
        self._first = None

    def __getitem__(self, key):
        if not isinstance(key, Integral):
            return self._variable[key]
        offset = key % self._rows
        if key - offset != self._first:
            self._block = self._variable[key - offset : key - offset + self._rows]
            self._first = key - offset
        return self._block[offset]

    def __len__(self):
        return len(self._variable)


@contextmanager
def _streaming(storage) -> Iterator[list[_LastTwoSteps]]:
    """Within the block the storage has no more in memory than two steps, and reads frames in blocks; then all is as before.

    OPS's own caches hold thousands of paths, but not the coordinates that frames keep in objects of their own (those of
    OpenMM), which are read at every look.
    """
    if kind_of(storage) == NETCDF:
        stores = [store for store in storage.stores if issubclass(store.content_class or object, SAMPLED)]
        replaced = [(store, "cache", _LastTwoSteps()) for store in stores]
        for name, column in storage.vars.items():
            if name.startswith("snapshot"):  # snapshots_*, snapshot0_*, snapshot0statics_*, ...
                replaced.append((column, "variable", _InBlocks(column.variable)))
    else:
        replaced = [(storage.cache, "cache", _LastTwoSteps())]
    before = [getattr(owner, name) for owner, name, _ in replaced]
    for owner, name, new in replaced:
        setattr(owner, name, new)
    try:
        yield [new for _, name, new in replaced if name == "cache"]
    finally:
        for (owner, name, _), old in zip(replaced, before, strict=True):
            setattr(owner, name, old)


def _check_whole(step, learner: CommittorLearner | None) -> None:
    """Read all that shots consist of, but for paths that the learner remembers, and raise where something is missing."""
    for part in step.change:
        if not part.samples or not isinstance(part.mover, pathmover.EngineMover):
            continue
        if learner is None or not learner.paths.remembers(part.details.initial_trajectory):
            check_frames(part.details.initial_trajectory)
        if not isinstance(part, paths.RejectedNaNSampleMoveChange):  # its frames are wrecked rightly
            for sample in samples_of(part):
                check_frames(sample.trajectory)


# ---- shots of a step -------------------------------------------------------------------------------------------------


def path_shots(step, states) -> Iterator[tuple[Shot, pathmover.PathMover]]:
    """Shots of path sampling, with their movers."""
    movers = {part.details.__uuid__: part.mover for part in step.change if part.details is not None}
    for shot in shots(step.change, states):
        yield shot, movers[shot.details.__uuid__]


def _snapshot_shots(step, states) -> Iterator[tuple[Shot, pathmover.PathMover]]:
    """Shots of simulations that shoot from given snapshots, with their movers.

    Other moves extend paths too (minus moves, for one), from frames that were not given new velocities.
    """
    simulation = step.simulation
    if not isinstance(simulation, paths.ShootFromSnapshotsSimulation):
        return
    if isinstance(simulation, paths.ReactiveFluxSimulation):
        return
    for part in step.change:
        if part.samples and isinstance(part.mover, (pathmover.ForwardExtendMover, pathmover.BackwardExtendMover)):
            yield _snapshot_shot(part, simulation, states), part.mover


def _snapshot_shot(part, simulation, states) -> Shot:
    details = part.details
    sample = samples_of(part)[0]
    trial = sample.trajectory
    forward = isinstance(part.mover, pathmover.ForwardExtendMover)
    name = "forward" if forward else "backward"
    # of a leg that broke off OPS keeps the unfinished leg alone
    finished = part.__class__ not in (paths.RejectedMaxLengthSampleMoveChange, paths.RejectedNaNSampleMoveChange)
    index = int(trial.index(details.shooting_snapshot)) if finished else 0
    leg = trial[index:] if forward or not finished else trial[: index + 1].reversed
    length, outcome = until_state(leg, states) if finished else (1, -1)
    legs = {name: length} if length > 1 else {}  # a shot from within a state is no trial
    return Shot(
        path=details.initial_trajectory,
        index=int(details.initial_trajectory.index(details.shooting_snapshot)),
        trial=trial,
        trial_index=index,
        trial_reversed=False,
        leg_lengths=legs,
        leg_outcomes=dict.fromkeys(legs, outcome),
        unbiased_legs=tuple(legs),
        new_frames=len(leg) - 1,
        # OPS does not store the randomizer of all these simulations
        velocity_origin=velocity_origin_of(getattr(simulation, "randomizer", None)),
        accepted=bool(part.accepted),
        predicted_committor=None,
        replica=int(sample.replica),
        kept_end=None,
        details=details,
    )


# ---- training set ----------------------------------------------------------------------------------------------------


def result_of(shot: Shot, mover, learner: CommittorLearner, step: int) -> ShootingResult | None:
    """The result of a shot, with the prediction that was stored or none."""
    return shooting_result(replace(shot, predicted_committor=_prediction(shot, mover, learner.states)), learner, step)


def _prediction(shot: Shot, mover, states) -> list[float]:
    """The stored prediction in the order of `states`; NaN where there is none or its states are others."""
    if shot.predicted_committor is None:
        return [np.nan] * len(states)
    stored = dict(enumerate(mover.selector.learner.states))
    order = [next((i for i, other in stored.items() if other == state), None) for state in states]
    if None in order or len(order) != len(stored):
        return [np.nan] * len(states)
    return [shot.predicted_committor[i] for i in order]


class Census:
    """Counts what a file holds, to tell a file that does not fit the states."""

    def __init__(self, n_states: int):
        self.reached = np.zeros(n_states, dtype=int)
        self.n_shots = self.n_legs = self.n_elsewhere = 0
        self.n_reactive_flux = 0
        """Steps of reactive-flux simulations."""

    def count(self, shot: Shot, mover) -> None:
        """Count one shot."""
        self.n_shots += 1
        for name in shot.unbiased_legs:
            self.n_legs += 1
            outcome = shot.leg_outcomes[name]
            if outcome >= 0:
                self.reached[outcome] += 1
            elif isinstance(mover, ShootingMover):
                self.n_elsewhere += shot.details.leg_outcomes[LEGS["both"].index(name)] >= 0

    def check(self, states, name) -> None:
        """Raise where nothing, or nothing right, would be learned from the file."""
        if self.n_shots == 0 and self.n_reactive_flux:
            raise ValueError(
                f"{name} holds {self.n_reactive_flux} steps of a reactive-flux simulation and no other shots. Its legs "
                "stop at the dividing surface, so that they do not show the committor: shoot from the same snapshots to "
                "the states, with openpathsampling.CommittorSimulation, and learn from that file"
            )
        if self.n_shots == 0:
            raise ValueError(
                f"{name} holds no shooting move that could be read; expected steps of path sampling or of a committor "
                "simulation (movers of classes that were not imported come out of a netCDF file as None: import the "
                "package that they are from)"
            )
        names = [state.name for state in states]
        found = f"of {self.n_legs} legs in {name}, {dict(zip(names, self.reached.tolist(), strict=True))} ended there"
        if not self.reached.all():
            missing = [state for state, n in zip(names, self.reached, strict=True) if n == 0]
            raise ValueError(
                f"no leg reached {missing}: {found}. Give the states of the stored run (from the file: storage.volumes), "
                "with collective variables in the units that they had there; if these are right, the run is too short to "
                "learn from"
            )
        if self.n_elsewhere > ELSEWHERE * self.n_legs:
            raise ValueError(
                f"{self.n_elsewhere} legs stopped in a state that is not among {names} ({found}): give all states of the "
                "stored run; without the others the outcomes that are left are no fair trials"
            )


# ---- selection weights -----------------------------------------------------------------------------------------------


def _selection_row(step, shot: Shot, mover, selector: CommittorSelector) -> dict:
    if getattr(shot.details, "stored_stride", 1) > 1:
        raise ValueError(
            f"step {step.mccycle}: of its paths one frame in {shot.details.stored_stride} was stored, and selection "
            "weights need all of them: only runs that store whole paths (path_stride=1) can be weighed again"
        )
    old = selector.path_weights(shot.path)
    row = dict.fromkeys(WEIGHTS, np.nan)
    row.update(step=int(step.mccycle), replica=shot.replica, accepted=shot.accepted)
    row["selection_probability_old"] = np.exp(old.log_probability(shot.index))
    row["weight_sum_old"] = np.exp(old.log_sum)
    if row["selection_probability_old"] == 0:
        raise ValueError(
            f"step {step.mccycle}: the shooting point, frame {shot.index} of {len(shot.path)}, has no chance of being "
            "picked: it lies in a state of the learner. Give the learner the states of the stored run, whose paths must be "
            "of flexible length"
        )
    if _is_whole_path(shot, mover):
        new = selector.path_weights(shot.trial)
        row["selection_probability_new"] = np.exp(new.log_probability(shot.trial_index))
        row["weight_sum_new"] = np.exp(new.log_sum)
    return row


def _is_whole_path(shot: Shot, mover) -> bool:
    """Whether the trial is a path of the ensemble, all of it stored."""
    if shot.accepted:
        return True
    if getattr(shot.details, "stored_trial", None) == "ends":
        return False
    if isinstance(mover, ShootingMover):
        return shot.details.selection_probability_new is not None
    broken_off = getattr(shot.details, "stopping_reason", None) is not None
    return not broken_off and bool(mover.ensemble(shot.trial, candidate=True))
