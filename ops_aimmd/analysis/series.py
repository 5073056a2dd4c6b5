"""The steps of a run as a table, from an OPS storage or from a running simulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd.sampling.step_records import COLUMNS, step_records


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
    """Keeps the rows of `step_table` while a simulation runs, also without a storage."""

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
