"""What was learned as plain arrays and documents of a checkpoint, and back; learners from checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ops_aimmd.checkpoint import Checkpoint, ShotColumns, StepLog
from ops_aimmd.committor.density import CommittorDensity, TransitionPathFrames
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.learned import Learned
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.committor.transferred_start import TransferredStart
from ops_aimmd.sampling.collective_variables import describe
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.version import __version__

DENSITY = "density"
TRANSFERRED = "transferred start"


class UnknownState:
    """Stands for a state that a checkpoint knows by name only."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, snapshot):
        raise RuntimeError(
            f"only the name of the state {self.name!r} is in the checkpoint: pass states=[...] to load_learner"
        )


def create_checkpoint(path: str | os.PathLike, learner: CommittorLearner, keep_models_every: int = 1) -> Checkpoint:
    """A new, empty checkpoint file for a run of this learner.

    Parameters
    ----------
    learner : CommittorLearner
        What it has learned until now is written with the first step.
    keep_models_every : int
        Model versions with a number divisible by this are kept, and the newest.

    Raises
    ------
    FileExistsError
        If there is a file at the path.
    """
    metadata = {
        "ops_aimmd": __version__,
        "descriptors": None if learner.descriptors is None else describe(learner.descriptors),
        "descriptor_names": learner.descriptor_names,
        "states": [state.name for state in learner.states],
        "seed": learner.seed,
        "schedule": asdict(learner.training_schedule),
        "fit_options": learner.training_options,
    }
    return Checkpoint.create(path, metadata, keep_every=keep_models_every)


def record_step(
    checkpoint: Checkpoint, learner: CommittorLearner, step: int, log: StepLog | None = None, state: dict | None = None
) -> None:
    """Write one finished step, and what the learner has learned since the last step of this checkpoint.

    That is new shots, a new model version if there is one, changes of the density, the rest. Several checkpoints can share
    a learner: what each of them lacks is told from its own content, and from `learner.simulations`.

    Parameters
    ----------
    log : StepLog, optional
        The step itself, to rebuild it from.
    state : dict, optional
        What else is to be kept of this moment.
    """
    if not learner.has_seen_paths:
        checkpoint.record_step(step, state=state, log=log)
        return
    learned, newest = learner.learned, checkpoint.last_model_version
    revision = learned.frames.revision
    of_learner = {
        "shots_at_last_fit": learned.shots_at_last_fit,
        "frozen": learned.frozen,
        "n_thinned": learned.frames.n_thinned,
    }
    checkpoint.record_step(
        step,
        shots=[learned.training_set[row] for row in range(checkpoint.n_shots, len(learned.training_set))],
        density_paths=learner.simulations.not_recorded(checkpoint.run_id, learned.frames),
        model_version=None if learned.version.number <= newest else _pack(learned.version, learned.last_report),
        state={"learner": of_learner, **(_pack_start(learned.start) if newest < 0 else {}), **(state or {})},
        log=log,
    )
    learner.simulations.note_recorded(checkpoint.run_id, revision)


def _pack_start(start: TransferredStart | None) -> dict:
    """The start as a document; it never changes, and is written with the first model version."""
    if start is None:
        return {}
    arrays = {**start.model.arrays(), "mean": start.mean, "std": start.std}
    return {TRANSFERRED: {"model": start.model.description(), "arrays": arrays}}


