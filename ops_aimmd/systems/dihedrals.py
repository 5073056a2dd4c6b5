r"""Dihedral angles in plain numpy, and the OPS collective variables and volumes made of them.

An MDTraj collective variable costs 0.3-0.9 ms per frame, more than ten steps of molecular dynamics of a small molecule
in vacuum. The ones here cost a tenth of that, evaluate a trajectory in one batch, and are stored by OPS with their atom
indices: no code is stored, so a fresh process only has to import this package to read them back.
"""

import math

import numpy as np
import openpathsampling as paths
from openpathsampling.netcdfplus import chaindict


def _sine_cosine(r1, r2, r3, r4):
    """Sine and cosine, times a common factor, of a dihedral angle, and the square of the scale of the factor.

    Each argument holds three components, floats or arrays alike: Python floats are ten times faster for the single
    frame that the stopping condition of a running trajectory asks for, arrays for everything else.
    """
    (x1, y1, z1), (x2, y2, z2), (x3, y3, z3), (x4, y4, z4) = r1, r2, r3, r4
    ax, ay, az = x2 - x1, y2 - y1, z2 - z1
    bx, by, bz = x3 - x2, y3 - y2, z3 - z2
    cx, cy, cz = x4 - x3, y4 - y3, z4 - z3
    mx, my, mz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    aa, bb, cc = ax * ax + ay * ay + az * az, bx * bx + by * by + bz * bz, cx * cx + cy * cy + cz * cz
    sine = bb**0.5 * (ax * nx + ay * ny + az * nz)
    cosine = mx * nx + my * ny + mz * nz
    return sine, cosine, aa * bb * bb * cc


def _is_defined(sine, cosine, scale):
    # sine^2 + cosine^2 = |n1|^2 |n2|^2, which is rounding noise (1e-32) where bonds are parallel; False for NaN, too
    return sine * sine + cosine * cosine > 1e-24 * scale


def dihedral_angles(positions, quadruples):
    r"""Dihedral angles of quadruples of atoms.

    With the bonds :math:`b_1 = r_2 - r_1`, :math:`b_2 = r_3 - r_2`, :math:`b_3 = r_4 - r_3` and the normals
    :math:`n_1 = b_1 \times b_2`, :math:`n_2 = b_2 \times b_3`,

    .. math:: \phi = \operatorname{atan2}(|b_2|\, b_1 \cdot n_2,\; n_1 \cdot n_2),

    which is 0 for *cis*, :math:`\pi` for *trans*, and positive when, seen along the central bond, the front bond has to be
    turned clockwise to cover the rear one (IUPAC, doi:10.1351/goldbook.T06406).

    Parameters
    ----------
    positions : array_like, shape (n_frames, n_atoms, 3)
        positions in any unit of length; no periodic images are taken, molecules must be whole
    quadruples : array_like of int, shape (n_dihedrals, 4)
        indices of the atoms

    Returns
    -------
    numpy.ndarray, shape (n_frames, n_dihedrals)
        angles in radians, in [-pi, pi]

    Raises
    ------
    ValueError
        if the shapes are wrong, or where an angle is undefined: positions are not finite, atoms coincide, or three
        neighbouring atoms lie on a line. The message names frames and atoms.
    """
    positions = np.asarray(positions, dtype=np.float64)
    quadruples = np.asarray(quadruples)
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise ValueError(
            f"positions have shape {positions.shape}, expected (n_frames, n_atoms, 3); "
            "for a single frame pass positions[np.newaxis]"
        )
    if quadruples.ndim != 2 or quadruples.shape[-1] != 4:
        raise ValueError(f"quadruples have shape {quadruples.shape}, expected (n_dihedrals, 4)")
    # components first, then corners: (3, 4, n_frames, n_dihedrals), so that the formula works on whole arrays
    corners = positions.T[:, quadruples.T].transpose(1, 0, 3, 2)
    sine, cosine, scale = _sine_cosine(*corners)
    defined = _is_defined(sine, cosine, scale)
    if not defined.all():
        frames, dihedrals = np.nonzero(~defined)
        raise ValueError(
            f"the dihedral angle of atoms {quadruples[dihedrals[0]].tolist()} is undefined in frames "
            f"{np.unique(frames)[:10].tolist()} (up to ten of {len(np.unique(frames))}): positions are not finite, atoms "
            "coincide or lie on a line. Check the frames, or choose other atoms"
        )
    return np.arctan2(sine, cosine)


def _dihedral_angles_of_frame(positions, quadruples):
    """`dihedral_angles` of one frame (n_atoms, 3), as a list: the same formula on Python floats."""
    r = positions.tolist()
    angles = []
    for i, j, k, l in quadruples:  # noqa: E741
        sine, cosine, scale = _sine_cosine(r[i], r[j], r[k], r[l])
        if not _is_defined(sine, cosine, scale):
            return dihedral_angles(positions[np.newaxis], quadruples)  # raises the error
        angles.append(math.atan2(sine, cosine))
    return [angles]


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
    return np.array([snapshot.xyz for snapshot in snapshots], dtype=np.float64)


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


class DihedralAngleCV(BatchedCV):
    """Dihedral angles in degrees, in [-180, 180]: shape (n_frames, n_dihedrals), or (n_dihedrals,) for a snapshot.

    Parameters
    ----------
    name : str
    quadruples : list of list of int, shape (n_dihedrals, 4)
        indices of the atoms

    Raises
    ------
    ValueError
        when called on frames in which an angle is undefined (see `dihedral_angles`)
    """

    def __init__(self, name, quadruples):
        super().__init__(name)
        self.quadruples = quadruples
        self._indices = np.array(quadruples, dtype=int).tolist()

    def to_dict(self):
        """Dictionary from which OPS rebuilds the collective variable."""
        return {"name": self.name, "quadruples": self._indices}

    def _values(self, snapshots):
        positions = positions_of(snapshots)
        if len(positions) == 1:
            return np.degrees(_dihedral_angles_of_frame(positions[0], self._indices))
        return np.degrees(dihedral_angles(positions, self._indices))


class SineCosineCV(BatchedCV):
    """Sine and cosine of each angle of another collective variable: periodic descriptors without a jump.

    The columns are sin 1, cos 1, sin 2, cos 2, ...: shape (n_frames, 2 n_angles), or (2 n_angles,) for a snapshot.

    Parameters
    ----------
    name : str
    angles : DihedralAngleCV
        or any other collective variable whose values are a vector of angles in degrees
    """

    def __init__(self, name, angles):
        super().__init__(name)
        self.angles = angles

    def to_dict(self):
        """Dictionary from which OPS rebuilds the collective variable."""
        return {"name": self.name, "angles": self.angles}

    def _values(self, snapshots):
        angles = np.radians(self.angles(snapshots))
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(angles), -1)


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
        or any other collective variable whose values are a vector of angles in degrees
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
        """Dictionary from which OPS rebuilds the collective variable."""
        return {"name": self.name, "angles": self.angles, "centre": [float(angle) for angle in self.centre]}

    def __call__(self, items):
        """Distance of a snapshot or of the frames of a trajectory."""
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
