"""Arrays of OPS snapshots, and collective variables that evaluate all frames of a trajectory at once."""

import numpy as np
import openpathsampling as paths
from openpathsampling.integration_tools import is_simtk_quantity, unit
from openpathsampling.netcdfplus import chaindict


def positions_of(snapshots):
    """Positions of OPS snapshots as one array, without their unit.

    Parameters
    ----------
    snapshots : iterable of openpathsampling snapshots
        frames of one system; the unit of length is that of the engine (nm for OpenMM)

    Returns
    -------
    numpy.ndarray, shape (n_frames, n_atoms, n_spatial)
    """
    return np.array([_positions(snapshot) for snapshot in snapshots], dtype=np.float64)


def _positions(snapshot):
    statics = getattr(snapshot, "statics", None)
    if statics is None or not is_simtk_quantity(statics.coordinates):
        return snapshot.xyz
    return statics.coordinates.value_in_unit(unit.nanometer)  # xyz, without a copy in between


def boxes_of(snapshots):
    """Box vectors of OPS snapshots as one array in nm, or None where there are none.

    Parameters
    ----------
    snapshots : iterable of openpathsampling snapshots

    Returns
    -------
    numpy.ndarray, shape (n_frames, 3, 3), or None
    """
    boxes = [snapshot.box_vectors for snapshot in snapshots]
    if any(box is None for box in boxes):
        return None
    return np.array([box.value_in_unit(unit.nanometer) for box in boxes], dtype=np.float64)


class BatchedCV(paths.CollectiveVariable):
    """Collective variable of positions, evaluated for all frames at once (abstract: subclasses define `_values`).

    As in every OPS collective variable the values are remembered per snapshot. Only positions enter, so a snapshot and
    its reversed copy share them. OPS takes two collective variables of the same class and name for the same one: names
    must differ.
    """

    def __init__(self, name):
        super().__init__(name, cv_time_reversible=True)
        self._eval_dict = chaindict.Function(self._values, requires_lists=True)
        self._post = chaindict.MergeNumpy() > (self._post > self._eval_dict)

    def _values(self, snapshots):
        """Values of a list of snapshots: array, one row per snapshot."""
        raise NotImplementedError
