"""What was learned from shots, as an immutable value: training gives the next one. It needs no path sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ops_aimmd.committor.density import CommittorDensity, TransitionPathFrames
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import check_model, fit
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.committor.transferred_start import TransferredStart, fit_transferred

DENSITY_PRIOR_PATHS = 5.0
"""Weight, in paths, of the uniform density that is mixed into the density of transition-path frames."""


@dataclass(frozen=True)
class Learned:
    """A model version, and the data and trainings behind it.

    Nothing of it changes once it is published, with one exception: the training set and the frames are shared by all
    versions of a run, and grow.

    Attributes
    ----------
    version : ModelVersion
    training_set : TrainingSet
        Every shot so far in which a leg reached a state.
    frames : TransitionPathFrames
        Frames of the sampled transition paths, from which the density is made.
    reports : tuple of FitReport
        Reports of all trainings, oldest first.
    shots_at_last_fit : int
        Shots in the training set when the model was trained last; 0 before that.
    frozen : bool
        Whether model and density stay as they are; shots are still recorded.
    start : TransferredStart or None
        The model of another system that the training began with.
    """

    version: ModelVersion
    training_set: TrainingSet
    frames: TransitionPathFrames
    reports: tuple[FitReport, ...] = ()
    shots_at_last_fit: int = 0
    frozen: bool = False
    start: TransferredStart | None = None

    @classmethod
    def begin(
        cls,
        training_set: TrainingSet,
        model: CommittorModel | None = None,
        seed: int | None = None,
        device: str | None = None,
    ) -> Learned:
        """Version 0, before any training.

        Parameters
        ----------
        training_set : TrainingSet
            The shots so far, perhaps none; it is not copied.
        model : CommittorModel, optional
            Is copied. A default model, if left out.
        seed : int, optional
            Fixes the weights of the default model, and which frames of paths are dropped when they become too many.
        device : str, optional
            Where the model lives.

        Raises
        ------
        ValueError
            If the model is for other numbers of descriptors or states than the training set.
        """
        if model is None:
            model = CommittorModel.for_descriptors(training_set.n_descriptors, training_set.n_states, seed=seed)
        check_model(model, training_set)
        version = ModelVersion(0, model.frozen_copy().to(device=device))
        return cls(version, training_set, TransitionPathFrames(training_set.n_descriptors, seed=seed))

    @property
    def model(self) -> CommittorModel:
        """The model, a torch module on descriptor arrays; never trained in place."""
        return self.version.model

    @property
    def last_report(self) -> FitReport | None:
        """Report of the last training; None before it."""
        return self.reports[-1] if self.reports else None

    def due(self, schedule: DiminishingSchedule) -> bool:
        """Whether a schedule asks for training now; never while frozen."""
        return not self.frozen and schedule.due(len(self.training_set), self.shots_at_last_fit)

    def fit(self, seed: int | None = None, **options) -> Learned:
        """Train a copy of the model on all shots, and publish it with the density under it as the next version.

        Where the model has nothing to train, as a formula without a network beside it, only the density is new, and there
        is no report.

        Parameters
        ----------
        seed : int, optional
            Fixes the training, together with the number of shots.
        options
            Keyword arguments of `ops_aimmd.fit`.

        Raises
        ------
        RuntimeError
            While frozen, or without a single shot.
        """
        if self.frozen:
            raise RuntimeError("the model is frozen: learner.unfreeze() lets it be trained again")
        n_shots = len(self.training_set)
        if n_shots == 0:
            raise RuntimeError("there are no shooting results to learn from yet: run some steps first")
        if seed is not None:
            seed = int(np.random.SeedSequence([seed, n_shots]).generate_state(1)[0])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks: more threads only cost time
        try:
            model, reports = self._trained({"seed": seed, "previous": self.last_report, **options})
        finally:
            torch.set_num_threads(threads)
        model = model.frozen_copy()
        version = ModelVersion(self.version.number + 1, model, self._density_under(model))
        return replace(self, version=version, reports=(*self.reports, *reports), shots_at_last_fit=n_shots)

    def _trained(self, arguments: dict) -> tuple[CommittorModel, list[FitReport]]:
        if next(self.model.network.parameters(), None) is None:
            return self.model, []
        if self.start is not None:
            arguments.pop("start_anew", None)  # the held-out shots decide
            model, report = fit_transferred(self.start, self.model, self.training_set, **arguments)
        else:
            model = self.model.copy().requires_grad_(True)
            report = fit(model, self.training_set, **arguments)
        return model, [report]

    def _density_under(self, model: CommittorModel) -> CommittorDensity | None:
        if len(self.frames) == 0:
            return None
        uniform_weight = DENSITY_PRIOR_PATHS * (len(self.frames) / self.frames.n_paths)
        log_committor = model.log_committor(self.frames.descriptors)
        return CommittorDensity.from_frames(log_committor, self.frames.weights, uniform_weight=uniform_weight)
