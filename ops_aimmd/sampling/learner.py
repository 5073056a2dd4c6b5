"""The learner: descriptors, states, model, training set, schedule and density in one owner."""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from openpathsampling.netcdfplus import StorableNamedObject

from ops_aimmd.committor.density import CommittorDensity, TransitionPathFrames
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import ShootingResult, TrainingSet
from ops_aimmd.committor.transfer import TransferredStart, fit_transferred
from ops_aimmd.shooting.states import selectable_frames, state_index

from .collective_variables import (
    as_trajectory,
    check_each_frame_counts_alone,
    column_names,
    describe,
    evaluate_descriptors,
    is_storable,
    raw_angles,
)

PATHS_REMEMBERED = 64
"""Paths whose descriptors are kept; enough for the replicas of a run and the trial of a step."""

DENSITY_PRIOR_PATHS = 5.0
"""Weight, in paths, of the uniform density that is mixed into the density of transition-path frames."""


@dataclass(frozen=True)
class PathFrames:
    """What the learner knows of the frames of one path.

    Attributes
    ----------
    descriptors : array, shape (n_frames, d)
    selectable : bool array, shape (n_frames,)
        Interior frames outside of all states.
    """

    descriptors: np.ndarray
    selectable: np.ndarray


class CommittorLearner(StorableNamedObject):
    """Learns the committor from shooting results while path sampling goes on.

    Selectors hold the learner and weigh paths with its current `version`, which is immutable: training works on a copy
    of the model and publishes it, with the density of transition-path frames under it, as the next version.

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
        A trained model to go on from, which is copied and never started anew; `ops_aimmd.transfer` is the careful way to
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
        self,
        descriptors,
        states,
        seed=None,
        model=None,
        schedule=None,
        fit_options=None,
        device=None,
        training_set=None,
    ):
        super().__init__()
        self.descriptors = descriptors
        self.states = states
        self.seed = seed
        self.schedule = schedule
        self.fit_options = fit_options
        self.device = device
        _check_states(states)
        if descriptors is not None:
            _check_descriptors(descriptors)
            _warn_of_raw_angles(descriptors, states)
        self._schedule = DiminishingSchedule() if schedule is None else schedule
        self._version: ModelVersion | None = None
        self._training_set: TrainingSet | None = None
        self._frames: TransitionPathFrames | None = None
        self._shots_at_last_fit = 0
        self._reports: list[FitReport] = []
        self._frozen = False
        self._starts_anew = model is None
        self._transferred_start: TransferredStart | None = None
        self._names: list[str] | None = None if descriptors is None else column_names(descriptors)
        self._descriptors_checked = False
        self._paths: OrderedDict = OrderedDict()
        self.step_seed: int | None = None
        """Identifier of the random numbers of the current MC step, set by `TrainingHook`."""
        self.n_simulations = 0
        """Number of simulations that this learner has driven, the present one included."""
        self.results_are_reported = False
        """Whether a simulation that is running reports its shots to this learner: its `TrainingHook` says so."""
        self._has_warned = False
        self.paths_remembered = PATHS_REMEMBERED
        """Paths whose descriptors and weights are kept; more replicas need more."""
        self.recorded: dict[str, int] = {}
        """Revision of the transition-path frames up to which each checkpoint has them, by its run id."""
        unknown = set(fit_options or {}) - (set(inspect.signature(fit).parameters) - {"model", "training_set"})
        if unknown:
            raise ValueError(f"fit_options are keyword arguments of ops_aimmd.fit; it does not know {sorted(unknown)}")
        if model is not None:
            if not isinstance(model, CommittorModel):
                raise ValueError(
                    f"model must be a CommittorModel; got {type(model).__name__}. Wrap a torch module in "
                    "ops_aimmd.CommittorModel(module, n_descriptors, n_states)"
                )
            if model.n_states != len(states):
                raise ValueError(f"the model knows {model.n_states} states; the learner was given {len(states)}")
            self._start(model.n_descriptors, model)
        if training_set is not None:
            self._begin_with(training_set)

    def _begin_with(self, training_set: TrainingSet) -> None:
        if not isinstance(training_set, TrainingSet) or training_set.n_states != len(self.states):
            raise ValueError(
                f"training_set must be a TrainingSet of the {len(self.states)} states of the learner; got {training_set!r}"
            )
        if self._version is None:
            self._start(training_set.n_descriptors, None)
        for shot in training_set:
            self._training_set.append(replace(shot, step=-1))

    # ---- what was learned -------------------------------------------------------------------------------------------

    @property
    def version(self) -> ModelVersion:
        """The current immutable model version.

        Raises
        ------
        RuntimeError
            Before the first path was seen: the number of descriptors is not known yet.
        """
        if self._version is None:
            raise RuntimeError(
                "the learner has seen no path yet, so it has no model: run a step, evaluate a trajectory with "
                "learner.committor(trajectory), or pass model= to CommittorLearner"
            )
        return self._version

    @property
    def has_seen_paths(self) -> bool:
        """Whether there is a model: the number of descriptors is known from the first path on."""
        return self._version is not None

    @property
    def model(self) -> CommittorModel:
        """The current model, a torch module on descriptor arrays; never trained in place."""
        return self.version.model

    @property
    def training_set(self) -> TrainingSet:
        """Every shot seen so far in which a leg reached a state."""
        if self._training_set is None:
            raise RuntimeError("the learner has seen no path yet, so it has no training set: run a step first")
        return self._training_set

    @property
    def transition_path_frames(self) -> TransitionPathFrames:
        """Frames of the sampled transition paths, from which the density is made."""
        self.version  # noqa: B018 - raises where nothing was seen
        return self._frames

    @property
    def training_schedule(self) -> DiminishingSchedule:
        """When the learner trains."""
        return self._schedule

    @property
    def training_options(self) -> dict:
        """Keyword arguments of `ops_aimmd.fit`."""
        return {"start_anew": self._starts_anew, **(self.fit_options or {})}

    @property
    def shots_at_last_fit(self) -> int:
        """Shots in the training set when the model was trained last; 0 before that."""
        return self._shots_at_last_fit

    @property
    def reports(self) -> tuple[FitReport, ...]:
        """Reports of all trainings, oldest first."""
        return tuple(self._reports)

    @property
    def last_report(self) -> FitReport | None:
        """Report of the last training; None before it."""
        return self._reports[-1] if self._reports else None

    @property
    def n_states(self) -> int:
        return len(self.states)

    @property
    def descriptor_names(self) -> list[str] | None:
        """Name of each descriptor; None where the descriptors have no names of their own."""
        return self._names

    @property
    def transferred_start(self) -> TransferredStart | None:
        """The model of another system that `ops_aimmd.transfer` gave; None without."""
        return self._transferred_start

    def committor(self, trajectory) -> np.ndarray:
        """Probability of reaching the last state, (n_frames,); each state, (n_frames, n_states), for more than two.

        A single snapshot counts as a trajectory of one frame, here and for the reaction coordinate.
        """
        return self._on_frames(trajectory, lambda model, x: model.committor(x))

    def reaction_coordinate(self, trajectory) -> np.ndarray:
        """Log-odds of reaching the last state, (n_frames,); ``ln p_i``, (n_frames, n_states), for more than two."""
        return self._on_frames(trajectory, lambda model, x: model.reaction_coordinate(x))

    def _on_frames(self, trajectory, function):
        descriptors = self.evaluate_descriptors(trajectory)
        self._check_finite(descriptors, np.ones(len(descriptors), bool))
        return function(self.model, descriptors)

    # ---- descriptors of paths ---------------------------------------------------------------------------------------

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
        if self._version is None:
            self._start(values.shape[1], None)
        elif values.shape[1] != self.model.n_descriptors:
            raise ValueError(
                f"{describe(self.descriptors)} gives {values.shape[1]} descriptors per frame; the model was made for "
                f"{self.model.n_descriptors}: use the descriptors it was trained with, or a new learner"
            )
        return values

    def path_frames(self, trajectory, interior_is_outside: bool = False) -> PathFrames:
        """Descriptors and selectable frames of a path, evaluated once per path.

        Parameters
        ----------
        trajectory : Trajectory
        interior_is_outside : bool
            Whether all frames but the first and the last one are known to lie outside of all states, as those of legs are.
        """
        key = (trajectory.__uuid__, len(trajectory))
        if key not in self._paths:
            states = [] if interior_is_outside else self.states
            frames = PathFrames(self.evaluate_descriptors(trajectory), selectable_frames(trajectory, states))
            self._check_finite(frames.descriptors, frames.selectable)
            self._paths[key] = frames
            while len(self._paths) > self.paths_remembered:
                self._paths.popitem(last=False)
        self._paths.move_to_end(key)
        return self._paths[key]

    def remembers(self, trajectory) -> bool:
        """Whether the frames of a path were evaluated already."""
        return (trajectory.__uuid__, len(trajectory)) in self._paths

    def _check_finite(self, descriptors: np.ndarray, wanted: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(descriptors).all(axis=1) & wanted)
        if len(bad):
            columns = np.flatnonzero(~np.isfinite(descriptors[bad]).all(axis=0))
            raise ValueError(
                f"{describe(self.descriptors)} is NaN or infinite in frames {bad[:10].tolist()} (columns "
                f"{columns[:10].tolist()}): look for a division by zero or an angle of collinear atoms there"
            )

    def _start(self, n_descriptors: int, model: CommittorModel | None) -> None:
        if model is None:
            model = CommittorModel.for_descriptors(n_descriptors, self.n_states, seed=self.seed, device=self.device)
        elif self.device is not None:
            model = model.copy().to(self.device)
        self._version = ModelVersion(0, model.frozen_copy())
        self._training_set = TrainingSet.empty(n_descriptors, self.n_states)
        self._frames = TransitionPathFrames(n_descriptors, seed=self.seed)

    def start_from(self, start: TransferredStart) -> None:
        """Begin with the model of another system; `ops_aimmd.transfer` makes one from a checkpoint or a learner.

        Raises
        ------
        RuntimeError
            If this learner has been trained, given a model, or is that of a run that has begun.
        """
        if self._reports or not self.training_options["start_anew"] or self.recorded:
            raise RuntimeError(
                "this learner has learned already, or was given a model to go on from: transfer to a new learner, before "
                "its run begins"
            )
        shots = [] if self._training_set is None else list(self._training_set)
        none_yet = TrainingSet.empty(start.model.n_descriptors, start.model.n_states)
        self._start(start.model.n_descriptors, start.recalibrated(none_yet).model)
        for shot in shots:
            self._training_set.append(shot)
        self._transferred_start = start

    def expect_result(self) -> None:
        """Note that a shooting point was picked. Warn, once, if the result of the shot will not be reported."""
        if self.results_are_reported or self._frozen or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            "a shooting point is picked, and the simulation has no TrainingHook: the learner learns nothing from this run, "
            f"and picks with model version {self.version.number}. Attach the hook before run(...), "
            "sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=...)). A run that was stored goes on with "
            "ops_aimmd.resume(FILE, checkpoint=CHECKPOINT), which attaches it. To sample with the model as it is, freeze "
            "the learner",
            stacklevel=2,
        )

    # ---- learning ---------------------------------------------------------------------------------------------------

    def add(self, result: ShootingResult) -> None:
        """Add a shooting result to the training set."""
        self.training_set.append(result)

    def count_path(self, trajectory) -> None:
        """Count the current path of an MC step in the density, if it is a transition path."""
        path = str(trajectory.__uuid__)
        if self._frames is not None and path in self._frames:
            self._frames.count(path)
            return
        ends = [state_index(trajectory[i], self.states) for i in (0, -1)]
        if min(ends) >= 0 and ends[0] != ends[1]:
            frames = self.path_frames(trajectory)
            self._frames.count(path, frames.descriptors[frames.selectable])

    @property
    def training_due(self) -> bool:
        """Whether the schedule asks for training now; never while frozen."""
        if self._frozen or self._training_set is None:
            return False
        return self._schedule.due(len(self._training_set), self._shots_at_last_fit)

    def fit(self) -> FitReport | None:
        """Train a copy of the model on everything seen so far and publish it as the next version.

        Where the model has nothing to train, as a formula without a network beside it, only the density of
        transition-path frames is new, and there is no report.

        Raises
        ------
        RuntimeError
            While frozen, or without a single shot.
        """
        if self._frozen:
            raise RuntimeError("the learner is frozen: call learner.unfreeze() before training")
        if self._training_set is None or len(self._training_set) == 0:
            raise RuntimeError("there are no shooting results to learn from yet: run some steps first")
        seed = None
        if self.seed is not None:
            seed = int(np.random.SeedSequence([self.seed, len(self.training_set)]).generate_state(1)[0])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks: more threads only cost time
        try:
            model, report = self._trained(seed)
        finally:
            torch.set_num_threads(threads)
        self._publish(model)
        self._shots_at_last_fit = len(self.training_set)
        if report is not None:
            self._reports.append(report)
        return report

    def _trained(self, seed: int | None) -> tuple[CommittorModel, FitReport | None]:
        if next(self.model.network.parameters(), None) is None:
            return self.model, None
        arguments = {"seed": seed, "previous": self.last_report, **self.training_options}
        if self._transferred_start is not None:
            del arguments["start_anew"]  # the held-out shots decide
            return fit_transferred(self._transferred_start, self.model, self.training_set, **arguments)
        model = self.model.copy().requires_grad_(True)
        return model, fit(model, self.training_set, **arguments)

    def _publish(self, model: CommittorModel) -> None:
        model = model.frozen_copy()
        self._version = ModelVersion(self.version.number + 1, model, self._density_under(model))

    def _density_under(self, model: CommittorModel) -> CommittorDensity | None:
        frames = self._frames
        if len(frames) == 0:
            return None
        weights = frames.weights
        frames_per_path = len(frames) / frames.n_paths
        return CommittorDensity.from_frames(
            model.log_committor(frames.descriptors), weights, uniform_weight=DENSITY_PRIOR_PATHS * frames_per_path
        )

    def freeze(self) -> None:
        """Start a production phase: model and density no longer change. Shots are still recorded.

        The density along the committor is that of the paths this learner has seen. One that was made from a training set
        alone has seen none, and picks worse shooting points: let it see some steps, and call `fit`, before.
        """
        self._frozen = True

    def unfreeze(self) -> None:
        """End a production phase."""
        self._frozen = False

    @property
    def frozen(self) -> bool:
        return self._frozen

    @contextmanager
    def as_it_was(self, version: ModelVersion, frozen: bool) -> Iterator[None]:
        """Within the block the learner has the version that a shooting point was picked with, to finish its step with.

        Nothing may be learned inside.
        """
        now = self._version, self._frozen
        self._version, self._frozen = version, frozen
        try:
            yield
        finally:
            self._version, self._frozen = now

    def restore(
        self,
        version: ModelVersion,
        shots: Iterable[ShootingResult],
        frames: TransitionPathFrames,
        shots_at_last_fit: int,
        frozen: bool,
        reports: Iterable[FitReport],
        transferred_start: TransferredStart | None,
        descriptor_names: list[str] | None,
    ) -> None:
        """Put back what a checkpoint holds."""
        self._transferred_start = transferred_start
        if self.descriptors is None:
            self._names = descriptor_names
        self._version = version
        self._training_set = TrainingSet.empty(version.model.n_descriptors, self.n_states)
        for shot in shots:
            self._training_set.append(shot)
        self._frames = frames
        self._shots_at_last_fit = shots_at_last_fit
        self._frozen = frozen
        self._reports = list(reports)
        self._paths.clear()
        self.recorded = {}

    # ---- OPS storage ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict:
        """Set-up only: what was learned goes to the checkpoint, since OPS writes an object once."""
        storable = self.descriptors is not None and is_storable(self.descriptors)
        return {
            "descriptors": self.descriptors if storable else None,
            "descriptors_name": None if self.descriptors is None else describe(self.descriptors),
            "states": list(self.states),
            "seed": None if self.seed is None else int(self.seed),
            "schedule": asdict(self._schedule),
            "fit_options": self.training_options,
            "device": self.device,
        }

    @classmethod
    def from_dict(cls, dct: dict) -> CommittorLearner:
        return cls(
            descriptors=dct["descriptors"],
            states=dct["states"],
            seed=dct["seed"],
            schedule=DiminishingSchedule(**dct["schedule"]),
            fit_options=dct["fit_options"],
            device=dct["device"],
        )


def check_learner(learner, what: str) -> None:
    """Raise a TypeError where something else was given for a learner, as where arguments were exchanged."""
    if not isinstance(learner, CommittorLearner):
        raise TypeError(f"{what} takes a CommittorLearner first, the one of the scheme; got {learner!r}")


def _check_descriptors(descriptors) -> None:
    parts = descriptors if isinstance(descriptors, Sequence) else [descriptors]
    if len(parts) == 0 or not all(callable(part) for part in parts):
        raise ValueError(
            "descriptors must be a CollectiveVariable, a list of them, or a function of a trajectory that returns an "
            f"array (n_frames, n_descriptors); got {descriptors!r}"
        )


def _warn_of_raw_angles(descriptors, states) -> None:
    angles = raw_angles(descriptors, states)
    if angles:
        warnings.warn(
            f"{', '.join(angles)}: periodic in a state, and given as it is. The model sees a jump where the angle passes "
            "the end of its period. Give its sine and cosine, for instance by ops_aimmd.DescriptorCV(name, "
            "ops_aimmd.descriptors.backbone_dihedrals(topology)), or by a function of the trajectory that returns both",
            stacklevel=3,
        )


def _check_states(states) -> None:
    if not isinstance(states, Sequence) or len(states) < 2 or not all(callable(state) for state in states):
        raise ValueError(f"states must be a list of at least two OPS volumes, [state_A, state_B, ...]; got {states!r}")
    for first in range(len(states)):
        for second in range(first + 1, len(states)):
            if states[first] is states[second] or states[first] == states[second]:
                raise ValueError(
                    f"states {first} and {second} are the same volume ({states[first]}); states must exclude each other, "
                    "and print as different strings, by which OPS tells volumes apart"
                )
