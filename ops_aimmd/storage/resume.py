"""Resume a run from its checkpoint and its OPS file, whatever state the file is in.

The checkpoint is never behind OPS's file, because every step is written to it first, and it survives a kill at any
moment. So it decides where the run stands and from which paths it goes on, in full precision. OPS's file is brought up
to it: steps that it lacks are written from the log of the checkpoint, a half-written end is taken off (SimStore), and a
file that cannot be read is put aside and made again from the copy of its beginning and the log.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import openpathsampling as paths
from openpathsampling.pathmover import EngineMover
from tqdm.auto import tqdm

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner
from ops_aimmd.sampling.shared_learner import movers_under, selectors_of, share_learner
from ops_aimmd.storage.block_writer import written_in_blocks
from ops_aimmd.storage.logged_steps import StepLogReader, logged_ends, step_ends
from ops_aimmd.storage.ops_files import (
    current_samples,
    file_of,
    find_simulation,
    find_step,
    last_steps,
    save_step,
    step_numbers,
)
from ops_aimmd.storage.reopening import ResumeWarning, reopen
from ops_aimmd.storage.run_files import restore_generators
from ops_aimmd.storage.training_hook import TrainingHook

SYNC_EVERY = 20
"""Steps between two syncs while steps are written from the log."""


def resume(
    storage: str | os.PathLike,
    checkpoint: str | os.PathLike,
    descriptors=None,
    states=None,
    network=None,
    weight: Callable | None = None,
    platform: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> paths.PathSampling:
    """Go on with a run that ended or died: ``resume("run.nc", checkpoint="run.aimmd").run(1000)``.

    Step numbers, training set, model, density, schedule and seeds go on as if nothing had happened; where the engine
    allows it, so do the paths, to the bit. The learner is ``sampler.move_scheme.learner`` (or that of your selectors).

    Parameters
    ----------
    storage : path-like
        The OPS file of the run, netCDF or SimStore. It may lack steps, hold steps that the checkpoint lacks, be damaged or
        gone.
    checkpoint : path-like
        Its checkpoint.
    descriptors : optional
        Needed where the run's were a function: OPS stores collective variables, of a function only the name.
    states : sequence of openpathsampling.Volume, optional
        Needed only where OPS's file cannot hold the run's; in their order.
    network : torch.nn.Module, optional
        Needed where the model's network is of a class that is not of this package.
    weight : callable, optional
        Needed where the selector's weight was a function.
    platform : str, optional
        Platform of all engines; the one that the run had by default.
    device : str, optional
        Where the model lives.
    progress : bool
        Show a progress bar while steps are written to OPS's file.

    Returns
    -------
    openpathsampling.PathSampling
        With its hooks attached (a progress bar is not): call ``run(n_steps)``.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint, or no OPS file and no copy of its beginning.
    ValueError
        If the two files are of different runs, something is no name of a file, or something must be given again; the
        message says what.
    FileUnavailableError
        If one of the two files cannot be opened now: the run is still going on, somebody else has the OPS file open or
        locked, it is write-protected, its file system has no locks, or this process has too many open files or too little
        memory. No file is changed.
    ops_aimmd.checkpoint.CheckpointError
        If the checkpoint is damaged.
    RuntimeError
        If this process has used an OPS file of the other kind.
    """
    for name, file in (("storage", storage), ("checkpoint", checkpoint)):
        if not isinstance(file, (str, os.PathLike)):
            raise ValueError(f"{name} must be the name of a file; got {file!r}")
    path = Path(os.path.abspath(storage))
    with ExitStack() as on_failure:
        with Checkpoint.open(checkpoint) as file:
            run = _description(file, checkpoint)
            ops_storage = reopen(path, file, run)
            on_failure.callback(ops_storage.close)  # to open it again for the next attempt would crash HDF5
            sim = find_simulation(ops_storage, run["simulation"])
            sim.storage = ops_storage
            learner = _learner(sim, file.run_id, checkpoint, descriptors, states, network, device)
            _bind(sim, learner, weight)
            _initialise_engines(sim, run["platforms"], platform)
            sim.save_frequency = run["save_frequency"]
            hook = TrainingHook(learner, checkpoint, **run["hook"])
            _bring_up(sim, file, hook, progress)
            generators = file.state("generators") if "generators" in file.state_keys() else None
        sim.attach_hook(hook)
        _adopt(sim, checkpoint, hook, progress)
        on_failure.pop_all()
    if generators is not None and learner.seed is None:
        restore_generators(generators)
    return sim


def _description(file: Checkpoint, path) -> dict:
    if file.step < 0:
        raise ValueError(f"the run of {path} died before its first step, and nothing is in it: delete it and start again")
    if "run" not in file.state_keys():
        raise ValueError(
            f"{path} holds what was learned and not the simulation, so it cannot be resumed: give its learner, "
            "ops_aimmd.load_learner(...), to a new simulation"
        )
    run = file.state("run")
    if run["ops_file"] is None:
        raise ValueError(
            f"the run of {path} had no OPS file, which alone can hold engine and move scheme: make them again with the "
            "learner of ops_aimmd.load_learner(...), and start from "
            "ops_aimmd.runs.current_paths(checkpoint, engine)"
        )
    return run


# ---- the objects of the simulation ----------------------------------------------------------------------------------


def _movers(sim) -> list:
    return movers_under([sim.root_mover])


def _learner(sim, run_id: str, checkpoint, descriptors, states, network, device) -> CommittorLearner:
    """The learner of the checkpoint, with what OPS's file knows of descriptors and states."""
    stored = [selector.learner for selector in selectors_of(_movers(sim))]
    stored.append(getattr(sim.move_scheme, "learner", None))
    known = next((learner for learner in stored if learner is not None), None)
    if states is None and known is not None:
        states = known.states
    if descriptors is None and known is not None:
        descriptors = known.descriptors
    if states is None or any(state is None for state in states):
        raise ValueError("OPS's file does not hold the states of the learner: give them again, resume(..., states=[A, B])")
    learner = load_learner(checkpoint, descriptors, list(states), network=network, device=device)
    if descriptors is None:
        with Checkpoint.open(checkpoint, read_only=True) as file:
            name = file.metadata["descriptors"]
        raise ValueError(
            f"the run has learned from the {name}; OPS's file holds only its name: give it again, "
            "resume(..., descriptors=...)"
        )
    if learner.has_seen_paths:
        learner.simulations.note_recorded(run_id, learner.transition_path_frames.revision)
    return learner