def load_learner(
    path: str | os.PathLike,
    descriptors=None,
    states: Sequence | None = None,
    network=None,
    device: str | None = None,
    seed: int | None = None,
    version: int | None = None,
) -> CommittorLearner:
    """The learner of a checkpoint: model, training set and density as they were after the last finished step.

    Parameters
    ----------
    path : path-like
        A checkpoint, also one that a running simulation is writing.
    descriptors : optional
        Needed only to evaluate trajectories; see `CommittorLearner`.
    states : sequence of openpathsampling.Volume, optional
        Needed only to go on sampling, in the order that they had.
    network : torch.nn.Module, optional
        Needed where the run used a network of a class that is not of this package.
    device : str, optional
    seed : int, optional
        Another seed, for a new run that begins with what was learned; that of the run by default.
    version : int, optional
        Model version to load instead of the newest, for instance the `model_version` of a step's details; the
        training set stays that of the whole run.

    Raises
    ------
    ValueError
        If states or descriptors have other names or another order than in the run, a custom network is missing, or the
        file is that of a committor simulation.
    KeyError
        If the model version is not in the file.
    ops_aimmd.checkpoint.CheckpointError, FileNotFoundError
        If the file cannot be read.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load_learner takes the path of a checkpoint first; got {path!r}")
    with Checkpoint.open(path, read_only=True) as checkpoint:
        metadata = checkpoint.metadata
        if "schedule" not in metadata:
            raise ValueError(
                f"{path} is the checkpoint of a {metadata.get('kind', 'simulation without a learner')}, in which there is "
                "no learner: give that of the path sampling run"
            )
        names = metadata["states"]
        if states is not None and [state.name for state in states] != names:
            raise ValueError(
                f"the run in {path} has the states {names}, in this order; {[state.name for state in states]} were given: "
                "counts and committors follow the order of the states (name a volume with .named(...))"
            )
        if descriptors is not None and describe(descriptors) != metadata["descriptors"]:
            raise ValueError(
                f"the run in {path} has learned from {metadata['descriptors']}; {describe(descriptors)} was given: the "
                "model needs the same descriptors in the same order, under their old names"
            )
        learner = CommittorLearner(
            descriptors,
            [UnknownState(name) for name in names] if states is None else list(states),
            seed=metadata["seed"] if seed is None else seed,
            schedule=DiminishingSchedule(**metadata["schedule"]),
            fit_options=metadata["fit_options"],
            device=device,
        )
        if "run" in checkpoint.state_keys():
            n_begun = checkpoint.state("run").get("n_simulations", 1)  # version 0.1.0 does not count
            learner.simulations.go_on_counting(n_begun)
        if checkpoint.model_versions():
            learner.publish(learned_in(checkpoint, network, learner.device, learner.seed, version))
            if descriptors is None:
                learner.descriptor_names = metadata.get("descriptor_names")
    return learner


def learned_in(checkpoint: Checkpoint, network=None, device=None, seed=None, version: int | None = None) -> Learned:
    """What had been learned after the last step of a checkpoint, with the newest model version or the one of a number.

    Parameters
    ----------
    checkpoint : Checkpoint
        With at least one model version.
    network, device, seed, version
        As for `load_learner`.
    """
    stored = _unpack(*checkpoint.model_version(version), network, device)
    n_descriptors, n_states = stored.model.n_descriptors, stored.model.n_states
    state = checkpoint.state("learner")
    return Learned(
        version=stored,
        training_set=_training_set(checkpoint.shots(), n_descriptors, n_states),
        frames=TransitionPathFrames.from_paths(checkpoint.density_paths(), n_descriptors, state["n_thinned"], seed=seed),
        reports=_reports(checkpoint),
        shots_at_last_fit=state["shots_at_last_fit"],
        frozen=state["frozen"],
        start=_unpack_start(checkpoint, device),
    )


def _unpack_start(checkpoint: Checkpoint, device: str | None) -> TransferredStart | None:
    if TRANSFERRED not in checkpoint.state_keys():
        return None
    stored = checkpoint.state(TRANSFERRED)
    arrays = dict(stored["arrays"])
    mean, std = arrays.pop("mean"), arrays.pop("std")
    model = _model(stored["model"], arrays, None, device)
    return TransferredStart(model.frozen_copy(), mean, std)


def _reports(checkpoint: Checkpoint) -> tuple[FitReport, ...]:
    stored = (checkpoint.model_version(number)[1]["report"] for number in checkpoint.model_versions())
    return tuple(
        FitReport(**{name: _as_tuple(value) for name, value in report.items()}) for report in stored if report is not None
    )


def model_version(checkpoint: Checkpoint, number: int, learner: CommittorLearner) -> ModelVersion:
    """A version of the model that a learner has had.

    Raises
    ------
    KeyError
        If it is not in the checkpoint.
    """
    if learner.version.number == number:
        return learner.version
    number, description, arrays = checkpoint.model_version(number)
    # the network of a class that is not of this package is the same in all versions
    network = learner.model.copy().network if description["model"]["network"]["kind"] == "custom" else None
    return _unpack(number, description, arrays, network, learner.device)


def _unpack(number: int, description: dict, arrays: dict[str, np.ndarray], network, device) -> ModelVersion:
    density_values = arrays.pop(DENSITY, None)
    density = None
    if density_values is not None:
        density = CommittorDensity(tuple((i, j) for i, j in description["density_pairs"]), density_values)
    model = _model(description["model"], arrays, network, device)
    return ModelVersion(number, model.frozen_copy(), density)


def _model(description: dict, arrays: dict[str, np.ndarray], network, device) -> CommittorModel:
    """A model from its description; networks are found by the name of their class, which must have been imported."""
    if description["network"]["kind"] == "FormulaNetwork":
        import ops_aimmd.explain.formulas.formula_model  # noqa: F401 - takes long to import, and is seldom needed
    return CommittorModel.from_description(description, arrays, network=network, device=device)


def _as_tuple(value):
    """Lists of JSON, and lists in them, as tuples."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _pack(version: ModelVersion, report: FitReport | None) -> tuple[int, dict, dict[str, np.ndarray]]:
    description = {
        "model": version.model.description(),
        "density_pairs": None,
        "report": None if report is None else asdict(report),
    }
    arrays = version.model.arrays()
    if version.density is not None:
        description["density_pairs"] = [[int(i), int(j)] for i, j in version.density.pairs]
        arrays[DENSITY] = np.array(version.density.values)
    return version.number, description, arrays


def _training_set(columns: ShotColumns, n_descriptors: int, n_states: int) -> TrainingSet:
    if len(columns.counts) == 0:
        return TrainingSet.empty(n_descriptors, n_states)
    names = ("descriptors", "counts", "weights", "steps", "chains", "velocity_origin", "predicted_committor", "auxiliary")
    return TrainingSet(**{name: getattr(columns, name) for name in names})
