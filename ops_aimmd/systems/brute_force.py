"""Brute-force committors: many independent trajectories at once, with the dynamics of OPS's toy engine.

The integrators, the masses, the time step and the frame spacing are read from the engine, and the states are
looked at only once per frame, as OPS does it. So the result is the committor *of that engine*, inertia and
discretisation included, where :mod:`ops_aimmd.systems.exact_committor` has the continuous overdamped limit.
"""

from __future__ import annotations

import numpy as np
from openpathsampling.engines.toy import LangevinBAOABIntegrator, OverdampedLangevinIntegrator

from ops_aimmd.systems.potentials import WithBath

__all__ = ["Swarm", "boltzmann_velocities", "brute_force_committor"]

_POOL_SIZE = 8192  # copies integrated side by side: large against numpy's overhead, small enough for the cache


class Swarm:
    r"""Independent copies of a toy system that advance together, one frame at a time.

    Langevin dynamics is the splitting BAOAB (B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34,
    doi:10.1093/amrx/abs010), overdamped dynamics the Euler-Maruyama scheme
    :math:`x \leftarrow x - D\,\delta t\, \nabla V / kT + \sqrt{2 D\, \delta t}\, R`; both as in OPS.

    Parameters
    ----------
    engine : openpathsampling.engines.toy.Engine
        integrator and frame spacing are taken from here.
    potential : Potential
        of the coordinates in ``positions``.
    masses : array, shape (d,)
    positions, velocities : array, shape (n, d)
        copied. Overdamped dynamics carries the velocities along unchanged, as OPS does.

    Raises
    ------
    TypeError
        for an integrator other than OPS's LangevinBAOABIntegrator and OverdampedLangevinIntegrator.
    """

    def __init__(self, engine, potential, masses, positions, velocities):
        self.engine = engine
        self.potential = potential
        self.masses = np.asarray(masses, dtype=float)
        self.positions = np.array(positions, dtype=float)
        self.velocities = np.array(velocities, dtype=float)
        integrator = engine.integ
        if isinstance(integrator, LangevinBAOABIntegrator):
            self._advance = self._baoab
            self._acceleration = -potential.gradient(self.positions) / self.masses
        elif isinstance(integrator, OverdampedLangevinIntegrator):
            self._advance = self._euler_maruyama
            self._acceleration = None
        else:
            raise TypeError(
                f"Got an engine with the integrator {type(integrator).__name__}, expected OPS's "
                "LangevinBAOABIntegrator or OverdampedLangevinIntegrator."
            )

    def __len__(self):
        return len(self.positions)

    def advance(self, rng):
        """Advance all copies by one frame, in place; draws normal numbers from ``rng``."""
        self._advance(rng)

    def _baoab(self, rng):
        integrator = self.engine.integ
        half = 0.5 * integrator.dt
        noise = integrator.c3 / np.sqrt(self.masses)
        x, v, a = self.positions, self.velocities, self._acceleration
        for _ in range(self.engine.n_steps_per_frame):
            v += half * a
            x += half * v
            v *= integrator.c1
            v += noise * rng.standard_normal(v.shape)
            x += half * v
            a = self.potential.gradient(x)  # good for this step's last kick and the next one's first
            a /= -self.masses
            v += half * a
        self._acceleration = a

    def _euler_maruyama(self, rng):
        integrator = self.engine.integ
        x = self.positions
        for _ in range(self.engine.n_steps_per_frame):
            x -= integrator.A * self.potential.gradient(x)
            x += integrator.R * rng.standard_normal(x.shape)

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


def boltzmann_velocities(n, masses, temperature, rng):
    """n independent velocities at kT = ``temperature``; shape (n, d) with d = len(masses)."""
    return rng.standard_normal((n, len(masses))) * np.sqrt(temperature / np.asarray(masses, dtype=float))


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
    row, rows = rows[:_POOL_SIZE].copy(), rows[_POOL_SIZE:]
    swarm = Swarm(
        system.engine,
        potential,
        masses,
        x[row],
        boltzmann_velocities(len(row), masses, system.temperature, rng),
    )
    length = np.ones(len(row), dtype=int)
    while len(swarm):
        swarm.advance(rng)
        length += 1
        in_a, in_b = (disk.contains(swarm.positions) for disk in system.disks)
        np.add.at(counts, (row[in_a], 0), 1)
        np.add.at(counts, (row[in_b], 1), 1)
        finished = np.flatnonzero(in_a | in_b | (length >= n_frames_max))
        started, rows = rows[: len(finished)], rows[len(finished) :]
        places = finished[: len(started)]
        if len(places):
            row[places] = started
            length[places] = 1
            velocities = boltzmann_velocities(len(started), masses, system.temperature, rng)
            swarm.replace(places, x[started], velocities)
        if len(finished) > len(started):
            mask = np.ones(len(swarm), dtype=bool)
            mask[finished[len(started) :]] = False
            swarm.keep(mask)
            row, length = row[mask], length[mask]
    return counts
