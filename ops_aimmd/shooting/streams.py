"""One seed for all random number generators that a step of an OPS simulation draws from.

Modifiers and toy engines draw from numpy's global generator, movers and selectors from `openpathsampling.default_rng`,
`PathMover.select_sample` from python's `random`, other engines from generators of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import openpathsampling as paths

from ops_aimmd.engines.choose import adapter_of


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
        Those with random numbers of their own get a seed each.

    Returns
    -------
    int
        A number that identifies the state of the generators.
    """
    sequence = np.random.SeedSequence(list(entropy))
    numpy_seed, python_seed, engine_seed, identifier = (int(word) for word in sequence.generate_state(4, np.uint32))
    np.random.seed(numpy_seed)  # noqa: NPY002 - OPS draws from numpy's global generator
    random.seed(python_seed)
    generator = paths.default_rng()
    generator.bit_generator.state = type(generator.bit_generator)(sequence.spawn(1)[0]).state
    for offset, engine in enumerate(engines):
        adapter_of(engine).seed((engine_seed + offset) % (2**31 - 1) + 1)
    return identifier
