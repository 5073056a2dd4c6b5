"""The learner: what was learned from shots, and the descriptors and states by which paths of OPS become data of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
from openpathsampling.netcdfplus import StorableNamedObject

from ops_aimmd.committor.density import TransitionPathFrames
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.learned import Learned
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import ShootingResult, TrainingSet
from ops_aimmd.committor.transferred_start import TransferredStart
from ops_aimmd.sampling.collective_variables import (
    as_trajectory,
    check_descriptors,
    check_each_frame_counts_alone,
    check_finite,
    column_names,
    describe,
    evaluate_descriptors,
    is_storable,
)
from ops_aimmd.sampling.path_frames import PathFrames, PathMemory
from ops_aimmd.sampling.simulations import Simulations
from ops_aimmd.shooting.states import check_states


class CommittorLearner(StorableNamedObject):
    """Learns the committor from shooting results while path sampling goes on.

    What was learned is in `learned`, which is immutable: training publishes the next one. Selectors ask for it, and a step
    under way goes on with the one that it was begun with.

    Parameters
    ----------
    descriptors : CollectiveVariable, sequence of CollectiveVariable, or callable
        What the committor is a function of; a function takes a trajectory and returns (n_frames, n_descriptors). They
        must not depend on the sign of the velocities.
    states : sequence of openpathsampling.Volume
        At least two, mutually exclusive. Their order is the order of all committors and counts; with two states the
        committor is the probability of reaching the last.
    seed : int, optional
        Fixes the initial weights, the training and, through `TrainingHook`, the whole run.
    model : CommittorModel, optional
        A trained model to go on from. It is copied, and never reset; `ops_aimmd.transfer` is the careful way to
        use one of another system. A default model for the number of descriptors, if left out.
    training_set : TrainingSet, optional
        Shots to begin with, of the same descriptors and states, for instance ``TrainingSet.from_storage(...)``; they get
        the step -1, being of no step of this run. Call `fit` to begin with a model that knows them.
    schedule : DiminishingSchedule, optional
        When to train.
    fit_options : dict, optional
        Keyword arguments of `ops_aimmd.fit`.
    device : str, optional
        Where the model lives, "cpu" by default.

    Raises
    ------
    ValueError
        For fewer than two states, descriptors that cannot be evaluated, or a model or training set of other states.
    """

    def __init__(
        self, descriptors, states, seed=None, model=None, schedule=None, fit_options=None, device=None, training_set=None
    ):
        super().__init__()
        check_states(states)
        if descriptors is not None:
            check_descriptors(descriptors, states)
        unknown = set(fit_options or {}) - (set(inspect.signature(fit).parameters) - {"model", "training_set"})
        if unknown:
            raise ValueError(f"fit_options are keyword arguments of ops_aimmd.fit; it does not know {sorted(unknown)}")
        self.descriptors = descriptors
        self.states = states
        self.seed = seed
        self.schedule = schedule
        self.fit_options = fit_options
        self.device = device
        self.descriptor_names: list[str] | None = None if descriptors is None else column_names(descriptors)
        """Name of each descriptor; None where the descriptors have no names of their own."""
        self.paths = PathMemory(self)
        """Descriptors and weights of the paths that were used last."""
        self.simulations = Simulations()
        """What is known of the simulations that this learner drives."""
        self._starts_anew = model is None
        self._begins_frozen = False
        self._descriptors_checked = False
        self._learned: Learned | None = None
        self._of_step: Learned | None = None
        for name, given, kind in (("model", model, CommittorModel), ("training_set", training_set, TrainingSet)):
            n_states = getattr(given, "n_states", None)
            if given is not None and not (isinstance(given, kind) and n_states == self.n_states):
                raise ValueError(
                    f"{name} must be a {kind.__name__} of {self.n_states} states, as many as the learner has; got "
                    f"{type(given).__name__} of {n_states}. To wrap a torch module: CommittorModel(module, n_descriptors)"
                )
        if model is not None or training_set is not None:
            shots = TrainingSet.empty((training_set if model is None else model).n_descriptors, self.n_states)
            for shot in training_set or ():
                shots.append(replace(shot, step=-1))
            self._begin(shots, model)

    # ---- what was learned -------------------------------------------------------------------------------------------

    @property
    def learned(self) -> Learned:
        """All that was learned, and the current model version; immutable.

        Raises
        ------
        RuntimeError
            Before the first path was seen: the number of descriptors is not known yet.
        """
        if self._learned is None:
            raise RuntimeError(
                "the learner has seen no path yet, so it has no model and no training set: run a step, evaluate a "
                "trajectory with learner.committor(trajectory), or pass model= to CommittorLearner"
            )
        return self._learned

    @property
    def has_seen_paths(self) -> bool:
        """Whether there is a model: the number of descriptors is known from the first path on."""
        return self._learned is not None

    @property
    def version(self) -> ModelVersion:
        """The current immutable model version."""
        return self.learned.version

    @property
    def model(self) -> CommittorModel:
        """The current model, a torch module on descriptor arrays; never trained in place."""
        return self.learned.model

    @property
    def training_set(self) -> TrainingSet:
        """Every shot seen so far in which a leg reached a state."""
        return self.learned.training_set

    @property
    def transition_path_frames(self) -> TransitionPathFrames:
        """Frames of the sampled transition paths, from which the density is made."""
        return self.learned.frames

    @property
    def reports(self) -> tuple[FitReport, ...]:
        """Reports of all trainings, oldest first."""
        return self._learned.reports if self.has_seen_paths else ()

    @property
    def last_report(self) -> FitReport | None:
        """Report of the last training; None before it."""
        return self._learned.last_report if self.has_seen_paths else None

    @property
    def n_states(self) -> int:
        return len(self.states)

    @property
    def training_schedule(self) -> DiminishingSchedule:
        """When the learner trains."""
        return DiminishingSchedule() if self.schedule is None else self.schedule

    @property
    def training_options(self) -> dict:
        """Keyword arguments of `ops_aimmd.fit`."""
        return {"start_anew": self._starts_anew, **(self.fit_options or {})}

    def committor(self, trajectory) -> np.ndarray:
        """Probability of reaching the last state, (n_frames,); each state, (n_frames, n_states), for more than two.

        A single snapshot counts as a trajectory of one frame, here and for the reaction coordinate.
        """
        return self._on_frames(trajectory, lambda x: self.model.committor(x))

    def reaction_coordinate(self, trajectory) -> np.ndarray:
        """Log-odds of reaching the last state, (n_frames,); ``ln p_i``, (n_frames, n_states), for more than two."""
        return self._on_frames(trajectory, lambda x: self.model.reaction_coordinate(x))

    def _on_frames(self, trajectory, function: Callable) -> np.ndarray:
        descriptors = self.evaluate_descriptors(trajectory)
        check_finite(self.descriptors, descriptors)
        return function(descriptors)

    # ---- paths ------------------------------------------------------------------------------------------------------

    def evaluate_descriptors(self, trajectory) -> np.ndarray:
        """Descriptors of every frame, float64 array (n_frames, n_descriptors).

        Raises
        ------
        ValueError
            If their number is not that of the model, or, for the first trajectory, if the descriptors of a frame depend on
            the frames beside it.
        RuntimeError
            If the learner was loaded without descriptors.
        """
        if self.descriptors is None:
            raise RuntimeError(
                "this learner was loaded without descriptors, so it cannot evaluate trajectories: give them again "
                "(descriptors=...); learner.model works on descriptor arrays without them"
            )
        values = evaluate_descriptors(self.descriptors, trajectory)
        if not self._descriptors_checked and len(values):
            check_each_frame_counts_alone(self.descriptors, as_trajectory(trajectory), values)
            self._descriptors_checked = True
        if not self.has_seen_paths:
            self._begin(TrainingSet.empty(values.shape[1], self.n_states))
        elif values.shape[1] != self.model.n_descriptors:
            raise ValueError(
                f"{describe(self.descriptors)} gives {values.shape[1]} descriptors per frame; the model was made for "
                f"{self.model.n_descriptors}: use the descriptors it was trained with, or a new learner"
            )
        return values

    def path_frames(self, trajectory, interior_is_outside: bool = False) -> PathFrames:
        """Descriptors and selectable frames of a path, evaluated once per path; see `PathMemory.frames`."""
        return self.paths.frames(trajectory, interior_is_outside)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _begin(self, training_set: TrainingSet, model: CommittorModel | None = None, start=None) -> None:
        learned = Learned.begin(training_set, model, self.seed, self.device)
        self.publish(replace(learned, frozen=self.frozen, start=start))

    def start_from(self, start: TransferredStart) -> None:
        """Begin with the model of another system; `ops_aimmd.transfer` makes one from a checkpoint or a learner.

        Raises
        ------
        RuntimeError
            If this learner has been trained, given a model, or is that of a run that has begun.
        """
        if self.reports or not self.training_options["start_anew"] or self.simulations.are_recorded:
            raise RuntimeError(
                "this learner has learned already, or was given a model to go on from: transfer to a new learner, before "
                "its run begins"
            )
        none_yet = TrainingSet.empty(start.model.n_descriptors, start.model.n_states)
        training_set = self.training_set if self.has_seen_paths else none_yet
        self._begin(training_set, start.recalibrated(none_yet).model, start)

    def add(self, result: ShootingResult) -> None:
        """Add a shooting result to the training set."""
        self.training_set.append(result)

    def fit(self) -> FitReport | None:
        """Train a copy of the model on everything seen so far and publish it as the next version; see `Learned.fit`.

        Returns the report; None where the model has nothing to train. While frozen, or without a shot: RuntimeError.
        """
        if not self.has_seen_paths:
            raise RuntimeError("there are no shooting results to learn from yet: run some steps first")
        n_reports = len(self.reports)
        self.publish(self.learned.fit(self.seed, **self.training_options))
        return self.last_report if len(self.reports) > n_reports else None

    def publish(self, learned: Learned) -> None:
        """Make this the current state of what was learned; steps under way go on with what they were begun with."""
        self._learned = learned

    def freeze(self) -> None:
        """Start a production phase: model and density no longer change. Shots are still recorded.

        The density along the committor is that of the paths this learner has seen. One that was made from a training set
        alone has seen none, and picks worse shooting points: let it see some steps, and call `fit`, before.
        """
        self._set_frozen(True)

    def unfreeze(self) -> None:
        """End a production phase."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self._begins_frozen = frozen
        if self.has_seen_paths:
            self.publish(replace(self.learned, frozen=frozen))

    @property
    def frozen(self) -> bool:
        return self.learned.frozen if self.has_seen_paths else self._begins_frozen

    # ---- steps ------------------------------------------------------------------------------------------------------

    @contextmanager
    def step_begun_with(self, learned: Learned | None) -> Iterator[None]:
        """Within the block selectors and movers go on with what had been learned when their step was begun."""
        before, self._of_step = self._of_step, learned
        try:
            yield
        finally:
            self._of_step = before

    @property
    def learned_for_step(self) -> Learned:
        """What selectors and movers work with: what the step under way was begun with, or else the newest."""
        return self.learned if self._of_step is None else self._of_step

    # ---- OPS storage ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict:
        """Set-up only: what was learned goes to the checkpoint, since OPS writes an object once."""
        storable = self.descriptors is not None and is_storable(self.descriptors)
        return {
            "descriptors": self.descriptors if storable else None,
            "descriptors_name": None if self.descriptors is None else describe(self.descriptors),
            "states": list(self.states),
            "seed": None if self.seed is None else int(self.seed),
            "schedule": asdict(self.training_schedule),
            "fit_options": self.training_options,
            "device": self.device,
        }

    @classmethod
    def from_dict(cls, dct: dict) -> CommittorLearner:
        names = ("descriptors", "states", "seed", "fit_options", "device")
        return cls(**{name: dct[name] for name in names}, schedule=DiminishingSchedule(**dct["schedule"]))


def check_learner(learner, what: str) -> None:
    """Raise a TypeError unless `learner` is a CommittorLearner (for example, when arguments are swapped)."""
    if not isinstance(learner, CommittorLearner):
        raise TypeError(f"{what} takes a CommittorLearner first, the one of the scheme; got {learner!r}")
