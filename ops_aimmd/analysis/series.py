"""The steps of a run as a table, from an OPS storage or from a running simulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd.sampling.shooting_results import Shot, is_transition, shots

COLUMNS = "step accepted generated expected reached frames path_length model_version frozen replica".split()


def step_records(step, states: Sequence) -> list[dict]:
    """The rows of `step_table` for one step: one for each shot, none for the initial step and other moves."""
    return [_record(step, shot) for shot in shots(step.change, states)]


def _record(step, shot: Shot) -> dict:
    predicted = shot.predicted_committor
    return {
        "step": int(step.mccycle),
        "accepted": shot.accepted,
        "generated": is_transition(shot),
        "expected": np.nan if predicted is None else _expected(shot, np.asarray(predicted, dtype=float)),
        "reached": sum(outcome >= 0 for outcome in shot.leg_outcomes.values()),
        "frames": shot.new_frames,
        "path_length": len(_current_path(step, shot)),
        "model_version": _number(shot.details, "model_version"),
        "frozen": _number(shot.details, "frozen"),
        "replica": shot.replica,
    }


def step_table(steps: Iterable, states: Sequence) -> pd.DataFrame:
    """One row per shooting move.

    Parameters
    ----------
    steps : iterable of openpathsampling.MCStep
        `storage.steps`, of a run with or without this package.
    states : sequence of openpathsampling.Volume

    Returns
    -------
    pandas.DataFrame
        Columns: step; accepted; generated (the trial joins two different states); expected (probability of that,
        predicted before the shot: 2 p_A p_B for a two-way shot of two states, NaN where nothing was predicted); reached
        (legs that reached a state); frames (of dynamics, new ones only); path_length (frames of the current path after
        the step); model_version; frozen; replica.
    """
    rows = [record for step in steps for record in step_records(step, states)]
    return pd.DataFrame(rows, columns=COLUMNS)


class StepRecorder(PathSimulatorHook):
    """Keeps the rows of `step_table` while a simulation runs, also without a storage.

    Parameters
    ----------
    states : sequence of openpathsampling.Volume
    """

    implemented_for = ["after_step"]

    def __init__(self, states):
        super().__init__()
        self.states = states
        self._rows: list[dict] = []

    def after_step(self, sim, step_number, step_info, state, results, hook_state) -> None:
        """Keep the rows of this step."""
        self._rows.extend(step_records(results, self.states))

    @property
    def table(self) -> pd.DataFrame:
        """All rows so far."""
        return pd.DataFrame(self._rows, columns=COLUMNS)


def _expected(shot: Shot, predicted: np.ndarray) -> float:
    if shot.kept_end is not None:  # one-way: the new leg must not end where the kept part ends
        return float(1.0 - predicted[shot.kept_end])
    return float(1.0 - (predicted**2).sum())


def _current_path(step, shot: Shot):
    for sample in step.active:
        if sample.replica == shot.replica:
            return sample.trajectory
    return shot.path


def _number(details, name: str) -> float:
    value = getattr(details, name, None)
    return np.nan if value is None else float(value)
