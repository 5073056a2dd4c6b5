"""Descriptors of OPS trajectories: collective variables, functions of a trajectory, or descriptors of this package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openpathsampling.collectivevariable import CollectiveVariable

from ops_aimmd.descriptors.descriptor_set import Descriptors
from ops_aimmd.systems.batched_cv import boxes_of, positions_of
from ops_aimmd.systems.descriptor_cv import DescriptorCV


def evaluate_descriptors(descriptors, trajectory) -> np.ndarray:
    """Evaluate descriptors on every frame of a trajectory.

    Parameters
    ----------
    descriptors : CollectiveVariable, Descriptors, sequence of them, or callable
        A collective variable gives one number or a vector per frame; descriptors of this package get positions and boxes
        of the frames in nm; a sequence is joined column by column; a function takes the trajectory and returns an array
        (n_frames, n_descriptors).
    trajectory : openpathsampling.Trajectory

    Returns
    -------
    float64 array, shape (n_frames, n_descriptors)
        Values may be NaN: whoever uses them decides which frames matter.

    Raises
    ------
    ValueError
        If what comes back has another shape or is not a number.
    """
    if isinstance(descriptors, Sequence):
        return np.concatenate([_columns_of(part, trajectory) for part in descriptors], axis=1)
    return _columns_of(descriptors, trajectory)


def _columns_of(descriptors, trajectory) -> np.ndarray:
    if isinstance(descriptors, Descriptors):
        box = boxes_of(trajectory) if descriptors.periodic else None
        return descriptors(positions_of(trajectory), box)
    return _as_columns(descriptors(trajectory), len(trajectory), descriptors)


def column_names(descriptors) -> list[str] | None:
    """Names of the columns of `evaluate_descriptors`, or None where some part does not know its own."""
    parts = descriptors if isinstance(descriptors, Sequence) else [descriptors]
    if not all(isinstance(part, (Descriptors, DescriptorCV)) for part in parts):
        return None
    return [name for part in parts for name in part.names]


def _as_columns(values, n_frames: int, source) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{describe(source)} did not return numbers: {error}") from error
    if array.ndim == 1:
        array = array[:, None]
    elif array.ndim > 2:
        array = array.reshape(len(array), -1)
    if array.ndim != 2 or len(array) != n_frames:
        raise ValueError(
            f"{describe(source)} must return an array (n_frames, n_descriptors) = ({n_frames}, ...) for a trajectory "
            f"of {n_frames} frames; got shape {np.shape(values)}"
        )
    return array


def is_storable(descriptors) -> bool:
    """Whether OPS can store the descriptors: collective variables can, all others are stored by name only.

    Wrap descriptors of this package in a `DescriptorCV` to have them stored.
    """
    if isinstance(descriptors, Sequence):
        return all(isinstance(cv, CollectiveVariable) for cv in descriptors)
    return isinstance(descriptors, CollectiveVariable)


def describe(descriptors) -> str:
    """A name for messages and metadata."""
    if isinstance(descriptors, Sequence):
        return "[" + ", ".join(describe(part) for part in descriptors) + "]"
    if isinstance(descriptors, CollectiveVariable):
        return f"collective variable {descriptors.name!r}"
    if isinstance(descriptors, Descriptors):
        return f"{len(descriptors.names)} descriptors {type(descriptors).__name__}"
    return f"function {getattr(descriptors, '__name__', type(descriptors).__name__)!r}"
