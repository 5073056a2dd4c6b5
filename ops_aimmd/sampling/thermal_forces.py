r"""Forces of OpenMM that take a temperature of their own, beside that of the integrator.

A barostat makes random moves of the box, accepted by the Metropolis rule at a temperature of its own. They are reversible,
and leave velocities alone: two-way and one-way shooting sample the paths at constant pressure, with fresh velocities in the
box of the shooting point, as long as barostat and integrator have one temperature.

Copies of an engine at other temperatures are another matter: they would need the temperature of each such force, and
configurations at constant pressure are exchanged by :math:`\beta (U + P V)`, not :math:`\beta U`. So replicas at other
temperatures are refused beside these forces. A custom force may hold kT under any name: only usual names are known here.
"""

from __future__ import annotations

import warnings

from openpathsampling.integration_tools import unit

from .engines import is_openmm
from .velocities import temperature_of_integrator

THERMAL_FORCES = {
    "AndersenThermostat",
    "MonteCarloAnisotropicBarostat",
    "MonteCarloBarostat",
    "MonteCarloFlexibleBarostat",
    "MonteCarloMembraneBarostat",
    "RPMDMonteCarloBarostat",
}
"""Forces of OpenMM with a temperature. They draw random numbers, each from a generator of its own."""

THERMAL_PARAMETERS = {"kt", "kbt", "k_bt", "temperature"}
"""Usual names of global parameters of custom forces that hold a temperature, in small letters."""

SAME_TEMPERATURE = 1e-4
"""Relative difference of temperatures that is due to the units in which they were given."""


def thermal_forces(system) -> list:
    """The forces of an OpenMM system that have a temperature of their own."""
    return [force for force in system.getForces() if type(force).__name__ in THERMAL_FORCES]


def check_temperature_is_of_integrator(engine) -> None:
    """Check that the temperature of an engine can be changed by changing that of its integrator.

    Raises
    ------
    ValueError
        If forces of an OpenMM engine take a temperature or a pressure, or seem to.
    """
    if not is_openmm(engine):
        return
    found = [type(force).__name__ for force in thermal_forces(engine.system)]
    found += [
        f"{type(force).__name__} with the parameter {name!r}"
        for force in engine.system.getForces()
        for name in _global_parameters(force)
        if name.lower() in THERMAL_PARAMETERS
    ]
    if found:
        raise ValueError(
            "replicas at other temperatures need a system whose only temperature is that of the integrator; this one has "
            f"{', '.join(found)}: the replicas would keep the temperature of that force, and at constant pressure the "
            "energies that are compared lack P V. Leave out the temperatures (exchange_temperatures=[] exchanges at the "
            "temperature of the paths), or sample at constant volume with a thermostat in the integrator"
        )


def warn_if_temperatures_differ(engine) -> None:
    """Warn where a barostat or thermostat has another temperature than the integrator of its OpenMM engine."""
    if not is_openmm(engine):
        return
    forces = thermal_forces(engine.system)
    try:
        temperature = temperature_of_integrator(engine.integrator).value_in_unit(unit.kelvin)
    except ValueError:  # it has none: modifiers say so where they need one
        return
    for force in forces:
        if not hasattr(force, "getDefaultTemperature"):  # the barostat of ring polymers takes that of its integrator
            continue
        own = _kelvin(force.getDefaultTemperature())
        if abs(own - temperature) > SAME_TEMPERATURE * temperature:
            warnings.warn(
                f"the {type(force).__name__} of the engine is at {own:.6g} K, its integrator at {temperature:.6g} K: the "
                "paths would be of no ensemble. Give both the same temperature",
                stacklevel=4,
            )


def _kelvin(temperature) -> float:
    return float(temperature.value_in_unit(unit.kelvin) if unit.is_quantity(temperature) else temperature)


def _global_parameters(force) -> list[str]:
    if not hasattr(force, "getNumGlobalParameters"):
        return []
    return [force.getGlobalParameterName(i) for i in range(force.getNumGlobalParameters())]
