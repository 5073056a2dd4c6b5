"""OPS's integrators of two-dimensional toy systems in plain numbers: the same steps, in a third of the time."""

import math
from dataclasses import replace

import numpy as np
from openpathsampling.engines import toy
from openpathsampling.engines.delayedinterrupt import EmptyContext

from ops_aimmd.systems.potentials import HummerSzabo, WolfeQuapp

HALF = math.sqrt(0.5)


def gradient_of(potential):
    """Gradient of a potential as a function of x and y."""
    if isinstance(potential, HummerSzabo):
        b = potential.b

        def gradient(x, y):
            coupling = 2.0 * (x - y)
            return b * (4.0 * x * (x * x - 1.0) + coupling), -b * coupling

    elif isinstance(potential, WolfeQuapp):

        def gradient(x, y):
            u, v = HALF * (x - y), HALF * (x + y)
            du = 2.0 * (4.0 * u * (u * u - 1.0) + v + 0.3)
            dv = 2.0 * (4.0 * v * (v * v - 2.0) + u + 0.1)
            return HALF * (dv + du), HALF * (dv - du)

    else:
        raise TypeError(f"got the potential {potential!r}, expected HummerSzabo or WolfeQuapp")
    return gradient


class PlainOverdamped(toy.OverdampedLangevinIntegrator):
    def step(self, sys):
        x, y = sys.positions.tolist()
        dx, dy = gradient_of_engine(sys)(x, y)
        random_x, random_y = np.random.normal(size=2).tolist()  # noqa: NPY002
        sys.positions = np.array([x - self.A * dx + self.R * random_x, y - self.A * dy + self.R * random_y])


class PlainBAOAB(toy.LangevinBAOABIntegrator):
    """For masses of one."""

    def step(self, sys):
        x, y = sys.positions.tolist()
        u, v = sys.velocities.tolist()
        gradient, half = gradient_of_engine(sys), 0.5 * self.dt
        dx, dy = gradient(x, y)
        u, v = u - half * dx, v - half * dy
        x, y = x + half * u, y + half * v
        random_u, random_v = np.random.normal(size=2).tolist()  # noqa: NPY002
        u, v = self.c1 * u + self.c3 * random_u, self.c1 * v + self.c3 * random_v
        x, y = x + half * u, y + half * v
        dx, dy = gradient(x, y)
        sys.positions = np.array([x, y])
        sys.velocities = np.array([u - half * dx, v - half * dy])


def gradient_of_engine(engine):
    gradient = getattr(engine, "plain_gradient", None)
    if gradient is None:
        gradient = engine.plain_gradient = gradient_of(engine.pes.potential)
    return gradient


def plain(system):
    """A toy system with an engine that makes the same steps in plain numbers.

    Nor does it delay interrupts, which costs as much as a step.
    """
    integrator = system.engine.integ
    if isinstance(integrator, toy.OverdampedLangevinIntegrator):
        integrator = PlainOverdamped(integrator.dt, integrator.temperature, integrator.D)
    else:
        integrator = PlainBAOAB(integrator.dt, integrator.temperature, integrator.gamma)
    engine = toy.Engine({**system.engine.options, "integ": integrator}, system.engine.topology).named(system.engine.name)
    engine.interrupter = EmptyContext
    return replace(system, engine=engine)
