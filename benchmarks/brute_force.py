"""Brute-force committors of toy engines, for tests and benchmarks: many shots from each configuration.

The integrators, the masses, the time step and the frame spacing are read from the engine, and the states are
looked at only once per frame, as OPS does it. So the result is the committor *of that engine*, inertia and
discretisation included, where :mod:`ops_aimmd.systems.exact_committor` has the continuous overdamped limit.
"""

from __future__ import annotations

import numpy as np

from ops_aimmd.systems.potentials import WithBath
from ops_aimmd.systems.swarm import Swarm, boltzmann_velocities

POOL_SIZE = 8192
"""Copies integrated side by side: large against numpy's overhead, small enough for the cache."""


class Pool(Swarm):
    """A swarm in which finished copies make room for others."""

    def __len__(self):
        return len(self.positions)

    def replace(self, which, positions, velocities):
        """Put other copies in the places ``which`` (an index array)."""
        self.positions[which] = positions
        self.velocities[which] = velocities
        if self._acceleration is not None:
            self._acceleration[which] = -self.potential.gradient(positions) / self.masses

    def keep(self, mask):
        """Drop the copies where ``mask`` (bool, shape (n,)) is False."""
        self.positions = self.positions[mask]
        self.velocities = self.velocities[mask]
        if self._acceleration is not None:
            self._acceleration = self._acceleration[mask]


def brute_force_committor(system, x, n_shots, rng, n_frames_max=None):
    """Shoot from configurations with Boltzmann velocities until a state is reached, and count the states.

    A configuration inside a state counts ``n_shots`` for it. A bath is left out of the integration: it is
    independent of the two coordinates that the states look at, so the counts have the same distribution.

    Parameters
    ----------
    system : ToySystem
        its ``engine``, ``potential``, ``disks`` and ``temperature`` are used.
    x : array, shape (n, n_dim)
        configurations.
    n_shots : int
        shots from each.
    rng : numpy.random.Generator
        all random numbers come from here; the same state of the generator gives the same counts.
    n_frames_max : int, optional
        longest shot in frames, its first frame included; default the engine's ``n_frames_max``. A shot that
        reaches no state within the limit is counted nowhere, and the row sums to less than ``n_shots``.

    Returns
    -------
    counts : int array, shape (n, 2)
        shots that ended in A and in B. The committor is ``counts[:, 1] / counts.sum(axis=1)``, with standard
        error sqrt(p (1-p) / n_shots).

    Raises
    ------
    ValueError
        for configurations of another shape or with NaN.
    """
    potential = system.potential
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or x.shape[1] != potential.n_dim:
        raise ValueError(f"Got configurations of shape {x.shape}, expected (n, {potential.n_dim}).")
    if not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise ValueError(f"Got NaN or infinite coordinates in rows {rows[:10].tolist()}, expected numbers.")
    if n_frames_max is None:
        n_frames_max = system.engine.options["n_frames_max"]
    if isinstance(potential, WithBath):
        x, potential = x[:, :2], potential.core
    masses = np.asarray(system.engine.mass, dtype=float)[: x.shape[1]]

    counts = np.zeros((len(x), 2), dtype=int)
    inside = np.stack([disk.contains(x) for disk in system.disks], axis=1)
    counts[inside] = n_shots

    rows = np.flatnonzero(~inside.any(axis=1)).repeat(n_shots)  # one entry per shot still to be started
    row, rows = rows[:POOL_SIZE].copy(), rows[POOL_SIZE:]
    pool = Pool(
        system.engine,
        potential,
        masses,
        x[row],
        boltzmann_velocities(len(row), masses, system.temperature, rng),
    )
    length = np.ones(len(row), dtype=int)
    while len(pool):
        pool.advance(rng)
        length += 1
        in_a, in_b = (disk.contains(pool.positions) for disk in system.disks)
        np.add.at(counts, (row[in_a], 0), 1)
        np.add.at(counts, (row[in_b], 1), 1)
        finished = np.flatnonzero(in_a | in_b | (length >= n_frames_max))
        started, rows = rows[: len(finished)], rows[len(finished) :]
        places = finished[: len(started)]
        if len(places):
            row[places] = started
            length[places] = 1
            velocities = boltzmann_velocities(len(started), masses, system.temperature, rng)
            pool.replace(places, x[started], velocities)
        if len(finished) > len(started):
            mask = np.ones(len(pool), dtype=bool)
            mask[finished[len(started) :]] = False
            pool.keep(mask)
            row, length = row[mask], length[mask]
    return counts
