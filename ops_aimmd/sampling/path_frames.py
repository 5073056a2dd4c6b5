"""What is kept of a path: descriptors and selection weights of its frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ops_aimmd.bounded_memory import BoundedMemory
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.sampling.collective_variables import check_finite
from ops_aimmd.shooting.states import selectable_frames

PATHS_REMEMBERED = 64
"""Paths that are remembered; enough for the replicas of a run and the trial of a step."""


@dataclass(frozen=True)
class PathWeights:
    """Selection weights of the frames of one path under one model version.

    Attributes
    ----------
    log_weights : array, shape (n_frames,)
        ``-inf`` for frames that are never picked.
    log_sum : float
        Logarithm of the sum of the weights; ``-inf`` where no frame may be picked.
    log_committor : array, shape (n_frames, n_states)
    """

    version: ModelVersion
    log_weights: np.ndarray
    log_sum: float
    log_committor: np.ndarray

    def log_probability(self, index: int) -> float:
        """Logarithm of the probability that the frame is picked from this path."""
        if self.log_weights[index] == -np.inf:
            return -np.inf
        return float(self.log_weights[index] - self.log_sum)


@dataclass(frozen=True)
class PathFrames:
    """The frames of one path.

    Attributes
    ----------
    descriptors : array, shape (n_frames, d)
    selectable : bool array, shape (n_frames,)
        Interior frames outside of all states.
    weights : dict of callable to PathWeights
        The newest weights by each weight function that has weighed the path.
    """

    descriptors: np.ndarray
    selectable: np.ndarray
    weights: dict = field(default_factory=dict, compare=False)


class PathMemory(BoundedMemory):
    """The frames of the paths of a learner that were used last; each path is evaluated once."""

    def __init__(self, learner):
        super().__init__(PATHS_REMEMBERED)
        self._learner = learner

    def frames(self, trajectory, interior_is_outside: bool = False) -> PathFrames:
        """Descriptors and selectable frames of a path.

        Parameters
        ----------
        trajectory : Trajectory
        interior_is_outside : bool
            Whether all frames but the first and the last one are known to lie outside of all states, as those of legs are.

        Raises
        ------
        ValueError
            If a descriptor of a selectable frame is NaN or infinite.
        """

        def evaluate() -> PathFrames:
            states = [] if interior_is_outside else self._learner.states
            frames = PathFrames(self._learner.evaluate_descriptors(trajectory), selectable_frames(trajectory, states))
            check_finite(self._learner.descriptors, frames.descriptors, frames.selectable)
            return frames

        return self.recall((trajectory.__uuid__, len(trajectory)), evaluate)

    def remembers(self, trajectory) -> bool:
        """Whether the frames of a path were evaluated already."""
        return (trajectory.__uuid__, len(trajectory)) in self
