r"""Velocities from the Maxwell-Boltzmann distribution, on the constraints of the system.

OPS's own `RandomVelocities` gives unconstrained velocities with an OpenMM engine: a system with constrained bonds starts
too hot (33 instead of 25.5 kT for alanine dipeptide), and the shot is no fair trial of the committor.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import openpathsampling as paths
from openpathsampling.integration_tools import is_simtk_quantity, openmm, unit
from openpathsampling.snapshot_modifier import SnapshotModifier

from ops_aimmd.engines.constraints import project_on_constraints

from .engines import is_openmm


class BoltzmannVelocities(SnapshotModifier):
    r"""Draw all velocities anew from the Maxwell-Boltzmann distribution; positions and box stay.

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
        whose masses, constraints and integrator count. None: the engine of each snapshot.
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
        self._mechanics = {}

    def to_dict(self):
        """Dictionary from which OPS rebuilds the modifier."""
        return {"engine": self.engine, "temperature": self.temperature}

    def __call__(self, snapshot):
        """A new snapshot with the positions of `snapshot` and fresh velocities."""
        engine = snapshot.engine if self.engine is None else self.engine
        if isinstance(engine, paths.engines.toy.Engine):
            velocities = _toy_velocities(engine, snapshot, self.temperature)
        elif is_openmm(engine):
            if engine.__uuid__ not in self._mechanics:
                self._mechanics[engine.__uuid__] = _Mechanics.from_system(engine.system)
            velocities = _openmm_velocities(engine, self._mechanics[engine.__uuid__], snapshot, self.temperature)
        else:
            raise ValueError(
                f"Boltzmann velocities are known for OpenMM and toy engines, not for {engine!r}; "
                "pass modifier=openpathsampling.RandomVelocities(beta), or a modifier of your own"
            )
        return snapshot.copy_with_replacement(velocities=velocities)

    def probability_ratio(self, old_snapshot, new_snapshot):
        """1: proposals come from the equilibrium distribution itself."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class _Mechanics:
    """What of an OpenMM system the velocities depend on: masses (n,) in dalton, constraints as pairs (c, 2)."""

    masses: np.ndarray
    pairs: np.ndarray
    centre_of_mass_rests: bool

    @classmethod
    def from_system(cls, system):
        masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
        pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
        removers = [isinstance(force, openmm.CMMotionRemover) for force in system.getForces()]
        return cls(np.array(masses), np.array(pairs, dtype=int).reshape(-1, 2), any(removers))


def _toy_velocities(engine, snapshot, temperature):
    if temperature is None:
        temperature = getattr(engine.options["integ"], "temperature", None)
        _require(temperature is not None, engine.options["integ"], "kT in the units of the engine")
    _require_positive(temperature)
    shape = np.shape(snapshot.velocities)
    # a toy engine has one particle; its mass may differ from axis to axis
    sigma = np.sqrt(temperature / np.broadcast_to(engine.mass, shape[1:]))
    return sigma * np.random.normal(size=shape)  # noqa: NPY002 - OPS draws from numpy's global generator


def _openmm_velocities(engine, mechanics, snapshot, temperature):
    if temperature is None:
        temperature = temperature_of_integrator(engine.integrator)
    if is_simtk_quantity(temperature):
        temperature = temperature.value_in_unit(unit.kelvin)
    _require_positive(temperature)
    kT = temperature * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    positions = snapshot.coordinates.value_in_unit(unit.nanometer)
    masses = mechanics.masses
    if np.shape(positions) != (len(masses), 3):
        raise ValueError(
            f"the snapshot has positions of shape {np.shape(positions)}, the engine's system has {len(masses)} particles: "
            "snapshot and engine do not belong together"
        )
    if not np.isfinite(positions).all():
        raise ValueError(
            f"the positions of atoms {np.nonzero(~np.isfinite(positions).all(axis=1))[0][:10].tolist()} are not finite: "
            "the dynamics that made this snapshot has failed"
        )
    # virtual sites have no mass and move with their atoms
    inverse_masses = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0.0)
    noise = np.random.normal(size=(len(masses), 3))  # noqa: NPY002 - OPS draws from numpy's global generator
    velocities = np.sqrt(kT * inverse_masses)[:, None] * noise
    if mechanics.centre_of_mass_rests:
        velocities[masses > 0.0] -= masses @ velocities / masses.sum()
    velocities = project_on_constraints(velocities, positions, inverse_masses, mechanics.pairs)
    if not np.isfinite(velocities).all():
        raise ValueError(
            f"the velocities of atoms {np.nonzero(~np.isfinite(velocities).all(axis=1))[0][:10].tolist()} are not finite: "
            "constrained atoms coincide, or some constraints follow from the others"
        )
    return velocities * (unit.nanometer / unit.picosecond)


def temperature_of_integrator(integrator):
    """Temperature of an OpenMM integrator.

    openmmtools' integrators come back from XML as bare ``CustomIntegrator`` if nobody restores their interface, but keep
    their global variable kT, in kJ/mol.
    """
    if isinstance(integrator, openmm.CustomIntegrator):
        names = [integrator.getGlobalVariableName(i) for i in range(integrator.getNumGlobalVariables())]
        _require("kT" in names, integrator, "in kelvin")
        kT = integrator.getGlobalVariableByName("kT") * unit.kilojoule_per_mole
        return kT / unit.MOLAR_GAS_CONSTANT_R
    get_temperature = getattr(integrator, "getTemperature", None)
    _require(get_temperature is not None, integrator, "in kelvin")
    return get_temperature()


def has_inertia(engine) -> bool:
    """Whether dynamics goes on with the velocities of the frame from which it starts.

    False for overdamped integrators, and for engines of which this is not known: the frames of a random walk have no
    velocities.
    """
    if isinstance(engine, paths.engines.toy.Engine):
        return isinstance(engine.options["integ"], paths.engines.toy.LeapfrogVerletIntegrator)  # Langevin is one of them
    if not is_openmm(engine):
        return False
    integrator = engine.integrator
    if isinstance(integrator, openmm.CustomIntegrator):
        steps = [integrator.getComputationStep(i) for i in range(integrator.getNumComputations())]
        return any(re.search(r"\bv\b", expression) for _, _, expression in steps)
    return not isinstance(integrator, openmm.BrownianIntegrator)


def _require(known, integrator, what):
    if not known:
        raise ValueError(
            f"the integrator {type(integrator).__name__} has no temperature; "
            f"pass modifier=BoltzmannVelocities(engine, temperature=...), {what}"
        )


def _require_positive(temperature):
    if not temperature > 0.0:
        raise ValueError(f"the temperature is {temperature!r}, expected a positive number")
