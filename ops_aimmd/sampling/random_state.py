"""One seed for all random number generators that a step of an OPS simulation draws from.

Modifiers and toy engines draw from numpy's global generator, movers and selectors from `openpathsampling.default_rng`,
`PathMover.select_sample` from python's `random`, OpenMM integrators from a generator of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import openpathsampling as paths


def seed_step(seed: int, step: int, engines: Iterable = ()) -> int:
    """Seed all generators for one MC step from ``SeedSequence([seed, step])``.

    Parameters
    ----------
    seed : int
        Seed of the run.
    step : int
        Number of the MC step.
    engines : iterable of engines
        OpenMM engines among them get a seed of their own; their context is rebuilt for it, since OpenMM ignores a new
        seed otherwise.

    Returns
    -------
    int
        A number that identifies the state of the generators in this step.
    """
    sequence = np.random.SeedSequence([seed, step])
    numpy_seed, python_seed, openmm_seed, identifier = (int(word) for word in sequence.generate_state(4, np.uint32))
    np.random.seed(numpy_seed)  # noqa: NPY002 - OPS draws from numpy's global generator
    random.seed(python_seed)
    generator = paths.default_rng()
    generator.bit_generator.state = type(generator.bit_generator)(sequence.spawn(1)[0]).state
    for offset, engine in enumerate(engines):
        _seed_openmm(engine, (openmm_seed + offset) % (2**31 - 1) + 1)
    return identifier


def _seed_openmm(engine, seed: int) -> None:
    if not isinstance(engine, paths.engines.openmm.Engine):
        return
    context = engine.simulation.context
    integrator = context.getIntegrator()
    try:
        integrator.setRandomNumberSeed(seed)
    except AttributeError:  # deterministic integrators have no generator
        return
    state = context.getState(positions=True, velocities=True, parameters=True)
    context.reinitialize(preserveState=False)
    context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    for name, value in state.getParameters().items():
        context.setParameter(name, value)
    engine.simulation.currentStep = engine.simulation.currentStep
