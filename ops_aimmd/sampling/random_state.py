"""One seed for all random number generators that a step of an OPS simulation draws from.

Modifiers and toy engines draw from numpy's global generator, movers and selectors from `openpathsampling.default_rng`,
`PathMover.select_sample` from python's `random`, OpenMM integrators from a generator of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import openpathsampling as paths
from openpathsampling.integration_tools import openmm

from .engines import is_openmm


@contextmanager
def generators_kept() -> Iterator[None]:
    """Within the block the generators of this process may be seeded; afterwards they go on where they were before."""
    generator = paths.default_rng().bit_generator
    before = np.random.get_state(), random.getstate(), generator.state  # noqa: NPY002 - OPS draws from numpy's global one
    try:
        yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
        generator.state = before[2]


@contextmanager
def own_random_numbers(*entropy: int) -> Iterator[int]:
    """Within the block the generators of this process are seeded from ``SeedSequence(entropy)``.

    Afterwards they are where they were before. Yields the identifier that `seed_step` returns.
    """
    with generators_kept():
        yield seed_generators(entropy)


def seed_step(seed: int, step: int, engines: Iterable = ()) -> int:
    """Seed all generators from ``SeedSequence([seed, step])``, for scripts that make steps of their own."""
    return seed_generators((seed, step), engines)


def seed_generators(entropy: Sequence[int], engines: Iterable = ()) -> int:
    """Seed all generators from ``SeedSequence(entropy)``.

    Parameters
    ----------
    entropy : sequence of int
        For the step of a simulation: see :class:`.step_seeds.StepSeeds`.
    engines : iterable of engines
        OpenMM engines among them get a seed of their own.

    Returns
    -------
    int
        A number that identifies the state of the generators.
    """
    sequence = np.random.SeedSequence(list(entropy))
    numpy_seed, python_seed, openmm_seed, identifier = (int(word) for word in sequence.generate_state(4, np.uint32))
    np.random.seed(numpy_seed)  # noqa: NPY002 - OPS draws from numpy's global generator
    random.seed(python_seed)
    generator = paths.default_rng()
    generator.bit_generator.state = type(generator.bit_generator)(sequence.spawn(1)[0]).state
    for offset, engine in enumerate(engines):
        _seed_openmm(engine, (openmm_seed + offset) % (2**31 - 1) + 1)
    return identifier


def _seed_openmm(engine, seed: int) -> None:
    """Seed the integrator of an OpenMM engine; positions, velocities, box, parameters and time stay as they are.

    OpenMM looks at the seed of an integrator only while it makes a context. On the Reference platform all contexts of a
    process share one generator, so that making the smallest possible one seeds it (0.3 instead of 2 ms for 22 atoms).
    Elsewhere the engine's own context is made again. Forces that draw random numbers (barostats, Andersen thermostats)
    keep generators of their own.
    """
    if not is_openmm(engine):
        return
    context = engine.simulation.context
    integrator = context.getIntegrator()
    try:
        integrator.setRandomNumberSeed(seed)
    except AttributeError:  # deterministic integrators have no generator
        return
    if context.getPlatform().getName() == "Reference":
        _seed_reference_platform(context.getPlatform(), seed)
        return
    # preserveState=True would also bring the old state of the generator back
    state = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    context.reinitialize(preserveState=False)
    context.setState(state)


def _seed_reference_platform(platform, seed: int) -> None:
    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.LangevinMiddleIntegrator(0.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    openmm.Context(system, integrator, platform)
