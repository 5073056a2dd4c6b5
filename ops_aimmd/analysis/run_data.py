"""What is known of a run, whatever is left of it: an OPS file, a checkpoint, both, or the objects of a running program."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import openpathsampling as paths
import pandas as pd
from openpathsampling.pathmover import EngineMover

from ops_aimmd.checkpoint import Checkpoint, FileUnavailableError, is_checkpoint
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling.collective_variables import column_names, describe
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner
from ops_aimmd.sampling.movers import submovers
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.step_records import COLUMNS, shot_record
from ops_aimmd.storage.existing_files import Census, opened, path_shots, read_steps, result_of
from ops_aimmd.storage.file_access import UnreadableFileError
from ops_aimmd.storage.logged_steps import changes_in
from ops_aimmd.storage.ops_files import file_of, find_simulation

ACCEPTED = "AcceptedSampleMoveChange"
"""OPS's class of the change that an accepted move makes, as the log of a checkpoint names it."""


@dataclass(frozen=True)
class RunData:
    """A run as numbers, from which its health is judged.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns of `ops_aimmd.analysis.series.step_table`, one row per shot; NaN where something is not known. A column
        "legs" (new legs per shot) is used where it is there.
    states : list of str
        Names, in the order of the committor.
    model : CommittorModel or None
        The newest.
    paths : sequence of array, shape (n_frames, d)
        Descriptors of the interior frames of each distinct current path, in their order.
    path_of_row : int array, shape (n_rows,)
        Index in `paths` of the current path after each row; -1 where its frames are not known.
    time_unit : str
        Unit of `time_per_frame`, which is 1 and in "frames" where the engine does not say.
    same_ensemble : bool
        Whether all chains sample the same ensemble, so that their means can be compared.
    name : str
        For titles.
    notes : list of str
        What could not be read, in words.
    """

    table: pd.DataFrame
    states: Sequence[str]
    training_set: TrainingSet | None = None
    model: CommittorModel | None = None
    reports: Sequence[FitReport] = ()
    paths: Sequence[np.ndarray] = ()
    path_of_row: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    descriptor_names: Sequence[str] = ()
    time_per_frame: float = 1.0
    time_unit: str = "frames"
    same_ensemble: bool = True
    name: str = "run"
    notes: Sequence[str] = ()

    def __post_init__(self):
        if len(self.path_of_row) not in (0, len(self.table)):
            raise ValueError(
                f"path_of_row names the current path after each of the {len(self.table)} rows of the table; got "
                f"{len(self.path_of_row)}"
            )

    @property
    def chains(self) -> np.ndarray:
        """Chain of each row, shape (n_rows,)."""
        return self.table["replica"].to_numpy()

    @property
    def n_chains(self) -> int:
        return len(np.unique(self.chains))

    @property
    def current_paths(self) -> np.ndarray:
        """`path_of_row`, -1 for all rows where nothing is known of the paths; shape (n_rows,)."""
        return self.path_of_row if len(self.path_of_row) else np.full(len(self.table), -1)


def read_run(storage=None, checkpoint=None, descriptors=None, states=None, network=None, progress: bool = False) -> RunData:
    """Gather what is known of a run from its files, which are only read.

    Parameters
    ----------
    storage, checkpoint, descriptors, states, network, progress
        As for :func:`ops_aimmd.analysis.report.report`, which raises the same errors. A netCDF file that another process
        is writing is often locked: the checkpoint, which can be read meanwhile, must do.
    """
    if storage is None and checkpoint is None:
        raise ValueError(
            "got neither the OPS file of a run (storage=...) nor its checkpoint (checkpoint=...); one is enough"
        )
    if checkpoint is None and isinstance(storage, (str, os.PathLike)) and is_checkpoint(storage):
        storage, checkpoint = None, storage  # before OPS opens it: that would close this process to netCDF files
    if checkpoint is not None and not os.path.exists(checkpoint):
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
    if storage is None:
        return _from_checkpoint(checkpoint, network)
    try:
        with opened(storage) as file:
            if checkpoint is None:
                return _from_storage(file, descriptors, states, progress)
            return _from_both(file, checkpoint, descriptors, states, network, progress)
    except (UnreadableFileError, FileUnavailableError) as error:
        if checkpoint is None:
            raise
        run = _from_checkpoint(checkpoint, network)
        note = f"The OPS file could not be read, so this page is made from the checkpoint alone: {error}."
        return replace(run, notes=[note, *run.notes])


