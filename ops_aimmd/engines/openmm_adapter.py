r"""Engines that run on OpenMM.

A backward leg starts from the positions and the reversed velocities of a frame. This reverses time only if both belong to
the same instant. OpenMM's own integrators leap: the velocities that they report are half a step behind the positions, and a
reversed start is wrong by the acceleration times the time step. In stiff bonds with :math:`\omega\,\Delta t \approx 0.6`
this is a sizeable kick, always upwards in energy. One-way shooting repeats it before friction can take the energy away
(`benchmarks/reversibility.py` shows how hot the paths of alanine dipeptide become). openmmtools' BAOABIntegrator,
VVVRIntegrator and LangevinIntegrator have velocities at the time of the positions, and so has
`ops_aimmd.engines.integrators.baoab_integrator`. Reference: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34
(2013), doi:10.1093/amrx/abs010.
"""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import openmm
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.engines.base import EngineAdapter, no_temperature
from ops_aimmd.engines.constraints import project_on_constraints
from ops_aimmd.engines.thermal_forces import (
    GAS_CONSTANT,
    SAME_TEMPERATURE,
    parameters_of_temperature,
    parts_without_known_temperature,
    set_temperature,
    temperatures_of_forces,
    thermal_forces,
    thermal_parameters,
    work_of_barostat,
)

LEAPING_INTEGRATORS = (
    openmm.LangevinMiddleIntegrator,
    openmm.LangevinIntegrator,
    openmm.VariableLangevinIntegrator,
    openmm.VerletIntegrator,
    openmm.VariableVerletIntegrator,
    openmm.NoseHooverIntegrator,
)
"""Integrators with velocities half a step behind the positions."""

RANDOM_SEED = re.compile(r'randomSeed="-?\d+"')
"""In XML: seeds change from shot to shot and are no property of the dynamics."""

LARGEST_SEED = 2**31 - 1


