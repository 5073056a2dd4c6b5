"""Descriptors of OPS trajectories: collective variables, functions of a trajectory, or descriptors of this package."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import openpathsampling as paths
import torch
from openpathsampling.collectivevariable import CollectiveVariable
from openpathsampling.engines import BaseSnapshot

from ops_aimmd.descriptors.descriptor_set import Descriptors
from ops_aimmd.engines.frames import boxes_of, has_unit, positions_of, without_unit
from ops_aimmd.systems.descriptor_cv import DescriptorCV

SAME = 1e-3
"""Largest difference of two evaluations of one frame, relative to the largest value: single precision, in another order."""

TURNS = (2 * np.pi, 360.0)
"""Values that differ by a whole turn are the same angle."""


def evaluate_descriptors(descriptors, trajectory) -> np.ndarray:
    """Evaluate descriptors on every frame of a trajectory.

    Parameters
    ----------
    descriptors : CollectiveVariable, Descriptors, sequence of them, or callable
        A collective variable gives one number or a vector per frame; descriptors of this package get positions and boxes
        of the frames in nm; a sequence is joined column by column; a function takes the trajectory and returns an array
        (n_frames, n_descriptors).
    trajectory : openpathsampling.Trajectory, sequence of snapshots, or a single snapshot
        A snapshot counts as a trajectory of one frame.

    Returns
    -------
    float64 array, shape (n_frames, n_descriptors)
        Values may be NaN: the caller decides which frames matter. Values with a unit are in the unit of the first frame.

    Raises
    ------
    ValueError
        If what comes back has another shape or is not a number.
    TypeError
        If `trajectory` holds something else than snapshots.
    """
    trajectory = as_trajectory(trajectory)
    if isinstance(descriptors, Sequence):
        return np.concatenate([_columns_of(part, trajectory) for part in descriptors], axis=1)
    return _columns_of(descriptors, trajectory)


def _columns_of(descriptors, trajectory) -> np.ndarray:
    if isinstance(descriptors, Descriptors):
        box = boxes_of(trajectory) if descriptors.periodic else None
        return descriptors(positions_of(trajectory), box)
    return _as_columns(_called(descriptors, trajectory), len(trajectory), descriptors)


def _called(descriptors, trajectory):
    """What a collective variable or a function returns for a trajectory."""
    if not getattr(descriptors, "cv_scalarize_numpy_singletons", False):
        return descriptors(trajectory)
    # OPS takes the last dimension off where it is 1. Of an array (1,), which a function of an MDTraj trajectory may return
    # for a single frame, it makes a number, and then fails to iterate over it. That happens where one frame is not in its
    # cache: given twice, it is not the only one
    try:
        return descriptors(trajectory)
    except TypeError:
        return descriptors(paths.Trajectory([*trajectory, *trajectory]))[: len(trajectory)]
    except AttributeError as error:
        raise ValueError(
            f"{describe(descriptors)} must return a numpy array, (n_frames,) or (n_frames, n_descriptors), and OPS found "
            f"something else: {error}"
        ) from error


def as_trajectory(trajectory):
    if isinstance(trajectory, paths.Trajectory):
        return trajectory
    frames = [trajectory] if isinstance(trajectory, BaseSnapshot) else trajectory
    if not isinstance(frames, Sequence) or not all(isinstance(frame, BaseSnapshot) for frame in frames):
        raise TypeError(
            f"descriptors are evaluated on an OPS trajectory or snapshot; got {type(trajectory).__name__}. On arrays of "
            "descriptors the model itself works: learner.model.committor(x)"
        )
    return paths.Trajectory(frames)


def check_finite(descriptors, values: np.ndarray, wanted: np.ndarray | bool = True) -> None:
    """Raise a ValueError if values (n_frames, d) are NaN or infinite in frames that are wanted, bool (n_frames,)."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1) & wanted)
    if len(bad):
        columns = np.flatnonzero(~np.isfinite(values[bad]).all(axis=0))
        raise ValueError(
            f"{describe(descriptors)} is NaN or infinite in frames {bad[:10].tolist()} (columns "
            f"{columns[:10].tolist()}): look for a division by zero or an angle of collinear atoms there"
        )


