"""The series of a run as plain variables in the netCDF file of OPS: one row per shot, for any program that reads netCDF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import netCDF4
import numpy as np
import openpathsampling as paths
import pandas as pd

from ops_aimmd.sampling.movers import LEGS
from ops_aimmd.sampling.shooting_results import Shot, shots
from ops_aimmd.sampling.step_records import detail, shot_record
from ops_aimmd.storage.file_access import telling_damage
from ops_aimmd.version import __version__

GROUP = "ops_aimmd"
CHUNK = 256
"""Rows per piece of a variable on disk: all variables together begin with 90 kB, and grow by 110 bytes per shot."""

UNKNOWN = -1
"""Among integers, which have no NaN."""


class _Variable(NamedTuple):
    dtype: str
    units: str
    long_name: str
    second_dimension: str | None = None
    may_be_unknown: bool = False


_VARIABLES = {
    "step": _Variable("i4", "1", "number of the Monte Carlo step"),
    "accepted": _Variable("i1", "1", "1 if the new path was accepted, else 0"),
    "generated": _Variable("i1", "1", "1 if the new path joins two different states, else 0"),
    "expected": _Variable("f8", "1", "probability of generated = 1, predicted before the shot; NaN if none was"),
    "reached": _Variable("i1", "legs", "new legs that reached a state"),
    "frames": _Variable("i4", "frames", "new frames of dynamics that the shot cost"),
    "path_length": _Variable("i4", "frames", "length of the current path after the step"),
    "model_version": _Variable("i4", "1", "version of the model that picked the shooting point", None, True),
    "frozen": _Variable("i1", "1", "1 if the model was frozen, 0 if it was learning", None, True),
    "replica": _Variable("i4", "1", "replica of the path that was shot from"),
    "leg_outcomes": _Variable(
        "i2", "1", "state reached by the backward and forward leg, counted from 0; -1 for no state or no such leg", "leg"
    ),
    "leg_lengths": _Variable(
        "i4", "frames", "length of the backward and forward leg with the shooting point; 0 for no such leg", "leg"
    ),
    "predicted_committor": _Variable(
        "f8", "1", "committor of the shooting point to each state, predicted before the shot; NaN if none was", "state"
    ),
    "shooting_index": _Variable("i4", "frames", "index of the shooting point in the old path, counted from 0"),
    "selection_probability_old": _Variable("f8", "1", "probability of picking the shooting point from the old path"),
    "selection_probability_new": _Variable("f8", "1", "the same from the new path; NaN if it is outside the ensemble"),
    "weight_sum_old": _Variable("f8", "1", "sum of the selection weights of the frames of the old path"),
    "weight_sum_new": _Variable("f8", "1", "the same of the new path; NaN if it is outside the ensemble"),
    "seed": _Variable("i8", "1", "identifies the random numbers of the step", None, True),
}


class SeriesBlock:
    """The group "ops_aimmd" of a netCDF file of OPS: one unlimited dimension "shot", one plain variable per quantity.

    The quantities are the columns of `ops_aimmd.analysis.series.step_table` and the details of the shooting moves that
    are numbers; each variable says in `long_name` what it is. OPS does not look at the group. Rows are kept in memory
    until `flush`, so that one call writes the shots of all steps since the last one.

    A row is complete if all variables have a value in it. Of the rows that a killed process left, those before the
    first incomplete one count; the others are given up when the group is opened for writing, and overwritten.

    Parameters
    ----------
    storage : openpathsampling.Storage
        Open for writing; see `possible`. The group is made unless it is there.
    states : sequence of openpathsampling.Volume
        Their order is the order of the outcomes.
    run_id : str, optional
        Identifies the run that the file belongs to; with None, whatever stands in an existing group is accepted.

    Raises
    ------
    ValueError
        If the storage cannot hold the group, or the group is that of another run or other states.
    """

    def __init__(self, storage, states: Sequence, run_id: str | None = None):
        if not self.possible(storage):
            raise ValueError(
                "series are kept in a netCDF file of OPS that is open for writing, as openpathsampling.Storage(file, 'a'); "
                f"got a {type(storage).__module__}.{type(storage).__qualname__} that is another kind, closed or "
                "read-only: step_table(storage.steps, states) gives the same table"
            )
        self.storage = storage
        self.states = states
        self.run_id = run_id
        if GROUP not in storage.groups:
            _create_group(storage, states, run_id)
        group = storage.groups[GROUP]
        self._check_that_it_is_ours(group)
        self._variables = {name: group.variables[name] for name in _VARIABLES}
        for variable in self._variables.values():
            variable.set_auto_maskandscale(False)
        self._rows: list[dict] = []
        self._n_written = _n_complete({name: variable[:] for name, variable in self._variables.items()}, group)
        steps = self._variables["step"]
        self._last_written = int(steps[self._n_written - 1]) if self._n_written else -1
        if len(steps) > self._n_written:  # what lies behind the rows that count shall never count again
            steps[self._n_written :] = steps.getncattr("_FillValue")

    @staticmethod
    def possible(storage) -> bool:
        """Whether the storage can hold the group: a netCDF file of OPS that is open for writing."""
        return isinstance(storage, paths.Storage) and storage.mode != "r" and storage.isopen()

    @property
    def last_step(self) -> int:
        """Number of the last step with a row, written or waiting to be; -1 if there is none."""
        return self._rows[-1]["step"] if self._rows else self._last_written

    def append(self, step) -> None:
        """Keep the rows of a step, fresh from the simulation or read back: one for each shot, none for other moves.

        Raises ValueError if there are rows of this step or a later one.
        """
        if step.mccycle <= self.last_step:
            raise ValueError(
                f"got step {step.mccycle}, but the series in {self.storage.filename!r} reach step {self.last_step} "
                "already: append each step once, in order"
            )
        self._rows.extend(_row(step, shot, len(self.states)) for shot in shots(step.change, self.states))

    def flush(self) -> None:
        """Write all rows that are waiting; they are on disk after the next `storage.sync()`."""
        if not self._rows:
            return
        rows = slice(self._n_written, self._n_written + len(self._rows))
        for name, variable in self._variables.items():
            variable[rows] = np.array([row[name] for row in self._rows], dtype=variable.dtype)
        self._n_written, self._last_written = rows.stop, self.last_step
        self._rows = []

    def _check_that_it_is_ours(self, group) -> None:
        names = [state.name for state in self.states]
        if group.getncattr("states") != names:
            raise ValueError(
                f"the series in {self.storage.filename!r} are of the states {group.getncattr('states')}, got {names}: "
                "give the same states in the same order"
            )
        if self.run_id is not None and group.getncattr("run_id") != self.run_id:
            raise ValueError(
                f"the series in {self.storage.filename!r} are of the run {group.getncattr('run_id')!r}, got "
                f"{self.run_id!r}: open the file of this run, or start a new one"
            )


def read_series(path) -> pd.DataFrame:
    """The series of a run from its netCDF file, without opening it as an OPS storage.

    Any program that reads netCDF can do so; with netCDF4 alone:

    >>> import netCDF4
    >>> series = netCDF4.Dataset("run.nc")["ops_aimmd"]
    >>> {name: variable[:] for name, variable in series.variables.items()}

    gives masked arrays of shape (n_shots,), (n_shots, 2) or (n_shots, n_states), in which integers that are not known
    are masked, and so are the last rows if the process that wrote them was killed. `series["expected"].long_name` says
    what a variable is, `series.states` what the states are called.

    A netCDF file that a running simulation has open is locked: read its checkpoint meanwhile, for instance with
    `ops_aimmd.report(checkpoint=...)`.

    Parameters
    ----------
    path : str or path
        The .nc file.

    Returns
    -------
    pandas.DataFrame
        The columns of `ops_aimmd.analysis.series.step_table`, then the details: leg_outcomes_backward,
        leg_outcomes_forward, leg_lengths_backward, leg_lengths_forward, predicted_committor_0 and so on for each state,
        shooting_index, selection_probability_old, selection_probability_new, weight_sum_old, weight_sum_new, seed.
        Numbers that may be unknown are float, NaN where they are.

    Raises
    ------
    ValueError
        If there are no series in the file.
    FileNotFoundError
    FileUnavailableError
        If the file cannot be read now, as while a simulation writes to it.
    ops_aimmd.storage.file_access.UnreadableFileError
        If it is damaged or something else.
    """
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise FileNotFoundError(f"there is no netCDF file {path}")
    with telling_damage(path):
        file = netCDF4.Dataset(path)
    with file:
        if GROUP not in file.groups:
            raise ValueError(
                f"{str(path)!r} has no group {GROUP!r}: it is not a file of a run with series; for any OPS file, "
                "step_table(storage.steps, states) gives the same table"
            )
        with telling_damage(path):
            group = file.groups[GROUP]
            group.set_auto_mask(False)
            values = {name: group.variables[name][:] for name in _VARIABLES}
            n_rows = _n_complete(values, group)
    columns: dict = {}
    for name, array in values.items():
        columns.update(_columns(name, array[:n_rows]))
    return pd.DataFrame(columns)


def _create_group(storage, states, run_id) -> None:
    group = storage.createGroup(GROUP)
    group.title = "Series of a path sampling run guided by a learned committor: one row per shot"
    group.run_id = "" if run_id is None else run_id
    group.states = [state.name for state in states]
    group.outcomes = (
        "leg_outcomes and predicted_committor count the states from 0, in the order of the attribute `states`; legs are "
        "backward, forward in the time of the old path; a row counts if no variable is unwritten in it or before"
    )
    group.ops_aimmd_version = __version__
    group.createDimension("shot", None)
    group.createDimension("leg", 2)
    group.createDimension("state", len(states))
    for name, (dtype, units, long_name, second_dimension, may_be_unknown) in _VARIABLES.items():
        dimensions = ("shot",) if second_dimension is None else ("shot", second_dimension)
        variable = group.createVariable(
            name,
            dtype,
            dimensions,
            chunksizes=(CHUNK, *(len(group.dimensions[d]) for d in dimensions[1:])),
            fill_value=netCDF4.default_fillvals[dtype],  # said, since not every program knows the default
        )
        variable.long_name = long_name
        variable.units = units
        if may_be_unknown:
            variable.missing_value = np.array(UNKNOWN, dtype=dtype)


def _row(step, shot: Shot, n_states: int) -> dict:
    record = shot_record(step, shot)
    predicted = shot.predicted_committor
    seed = getattr(shot.details, "seed", None)
    return {
        **record,
        "model_version": UNKNOWN if np.isnan(record["model_version"]) else int(record["model_version"]),
        "frozen": UNKNOWN if np.isnan(record["frozen"]) else int(record["frozen"]),
        "leg_outcomes": [shot.leg_outcomes.get(name, -1) for name in LEGS["both"]],
        "leg_lengths": [shot.leg_lengths.get(name, 0) for name in LEGS["both"]],
        "predicted_committor": np.full(n_states, np.nan) if predicted is None else predicted,
        "shooting_index": shot.index,
        **{
            f"{quantity}_{path}": detail(shot, f"{quantity}_{path}")
            for quantity in ("selection_probability", "weight_sum")
            for path in ("old", "new")
        },
        "seed": UNKNOWN if seed is None else int(seed),
    }


def _n_complete(values: dict, group) -> int:
    """Rows before the first one in which a variable is unwritten."""
    unwritten = np.zeros(len(group.dimensions["shot"]), dtype=bool)
    for name, array in values.items():
        unwritten |= (array == group.variables[name].getncattr("_FillValue")).any(axis=tuple(range(1, array.ndim)))
    return int(unwritten.argmax()) if unwritten.any() else len(unwritten)


def _columns(name: str, array: np.ndarray) -> dict:
    """A variable as one-dimensional columns of a table."""
    kind = _VARIABLES[name]
    if kind.may_be_unknown:
        return {name: np.where(array == UNKNOWN, np.nan, array)}
    if kind.dtype.startswith("i"):
        array = array.astype(bool if name in ("accepted", "generated") else np.int64)
    if kind.second_dimension is None:
        return {name: array}
    labels = LEGS["both"] if kind.second_dimension == "leg" else range(array.shape[1])
    return {f"{name}_{label}": array[:, i] for i, label in enumerate(labels)}
