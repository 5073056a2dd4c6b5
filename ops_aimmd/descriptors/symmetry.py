r"""Behler-Parrinello symmetry functions of a solvent around chosen atoms.

Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007), doi:10.1103/PhysRevLett.98.146401; the names G2 and G5 are those
of Behler, J. Chem. Phys. 134, 074106 (2011), doi:10.1063/1.3553717.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ops_aimmd.descriptors.boxes import box_widths, nearest_cell
from ops_aimmd.descriptors.descriptor_set import Descriptors

PAIRS_AT_ONCE = {"cpu": 2**16, "cuda": 2**24}
"""Pairs of neighbours in one block of the angular functions: on a CPU a block and its powers stay in the cache."""

MIN_ROWS = 64
"""Smaller blocks cost more in calls than they save in pairs."""

MOMENTS_UP_TO = 4
r"""Largest :math:`\zeta` for which the pairs are summed through tensors with 3^zeta components, which are as many as the
nearest neighbours."""

DISTANCES_AT_ONCE = {"cpu": 2**15, "cuda": 2**24}
"""Distances of centres and neighbours in one batch of frames."""


class SymmetryFunctions(Descriptors):
    r"""Radial and angular symmetry functions of the neighbours of each kind around each centre.

    With the distances :math:`r_j` from the centre i to all neighbours j of one kind, the angles :math:`\theta_{jk}`
    between them, and the cut-off function :math:`f(r) = \tfrac12 [\cos(\pi r / r_c) + 1]` inside the cut-off, 0 outside,

    .. math::
        G^2 &= \sum_j e^{-\eta (r_j - r_s)^2} f(r_j), \\
        G^5 &= 2^{1-\zeta} \sum_{j<k} (1 + \lambda \cos\theta_{jk})^\zeta
               e^{-\eta' [(r_j - r_s)^2 + (r_k - r_s)^2]} f(r_j) f(r_k).

    Each pair counts once. All functions are invariant under translation, rotation and exchange of equal neighbours, and
    smooth where neighbours enter or leave the cut-off. The sum over pairs is the quadratic form :math:`w^T P w`, with the
    matrix :math:`P_{jk} = [(1 + \lambda \cos\theta_{jk})/2]^\zeta` shared by all shells :math:`r_s` and its powers by
    repeated squaring; only neighbours within the cut-off enter, and only one half of the matrix is computed. For small
    :math:`\zeta` it is a polynomial of moments; its cost grows with the neighbours and not with the pairs. Nothing is
    neglected.

    Parameters
    ----------
    centres : mapping of str to int
        Name and index of each central atom: ``{"Li": 0, "Cl": 1}``.
    neighbours : mapping of str to sequence of int
        Atoms of each kind: ``{"O": [2, 5, ...], "H": [3, 4, 6, ...]}``. A centre is not its own neighbour.
    shells : sequence of float
        :math:`r_s`, in nm.
    radial_eta, angular_eta : float
        :math:`\eta` of G2 and :math:`\eta'` of G5, in nm^-2.
    zetas : sequence of int
        Positive. Empty: no angular functions.
    lambdas : sequence of int
        1, -1 or both.
    cutoff : float
        :math:`r_c` in nm, at most half the smallest width of the box.
    periodic : bool

    Raises
    ------
    ValueError
        For an empty selection, and parameters without meaning.

    Notes
    -----
    Columns are named "Li O G2 r=0.25" and "Li O G5 r=0.25 zeta=16 lambda=-1".
    """

    def __init__(
        self,
        centres: Mapping[str, int],
        neighbours: Mapping[str, Sequence[int]],
        shells: Sequence[float] = (0.25, 0.4, 0.55, 0.7, 0.85),
        radial_eta: float = 200.0,
        angular_eta: float = 120.0,
        zetas: Sequence[int] = (1, 2, 4, 16, 64),
        lambdas: Sequence[int] = (1, -1),
        cutoff: float = 1.0,
        periodic: bool = True,
    ):
        self.centres = centres
        self.neighbours = neighbours
        self.shells = shells
        self.radial_eta = radial_eta
        self.angular_eta = angular_eta
        self.zetas = zetas
        self.lambdas = lambdas
        self.cutoff = cutoff
        self.periodic = periodic
        self._check()
        # for each centre the kinds it sees, as arrays of atoms
        self._around = [
            [np.array([atom for atom in atoms if atom != centre], dtype=np.int64) for atoms in neighbours.values()]
            for centre in centres.values()
        ]

    def _check(self):
        if not self.centres or not self.neighbours:
            raise ValueError(f"there are no centres or no neighbours: {dict(self.centres)}, {list(self.neighbours)}")
        for kind, atoms in self.neighbours.items():
            if len(atoms) == 0:
                raise ValueError(f"the selection of neighbours {kind!r} is empty")
            if len(set(atoms)) < len(atoms):
                raise ValueError(f"the neighbours {kind!r} hold atoms more than once")
        negative = [atom for atom in self.atoms.tolist() if atom < 0]
        if negative:
            raise ValueError(f"the atoms {negative[:10]} are negative; indices start at 0")
        positive = {"cutoff": [self.cutoff], "radial_eta": [self.radial_eta], "angular_eta": [self.angular_eta]}
        for name, values in (positive | {"zetas": self.zetas}).items():
            if not all(value > 0 for value in values):
                raise ValueError(f"{name} is {values}, expected positive numbers")
        if not self.shells or not all(0 <= shell < self.cutoff for shell in self.shells):
            raise ValueError(f"the shells {list(self.shells)} must lie between 0 and the cut-off, {self.cutoff}")
        if any(int(zeta) != zeta for zeta in self.zetas) or any(value not in (1, -1) for value in self.lambdas):
            raise ValueError(f"zetas must be whole numbers and lambdas 1 or -1; got {self.zetas} and {self.lambdas}")

    @property
    def names(self) -> list[str]:
        """Name of each column: for each centre and kind the radial functions, then the angular ones."""
        columns = [f"G2 r={shell:g}" for shell in self.shells]
        columns += [
            f"G5 r={shell:g} zeta={zeta:d} lambda={sign:+d}"
            for sign in self.lambdas
            for zeta in self.zetas
            for shell in self.shells
        ]
        return [f"{centre} {kind} {column}" for centre in self.centres for kind in self.neighbours for column in columns]

    @property
    def atoms(self) -> np.ndarray:
        return np.unique(np.concatenate([list(self.centres.values()), *self.neighbours.values()]).astype(np.int64))

    def to_dict(self) -> dict:
        return {
            "centres": {name: int(atom) for name, atom in self.centres.items()},
            "neighbours": {kind: [int(atom) for atom in atoms] for kind, atoms in self.neighbours.items()},
            "shells": [float(shell) for shell in self.shells],
            "radial_eta": float(self.radial_eta),
            "angular_eta": float(self.angular_eta),
            "zetas": [int(zeta) for zeta in self.zetas],
            "lambdas": [int(sign) for sign in self.lambdas],
            "cutoff": float(self.cutoff),
            "periodic": bool(self.periodic),
        }

    def evaluate(self, positions, box):
        """The symmetry functions of checked frames.

        Raises
        ------
        ValueError
            If the cut-off is longer than half the smallest width of a box, or a neighbour lies on a centre.
        """
        if box is not None and len(box):
            width = float(box_widths(box.detach()).min())
            if self.cutoff > 0.5 * width * (1 + 1e-6):  # float32 boxes are rounded
                raise ValueError(
                    f"the cut-off of the symmetry functions, {self.cutoff} nm, is more than half the smallest width of the "
                    f"box, {width:.4f} nm: neighbours would be seen twice; use a shorter cut-off or a larger box"
                )
        n_distances = sum(len(atoms) for atoms in self._around[0])
        batch = max(1, DISTANCES_AT_ONCE[positions.device.type] // n_distances)
        batches = [
            self._batch(positions[start : start + batch], None if box is None else box[start : start + batch], start)
            for start in range(0, len(positions), batch)
        ]
        return torch.cat(batches) if batches else positions.new_zeros((0, len(self.names)))

    def _batch(self, positions, box, first_frame):
        columns = []
        for (name, centre), kinds in zip(self.centres.items(), self._around, strict=True):
            for atoms in kinds:
                vectors = positions[:, torch.as_tensor(atoms, device=positions.device)] - positions[:, centre, None]
                if box is not None:
                    vectors = nearest_cell(vectors, box)
                vectors = self._within_cutoff(vectors)
                distances = torch.linalg.norm(vectors, dim=-1)
                if (distances == 0).any():
                    frames = torch.nonzero((distances == 0).any(dim=-1)).flatten() + first_frame
                    raise ValueError(
                        f"a neighbour lies on the centre {name} (atom {centre}) in frames {frames.tolist()[:10]}"
                    )
                columns.append(self._functions(vectors / distances[..., None], distances))
        return torch.cat(columns, dim=1)

    def _within_cutoff(self, vectors):
        """The vectors within the cut-off, as many per frame as the fullest frame has; the others contribute nothing."""
        squares = vectors.detach().square().sum(dim=-1)
        fullest = int((squares < self.cutoff**2).sum(dim=-1).max())
        nearest = torch.topk(squares, fullest, dim=-1, largest=False, sorted=False).indices
        return torch.gather(vectors, 1, nearest[..., None].expand(-1, -1, 3))

    def _functions(self, directions, distances):
        """Columns of one centre and kind from directions (n_frames, k, 3) and distances (n_frames, k)."""
        shells = torch.as_tensor(self.shells, dtype=distances.dtype, device=distances.device)
        smooth = 0.5 * (torch.cos(distances * (math.pi / self.cutoff)) + 1.0)
        smooth = torch.where(distances < self.cutoff, smooth, torch.zeros_like(smooth))
        squares = (distances[..., None] - shells).square()
        radial = (torch.exp(-self.radial_eta * squares) * smooth[..., None]).sum(dim=1)
        if not self.zetas or not self.lambdas:
            return radial
        weights = torch.exp(-self.angular_eta * squares) * smooth[..., None]
        angular = self._pair_sums(directions, weights)
        return torch.cat([radial, angular.flatten(start_dim=1)], dim=1)

    def _pair_sums(self, directions, weights):
        """Sums over pairs (n_frames, n_lambdas, n_zetas, n_shells), twice each term with (1 + lambda cos) / 2."""
        small = [zeta for zeta in self.zetas if zeta <= MOMENTS_UP_TO]
        large = [zeta for zeta in self.zetas if zeta > MOMENTS_UP_TO]
        found = {}
        if small:
            moments = _moments(directions, weights, max(small))
            for zeta in small:
                found[zeta] = torch.stack([_binomial_sum(moments, zeta, sign) for sign in self.lambdas], dim=1)
        if large:
            found |= dict(zip(large, self._sums_of_powers(directions, weights, large).unbind(dim=2), strict=True))
        return torch.stack([found[zeta] for zeta in self.zetas], dim=2)

    def _sums_of_powers(self, directions, weights, zetas):
        """The sums in blocks of rows of the upper triangle of all pairs."""
        n_frames, k, n_shells = weights.shape
        n_rows = max(1, min(k, MIN_ROWS))
        n_batch = max(1, PAIRS_AT_ONCE[weights.device.type] // max(1, n_rows * k))
        sums = []
        for frames in (slice(start, start + n_batch) for start in range(0, n_frames, n_batch)):
            total = weights.new_zeros((len(weights[frames]), len(self.lambdas), len(zetas), n_shells))
            for row in range(0, k, n_rows):
                total = total + self._block(directions[frames, row:], weights[frames, row:], zetas, n_rows)
            sums.append(total)
        return torch.cat(sums)

    def _block(self, directions, weights, zetas, n_rows):
        """Pairs of the first rows with each other, once each, and with all that follow."""
        rows = weights[:, :n_rows].transpose(1, 2)
        # the square on the diagonal holds each of its pairs twice, and each neighbour with itself
        columns = torch.cat([0.5 * weights[:, :n_rows], weights[:, n_rows:]], dim=1).transpose(1, 2)
        signs = torch.as_tensor(self.lambdas, dtype=weights.dtype, device=weights.device)
        halves = (0.5 * directions[:, :n_rows]) @ directions.transpose(1, 2)
        bases = torch.addcmul(halves.new_tensor(0.5), signs[:, None, None, None], halves)
        sums = {}
        for zeta, powers in _ascending_powers(bases, zetas):
            # few rows times a large matrix: three times faster than the other way round
            sums[zeta] = 2.0 * ((rows @ powers) * columns).sum(dim=-1)
        itself = (rows * rows).sum(dim=-1)
        total = torch.stack([sums[zeta] for zeta in zetas], dim=2).transpose(0, 1)
        return total - (signs > 0)[:, None, None] * itself[:, None, None, :]


def _moments(directions, weights, degree):
    r"""Sums over pairs of the powers 0 to `degree` of the cosine, without a loop over pairs.

    :math:`\sum_{jk} w_j w_k (u_j \cdot u_k)^n = |\sum_j w_j\, u_j^{\otimes n}|^2`.
    """
    itself = weights.square().sum(dim=1)
    tensor = torch.ones_like(directions[..., :1])
    moments = []
    for n in range(degree + 1):
        if n:
            tensor = (tensor[..., :, None] * directions[..., None, :]).flatten(start_dim=-2)
        total = weights.transpose(1, 2) @ tensor
        moments.append(0.5 * (total.square().sum(dim=-1) - itself))
    return moments


def _binomial_sum(moments, zeta, sign):
    terms = [math.comb(zeta, n) * sign**n * moments[n] for n in range(zeta + 1)]
    return 2.0 ** (1 - zeta) * sum(terms)


def _ascending_powers(base, exponents):
    """Whole powers in ascending order, from one another by squaring where that is possible."""
    power, reached = base, 1
    for exponent in sorted(exponents):
        while reached < exponent:
            doubling = exponent % (2 * reached) == 0
            power = power * power if doubling else power * base
            reached = 2 * reached if doubling else reached + 1
        yield exponent, power
