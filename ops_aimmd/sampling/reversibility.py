r"""Is the dynamics reversible in the way that shooting needs?

A backward leg starts from the positions and the reversed velocities of a frame. That is a reversal of time only if both
belong to the same instant. OpenMM's own integrators leap: the velocities that they report are half a step behind the
positions, so that a reversed start is wrong by the acceleration times the time step. In stiff bonds with
:math:`\omega\,\Delta t \approx 0.6` this is a sizeable kick, always upwards in energy. One-way shooting repeats it before
friction can take the energy away: `benchmarks/reversibility.py` shows how hot the paths of alanine dipeptide become.

openmmtools' BAOABIntegrator, VVVRIntegrator and LangevinIntegrator have velocities at the time of the positions, and so
has `ops_aimmd.engines.integrators.baoab_integrator`. Reference: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34
(2013), doi:10.1093/amrx/abs010.
"""

from __future__ import annotations

import warnings

from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.integration_tools import openmm

LEAPING_INTEGRATORS = (
    "LangevinMiddleIntegrator",
    "LangevinIntegrator",
    "VariableLangevinIntegrator",
    "VerletIntegrator",
    "VariableVerletIntegrator",
    "NoseHooverIntegrator",
)
"""OpenMM's integrators whose velocities are half a step behind the positions."""


class IrreversibleDynamicsWarning(UserWarning):
    """Reversing the velocities of a frame does not reverse the dynamics."""


def warn_if_irreversible(engine) -> None:
    """Warn where the velocities of an engine's frames do not belong to the time of their positions.

    Parameters
    ----------
    engine : openpathsampling.engines.DynamicsEngine
    """
    if not isinstance(engine, ops_openmm.Engine):
        return
    kinds = tuple(getattr(openmm, name) for name in LEAPING_INTEGRATORS if hasattr(openmm, name))
    if isinstance(engine.integrator, kinds):
        warnings.warn(
            f"{type(engine.integrator).__name__} reports velocities half a step before the positions. Shots that reverse "
            "them heat stiff bonds: two-way paths come out somewhat too hot, one-way paths hotter at every step. Use an "
            "integrator with velocities at the time of the positions, for instance openmmtools.integrators."
            "BAOABIntegrator(temperature, collision_rate, timestep)",
            IrreversibleDynamicsWarning,
            stacklevel=4,
        )
