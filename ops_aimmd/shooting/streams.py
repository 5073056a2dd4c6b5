"""All streams of random numbers: where they begin, and who draws from them.

Each stream begins at ``numpy.random.SeedSequence(entropy)``. The *key* tells simulations with the same seed from each
other, for instance two from different first paths, or one after the other with one learner: a second chain checks the
first only if its noise is another one. So the same script is the same run, and a resumed run is the run.

==========================================  ==================================================  =======================
stream                                      entropy                                             from
==========================================  ==================================================  =======================
step of a simulation of one chain           seed, key, 0, step                                  `StepSeeds.of_step`
step of chain c                             seed, key, c, step                                  `StepSeeds.of_chain`
shot n of that step                         seed, key, c, step, n + 1                           `StepSeeds.of_shot`
climb or configuration k                    seed, key, with the spawn key (k,)                  `seed_of_member`
velocities of shot n of k                   seed of k, n                                        `own_random_numbers`
dynamics of shot n of k                     seed of k, n, 1                                     `seed_from`
leg in direction d (0, 1) of any shot       seed of the shot, 2**64 + d                         `worker.shoot`
what an engine keeps between legs           seed of the shot, 2**64 + d, 1                      `worker.shoot`
==========================================  ==================================================  =======================

A run that version 0.1.0 has begun has no key: there, seed, chain and step alone are the entropy. Modifiers and toy engines
draw from numpy's global generator, movers and selectors from `openpathsampling.default_rng`, `PathMover.select_sample` from
python's `random`, other engines from generators of their own: one entropy seeds them all.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import openpathsampling as paths

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import without_unit

FIRST_STREAM = 2**64
"""Number of the first leg where `seed_step` expects the number of an MC step: no step has such a number, so that a shot and
a step never draw the same random numbers, even if they have the same seed."""

# ---- entropy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepSeeds:
    """Entropy for `numpy.random.SeedSequence` of each step of one simulation.

    Attributes
    ----------
    seed : int
        Seed of the learner.
    key : int or None
        From :func:`simulation_key`; None for a run that version 0.1.0 has begun.
    """

    seed: int
    key: int | None

    def of_step(self, step: int) -> tuple[int, ...]:
        """Entropy of a step of a simulation of one chain."""
        return (self.seed, step) if self.key is None else (self.seed, self.key, 0, step)

    def of_chain(self, chain: int, step: int) -> tuple[int, ...]:
        """Entropy of the `step`-th step of a chain, one of many."""
        return (self.seed, chain, step) if self.key is None else (self.seed, self.key, chain, step)

    def of_shot(self, chain: int, step: int, number: int) -> tuple[int, ...]:
        """Entropy of the dynamics of the shot with this number, from 0, in a step of a chain.

        A number 0 at the end would change nothing: SeedSequence fills up with zeros.
        """
        return (*self.of_chain(chain, step), number if self.key is None else number + 1)


def seed_from(entropy: int | Sequence[int], spawn_key: Sequence[int] = ()) -> int:
    """A seed of 64 bits from ``SeedSequence(entropy, spawn_key=spawn_key)``."""
    return int(np.random.SeedSequence(entropy, spawn_key=spawn_key).generate_state(1, np.uint64)[0])


def seed_of_member(seed: int, key: int | None, number: int) -> int:
    """Seed of the shots of one of many climbs, or from one of many configurations; independent of how many there are.

    As a spawn key the number gives others than the same number does as a step (`seed_step`).
    """
    return seed_from(seed if key is None else [seed, key], (number,))


def check_seed(seed) -> None:
    """Raise a ValueError unless a seed is None or an integer >= 0."""
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise ValueError(f"seed must be a non-negative integer or None; got {seed!r}")


def settled_seed(given: int | None, file: Checkpoint | None = None, name: str = "") -> int:
    """The seed that was given, or one that is drawn once and kept as the file `name` of the checkpoint, if there is one.

    A shot that was interrupted must be run again as it was, since those that take long are interrupted most.
    """
    if given is not None:
        return given
    if file is not None and name in file.file_names():
        return int(file.file(name))
    seed = seed_from(None) >> 1
    if file is not None:
        file.store_file(name, str(seed).encode())
    return seed


def simulation_key(samples: Iterable[paths.Sample], n_before: int) -> int:
    """A number of 64 bits that tells a simulation from others with the same seed: see `frames_key`.

    It depends on the frames of the first sample set and on how many simulations the learner has driven before.
    """
    in_order = sorted(samples, key=lambda sample: sample.replica)
    return frames_key((frame for sample in in_order for frame in sample.trajectory), n_before)


def frames_key(frames: Iterable, n_before: int = 0) -> int:
    """A number of 64 bits that depends on the coordinates and velocities of frames, in double precision.

    `n_before` is the number of uses of the same frames and the same seed before this one.
    """
    digest = hashlib.sha256(str(n_before).encode())
    for frame in frames:
        digest.update(_numbers(frame))
    return int.from_bytes(digest.digest()[:8], "big")


def _numbers(frame) -> bytes:
    arrays = [getattr(frame, name, None) for name in ("coordinates", "velocities")]
    values = [without_unit(array) for array in arrays if array is not None]
    return b"".join(np.ascontiguousarray(value, dtype="<f8").tobytes() for value in values)


# ---- generators ------------------------------------------------------------------------------------------------------


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
    """Seed all generators from ``SeedSequence(entropy)``, and the engines with random numbers of their own.

    Returns a number that identifies the state of the generators.
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