class OpenMMAdapter(EngineAdapter):
    """Adapter of `openpathsampling.engines.openmm.Engine`: nm, ps, kJ/mol, kelvin."""

    gas_constant = GAS_CONSTANT

    # ---- dynamics ---------------------------------------------------------------------------------------------------

    def initialise(self, platform: str | None = None) -> None:
        try:
            self.engine.initialize(platform)
        except Exception as error:  # OpenMM raises its own and plain ones
            raise ValueError(
                f"the engine {self.engine.name!r} cannot be set up on the platform {platform!r}: {error}. Give another "
                f"one, for instance resume(..., platform=...); here are {self.engine.available_platforms()}"
            ) from error

    @property
    def platform(self) -> str | None:
        return self.engine.platform

    @property
    def has_inertia(self) -> bool:
        integrator = self.engine.integrator
        if isinstance(integrator, openmm.CustomIntegrator):
            steps = [integrator.getComputationStep(i) for i in range(integrator.getNumComputations())]
            return any(re.search(r"\bv\b", expression) for _, _, expression in steps)
        return not isinstance(integrator, openmm.BrownianIntegrator)

    @property
    def irreversible_because(self) -> str | None:
        if not isinstance(self.engine.integrator, LEAPING_INTEGRATORS):
            return None
        return (
            f"{type(self.engine.integrator).__name__} reports velocities half a step before the positions. Shots that "
            "reverse them heat stiff bonds: two-way paths come out somewhat too hot, one-way paths hotter at every step. "
            "Use an integrator with velocities at the time of the positions, for instance openmmtools.integrators."
            "BAOABIntegrator(temperature, collision_rate, timestep)"
        )

    def seed(self, seed: int) -> None:
        """Seed the integrator.

        OpenMM looks at the seed of an integrator only while it makes a context. On the Reference platform all contexts of a
        process share one generator, so that making the smallest possible one seeds it (0.3 instead of 2 ms for 22 atoms).
        Elsewhere the engine's own context is made again. Forces that draw random numbers (barostats, Andersen thermostats)
        keep generators of their own.
        """
        context = self.engine.simulation.context
        try:
            context.getIntegrator().setRandomNumberSeed(seed)
        except AttributeError:  # deterministic integrators have no generator
            return
        if context.getPlatform().getName() == "Reference":
            _seed_reference_platform(context.getPlatform(), seed)
        else:
            _make_again(context)

    def forget_history(self, start, seed: Sequence[int]) -> None:
        """Reset the context to what it was before the first leg.

        A context keeps positions that may be wrecked, the box where frames have none, the clock (forces that act every so
        many steps look at it), variables of the integrator, and barostats with their adapted step sizes and generators,
        which are seeded only while a context is made.
        """
        context = self.engine.simulation.context
        if self._blank is None:
            self.engine.current_snapshot = start
            self._blank = _blank(context)
            self.forget_current_frame()
        context.setState(self._blank)
        self._load(start)
        self.forget_current_frame()  # the leg shall load its first frame, whatever happens to the context until then
        random_forces = thermal_forces(context.getSystem())
        if not random_forces:
            return
        numbers = np.random.SeedSequence(seed).generate_state(len(random_forces))
        for force, number in zip(random_forces, numbers, strict=True):
            force.setRandomNumberSeed(int(number) % LARGEST_SEED + 1)
        _make_again(context)

    _blank: openmm.State | None = None

    def _load(self, frame) -> None:
        context = self.engine.simulation.context
        if frame.box_vectors is None:
            context.setPeriodicBoxVectors(*context.getSystem().getDefaultPeriodicBoxVectors())
        self.engine.current_snapshot = frame

    def forget_current_frame(self) -> None:
        """OPS takes the last frame for what the context holds, and would go on from a context that failed later."""
        self.engine._changed()

    # ---- ensemble ---------------------------------------------------------------------------------------------------

    @property
    def temperature(self) -> float:
        """Temperature in kelvin: that of the integrator, or that of an Andersen thermostat where the integrator has none.

        openmmtools' integrators come back from XML as bare ``CustomIntegrator`` if nobody restores their interface, but
        keep their global variable kT, in kJ/mol.
        """
        integrator = self.engine.integrator
        if _has_variable(integrator, "kT"):
            kT = integrator.getGlobalVariableByName("kT") * unit.kilojoule_per_mole
            # not by GAS_CONSTANT: the last digit would make another run of the same seed
            return float((kT / unit.MOLAR_GAS_CONSTANT_R).value_in_unit(unit.kelvin))
        if _has_temperature(integrator):
            return float(integrator.getTemperature().value_in_unit(unit.kelvin))
        of_thermostats = [T for name, T in temperatures_of_forces(self.engine.system) if name == "AndersenThermostat"]
        if not of_thermostats:
            raise no_temperature(integrator, "in kelvin")
        return of_thermostats[0]

    @property
    def temperature_conflicts(self) -> list[str]:
        try:
            temperature = self.temperature
        except ValueError:  # it has none: modifiers say so where they need one
            return []
        return [
            f"the {name} of the engine is at {own:.6g} K, its integrator at {temperature:.6g} K: the paths would be of no "
            "ensemble. Give both the same temperature"
            for name, own in temperatures_of_forces(self.engine.system)
            if abs(own - temperature) > SAME_TEMPERATURE * temperature
        ]

    def check_other_temperatures(self) -> None:
        found = parts_without_known_temperature(self.engine.system, self.temperature)
        if (
            isinstance(self.engine.integrator, openmm.NoseHooverIntegrator)
            and self.engine.integrator.getNumThermostats() > 1
        ):
            found.append("NoseHooverIntegrator with several thermostats")
        if found:
            raise ValueError(
                "replicas at other temperatures need a system that is known at each of them; this one has "
                f"{', '.join(found)}, which is known at the temperature of the engine only. Leave out the temperatures "
                "(exchange_temperatures=[] exchanges at the temperature of the paths); or give barostats one pressure, and "
                "parameters of custom forces the value of the engine's kT (kJ/mol) or temperature (K)"
            )

    @property
    def energy_depends_on_temperature(self) -> bool:
        return bool(thermal_parameters(self.engine.system))

    def at_temperature(self, temperature: float) -> OpenMMAdapter:
        """Copy of the engine: integrator, barostat, thermostat and custom forces with kT have the new temperature."""
        self.check_other_temperatures()
        engine, system = self.engine, self.engine.system
        if thermal_forces(system) or thermal_parameters(system):
            system = copy.deepcopy(system)
            set_temperature(system, self.temperature, temperature)
        integrator = copy.deepcopy(engine.integrator)
        if hasattr(integrator, "setRandomNumberSeed"):
            integrator.setRandomNumberSeed(0)  # one of its own: replicas with the same noise would not be independent
        if _has_variable(integrator, "kT"):
            kT = unit.MOLAR_GAS_CONSTANT_R * temperature * unit.kelvin
            integrator.setGlobalVariableByName("kT", kT.value_in_unit(unit.kilojoule_per_mole))
        elif _has_temperature(integrator):
            integrator.setTemperature(temperature)
        if _has_variable(integrator, "has_kT_changed"):  # openmmtools: what follows from kT is computed again only then
            integrator.setGlobalVariableByName("has_kT_changed", 1)
        copied = ops_openmm.Engine(engine.topology, system, integrator, engine.openmm_properties, dict(engine.options))
        copied.initialize(engine.platform)
        if engine.platform is not None:  # parameters, like a pressure, may have been changed in the running context
            decided = parameters_of_temperature(system)
            for name, value in engine.simulation.context.getParameters().items():
                if name not in decided:
                    copied.simulation.context.setParameter(name, value)
        return OpenMMAdapter(copied)

    def potential_energy(self, frame) -> float:
        self._load(frame)
        energy = self.engine.simulation.context.getState(energy=True).getPotentialEnergy()
        return energy.value_in_unit(unit.kilojoule_per_mole)

    def ensemble_energy(self, frame) -> float:
        return self.potential_energy(frame) + work_of_barostat(self.engine.simulation.context)

    def fresh_velocities(self, snapshot, temperature=None):
        if unit.is_quantity(temperature):
            temperature = temperature.value_in_unit(unit.kelvin)
        return super().fresh_velocities(snapshot, temperature)

    def _draw_velocities(self, snapshot, kT: float):
        r"""Unconstrained velocities, :math:`v_i \sim N(0, k_B T / m_i)` per component, projected on the constraints."""
        positions = snapshot.coordinates.value_in_unit(unit.nanometer)
        masses, pairs, centre_of_mass_rests = self._mechanics
        if np.shape(positions) != (len(masses), 3):
            raise ValueError(
                f"the snapshot has positions of shape {np.shape(positions)}, the engine's system has {len(masses)} "
                "particles: snapshot and engine do not belong together"
            )
        if not np.isfinite(positions).all():
            raise ValueError(
                f"the positions of atoms {np.nonzero(~np.isfinite(positions).all(axis=1))[0][:10].tolist()} are not "
                "finite: the dynamics that made this snapshot has failed"
            )
        # virtual sites have no mass and move with their atoms
        inverse_masses = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0.0)
        noise = np.random.normal(size=(len(masses), 3))  # noqa: NPY002 - OPS draws from numpy's global generator
        velocities = np.sqrt(kT * inverse_masses)[:, None] * noise
        if centre_of_mass_rests:
            velocities[masses > 0.0] -= masses @ velocities / masses.sum()
        velocities = project_on_constraints(velocities, positions, inverse_masses, pairs)
        if not np.isfinite(velocities).all():
            raise ValueError(
                f"the velocities of atoms {np.nonzero(~np.isfinite(velocities).all(axis=1))[0][:10].tolist()} are not "
                "finite: constrained atoms coincide, or some constraints follow from the others"
            )
        return velocities * (unit.nanometer / unit.picosecond)

    @cached_property
    def _mechanics(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Masses (n_atoms,) in dalton, constrained pairs (n_constraints, 2), whether the centre of mass rests."""
        system = self.engine.system
        masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
        pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
        rests = any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
        return np.array(masses), np.array(pairs, dtype=int).reshape(-1, 2), rests

    # ---- content ----------------------------------------------------------------------------------------------------

    @property
    def time_per_frame(self) -> tuple[float, str]:
        # not OPS's snapshot_timestep, which would make a context
        step = self.engine.integrator.getStepSize() * self.engine.options["n_steps_per_frame"]
        return float(step.value_in_unit(step.unit)), step.unit.get_symbol()

    def lasting_content(self, content: Mapping) -> dict:
        return {
            **content,
            "system_xml": RANDOM_SEED.sub("", content["system_xml"]),
            "integrator_xml": _integrator_parameters(RANDOM_SEED.sub("", content["integrator_xml"])),
        }


def _seed_reference_platform(platform, seed: int) -> None:
    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.LangevinMiddleIntegrator(0.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    openmm.Context(system, integrator, platform)


def _blank(context) -> openmm.State:
    """Time, parameters and variables of the integrator after a step, with which each leg begins.

    Custom integrators may do something in their first step that they do not do again, and those of openmmtools then draw
    other random numbers.
    """
    context.setVelocities(np.zeros((context.getSystem().getNumParticles(), 3)))
    context.getIntegrator().step(1)
    context.setTime(0.0)
    context.setStepCount(0)
    return context.getState(parameters=True, integratorParameters=True)


def _make_again(context) -> None:
    """Make a context again with new seeds; `preserveState=True` would bring the old state of the generator back."""
    state = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    context.reinitialize(preserveState=False)
    context.setState(state)


def _has_variable(integrator, name: str) -> bool:
    if not isinstance(integrator, openmm.CustomIntegrator):
        return False
    return name in (integrator.getGlobalVariableName(i) for i in range(integrator.getNumGlobalVariables()))


def _has_temperature(integrator) -> bool:
    return hasattr(integrator, "getTemperature") and not isinstance(integrator, openmm.CustomIntegrator)


def _integrator_parameters(xml: str) -> str:
    """The XML of an integrator, without the values that a custom integrator computes at each step."""
    tree = ElementTree.fromstring(xml)
    computed = {computation.get("computationVariable") for computation in tree.iterfind("Computations/Computation")}
    for variable in tree.iterfind("GlobalVariables/Variable"):
        if variable.get("name") in computed:
            variable.attrib.pop("value")
    for values in tree.iterfind("PerDofVariables/*"):
        values.clear()
    return ElementTree.tostring(tree, encoding="unicode")