def _bind(sim, learner: CommittorLearner, weight: Callable | None) -> None:
    """Make all selectors and movers share one learner: netCDF files give back several."""
    share_learner(_movers(sim), learner)
    for selector in selectors_of(_movers(sim)):
        if selector.weight.startswith("function "):
            if weight is None:
                raise ValueError(
                    f"a selector of the run has the weight {selector.weight!r}; OPS's file holds only its name: "
                    "give it again, resume(..., weight=...)"
                )
            selector.use_weight(weight)
    if isinstance(getattr(sim.move_scheme, "learner", None), CommittorLearner):
        sim.move_scheme.learner = learner


def _initialise_engines(sim, platforms: dict, platform: str | None) -> None:
    engines = {id(m.engine): m.engine for m in _movers(sim) if isinstance(m, EngineMover)}
    for engine in engines.values():
        adapter_of(engine).initialise(platforms.get(str(engine.__uuid__)) if platform is None else platform)


# ---- bringing the two files together --------------------------------------------------------------------------------


def _bring_up(sim, file: Checkpoint, hook: TrainingHook, progress: bool) -> None:
    """Write to OPS's file the steps that only the checkpoint has, and set the simulation to the last one."""
    storage = sim.storage
    stored = step_numbers(storage, str(sim.__uuid__))
    logged = file.logged_steps()
    reader = _reader(sim, file)
    _check_that_they_agree(sim, stored, file)
    hook.continue_run(sim, file.state("run"), file.run_id)
    previous: Iterable[paths.Sample] = ()
    if stored and stored[-1] in logged:
        previous = reader.current(stored[-1])
        hook.recognise_stored(previous, current_samples(storage, str(sim.__uuid__)))
    elif stored:
        previous = current_samples(storage, str(sim.__uuid__))
        hook.recognise_stored(previous, previous)
    missing = [number for number in logged if not stored or number > stored[-1]]
    name = file_of(storage).name
    _warn_of_lost_steps(name, stored, missing, file.step, hook)
    bar = tqdm(missing, desc=f"writing steps to {name}", unit="step", disable=not progress or len(missing) < SYNC_EVERY)
    with written_in_blocks(storage, hook.write_in_blocks):
        for count, step in enumerate(reader.steps(bar, previous), start=1):
            hook.prepare_for_storage(step)
            save_step(storage, step)
            if count % SYNC_EVERY == 0:
                storage.sync_all()
    storage.sync_all()
    if logged and (not stored or file.step >= stored[-1]):
        # of the paths that were written OPS has replaced frames with placeholders for those in its file
        sim.sample_set = _reader(sim, file).current(logged[-1])
        hook.keep_current_paths(sim)
    else:  # snapshots of a kind that is not kept in the checkpoint, or steps that only OPS's file has
        _check_that_paths_are_whole(sim, file, hook)
        sim.sample_set = current_samples(storage, str(sim.__uuid__))
    sim.step = max([file.step, *stored[-1:]])