# ---- from a checkpoint -----------------------------------------------------------------------------------------------


def _from_checkpoint(path, network) -> RunData:
    learner = load_learner(path, network=network)
    with Checkpoint.open(path, read_only=True) as file:
        rows, path_of_row, same_ensemble = _logged_rows(file)
        density_paths = file.density_paths()
        source = file.metadata["descriptors"]
        n_steps = file.step
    notes = []
    if len({row["step"] for row in rows}) < n_steps:
        notes.append(
            f"The checkpoint logs {len(rows)} shots of {n_steps} steps; of the others it has only the outcomes. The "
            "rest is in the OPS file."
        )
        rows, path_of_row = _rows_of_shots(learner.training_set, rows, path_of_row)
    if not rows:
        raise ValueError(f"{path} holds no shot yet to report on: run some steps first")
    numbers = {name: number for number, name in enumerate(density_paths)}
    return RunData(
        table=pd.DataFrame(rows, columns=[*COLUMNS, "legs"]),
        states=[state.name for state in learner.states],
        training_set=learner.training_set,
        model=learner.model,
        reports=learner.reports,
        paths=[path.frames for path in density_paths.values()],
        path_of_row=np.array([numbers.get(name, -1) for name in path_of_row], dtype=int),
        descriptor_names=learner.descriptor_names or _descriptor_names(source, learner.model.n_descriptors),
        same_ensemble=same_ensemble,
        name=os.path.basename(path),
        notes=notes,
    )


def _logged_rows(file: Checkpoint) -> tuple[list[dict], list[str], bool]:
    """Rows of the step table from the log, the name of the current path of each, and whether all are of one ensemble."""
    rows, names, ensembles, lengths = [], [], set(), {}
    for number in file.logged_steps():
        document = file.logged_step(number)
        active = {replica: (name, ensemble) for replica, name, ensemble in document["active"]}
        changes = [(change, change["details"] or {}) for change in changes_in(document["change"])]
        beside = sum(int(details.get("configuration_frames") or 0) for _, details in changes)
        for change, details in changes:
            if "leg_outcomes" not in details or not change["samples"]:
                continue
            replica = change["samples"][0][0]
            name, ensemble = active[replica]
            ensembles.add(ensemble)
            if name not in lengths:
                lengths[name] = len(file.path_frames(name))
            row = _logged_row(number, replica, change["class"] == ACCEPTED, details, lengths[name])
            rows.append({**row, "frames": row["frames"] + ("exchanged_index" in details) * beside})
            names.append(name)
    return rows, names, len(ensembles) <= 1


def _logged_row(step: int, replica: int, accepted: bool, details: dict, path_length: int) -> dict:
    made = [length > 1 for length in details["leg_lengths"]]
    reached = [outcome for outcome, leg in zip(details["leg_outcomes"], made, strict=True) if leg and outcome >= 0]
    two_way = all(length > 0 for length in details["leg_lengths"])
    predicted = details["predicted_committor"]
    if two_way:
        generated = len(reached) == 2 and reached[0] != reached[1]
        expected = np.nan if predicted is None else 1.0 - float(np.square(predicted).sum())
    else:  # the log does not say in which state the kept part of the path ends
        generated, expected = True if accepted else np.nan, np.nan
    return {
        "step": step,
        "accepted": accepted,
        "generated": generated,
        "expected": expected,
        "reached": len(reached),
        "frames": sum(length - 1 for length in details["leg_lengths"] if length > 0),
        "path_length": path_length,
        "model_version": np.nan if details["model_version"] is None else float(details["model_version"]),
        "frozen": np.nan if details["frozen"] is None else float(details["frozen"]),
        "replica": replica,
        "legs": sum(made),
    }


