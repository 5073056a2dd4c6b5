"""Random numbers of a Monte Carlo step: they belong to one seed, one simulation, one chain and one step.

Two simulations with one seed, for instance from two first paths or one after the other with one learner, draw
independent random numbers: a second chain is a check of the first only if its noise is another one. The same script is
the same run, and a resumed run is the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openpathsampling as paths

from ops_aimmd.engines.frames import without_unit


@dataclass(frozen=True)
class StepSeeds:
    """Entropy for `numpy.random.SeedSequence` of each step of one simulation.

    Attributes
    ----------
    seed : int
        Seed of the learner.
    key : int or None
        What tells this simulation from others with the same seed, from :func:`simulation_key`. None for a run that version
        0.1.0 has begun: it goes on with the random numbers that it has had, which depend on seed, chain and step alone.
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


def simulation_key(samples: Iterable[paths.Sample], n_before: int) -> int:
    """A number that tells a simulation from others with the same seed.

    Parameters
    ----------
    samples : iterable of openpathsampling.Sample
        The first sample set: coordinates and velocities of its frames go into the key in double precision.
    n_before : int
        Number of simulations that the learner has driven before.

    Returns
    -------
    int
        Of 64 bits.
    """
    in_order = sorted(samples, key=lambda sample: sample.replica)
    return frames_key((frame for sample in in_order for frame in sample.trajectory), n_before)


def frames_key(frames: Iterable, n_before: int = 0) -> int:
    """A number of 64 bits that depends on the coordinates and velocities of frames, in double precision.

    Parameters
    ----------
    frames : iterable of openpathsampling snapshots
    n_before : int
        Number of uses of the same frames and the same seed before this one.
    """
    digest = hashlib.sha256(str(n_before).encode())
    for frame in frames:
        digest.update(_numbers(frame))
    return int.from_bytes(digest.digest()[:8], "big")


def _numbers(frame) -> bytes:
    arrays = [getattr(frame, name, None) for name in ("coordinates", "velocities")]
    values = [without_unit(array) for array in arrays if array is not None]
    return b"".join(np.ascontiguousarray(value, dtype="<f8").tobytes() for value in values)
