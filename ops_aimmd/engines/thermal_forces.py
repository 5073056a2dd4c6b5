r"""Forces of OpenMM that depend on the temperature, and what barostats add to the energy.

A barostat makes random moves of the box, accepted by the Metropolis rule at a temperature of its own. They are reversible
and leave velocities alone. Two-way and one-way shooting therefore sample paths at constant pressure, with fresh velocities
in the box of the shooting point, if barostat and integrator have the same temperature.

At constant pressure P the box is sampled with :math:`e^{-\beta (U + P V)}`, under surface tension :math:`\gamma` with
:math:`e^{-\beta (U + P V - \gamma A)}`; what else is in the distribution (powers of V) does not depend on the temperature.

Custom forces may hold a temperature in a global parameter. It is recognised by a usual name together with its value: the
temperature of the engine in kelvin, or kT in kJ/mol or kcal/mol.
"""

from __future__ import annotations

import openmm
from openmm import unit

THERMAL_FORCES = {
    "AndersenThermostat",
    "MonteCarloAnisotropicBarostat",
    "MonteCarloBarostat",
    "MonteCarloFlexibleBarostat",
    "MonteCarloMembraneBarostat",
    "RPMDMonteCarloBarostat",
}
"""Forces with a temperature. They draw random numbers, each from a generator of its own."""

THERMAL_PARAMETERS = {"kt", "kbt", "k_bt", "temperature"}
"""Usual names of global parameters of custom forces that hold a temperature, in small letters."""

GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
PER_KELVIN = (1.0, GAS_CONSTANT, GAS_CONSTANT / 4.184)
"""Values of such a parameter divided by the temperature."""

SAME_TEMPERATURE = 1e-4
"""Relative difference of temperatures that is due to the units in which they were given."""

BAR_NM3 = (1.0 * unit.bar * unit.nanometer**3 * unit.AVOGADRO_CONSTANT_NA).value_in_unit(unit.kilojoule_per_mole)
"""1 bar nm^3 in kJ/mol."""

AXES = "XYZ"


def thermal_forces(system) -> list:
    """Forces of a system that have a temperature of their own."""
    return [force for force in system.getForces() if type(force).__name__ in THERMAL_FORCES]


def temperatures_of_forces(system) -> list[tuple[str, float]]:
    """Name and temperature (K) of each of these forces; that for ring polymers takes the temperature of its integrator."""
    forces = [force for force in thermal_forces(system) if hasattr(force, "getDefaultTemperature")]
    return [(type(force).__name__, _number(force.getDefaultTemperature(), unit.kelvin)) for force in forces]


def thermal_parameters(system) -> list[tuple[openmm.Force, int]]:
    """Global parameters that hold a temperature by their name: force and number of each."""
    return [
        (force, i)
        for force in system.getForces()
        if hasattr(force, "getNumGlobalParameters")
        for i in range(force.getNumGlobalParameters())
        if force.getGlobalParameterName(i).lower() in THERMAL_PARAMETERS
    ]


def parts_without_known_temperature(system, temperature: float) -> list[str]:
    """What of a system at a temperature (K) would not follow to another one, or has no energy U + PV; one name each."""
    barostats = [force for force in thermal_forces(system) if "Barostat" in type(force).__name__]
    found = [type(force).__name__ for force in barostats if not hasattr(force, "setDefaultTemperature")]
    found += ["several barostats"] if len(barostats) > 1 else []
    found += [
        f"{type(force).__name__} with pressures that differ from axis to axis"
        for force in barostats
        if isinstance(force, openmm.MonteCarloAnisotropicBarostat)
        and len({_number(force.getDefaultPressure(), unit.bar)[AXES.index(axis)] for axis in _scaled_axes(force)}) > 1
    ]
    found += [
        f"{type(force).__name__} with the parameter {force.getGlobalParameterName(i)!r}"
        for force, i in thermal_parameters(system)
        if _factor(force.getGlobalParameterDefaultValue(i), temperature) is None
    ]
    return found


def set_temperature(system, old: float, new: float) -> None:
    """Change the temperature (K) of all forces of a system; their random numbers become independent of those of any other.

    The system is then at the new temperature, if `parts_without_known_temperature` finds nothing in it.
    """
    for force in thermal_forces(system):
        force.setDefaultTemperature(new)
        force.setRandomNumberSeed(0)
    for force, i in thermal_parameters(system):
        factor = _factor(force.getGlobalParameterDefaultValue(i), old)
        force.setGlobalParameterDefaultValue(i, new * factor)  # type: ignore[operator]  # not None, see above


def parameters_of_temperature(system) -> set[str]:
    """Names of the parameters of a context that `set_temperature` decides."""
    names = {force.getGlobalParameterName(i) for force, i in thermal_parameters(system)}
    return names | {type(force).Temperature() for force in thermal_forces(system) if hasattr(force, "Temperature")}


def work_of_barostat(context) -> float:
    r""":math:`P V - \gamma A` in kJ/mol for the box in a context; 0 without a barostat."""
    work = 0.0
    for force in thermal_forces(context.getSystem()):
        names = [type(force).Pressure()] if hasattr(force, "Pressure") else []
        if isinstance(force, openmm.MonteCarloAnisotropicBarostat):
            names = [getattr(type(force), f"Pressure{axis}")() for axis in _scaled_axes(force)[:1]]  # all are equal
        state = context.getState()
        for name in names:
            work += context.getParameter(name) * state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
        if isinstance(force, openmm.MonteCarloMembraneBarostat):
            (x, _, _), (_, y, _), _ = state.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
            work -= context.getParameter(type(force).SurfaceTension()) * x * y
    return work * BAR_NM3


def _factor(value: float, temperature: float) -> float | None:
    """What a parameter is a multiple of the temperature by, None if its value is neither the temperature nor kT."""
    fitting = (factor for factor in PER_KELVIN if abs(value - factor * temperature) <= SAME_TEMPERATURE * abs(value))
    return next(fitting, None)


def _scaled_axes(force) -> list[str]:
    return [axis for axis in AXES if getattr(force, f"getScale{axis}")()]


def _number(value, in_unit):
    return value.value_in_unit(in_unit) if unit.is_quantity(value) else value