def _rows_of_shots(training_set: TrainingSet, rows: list[dict], names: list[str]) -> tuple[list[dict], list[str]]:
    """Rows of all shots, those that are not logged as far as the training set knows them."""
    logged = {(row["step"], row["replica"]) for row in rows}
    found = []
    for step, chain, counts, predicted in zip(
        training_set.steps, training_set.chains, training_set.counts, training_set.predicted_committor, strict=True
    ):
        if step < 0 or (step, chain) in logged:
            continue
        row = dict.fromkeys([*COLUMNS, "legs"], np.nan)
        row.update(step=int(step), replica=int(chain), reached=int(counts.sum()))
        if counts.sum() == 2:
            row.update(generated=bool(counts.max() == 1), expected=1.0 - float(np.square(predicted).sum()))
        found.append((row, ""))
    found += zip(rows, names, strict=True)
    found.sort(key=lambda pair: pair[0]["step"])
    return [row for row, _ in found], [name for _, name in found]


# ---- from an OPS file ------------------------------------------------------------------------------------------------


def _from_both(storage, checkpoint, descriptors, states, network, progress) -> RunData:
    """The log of the checkpoint where it holds every shot, else the OPS file, with what was learned from the checkpoint."""
    with Checkpoint.open(checkpoint, read_only=True) as file:
        run = file.state("run") if "run" in file.state_keys() else None
        if run is not None and find_simulation(storage, run["simulation"]) is None:
            raise ValueError(
                f"{file_of(storage)} does not hold the run of the checkpoint {file.path}, but another: give the two files "
                "of one run"
            )
        rows, _, _ = _logged_rows(file)
        complete = len({row["step"] for row in rows}) == file.step and all(row["legs"] == 2 for row in rows)
        known_paths = {} if complete else {name: path.frames for name, path in file.density_paths().items()}
    descriptors, states = or_those_stored(storage, descriptors, states)
    if complete:
        found = _from_checkpoint(checkpoint, network)
    else:
        learner = load_learner(checkpoint, network=network)
        found = _read_rows(storage, checked_states(states, storage), known_paths, None, progress)
        found = replace(found, training_set=learner.training_set, model=learner.model, reports=learner.reports)
    time, unit = _time_per_frame(storage)
    names = _descriptor_names(descriptors, found.model.n_descriptors)
    return replace(found, time_per_frame=time, time_unit=unit, name=file_of(storage).name, descriptor_names=names)


def _from_storage(storage, descriptors, states, progress) -> RunData:
    descriptors, states = or_those_stored(storage, descriptors, states)
    states = checked_states(states, storage)
    if descriptors is None:
        note = (
            "Neither the file nor the call says what the descriptors are (descriptors=...), so nothing is said here of the "
            "committor and of channels."
        )
        found = _read_rows(storage, states, {}, None, progress)
        return replace(found, notes=[*found.notes, note])
    learner = CommittorLearner(descriptors, states, seed=0)
    found = _read_rows(storage, states, {}, learner, progress)
    learner.fit()
    note = "There is no checkpoint: the committor of this page was trained on the shots in the OPS file."
    return replace(
        found,
        training_set=learner.training_set,
        model=learner.model,
        reports=learner.reports,
        descriptor_names=_descriptor_names(descriptors, learner.model.n_descriptors),
        notes=[*found.notes, note],
    )


def checked_states(states, storage) -> list:
    if states is None or any(state is None for state in states):
        raise ValueError(
            f"{file_of(storage)} does not say which states its paths join, as it was made without a CommittorLearner: give "
            "them, states=[state_A, state_B]"
        )
    return list(states)


