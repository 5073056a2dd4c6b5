"""The steps of a run as a table, from an OPS storage or from a running simulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd.sampling.shooting_results import Shot, is_transition, shots


def step_record(step, states: Sequence) -> dict | None:
    """One row of `step_table`; None for the initial step and for moves without a shot."""
    shot = next(shots(step.change, states), None)
    if shot is None:
        return None
    details = step.change.canonical.details
    predicted = shot.predicted_committor
    return {
        "step": int(step.mccycle),
        "accepted": shot.accepted,
        "generated": is_transition(shot),
        "expected": np.nan if predicted is None else _expected(shot, np.asarray(predicted, dtype=float)),
        "reached": sum(outcome >= 0 for _, outcome in shot.legs),
        "frames": sum(len(leg) - 1 for leg, _ in shot.legs),
        "path_length": len(_current_path(step, shot)),
        "model_version": _number(details, "model_version"),
        "frozen": _number(details, "frozen"),
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
    rows = [record for step in steps if (record := step_record(step, states)) is not None]
    columns = ("step accepted generated expected reached frames path_length model_version frozen replica").split()
    return pd.DataFrame(rows, columns=columns)


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
        """Keep the row of this step."""
        record = step_record(results, self.states)
        if record is not None:
            self._rows.append(record)

    @property
    def table(self) -> pd.DataFrame:
        """All rows so far."""
        return pd.DataFrame(self._rows)


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
