"""Chains of path sampling, and steps that wait for the results of their shots."""

from __future__ import annotations

from dataclasses import dataclass, field

import openpathsampling as paths

from ops_aimmd.committor.learned import Learned
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec


@dataclass
class Chain:
    """One set of replicas with its current paths, which is sampled as if it were alone.

    Attributes
    ----------
    n_steps : int
        Steps that it has made.
    failure : ShotFailure or None
        Why it was stopped.
    """

    number: int
    samples: paths.SampleSet
    n_steps: int = 0
    failure: ShotFailure | None = None


@dataclass
class StepUnderWay:
    """A step that waits for the result of a shot.

    Attributes
    ----------
    number : int
        Number of the step in its chain, from 1.
    learned : Learned or None
        What had been learned when the step began: its model picks shooting points and accepts. None without a learner.
    specifications, results : dict by shot id
        The shots that the step has asked for so far.
    """

    number: int
    learned: Learned | None
    specifications: dict[str, ShotSpec] = field(default_factory=dict)
    results: dict[str, ShotResult] = field(default_factory=dict)

    @property
    def missing(self) -> list[ShotSpec]:
        """Shots without a result."""
        return [spec for shot, spec in self.specifications.items() if shot not in self.results]
