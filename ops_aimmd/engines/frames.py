"""Frames (OPS snapshots) as arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openpathsampling.engines import BaseSnapshot
from openpathsampling.engines.features.shared import KineticContainer, StaticContainer
from openpathsampling.integration_tools import is_simtk_quantity, unit
from openpathsampling.netcdfplus import LoaderProxy

ARRAYS = ("coordinates", "velocities", "box_vectors")
UNITS = {"coordinates": "nanometer", "velocities": "nanometer/picosecond", "box_vectors": "nanometer"}
SCALARS = (bool, int, float, str, type(None))
CONTAINERS = (StaticContainer, KineticContainer)
"""Objects in which snapshots of OpenMM hold their arrays; OPS stores them apart."""


def positions_of(snapshots):
    """Positions of OPS snapshots of one system, shape (n_frames, n_atoms, n_spatial), without their unit.

    The unit of length is that of the engine, nm for OpenMM.
    """
    return np.array([_positions(snapshot) for snapshot in snapshots], dtype=np.float64)


def _positions(snapshot):
    statics = getattr(snapshot, "statics", None)
    if statics is None or not is_simtk_quantity(statics.coordinates):
        return snapshot.xyz
    return statics.coordinates.value_in_unit(unit.nanometer)  # xyz, without a copy in between


def boxes_of(snapshots):
    """Box vectors of OPS snapshots, (n_frames, 3, 3) in nm, or None where there are none."""
    boxes = [snapshot.box_vectors for snapshot in snapshots]
    if any(box is None for box in boxes):
        return None
    return np.array([box.value_in_unit(unit.nanometer) for box in boxes], dtype=np.float64)


def is_at_rest(snapshot) -> bool:
    """Whether a frame has no velocities, or all are exactly zero, as in frames from files without velocities."""
    velocities = without_unit(snapshot.velocities)
    return velocities is None or not np.any(velocities)


def can_be_kept(snapshot) -> bool:
    """Whether a snapshot holds its coordinates, velocities and box vectors itself, and plain values beside them.

    Snapshots of external engines hold the name of a file and a position in it, and read their coordinates when asked.
    """
    return holds_its_arrays(snapshot) and all(
        name in ARRAYS or isinstance(getattr(snapshot, name), SCALARS) for name in variables_of(snapshot)
    )


def holds_its_arrays(snapshot) -> bool:
    """Whether coordinates and all other arrays of a snapshot, or of a class of snapshots, are in memory."""
    names = set(variables_of(snapshot))
    return "coordinates" in names and not {*ARRAYS} & ({*snapshot.__features__.properties} - names)


def parts_in_memory(snapshot) -> list:
    """All objects that hold the numbers of a snapshot.

    A netCDF file remembers a saved snapshot only for some time, and then reads it again in single precision. As long as
    these objects are referenced, all digits are kept.
    """
    frame = snapshot.__subject__ if type(snapshot) is LoaderProxy else snapshot
    if "statics" in frame.__features__.variables:
        return [frame, frame.statics, frame.kinetics]
    return [frame]


def variables_of(snapshot) -> list[str]:
    """What a snapshot consists of; OpenMM's snapshots hold their arrays in two containers."""
    variables = list(snapshot.__features__.variables)
    if "statics" in variables:
        return list(ARRAYS)
    return [name for name in variables if name != "engine"]


def arrays_of(snapshot) -> dict:
    """What a snapshot consists of, by name.

    Returns
    -------
    dict
        `ARRAYS` as float64 arrays, with units in nm and nm/ps; other values as they are.
    """
    return {name: _part(name, getattr(snapshot, name)) for name in variables_of(snapshot)}


def _part(name: str, value):
    if name not in ARRAYS or value is None:
        return value
    if is_simtk_quantity(value):
        value = value.value_in_unit(_unit(name))
    return np.asarray(value, dtype=np.float64)


def construct(snapshot_class, engine, parts: Mapping, with_units: bool) -> BaseSnapshot:
    """A snapshot from what `arrays_of` gives; with units, it keeps the arrays themselves."""
    parts = {name: _with_unit(name, value) if with_units else value for name, value in parts.items()}
    if "statics" not in snapshot_class.__features__.variables:
        return snapshot_class(engine=engine, **parts)
    # containers copy what they are made of, which for quantities takes as long as all the rest: they are filled afterwards
    statics = snapshot_class.StaticContainer(coordinates=None, box_vectors=None, engine=engine)
    statics.coordinates, statics.box_vectors = parts["coordinates"], parts.get("box_vectors")
    kinetics = snapshot_class.KineticContainer(velocities=None, engine=engine)
    kinetics.velocities = parts["velocities"]
    return snapshot_class(engine=engine, statics=statics, kinetics=kinetics)


def _with_unit(name: str, value):
    return unit.Quantity(value, _unit(name)) if name in ARRAYS and value is not None else value


def _unit(name: str):
    return unit.nanometer / unit.picosecond if name == "velocities" else unit.nanometer


def moved(snapshot, other) -> BaseSnapshot:
    """A copy of a snapshot with the coordinates, velocities and box of another one."""
    return snapshot.copy_with_replacement(
        **{name: getattr(other, name) for name in ARRAYS if name in variables_of(snapshot)}
    )


def has_unit(value) -> bool:
    """Whether a value has a unit of OpenMM."""
    return is_simtk_quantity(value)


def without_unit(value):
    """The number or array of a value in its own unit; values without a unit as they are."""
    return value._value if is_simtk_quantity(value) else value