def _check_that_paths_are_whole(sim, file: Checkpoint, hook: TrainingHook) -> None:
    if hook.path_stride > 1:
        raise ValueError(
            f"{file_of(sim.storage)} is ahead of the checkpoint, which stands at step {file.step}, and holds only every "
            f"{hook.path_stride}-th frame of its last path, from which the run cannot go on: give the newest checkpoint, "
            "or move the OPS file away, and a new one is made from this checkpoint"
        )


def _warn_of_lost_steps(name: str, stored: list[int], missing: list[int], last: int, hook: TrainingHook) -> None:
    """Where the checkpoint keeps no paths, or not for ever, steps can be in neither file."""
    first_lost = stored[-1] + 1 if stored else 0
    last_lost = missing[0] - 1 if missing else last
    if last_lost < first_lost or (missing and hook.keep_paths):
        return
    here = "" if missing else f"; the run goes on from those of step {first_lost - 1}"
    warnings.warn(
        f"the paths of steps {first_lost} to {last_lost} are lost: they are not in {name}, and the checkpoint has not kept "
        f"them{here}. Nothing that was learned is lost",
        ResumeWarning,
        stacklevel=4,
    )


def _check_that_they_agree(sim, stored: list[int], file: Checkpoint) -> None:
    """Steps must follow each other, and the last one that both have must be the same: its trials, and the paths it left."""
    for early, late in itertools.pairwise(stored):
        if early < late:
            continue
        raise ValueError(
            f"{file_of(sim.storage)} holds two histories of the run: step {early} is followed by step {late}, as after "
            f"restart_at_step. The checkpoint {file.path} stands at step {file.step}. Move the OPS file "
            "away: a new one, with one history, is made from the checkpoint"
        )
    number = max({*stored} & {*file.logged_steps()}, default=None)
    if number is None:
        return
    paths_stored, trials_stored = step_ends(find_step(sim.storage, str(sim.__uuid__), number))
    paths_logged, trials_logged = logged_ends(file, number)
    if paths_stored != paths_logged or trials_logged not in (set(), trials_stored):  # of its first step a run logs no trial
        raise ValueError(
            f"{file_of(sim.storage)} and {file.path} are of the same run and disagree on step {number}: one was resumed "
            "without the other, or is an older copy. Give the OPS file that belongs to this checkpoint; if there is none, "
            "move this one away, and a new one is made from the checkpoint"
        )


def _adopt(sim, file_path, hook: TrainingHook, progress: bool) -> None:
    """Learn from the steps that OPS's file has and the checkpoint lacks."""
    with Checkpoint.open(file_path, read_only=True) as file:
        last = file.step
    numbers = step_numbers(sim.storage, str(sim.__uuid__))
    new = sum(number > last for number in numbers)
    if not new:
        return
    warnings.warn(
        f"{file_of(sim.storage)} has {new} steps more than the checkpoint, which stands at step {last}: they are learned "
        "from now, in the single precision of OPS's file",
        ResumeWarning,
        stacklevel=3,
    )
    hook.learn_from_stored(sim, last_steps(sim.storage, str(sim.__uuid__), new))


def _reader(sim, file: Checkpoint) -> StepLogReader:
    movers = _movers(sim)
    engines = [m.engine for m in movers if isinstance(m, EngineMover) and m.engine is not None]
    ensembles = [ensemble for m in movers for ensemble in [*m.input_ensembles, *m.output_ensembles]]
    ensembles += [sample.ensemble for sample in sim.root]
    return StepLogReader(
        file,
        sim,
        engines={str(engine.__uuid__): engine for engine in [*sim.storage.engines, *engines]},
        ensembles={str(ensemble.__uuid__): ensemble for ensemble in ensembles},
        movers={str(mover.__uuid__): mover for mover in movers},
    )
