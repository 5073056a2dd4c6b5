r"""Velocities from the Maxwell-Boltzmann distribution, on the constraints of the system.

OPS's own `RandomVelocities` gives unconstrained velocities with an OpenMM engine: a system with constrained bonds starts
too hot (33 instead of 25.5 kT for alanine dipeptide), and the shot is no fair trial of the committor.
"""

from __future__ import annotations

from openpathsampling.snapshot_modifier import SnapshotModifier

from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.choose import adapter_of


class BoltzmannVelocities(SnapshotModifier):
    r"""Draw all velocities from the Maxwell-Boltzmann distribution; positions and box stay.

    Unconstrained velocities, :math:`v_i \sim N(0, k_B T / m_i)` per component, are projected along the mass-weighted
    directions of the constraints, :math:`v \leftarrow v - M^{-1} J^T (J M^{-1} J^T)^{-1} J v`. The projection is orthogonal
    in the metric of the kinetic energy, so what is left is exactly the Maxwell-Boltzmann distribution on the constraint
    manifold. The same holds for the velocity of the centre of mass, which is removed where the system has a
    ``CMMotionRemover``. The mean kinetic energy is :math:`n_\text{dof} k_B T / 2` with :math:`n_\text{dof}` = 3 N -
    constraints - 3 (no -3 without the remover).

    Nothing but the arrays of the snapshot and the masses and constraints of the engine are used: the engine's context
    and its current snapshot are left alone, and the engine need not be initialised.

    Randomness: ``numpy.random.normal``, the global generator from which OPS's modifiers draw.

    Parameters
    ----------
    engine : OpenMM engine or toy engine, optional
        Its masses, constraints and integrator count. None: the engine of each snapshot.
    temperature : float or openmm.unit.Quantity, optional
        OpenMM: in kelvin. Toy engines: kT in the units of the engine. None: the temperature of the engine's integrator at
        the time of the call.

    Raises
    ------
    ValueError
        when called, if the engine is of another kind, the temperature is neither given nor known to the integrator, is not
        positive, or the velocities that come out are not finite.
    """

    def __init__(self, engine=None, temperature=None):
        super().__init__(subset_mask=None)
        self.engine = engine
        self.temperature = temperature
        self._adapter: EngineAdapter | None = None

    def to_dict(self):
        return {"engine": self.engine, "temperature": self.temperature}

    def __call__(self, snapshot):
        """A new snapshot with the positions of `snapshot` and fresh velocities."""
        engine = snapshot.engine if self.engine is None else self.engine
        if self._adapter is None or self._adapter.engine is not engine:
            self._adapter = adapter_of(engine)  # it remembers masses and constraints
        return snapshot.copy_with_replacement(velocities=self._adapter.fresh_velocities(snapshot, self.temperature))

    def probability_ratio(self, old_snapshot, new_snapshot):
        """1: proposals come from the equilibrium distribution itself."""
        return 1.0
