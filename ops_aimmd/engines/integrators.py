r"""A Langevin integrator for OpenMM that reports velocities at the time of the positions.

Path sampling reverses the velocities of frames. OpenMM's own integrators report velocities half a step behind the
positions, which do not reverse. openmmtools has integrators that do; the one here
draws the same number of random numbers in each step, also in the first after a context was made, so that a run that is
taken up again goes on bit by bit like one that was never interrupted.
"""

import math

import openmm
from openmm import unit


def baoab_integrator(temperature, friction, timestep):
    r"""Langevin dynamics in the symmetric splitting V R O R V (BAOAB), with constraints.

    .. math::
        v &\leftarrow v + \tfrac{\Delta t}{2} f / m, \quad x \leftarrow x + \tfrac{\Delta t}{2} v, \quad
        v \leftarrow e^{-\gamma \Delta t} v + \sqrt{1 - e^{-2\gamma\Delta t}} \sqrt{k_B T / m}\, \xi, \\
        x &\leftarrow x + \tfrac{\Delta t}{2} v, \quad v \leftarrow v + \tfrac{\Delta t}{2} f / m

    Parameters
    ----------
    temperature : openmm.unit.Quantity
    friction : openmm.unit.Quantity
        Rate :math:`\gamma`.
    timestep : openmm.unit.Quantity

    Returns
    -------
    openmm.CustomIntegrator
        Its global variable ``kT`` (kJ/mol) tells the temperature, also after a round trip through XML.

    References
    ----------
    Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013), doi:10.1093/amrx/abs010; with constraints:
    J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990.
    """
    damping = math.exp(-friction.value_in_unit(unit.picosecond**-1) * timestep.value_in_unit(unit.picosecond))
    integrator = openmm.CustomIntegrator(timestep)
    integrator.setConstraintTolerance(1e-8)
    kT = (unit.MOLAR_GAS_CONSTANT_R * temperature).value_in_unit(unit.kilojoule_per_mole)
    integrator.addGlobalVariable("kT", kT)
    integrator.addGlobalVariable("a", damping)
    integrator.addGlobalVariable("b", math.sqrt(1.0 - damping**2))
    integrator.addPerDofVariable("x1", 0.0)

    def drift():
        integrator.addComputePerDof("x", "x + 0.5*dt*v")
        integrator.addComputePerDof("x1", "x")
        integrator.addConstrainPositions()
        integrator.addComputePerDof("v", "v + (x - x1)/(0.5*dt)")
        integrator.addConstrainVelocities()

    def kick():
        integrator.addComputePerDof("v", "v + 0.5*dt*f/m")
        integrator.addConstrainVelocities()

    integrator.addUpdateContextState()
    kick()
    drift()
    integrator.addComputePerDof("v", "a*v + b*sqrt(kT/m)*gaussian")
    integrator.addConstrainVelocities()
    drift()
    kick()
    return integrator