def _read_rows(storage, states, known_paths: dict, learner: CommittorLearner | None, progress: bool) -> RunData:
    """The step table of an OPS file with the frames of its current paths; the learner is given all shots."""
    reader = _StepReader(states, known_paths, learner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = list(read_steps(storage, reader.rows, progress))
    reader.census.check(states, file_of(storage))
    time, unit = _time_per_frame(storage)
    return RunData(
        table=pd.DataFrame(rows, columns=[*COLUMNS, "legs"]),
        states=[state.name for state in states],
        paths=reader.paths,
        path_of_row=np.array(reader.path_of_row, dtype=int),
        time_per_frame=time,
        time_unit=unit,
        same_ensemble=len(reader.ensembles) <= 1,
        name=file_of(storage).name,
        notes=[str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)],
    )


class _StepReader:
    """Reads steps one after the other.

    Parameters
    ----------
    states : sequence of openpathsampling.Volume
    known_paths : dict of str to array
        Interior frames by uuid of the path.
    learner : CommittorLearner or None
        Evaluates the frames of paths that are not known, and learns the shots.
    """

    def __init__(self, states, known_paths: dict, learner: CommittorLearner | None):
        self.states = states
        self.known_paths = known_paths
        self.learner = learner
        self.census = Census(len(states))
        self.paths: list[np.ndarray] = []
        self.path_of_row: list[int] = []
        self.ensembles: set = set()
        self._index: dict[str, int] = {}

    def rows(self, step) -> list[dict]:
        """Rows of the shots of a step."""
        active = {sample.replica: sample.trajectory for sample in step.active}
        ensembles = {sample.replica: sample.ensemble.__uuid__ for sample in step.active}
        rows = []
        for shot, mover in path_shots(step, self.states):
            if not self.path_of_row:
                self._index[str(shot.path.__uuid__)] = -1  # the initial path was not sampled
            self.census.count(shot, mover)
            self.ensembles.add(ensembles.get(shot.replica))
            rows.append({**shot_record(step, shot), "legs": len(shot.leg_lengths)})
            self.path_of_row.append(self._path(active[shot.replica]) if shot.replica in active else -1)
            result = None if self.learner is None else result_of(shot, mover, self.learner, int(step.mccycle))
            if result is not None:
                self.learner.add(result)
        return rows

    def _path(self, trajectory) -> int:
        name = str(trajectory.__uuid__)
        if name not in self._index:
            frames = self.known_paths.get(name)
            if frames is None and self.learner is not None:
                path = self.learner.path_frames(trajectory)
                frames = path.descriptors[path.selectable]
            self._index[name] = -1 if frames is None else len(self.paths)
            if frames is not None:
                self.paths.append(frames)
        return self._index[name]


def or_those_stored(storage, descriptors, states) -> tuple:
    """Descriptors and states as given, or those of the last path sampling in the file, as far as OPS could store them."""
    simulations = [sim for sim in storage.pathsimulators if isinstance(sim, paths.PathSampling)]
    for sim in reversed(simulations):
        for mover in submovers(sim.root_mover):
            if isinstance(mover, EngineMover) and isinstance(mover.selector, CommittorSelector):
                learner = mover.selector.learner
                return (
                    learner.descriptors if descriptors is None else descriptors,
                    learner.states if states is None else states,
                )
    return descriptors, states


def _time_per_frame(storage) -> tuple[float, str]:
    """Time between two frames of the engine of the last step, and its unit."""
    engines = [engine for engine in storage.engines if isinstance(engine, paths.engines.DynamicsEngine)]
    times = [adapter_of(engine).time_per_frame for engine in engines if type(engine) is not paths.engines.NoEngine]
    known = {time for time in times if time is not None}
    return known.pop() if len(known) == 1 else (1.0, "frames")


def _descriptor_names(descriptors, n_descriptors: int) -> list[str]:
    """Names of the columns: their own, those of one-column collective variables, else numbers from 0."""
    own = None if descriptors is None or isinstance(descriptors, str) else column_names(descriptors)
    if own is not None:
        return own
    if isinstance(descriptors, Sequence) and not isinstance(descriptors, str) and len(descriptors) == n_descriptors:
        return [describe(part).split("'")[1] for part in descriptors]
    return [f"descriptor {i}" for i in range(n_descriptors)]
