"""Many independent trajectories at once, with the dynamics of OPS's toy engine."""

from __future__ import annotations

import numpy as np
from openpathsampling.engines.toy import LangevinBAOABIntegrator, OverdampedLangevinIntegrator


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


def boltzmann_velocities(n, masses, temperature, rng):
    """n independent velocities at kT = ``temperature``; shape (n, d) with d = len(masses)."""
    return rng.standard_normal((n, len(masses))) * np.sqrt(temperature / np.asarray(masses, dtype=float))
