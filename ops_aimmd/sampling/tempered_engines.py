"""Copies of an engine at other temperatures, and energies of frames: for replicas of configurations."""

from __future__ import annotations

import copy
from numbers import Real

import openpathsampling as paths
from openpathsampling.integration_tools import openmm, unit

from .engines import is_openmm
from .thermal_forces import check_temperature_is_of_integrator
from .velocities import temperature_of_integrator


def engine_at(engine, temperature: float):
    """A copy of an engine at another temperature.

    Parameters
    ----------
    engine : OpenMM engine or toy engine
    temperature : float
        In kelvin, toy engines: kT.
    """
    options = engine.options
    if isinstance(engine, paths.engines.toy.Engine):
        integrator = engine.options["integ"]
        integrator = type(integrator).from_dict({**integrator.to_dict(), "temperature": temperature})
        return paths.engines.toy.Engine({**options, "integ": integrator}, engine.topology)
    integrator = copy.deepcopy(engine.integrator)
    integrator.setRandomNumberSeed(0)  # one of its own: replicas with the same noise would not be independent
    if isinstance(integrator, openmm.CustomIntegrator):
        _set_custom_temperature(integrator, temperature)
    else:
        integrator.setTemperature(temperature * unit.kelvin)
    copied = engine.from_new_options(integrator=integrator, openmm_properties=engine.openmm_properties, options=options)
    copied.initialize(engine.platform)
    return copied


def _set_custom_temperature(integrator, temperature: float) -> None:
    kT = unit.MOLAR_GAS_CONSTANT_R * temperature * unit.kelvin
    integrator.setGlobalVariableByName("kT", kT.value_in_unit(unit.kilojoule_per_mole))
    names = [integrator.getGlobalVariableName(i) for i in range(integrator.getNumGlobalVariables())]
    if "has_kT_changed" in names:  # openmmtools: what follows from kT is computed again only then
        integrator.setGlobalVariableByName("has_kT_changed", 1)


def temperature_of(engine) -> float:
    """Temperature of an engine in kelvin, kT for toy engines.

    Raises
    ------
    ValueError
        For other kinds of engines.
    """
    if not (is_openmm(engine) or isinstance(engine, paths.engines.toy.Engine)):
        raise ValueError(
            f"replicas at other temperatures are known for OpenMM and toy engines, not for {type(engine).__name__}: leave "
            "out the temperatures"
        )
    if isinstance(engine, paths.engines.toy.Engine):
        return float(engine.options["integ"].temperature)
    return float(temperature_of_integrator(engine.integrator).value_in_unit(unit.kelvin))


def inverse_temperature(engine, temperature: float) -> float:
    """1 / kT in the units of `potential_energy`: mol / kJ for OpenMM."""
    if isinstance(engine, paths.engines.toy.Engine):
        return 1.0 / temperature
    return 1.0 / (unit.MOLAR_GAS_CONSTANT_R * temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)


def potential_energy(engine, frame) -> float:
    """Potential energy of a frame: kJ/mol for OpenMM, the units of the potential for toy engines."""
    engine.current_snapshot = frame
    if isinstance(engine, paths.engines.toy.Engine):
        return float(engine.pes.V(engine))
    return engine.simulation.context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def check_rising(engine, temperatures) -> None:
    """Raises ValueError unless the temperatures rise from that of the engine, and its integrator alone has one."""
    if not all(isinstance(temperature, Real) and not isinstance(temperature, bool) for temperature in temperatures):
        raise ValueError(f"temperatures of replicas must be numbers; got {list(temperatures)}")
    if len(temperatures) == 0:
        return
    check_temperature_is_of_integrator(engine)
    everywhere = [temperature_of(engine), *temperatures]
    if not all(low < high for low, high in zip(everywhere[:-1], everywhere[1:], strict=True)):
        raise ValueError(
            f"temperatures of the replicas must rise from that of the paths, {everywhere[0]:.6g}; got {list(temperatures)}"
        )
