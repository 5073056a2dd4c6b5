"""When to train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DiminishingSchedule:
    """When to train: every few shots at first, then whenever the number of shots has grown by a fraction.

    The adaptation diminishes, so that a chain guided by the model approaches one with a fixed model.

    Attributes
    ----------
    every : int
        Train after this many new shots ...
    until : int
        ... up to this many shots in all.
    growth : float
        Afterwards train when the number of shots has grown by this fraction since the last training.
    """

    every: int = 3
    until: int = 30
    growth: float = 0.1

    def __post_init__(self):
        if self.every < 1 or self.until < 0 or not self.growth > 0:
            raise ValueError(
                "a schedule needs every >= 1, until >= 0 and growth > 0; got "
                f"every={self.every}, until={self.until}, growth={self.growth}"
            )

    def due(self, n_shots: int, n_shots_at_last_training: int) -> bool:
        """True if the model should be trained now; 0 shots at the last training stands for none yet."""
        new = n_shots - n_shots_at_last_training
        if new < self.every:
            return False
        return n_shots <= self.until or new >= self.growth * n_shots_at_last_training
