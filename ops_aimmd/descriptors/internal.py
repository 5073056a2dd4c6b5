"""Internal coordinates of molecules: distances, angles, and the sines and cosines of dihedral angles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ops_aimmd.descriptors.boxes import minimum_image, shortest_vector_of_frame
from ops_aimmd.descriptors.descriptor_set import Descriptors

DEFINED = 1e-12
"""Relative length below which the normal of two bonds is rounding noise, so that its angle means nothing."""


FEW = 12
"""Coordinates up to which plain Python is faster for a single frame."""


class InternalCoordinates(Descriptors):
    r"""Distances, angles and dihedral angles between atoms.

    A distance is in the unit of the positions (nm); an angle, of the last two bonds at its middle atom, in radians; a
    dihedral angle gives two columns, its sine and its cosine, which do not jump. Signs of dihedral angles are those of the
    IUPAC (doi:10.1351/goldbook.T06406), as in MDTraj: with bonds :math:`b_1, b_2, b_3`,
    :math:`n_1 = b_1 \times b_2`, :math:`n_2 = b_2 \times b_3`,

    .. math:: \sin\phi \propto |b_2|\, b_1 \cdot n_2, \qquad \cos\phi \propto n_1 \cdot n_2.

    Parameters
    ----------
    distances : mapping of str to two ints, optional
        Name and atoms: ``{"r(LiCl)": (0, 1)}``.
    angles : mapping of str to three ints, optional
    dihedrals : mapping of str to four ints, optional
        Columns are named "phi ALA 2 sin" and "phi ALA 2 cos" for the name "phi ALA 2".
    periodic : bool
        Take each bond to the nearest periodic image; needs a box. Otherwise molecules must be whole.

    Raises
    ------
    ValueError
        If nothing is selected or atoms are repeated or negative; when called, where an angle is undefined: atoms coincide
        or, for dihedral angles, lie on a line.

    Notes
    -----
    The columns are all distances, then all angles, then all dihedral angles.
    """

    def __init__(
        self,
        distances: Mapping[str, Sequence[int]] | None = None,
        angles: Mapping[str, Sequence[int]] | None = None,
        dihedrals: Mapping[str, Sequence[int]] | None = None,
        periodic: bool = False,
    ):
        self.distances = distances
        self.angles = angles
        self.dihedrals = dihedrals
        self.periodic = periodic
        self._pairs = _atoms_of(distances, 2, "distance")
        self._triples = _atoms_of(angles, 3, "angle")
        self._quadruples = _atoms_of(dihedrals, 4, "dihedral angle")
        if not (len(self._pairs) or len(self._triples) or len(self._quadruples)):
            raise ValueError("got no distances, angles or dihedral angles: the selection is empty")
        self._tuples = self._pairs.tolist() + self._triples.tolist() + self._quadruples.tolist()
        self._last_atom = max(map(max, self._tuples))

    @property
    def names(self) -> list[str]:
        dihedrals = [f"{name} {function}" for name in self.dihedrals or {} for function in ("sin", "cos")]
        return [*(self.distances or {}), *(self.angles or {}), *dihedrals]

    @property
    def atoms(self) -> np.ndarray:
        return np.unique(np.concatenate([part.ravel() for part in (self._pairs, self._triples, self._quadruples)]))

    def to_dict(self) -> dict:
        kinds = {"distances": self.distances, "angles": self.angles, "dihedrals": self.dihedrals}
        plain = {
            kind: {name: [int(atom) for atom in atoms] for name, atoms in (entries or {}).items()}
            for kind, entries in kinds.items()
        }
        return {**plain, "periodic": bool(self.periodic)}

    def evaluate(self, positions, box):
        columns = []
        if len(self._pairs):
            (bond,) = self._bonds(positions, box, self._pairs)
            columns.append(torch.linalg.norm(bond, dim=-1))
        if len(self._triples):
            first, second = self._bonds(positions, box, self._triples)
            columns.append(self._angles(-first, second))
        if len(self._quadruples):
            columns.append(self._sines_and_cosines(*self._bonds(positions, box, self._quadruples)))
        return torch.cat(columns, dim=1)

    def of_frame(self, positions, box):
        """Columns of one frame; few coordinates in plain Python, which is ten times faster than arrays there."""
        few = len(self._tuples) <= FEW
        if few and len(positions) > self._last_atom and not (self.periodic and box is None):
            values = self._of_frame_in_python(positions, box.tolist() if self.periodic else None)
            if all(map(math.isfinite, values)):
                return values
        return super().of_frame(positions, box)  # raises the error, if there is one

    def _of_frame_in_python(self, positions, box):
        values = []
        for atoms in self._tuples:
            corners = [positions[atom].tolist() for atom in atoms]
            bonds = [
                shortest_vector_of_frame([x2 - x1, y2 - y1, z2 - z1], box)
                for (x1, y1, z1), (x2, y2, z2) in zip(corners, corners[1:], strict=False)
            ]
            values += FUNCTIONS_OF_BONDS[len(bonds)](*bonds)
        return values

    def _bonds(self, positions, box, atoms):
        corners = positions[:, torch.as_tensor(atoms, device=positions.device)]  # (n_frames, n, corners, 3)
        bonds = corners[:, :, 1:] - corners[:, :, :-1]
        if box is not None:
            bonds = minimum_image(bonds.flatten(1, 2), box).reshape(bonds.shape)
        return bonds.unbind(dim=2)

    def _angles(self, first, second):
        normal = torch.linalg.cross(first, second)
        cosine = (first * second).sum(dim=-1)
        lengths = torch.linalg.norm(first, dim=-1) * torch.linalg.norm(second, dim=-1)
        _require_defined(lengths > 0, self._triples, "angle", "atoms coincide")
        # atan2 keeps full precision near 0 and pi, where the arc cosine loses half of it
        return torch.atan2(torch.linalg.norm(normal, dim=-1), cosine)

    def _sines_and_cosines(self, first, central, last):
        before, after = torch.linalg.cross(first, central), torch.linalg.cross(central, last)
        length = torch.linalg.norm(central, dim=-1)
        sine = length * (first * after).sum(dim=-1)
        cosine = (before * after).sum(dim=-1)
        scale = torch.linalg.norm(before, dim=-1) * torch.linalg.norm(after, dim=-1)
        noise = DEFINED * torch.linalg.norm(first, dim=-1) * length.square() * torch.linalg.norm(last, dim=-1)
        _require_defined(scale > noise, self._quadruples, "dihedral angle", "atoms coincide or lie on a line")
        return torch.stack([sine / scale, cosine / scale], dim=-1).flatten(start_dim=1)


def _atoms_of(entries, n, kind):
    """Atoms (n_coordinates, n) of named coordinates."""
    for name, atoms in (entries or {}).items():
        if len(atoms) != n or len(set(atoms)) != n or min(atoms) < 0:
            raise ValueError(
                f"the {kind} {name!r} has the atoms {list(atoms)}, expected {n} different ones, counted from 0"
            )
    return np.array([list(atoms) for atoms in (entries or {}).values()], dtype=np.int64).reshape(-1, n)


def _require_defined(defined, atoms, kind, why):
    if not defined.all():
        frames, columns = torch.nonzero(~defined, as_tuple=True)
        raise ValueError(
            f"the {kind} of atoms {atoms[int(columns[0])].tolist()} is undefined in frames "
            f"{torch.unique(frames)[:10].tolist()}: {why}. Check the frames, or choose other atoms"
        )


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _distance(bond):
    return (math.sqrt(_dot(bond, bond)),)


def _angle(first, second):
    normal = _cross(first, second)
    if not 0.0 < _dot(first, first) * _dot(second, second) < math.inf:
        return (math.nan,)
    return (math.atan2(math.sqrt(_dot(normal, normal)), -_dot(first, second)),)


def _sine_and_cosine(first, central, last):
    before, after = _cross(first, central), _cross(central, last)
    length_squared = _dot(central, central)
    scale = math.sqrt(_dot(before, before) * _dot(after, after))
    if not scale > DEFINED * length_squared * math.sqrt(_dot(first, first) * _dot(last, last)):
        return math.nan, math.nan
    return math.sqrt(length_squared) * _dot(first, after) / scale, _dot(before, after) / scale


FUNCTIONS_OF_BONDS = {1: _distance, 2: _angle, 3: _sine_and_cosine}
"""The formulas of `InternalCoordinates` for one frame, by the number of bonds; NaN where they are undefined."""
