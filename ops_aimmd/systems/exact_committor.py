r"""The exact committor of overdamped dynamics: the backward Kolmogorov equation, solved on a grid.

For overdamped Langevin dynamics with a constant diffusion coefficient the committor p_B obeys

.. math:: \nabla \cdot [e^{-V/kT} \nabla p_B] = 0, \qquad p_B = 0 \text{ in A},\quad p_B = 1 \text{ in B},

in which the diffusion coefficient no longer appears (W. E, E. Vanden-Eijnden, Annu. Rev. Phys. Chem. 61, 391
(2010), doi:10.1146/annurev.physchem.040808.090412). Inertia, a finite time step and states that are looked
at only once per frame all change the committor: the one of an engine itself is the fraction of many shots.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.sparse
import scipy.sparse.linalg


@dataclasses.dataclass(frozen=True)
class Disk:
    """The points of the plane nearer than ``radius`` to ``center``."""

    center: tuple
    radius: float

    def distance(self, x):
        """Distance from the center, from the first two coordinates of x (n, >=2); shape (n,)."""
        dx, dy = x[:, 0] - self.center[0], x[:, 1] - self.center[1]
        return np.sqrt(dx * dx + dy * dy)

    def contains(self, x):
        """Which of the points x (n, >=2) lie inside; bool, shape (n,)."""
        return self.distance(x) < self.radius


class ExactCommittor:
    r"""Exact overdamped committor of the second of two disks, in a two-dimensional potential.

    Finite volumes on a regular grid: the flux between two neighbours is proportional to exp(-V/kT) at the
    middle of their common edge. An edge that the boundary of a state cuts at the fraction s of its length
    carries the flux to the boundary itself, 1/s times as large, so the shape of the disks costs no error of
    first order. Only ratios of weights around one cell enter: nothing underflows, however high the potential.
    No flux leaves the box: make it so large that nothing would.

    The equation is solved at the first call and kept: about half a second for 1e5 grid points.

    Parameters
    ----------
    potential : object
        with ``value(x)``: (n, 2) to (n,), in the units of ``temperature``.
    box : tuple
        ((x_min, x_max), (y_min, y_max)).
    disks : sequence of two Disk
        the states A and B.
    temperature : float
        kT.
    spacing : float
        grid spacing; the same in both directions up to rounding to a whole number of cells.
    """

    def __init__(self, potential, box, disks, temperature, spacing):
        self.potential = potential
        self.box = box
        self.disks = disks
        self.temperature = temperature
        self.spacing = spacing
        self._solution = None

    def __call__(self, x):
        """Committor of the second state.

        Parameters
        ----------
        x : array, shape (n, d) with d >= 2
            the first two coordinates are used; others belong to an uncoupled bath.

        Returns
        -------
        array, shape (n,)
            bilinear between the grid points; exactly 0 and 1 inside the states.

        Raises
        ------
        ValueError
            for another shape, NaN, or points outside the box.
        """
        x = np.asarray(x, dtype=float)
        if x.ndim != 2 or x.shape[1] < 2:
            raise ValueError(f"Got points of shape {x.shape}, expected (n, d) with d >= 2.")
        (x_min, x_max), (y_min, y_max) = self.box
        inside = (x[:, 0] >= x_min) & (x[:, 0] <= x_max) & (x[:, 1] >= y_min) & (x[:, 1] <= y_max)
        if not inside.all():
            rows = np.flatnonzero(~inside)
            raise ValueError(
                f"{len(rows)} points are NaN or lie outside the box {self.box} of the exact committor, rows "
                f"{rows[:10].tolist()}, the first at {x[rows[0], :2].tolist()}. Use a larger box."
            )
        from scipy.interpolate import interpn

        xs, ys, grid = self.grid()
        result = interpn((xs, ys), grid, x[:, :2])
        result[self.disks[0].contains(x)] = 0.0
        result[self.disks[1].contains(x)] = 1.0
        return result

    def grid(self):
        """The solution on its grid, for pictures.

        Returns
        -------
        x, y, committor : arrays, shapes (n_x,), (n_y,), (n_x, n_y); read-only
        """
        if self._solution is None:
            self._solution = self._solve()
            for array in self._solution:
                array.flags.writeable = False
        return self._solution

    def _solve(self):
        xs, ys = (np.linspace(low, high, math.ceil((high - low) / self.spacing) + 1) for low, high in self.box)
        shape = (len(xs), len(ys))
        centers = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
        in_a, in_b = (disk.contains(centers) for disk in self.disks)
        if not in_a.any() or not in_b.any() or (in_a & in_b).any():
            raise ValueError(
                f"On a grid of spacing {self.spacing} the states {self.disks} hold {in_a.sum()} and "
                f"{in_b.sum()} points, {(in_a & in_b).sum()} of them common; expected some in each and none "
                "common. Use disjoint states inside the box and a finer grid."
            )
        committor = np.where(in_b, 1.0, 0.0)
        fixed = in_a | in_b

        index = np.arange(len(centers)).reshape(shape)
        pairs = np.concatenate(
            [
                np.stack([index[:-1].ravel(), index[1:].ravel()], axis=1),
                np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=1),
            ]
        )
        # anisotropy of the cells: length of the common side over distance of the centres
        aspect = (ys[1] - ys[0]) / (xs[1] - xs[0])
        n_along_x = (shape[0] - 1) * shape[1]
        log_aspect = np.where(np.arange(len(pairs)) < n_along_x, np.log(aspect), -np.log(aspect))
        middles = 0.5 * (centers[pairs[:, 0]] + centers[pairs[:, 1]])
        log_weight = -self.potential.value(middles) / self.temperature + log_aspect

        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        log_weight = np.concatenate([log_weight, log_weight])
        keep = ~fixed[pairs[:, 0]]
        pairs, log_weight = pairs[keep], log_weight[keep]
        for disk, members in zip(self.disks, (in_a, in_b), strict=True):
            cut = members[pairs[:, 1]]
            fraction = _fraction_to_circle(centers[pairs[cut, 0]], centers[pairs[cut, 1]], disk)
            log_weight[cut] -= np.log(np.maximum(fraction, 1e-6))

        largest = np.full(len(centers), -np.inf)
        np.maximum.at(largest, pairs[:, 0], log_weight)
        weight = np.exp(log_weight - largest[pairs[:, 0]])
        total = np.bincount(pairs[:, 0], weights=weight, minlength=len(centers))
        jump = weight / total[pairs[:, 0]]

        unknown = np.cumsum(~fixed) - 1
        n_unknown = int((~fixed).sum())
        to_unknown = ~fixed[pairs[:, 1]]
        rows, columns = unknown[pairs[:, 0]], unknown[pairs[:, 1]]
        matrix = scipy.sparse.identity(n_unknown, format="csc") - scipy.sparse.csc_matrix(
            (jump[to_unknown], (rows[to_unknown], columns[to_unknown])), shape=(n_unknown, n_unknown)
        )
        to_b = in_b[pairs[:, 1]]
        source = np.bincount(rows[to_b], weights=jump[to_b], minlength=n_unknown)
        # MMD_AT_PLUS_A: the pattern is symmetric, which the default ordering does not exploit
        committor[~fixed] = scipy.sparse.linalg.spsolve(matrix, source, permc_spec="MMD_AT_PLUS_A")
        return xs, ys, np.clip(committor, 0.0, 1.0).reshape(shape)


def _fraction_to_circle(outside, inside, disk):
    """Fraction of the segment from ``outside`` to ``inside`` at which it enters the disk."""
    start, direction = outside - np.asarray(disk.center), inside - outside
    a = np.sum(direction * direction, axis=1)
    b = np.sum(start * direction, axis=1)
    c = np.sum(start * start, axis=1) - disk.radius**2
    return (-b - np.sqrt(b * b - a * c)) / a
