"""What a training did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitReport:
    """What a training did. Losses are negative log-likelihoods in nats, weighted means with standard errors.

    Attributes
    ----------
    n_shots : int
    n_legs : float
        Legs that reached a state.
    train_loss, train_loss_error : float
        Loss per shot of the shots that the members were trained on.
    held_out_loss, held_out_loss_error : float
        Loss per shot of the shots held out; NaN where none could be.
    train_loss_per_leg, held_out_loss_per_leg : float
        The same per leg (ratio of sums), each with its ``_error``.
    epochs : int
        Epochs of the training that was kept.
    auxiliary_weights : tuple of float
        Trials that (end frame, other frames together) of a leg counted for.
    relevance : tuple of float
        Scale of each descriptor in units of its inverse standard deviation; all 1 where the held-out shots asked for
        no distinction, 0 where the descriptor does not vary.
    velocity_memory : float
        Frames after which velocities are forgotten, as far as the frames of legs tell (:mod:`.martingale`); 0 where the
        dynamics has no inertia, or frames of legs were not learned from.
    decided_at : int
        Number of shots when auxiliary weights and relevance were decided; 0 where there were too few shots.
    seconds : float
        Wall time.
    start : {"anew", "transferred"}
        What the training began with, where a model of another system was there (:mod:`.transfer`).
    loss_of_other_start : float or None
        Held-out loss per shot of the start that was not taken; None where nothing was compared.
    slope : float
        Factor on the log-odds of the network by which it is calibrated.
    earlier_slopes : tuple of (int, float)
        Number of shots and slope of each earlier training of the model.
    """

    n_shots: int
    n_legs: float
    train_loss: float
    train_loss_error: float
    held_out_loss: float
    held_out_loss_error: float
    train_loss_per_leg: float
    train_loss_per_leg_error: float
    held_out_loss_per_leg: float
    held_out_loss_per_leg_error: float
    epochs: int
    auxiliary_weights: tuple[float, float]
    relevance: tuple[float, ...]
    velocity_memory: float
    decided_at: int
    seconds: float
    start: str = "anew"
    loss_of_other_start: float | None = None
    slope: float = 1.0
    earlier_slopes: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        text = (
            f"{self.n_shots} shots ({self.n_legs:g} legs), {self.epochs} epochs in {self.seconds:.2f} s; loss per leg: "
            f"training {self.train_loss_per_leg:.3f} +- {self.train_loss_per_leg_error:.3f}, "
            f"held out {self.held_out_loss_per_leg:.3f} +- {self.held_out_loss_per_leg_error:.3f}; "
            "trials per leg from its end and its other frames: {:g}, {:g}".format(*self.auxiliary_weights)
            + f"; log-odds times {self.slope:.2f}"
        )
        if self.loss_of_other_start is not None:
            other = "anew" if self.start == "transferred" else "transferred"
            text += (
                f"; {self.start} start, held-out loss per shot {self.held_out_loss:.3f} against "
                f"{self.loss_of_other_start:.3f} of the {other} one"
            )
        return text