def check_each_frame_counts_alone(descriptors, trajectory, values: np.ndarray) -> None:
    """Check that a frame has the same descriptors alone, beside another frame, and in its trajectory.

    Parameters
    ----------
    descriptors
        As for `evaluate_descriptors`.
    trajectory : openpathsampling.Trajectory
        At least one frame. Two frames are evaluated again; for collective variables as copies, which no cache knows.
    values : array, shape (n_frames, n_descriptors)
        Descriptors of the trajectory.

    Raises
    ------
    ValueError
        If the number of descriptors, or a value, depends on the frames beside it.
    """
    parts = descriptors if isinstance(descriptors, Sequence) else [descriptors]
    cached = any(isinstance(part, CollectiveVariable) for part in parts)
    middle = len(trajectory) // 2
    size = np.where(np.isfinite(values), np.abs(values), 0.0).max(axis=0)
    for subset in ([middle], [middle, 0][: len(trajectory)]):
        frames = [trajectory[row].copy() if cached else trajectory[row] for row in subset]
        try:
            found = evaluate_descriptors(descriptors, paths.Trajectory(frames))
        except ValueError as error:
            raise ValueError(f"for {len(subset)} frame(s) of a trajectory of {len(trajectory)}: {error}") from error
        expected = values[subset]
        if found.shape != expected.shape:
            raise ValueError(
                f"{describe(descriptors)} gives {found.shape[1]} values per frame for {len(subset)} frame(s), and "
                f"{values.shape[1]} for a trajectory of {len(trajectory)}: it must return an array (n_frames, "
                "n_descriptors), also for n_frames = 1"
            )
        columns = np.flatnonzero(~_agree(found, expected, size).all(axis=0))
        if len(columns):
            raise ValueError(
                f"{describe(descriptors)} depends on the other frames of a trajectory (columns {columns[:10].tolist()}): "
                f"frame(s) {subset} of {len(trajectory)} give {expected[:, columns[0]].tolist()} there, and "
                f"{found[:, columns[0]].tolist()} alone. Descriptors must be a function of one configuration: no alignment "
                "to the first frame, no mean over frames"
            )


def _agree(found: np.ndarray, expected: np.ndarray, size: np.ndarray) -> np.ndarray:
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    difference = np.where(same, 0.0, found) - np.where(same, 0.0, expected)
    for turn in TURNS:
        same |= np.abs(difference - turn * np.round(difference / turn)) <= SAME * np.minimum(size, turn)
    return same | (np.abs(difference) <= SAME * size)


def column_names(descriptors) -> list[str] | None:
    """Names of the columns of `evaluate_descriptors`, or None where some part does not know its own."""
    parts = descriptors if isinstance(descriptors, Sequence) else [descriptors]
    if not all(isinstance(part, (Descriptors, DescriptorCV)) for part in parts):
        return None
    return [name for part in parts for name in part.names]


def _as_columns(values, n_frames: int, source) -> np.ndarray:
    """What a collective variable or a function returned for `n_frames` frames, as a float64 array (n_frames, n)."""
    try:
        array = _numbers(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{describe(source)} did not return numbers, the same count for each frame: {error}") from error
    if n_frames == 1 and array.ndim < 2:
        array = array.reshape(1, -1)  # without the dimension of frames, as OPS and others leave it
    elif array.ndim == 1:
        array = array[:, None]
    elif array.ndim > 2:
        array = array.reshape(len(array), -1)
    if array.ndim != 2 or len(array) != n_frames:
        raise ValueError(
            f"{describe(source)} must return an array (n_frames, n_descriptors) = ({n_frames}, ...) for a trajectory "
            f"of {n_frames} frames; got shape {array.shape}"
        )
    return array


def _numbers(values) -> np.ndarray:
    """Real numbers as a float64 array. Values with units are numbers in the unit of the first one."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    values = without_unit(values)
    if isinstance(values, (list, tuple)) and len(values) and has_unit(values[0]):
        values = [value.value_in_unit(values[0].unit) for value in values]
    array = np.asarray(values)
    if array.dtype == object:
        nothing = np.flatnonzero([value is None for value in array.ravel()])
        if len(nothing):
            raise ValueError(f"None among the values (number {nothing[:10].tolist()})")
    elif array.dtype.kind not in "biuf":
        raise ValueError(f"values of the type {array.dtype}")
    return array.astype(np.float64)


def check_descriptors(descriptors, states) -> None:
    """Raise a ValueError if descriptors cannot be evaluated; warn of angles that jump by a period where nothing happens."""
    parts = descriptors if isinstance(descriptors, Sequence) else [descriptors]
    if len(parts) == 0 or not all(callable(part) for part in parts):
        raise ValueError(
            "descriptors must be a CollectiveVariable, a list of them, or a function of a trajectory that returns an "
            f"array (n_frames, n_descriptors); got {descriptors!r}"
        )
    periodic = [cv for state in states for cv in _periodic_variables(state)]
    angles = [describe(part) for part in parts if any(part is cv for cv in periodic)]
    if angles:
        warnings.warn(
            f"{', '.join(angles)}: periodic in a state, and given as it is. The model sees a jump where the angle passes "
            "the end of its period. Give its sine and cosine, for instance by ops_aimmd.sampling.DescriptorCV(name, "
            "ops_aimmd.descriptors.backbone_dihedrals(topology)), or by a function of the trajectory that returns both",
            stacklevel=3,
        )


def _periodic_variables(volume) -> list:
    """Collective variables of a volume and its parts that have a period."""
    parts = [getattr(volume, name, None) for name in ("volume", "volume1", "volume2")]
    found = [cv for part in parts if part is not None for cv in _periodic_variables(part)]
    if None not in (getattr(volume, "period_min", None), getattr(volume, "period_max", None)):
        found.append(volume.collectivevariable)
    return found


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
