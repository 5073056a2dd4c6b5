"""A model as it was published: the version that weighs the paths of a step."""

from __future__ import annotations

from dataclasses import dataclass

from ops_aimmd.committor.density import CommittorDensity
from ops_aimmd.committor.model import CommittorModel


@dataclass(frozen=True)
class ModelVersion:
    """One immutable state of what was learned: it weighs the old and the new path of an MC step.

    Attributes
    ----------
    number : int
        0 is the model before any training.
    model : CommittorModel
        A copy that nothing trains any more.
    density : CommittorDensity or None
        Of transition-path frames under this model; None while there are none.
    """

    number: int
    model: CommittorModel
    density: CommittorDensity | None = None
