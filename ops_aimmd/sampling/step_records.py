"""What a shot did, in a few numbers: one record for each shooting move of a finished MC step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ops_aimmd.sampling.shooting_results import Shot, is_transition, shots

COLUMNS = "step accepted generated expected reached frames path_length model_version frozen replica".split()


def step_records(step, states: Sequence) -> list[dict]:
    """The records of one step: one for each shot, none for the initial step and other moves.

    Returns
    -------
    list of dict
        Keys as in `COLUMNS`.
    """
    return [shot_record(step, shot) for shot in shots(step.change, states)]


def shot_record(step, shot: Shot) -> dict:
    """The record of one shot of a step.

    Parameters
    ----------
    step : openpathsampling.MCStep
    shot : Shot
        One of `shots(step.change, states)`.

    Returns
    -------
    dict
        Keys as in `COLUMNS`.
    """
    predicted = shot.predicted_committor
    return {
        "step": int(step.mccycle),
        "accepted": shot.accepted,
        "generated": is_transition(shot),
        "expected": np.nan if predicted is None else _expected(shot, np.asarray(predicted, dtype=float)),
        "reached": sum(outcome >= 0 for outcome in shot.leg_outcomes.values()),
        "frames": shot.new_frames + _frames_beside(step, shot),
        "path_length": _path_length(step, shot),
        "model_version": detail(shot, "model_version"),
        "frozen": detail(shot, "frozen"),
        "replica": shot.replica,
    }


def _frames_beside(step, shot: Shot) -> int:
    """New frames of the configurations beside the path, which the move of the shot has moved before it."""
    if getattr(shot.details, "exchanged_index", None) is None:
        return 0
    return sum(int(getattr(part.details, "configuration_frames", None) or 0) for part in step.change)


def detail(shot: Shot, name: str) -> float:
    """A number among the details of a shot; NaN where the move recorded none."""
    value = getattr(shot.details, name, None)
    return np.nan if value is None else float(value)


def _expected(shot: Shot, predicted: np.ndarray) -> float:
    if shot.kept_end is not None:  # one-way: the new leg must not end where the kept part ends
        return float(1.0 - predicted[shot.kept_end])
    return float(1.0 - (predicted**2).sum())


def _path_length(step, shot: Shot) -> int:
    """Frames of the current path after the step."""
    whole = getattr(shot.details, "path_length", None)  # noted where not all frames of the path were stored
    if whole is not None:
        return int(whole)
    return next((len(sample.trajectory) for sample in step.active if sample.replica == shot.replica), len(shot.path))
