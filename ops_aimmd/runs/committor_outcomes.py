"""The result of a committor simulation: outcomes of shots from configurations, beside the predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.committor.calibration import Calibration, calibration
from ops_aimmd.committor.training_set import TrainingSet

KIND = "committor simulation"
"""Marks the checkpoint of a committor simulation in its metadata."""

TOO_LONG, BROKEN_DOWN = -1, -2
"""Outcomes, in a checkpoint, of shots that reached no state."""

UNCERTAIN = 0.2
"""Standard error of the slope beyond which its agreement with 1 says little: over-fitted models often have 0.7."""


@dataclass(frozen=True, eq=False)
class CommittorSimulation:
    """Outcomes of the shots from n configurations, beside the predictions.

    Attributes
    ----------
    descriptors : float64 array, shape (n, d)
    predicted : float64 array, shape (n, n_states)
        Committor of each state by the learner's model when the simulation began.
    counts : int array, shape (n, n_states)
        Shots that reached each state.
    too_long, broken_down : int arrays, shape (n,)
        Shots that reached no state within `max_length`, and shots that failed. They count nowhere else; where they are
        many, the committor is that of the short trajectories.
    state_names : tuple of str
    max_length : int or None
        Largest number of frames of a shot.
    velocity_origin : {"boltzmann", "path", "unknown"}
        As in `TrainingSet`.
    """

    descriptors: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    too_long: np.ndarray
    broken_down: np.ndarray
    state_names: tuple[str, ...]
    max_length: int | None
    velocity_origin: str

    @classmethod
    def load(cls, checkpoint: str | os.PathLike) -> CommittorSimulation:
        """All that a checkpoint holds, also that of a simulation that is running.

        While it runs, unfinished shots tend to be long ones; the result is unbiased only once all shots have finished.

        Raises
        ------
        ValueError
            If it is the checkpoint of something else.
        ops_aimmd.checkpoint.CheckpointError, FileNotFoundError
            If the file cannot be read.
        """
        with Checkpoint.open(checkpoint, read_only=True) as file:
            check_kind(file)
            return simulation_result(file.metadata, stored_outcomes(file))

    @property
    def unfinished(self) -> np.ndarray:
        """Shots without an outcome, int array, shape (n,)."""
        return self.too_long + self.broken_down

    @property
    def calibration(self) -> Calibration:
        """Predictions against outcomes; configurations without a single outcome are left out.

        Each leg is a shot of its own, and the shots of a configuration share the error of the model there, which the
        standard errors contain.

        Raises
        ------
        ValueError
            For more than two states, or if no shot has an outcome.
        """
        if len(self.state_names) != 2:
            raise ValueError(
                f"calibration is for two states, these are {list(self.state_names)}: of two of them, i and j, take the "
                "conditional committor, ops_aimmd.calibration(predicted[:, j] / (predicted[:, i] + predicted[:, j]), "
                "counts[:, [i, j]], legs_are_shots=True), over the configurations with counts"
            )
        return calibration(self.predicted[self._has_outcome], self.counts[self._has_outcome], legs_are_shots=True)

    @property
    def training_set(self) -> TrainingSet:
        """One row per configuration that has an outcome, to be learned from; afterwards these shots are no test any more.

        The weights are 1: the likelihood of a row is that of its counts, so that a configuration with 50 outcomes weighs
        as much as 25 two-way shots. That is right for independent trials of one committor, as legs with fresh velocities
        are. It holds as far as the descriptors determine the committor; where much is hidden from them, many legs from
        few configurations say less than as many from different ones.
        """
        rows = self._has_outcome
        return TrainingSet(
            self.descriptors[rows],
            self.counts[rows],
            velocity_origin=[self.velocity_origin] * int(rows.sum()),
            predicted_committor=self.predicted[rows],
        )

    @property
    def _has_outcome(self) -> np.ndarray:
        return self.counts.sum(axis=1) > 0

    def __str__(self) -> str:
        shots = self.counts.sum(axis=1) + self.unfinished
        per_configuration = f"{shots.min()}" if shots.min() == shots.max() else f"{shots.min()} to {shots.max()}"
        last = self.predicted[:, -1]
        return (
            f"{len(shots)} configurations with predicted committors of {self.state_names[-1]} from {last.min():.2f} to "
            f"{last.max():.2f}, {per_configuration} shots each: of {shots.sum()} shots {self._reached()}"
            f"{self._no_outcome()}.\n{self._verdict()}"
        )

    def _reached(self) -> str:
        expected = (self.predicted * self.counts.sum(axis=1)[:, None]).sum(axis=0)
        reached = zip(self.counts.sum(axis=0), expected, self.state_names, strict=True)
        return ", ".join(f"{n} reached {name} ({e:.0f} expected)" for n, e, name in reached)

    def _no_outcome(self) -> str:
        parts = []
        if self.too_long.any():
            parts.append(f"{self.too_long.sum()} did not within {self.max_length} frames")
        if self.broken_down.any():
            parts.append(f"{self.broken_down.sum()} broke down")
        return f"; {' and '.join(parts)}, which count nowhere" if parts else ""

    def _verdict(self) -> str:
        if not self._has_outcome.any():
            return "No shot has an outcome: there is nothing to compare the predictions with."
        if len(self.state_names) != 2:
            return "Calibration is for two states: take the conditional committor of two of them."
        report = self.calibration
        slope_off = (report.slope - 1) / report.slope_error
        if np.isnan(slope_off):
            verdict = "The shots do not determine slope and intercept: more shots from configurations spread over p do."
        elif abs(slope_off) > 2:
            verdict = "The model is too " + ("sure: it has over-fitted." if slope_off < 0 else "careful.")
        elif abs(report.intercept) > 2 * report.intercept_error:
            more = "More" if report.intercept > 0 else "Fewer"
            verdict = f"{more} shots reach {self.state_names[-1]} than predicted."
        elif report.slope_error > UNCERTAIN:
            verdict = "Slope and intercept agree with 1 and 0, but within large errors: more shots would tell."
        else:
            verdict = "Slope and intercept agree with 1 and 0, those of a true committor, within two standard errors."
        return f"{verdict} Each configuration taken as one shot of many legs: {report}"


# ---- in a checkpoint -------------------------------------------------------------------------------------------------


def check_kind(file: Checkpoint) -> None:
    if file.metadata.get("kind") != KIND:
        raise ValueError(
            f"{file.path} is the checkpoint of a run that learns, not of a committor simulation: give the committor "
            "simulation a checkpoint of its own"
        )


def key_of(configuration: int) -> str:
    return f"shots from {configuration}"


def stored_outcomes(file: Checkpoint) -> list[list[int]]:
    """Outcomes of the shots from each configuration, in their order."""
    stored = set(file.state_keys())
    keys = [key_of(i) for i in range(len(file.metadata["configurations"]["coordinates"]))]
    return [file.state(key).tolist() if key in stored else [] for key in keys]


def simulation_result(setup: dict, outcomes: list[list[int]]) -> CommittorSimulation:
    def count(outcome: int) -> np.ndarray:
        return np.array([shots.count(outcome) for shots in outcomes])

    return CommittorSimulation(
        descriptors=setup["configurations"]["descriptors"],
        predicted=setup["configurations"]["predicted"],
        counts=np.stack([count(state) for state in range(len(setup["states"]))], axis=1),
        too_long=count(TOO_LONG),
        broken_down=count(BROKEN_DOWN),
        state_names=tuple(setup["states"]),
        max_length=setup["max_length"],
        velocity_origin=setup["velocity_origin"],
    )
