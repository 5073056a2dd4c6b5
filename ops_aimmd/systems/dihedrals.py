"""Dihedral angles as OPS collective variables, and disks in their space: how states of molecules are usually defined.

An MDTraj collective variable costs 0.3-0.9 ms per frame, more than ten steps of molecular dynamics of a small molecule
in vacuum. The ones here cost a tenth of that, evaluate a trajectory in one batch, and are stored by OPS with their atom
indices: no code is stored, so a fresh process only has to import this package to read them back.
"""

import math

import numpy as np
import openpathsampling as paths

from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.engines.frames import positions_of
from ops_aimmd.systems.batched_cv import BatchedCV


class DihedralAngleCV(BatchedCV):
    """Dihedral angles in degrees, in [-180, 180]: shape (n_frames, n_dihedrals), or (n_dihedrals,) for a snapshot.

    Signs are IUPAC's: see `ops_aimmd.descriptors.InternalCoordinates`, which computes them. Angles jump at 180 degrees: the
    descriptors of a committor are better their sines and cosines (a `DescriptorCV` of `InternalCoordinates`).

    Parameters
    ----------
    name : str
    quadruples : list of list of int, shape (n_dihedrals, 4)
        Indices of the atoms. No periodic images are taken: molecules must be whole.

    Raises
    ------
    ValueError
        When called on frames in which an angle is undefined: positions are not finite, atoms coincide or lie on a line.
    """

    def __init__(self, name, quadruples):
        super().__init__(name)
        self.quadruples = quadruples
        self._indices = np.array(quadruples, dtype=int).tolist()
        self._coordinates = InternalCoordinates(dihedrals={str(atoms): atoms for atoms in self._indices})

    def to_dict(self):
        return {"name": self.name, "quadruples": self._indices}

    def _values(self, snapshots):
        if len(snapshots) == 1:
            values = self._coordinates.of_frame(snapshots[0].xyz, None)
            return np.array([[math.degrees(math.atan2(*pair)) for pair in zip(values[::2], values[1::2], strict=True)]])
        values = self._coordinates(positions_of(snapshots))
        return np.degrees(np.arctan2(values[:, ::2], values[:, 1::2]))


class PeriodicDistanceCV(BatchedCV):
    r"""Periodic distance to a point in the space of the angles of another collective variable, in degrees.

    .. math:: d = \Big(\sum_i \delta_i^2\Big)^{1/2}, \qquad \delta_i = \phi_i - c_i \text{ taken into } [-180, 180).

    ``CVDefinedVolume(cv, 0.0, 30.0)`` is then a disk of 30 degrees, across the periodic boundary too. Several disks on
    one `angles` compute the angles once per frame. The distance of a single snapshot is not cached: the states are asked
    for at every frame, and looking it up would cost more than computing it from the cached angles.

    Parameters
    ----------
    name : str
    angles : DihedralAngleCV
        or any other collective variable that returns a vector of angles in degrees
    centre : list of float, shape (n_angles,)
        the point, in degrees

    Returns
    -------
    float for a snapshot, array (n_frames,) for a trajectory
    """

    def __init__(self, name, angles, centre):
        super().__init__(name)
        self.angles = angles
        self.centre = centre

    def to_dict(self):
        return {"name": self.name, "angles": self.angles, "centre": [float(angle) for angle in self.centre]}

    def __call__(self, items):
        if isinstance(items, paths.BaseSnapshot):
            return self._distance(self.angles(items).tolist())
        return self._values(items)

    def _distance(self, angles):
        squared = 0.0
        for angle, centre in zip(angles, self.centre, strict=True):
            squared += ((angle - centre + 180.0) % 360.0 - 180.0) ** 2
        return squared**0.5

    def _values(self, snapshots):
        return np.array([self._distance(angles) for angles in self.angles(snapshots).tolist()], dtype=np.float64)
