"""Short runs that are resumed, and what they leave behind; as a script, the runs that need a process of their own.

usage: resume_support.py die FILE SAVE_FREQUENCY STEP       run, and die in this step before OPS stores it
       resume_support.py resume_alanine DIRECTORY
Prints JSON.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
from openpathsampling.beta.hooks import PathSimulatorHook
from openpathsampling.high_level.move_scheme import MoveAcceptanceAnalysis
from openpathsampling.visualize import PathTree, ReplicaEvolution

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("sampling", ".")]

from kill_script import new_storage  # noqa: E402
from netcdf_files import in_memory  # noqa: E402
from sampling_support import QUICK_WITH_FRAMES, QuickChain, seed_everything  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd import CommittorLearner, CommittorShootingScheme  # noqa: E402
from ops_aimmd.analysis.series import step_table  # noqa: E402
from ops_aimmd.checkpoint import Checkpoint  # noqa: E402
from ops_aimmd.storage.ops_files import open_storage  # noqa: E402
from ops_aimmd.systems import toy  # noqa: E402
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide  # noqa: E402

SILENCE = open(os.devnull, "w")

SUFFIX = os.environ.get("RESUME_TESTS_SUFFIX", "nc")
"""Kind of the OPS files. The tests in `WITH_SIMSTORE` run with netCDF, and again with SimStore in a process of their own,
since OPS cannot use both."""

HALF, WHOLE = 6, 12
"""Steps of the runs that are resumed and of those that went on."""

WITH_SIMSTORE = {"where it differs": [], "where it does not": []}
"""Tests, as pytest is told of them; the second kind only with the slow ones."""


def both_kinds(test, why="where it differs"):
    WITH_SIMSTORE[why].append(f"{test.__code__.co_filename}::{test.__name__}")
    return test


def both_kinds_alike(test):
    return both_kinds(test, "where it does not")


slow = pytest.mark.slow

netcdf_only = pytest.mark.skipif(SUFFIX != "nc", reason="one kind of file is enough, or only netCDF has it")


def simulation(file, learner, scheme, initial, save_frequency=1, **options):
    """A silent run that is ready to begin; its checkpoint stands beside the file."""
    with contextlib.redirect_stdout(SILENCE):
        conditions = scheme.initial_conditions_from_trajectories(initial)
        sampler = paths.PathSampling(new_storage(str(file)), scheme, conditions)
    sampler.output_stream = SILENCE
    sampler.save_frequency = save_frequency
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint_of(file), **options))
    return sampler


def begin(file, seed=7, shooting="two-way", chain=None, descriptors=None, model=None, weight="lorentzian", **options):
    """A run on the chain."""
    chain = QuickChain() if chain is None else chain
    seed_everything(0)
    descriptors = [chain.site] if descriptors is None else descriptors
    learner = ops_aimmd.CommittorLearner(descriptors, chain.states, model=model, seed=seed, fit_options=QUICK_WITH_FRAMES)
    selector = ops_aimmd.CommittorSelector(learner, weight)
    scheme = chain.scheme(learner, shooting=shooting, selector=selector)
    return simulation(file, learner, scheme, chain.initial(), **options)


def resume(file, **options):
    """Resume the run of a file."""
    sampler = ops_aimmd.resume(file, checkpoint_of(file), progress=False, **options)
    sampler.output_stream = SILENCE
    return sampler


def run_to(sampler, step):
    """Run to a step, and close the file."""
    sampler.run(step - sampler.step)
    sampler.storage.close()


def checkpoint_of(file):
    return file.with_suffix(".aimmd")


def copy_run(file, copy):
    """Copy the two files of a run that is closed."""
    shutil.copy(file, copy)
    shutil.copy(checkpoint_of(file), checkpoint_of(copy))
    return copy


def steps_in(file):
    """Of each step in a file: number, whether it was accepted, and coordinates of trial and active paths."""
    storage = in_memory(open_storage(file))
    found = []
    for step in storage.steps:
        change = step.change.canonical
        trials = [sample.trajectory.xyz for sample in change.trials]
        active = [sample.trajectory.xyz for sample in sorted(step.active, key=lambda sample: sample.replica)]
        found.append((step.mccycle, change.accepted, trials, active))
    storage.close()
    return found


def same_steps(one, other):
    """Whether :func:`steps_in` found the same in two files."""
    return [as_lists(step) for step in one] == [as_lists(step) for step in other]


def as_lists(step):
    number, accepted, trials, active = step
    return number, accepted, [path.tolist() for path in trials], [path.tolist() for path in active]


class At(PathSimulatorHook):
    """Does something once in each of some steps, between the checkpoint and OPS's file, or after both."""

    implemented_for = ["before_simulation", "after_step"]

    def __init__(self, steps, action, before_ops=True):
        super().__init__()
        self.steps = list(steps)
        self.action = action
        self.before_ops = before_ops

    def before_simulation(self, sim, **kwargs):
        if self.before_ops:  # behind the training hook, which has stepped to the front
            sim.hooks["after_step"].remove(self.after_step)
            sim.hooks["after_step"].insert(1, self.after_step)

    def after_step(self, sim, step_number, **kwargs):
        if step_number in self.steps:
            self.steps.remove(step_number)
            self.action()


def die(file, save_frequency, step):
    sampler = begin(file, save_frequency=save_frequency)
    sampler.attach_hook(At([step], lambda: os._exit(9)))
    sampler.run(step + 1)


# ---- what the tests do, and look at ---------------------------------------------------------------------------------


def stands_at(file):
    with Checkpoint.open(checkpoint_of(file), read_only=True) as checkpoint:
        return checkpoint.step


def numbers_in(file):
    """Numbers of the steps in a file. The last step is read whole."""
    with closing(open_storage(file)) as storage:
        assert all(len(sample.trajectory.xyz) for sample in storage.steps[-1].active)
        return [step.mccycle for step in storage.steps]


def steps_that_can_be_read(file):
    """Their number, 0 if a netCDF file was damaged by the death of its writer."""
    if file.suffix == ".db":
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute("SELECT count(*) FROM steps").fetchone()[0]
    try:
        with netCDF4.Dataset(file) as dataset:
            return len(dataset.dimensions["steps"])
    except OSError:
        return 0


def check_that_it_goes_on(file, whole, **options):
    """Resume, run to the end, and compare with the run that went on; whatever happened before, nothing is lost."""
    run_to(resume(file, **options), WHOLE)
    assert differences(contents(checkpoint_of(file)), whole) == []
    assert numbers_in(file) == list(range(WHOLE + 1))


def two_wells(file, shooting, seed=3, fit_options=QUICK_WITH_FRAMES, **options):
    system = toy.two_gaussian_wells(n_steps_per_frame=100)
    seed_everything(0)
    learner = CommittorLearner(system.descriptors, system.states, seed=seed, fit_options=fit_options)
    scheme = CommittorShootingScheme(system.network(), learner, system.engine, shooting, **options)
    return simulation(file, learner, scheme, system.initial_trajectory(1))


def check_same_run(one, other):
    """Two files hold the same steps, which are returned, and their checkpoints the same learning and paths."""
    assert differences(contents(checkpoint_of(one)), contents(checkpoint_of(other))) == []
    steps = steps_in(one)
    assert same_steps(steps, steps_in(other))
    return steps


def equal_paths(paths_of_one, paths_of_other):
    return [path.tolist() for path in paths_of_one] == [path.tolist() for path in paths_of_other]


def check_ops_analysis(sampler):
    """OPS's own analysis, and ours, see every step of the file."""
    steps = [sampler.storage.steps[index] for index in range(len(sampler.storage.steps))]
    numbers = [step.mccycle for step in steps]
    assert numbers == list(range(len(numbers)))
    scheme = sampler.move_scheme
    acceptance = MoveAcceptanceAnalysis(scheme)
    acceptance.add_steps(steps)
    assert sum(row.n_trials for row in acceptance.summary_data(None)) == len(steps) - 1
    scheme.move_summary(steps, output=SILENCE)
    tree = PathTree(steps, ReplicaEvolution(replica=steps[-1].active[0].replica))
    assert len(tree.generator) > 0
    shots = step_table(steps, [*scheme.network.all_states])
    assert set(shots["step"]) <= set(numbers[1:]) and len(shots) > 0
    return shots


class Breakdown(Exception):
    pass


def fail():
    raise Breakdown


def interrupt():
    raise KeyboardInterrupt


def leave(sampler):
    """What is left of a simulation when its process ends after an error."""
    sampler.storage.close()
    (hook,) = {h.__self__ for h in sampler.hooks["after_step"] if isinstance(h.__self__, ops_aimmd.TrainingHook)}
    hook.open_checkpoint.close()


def child(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def contents(checkpoint):
    """All that a run has left in its checkpoint, by name."""
    with Checkpoint.open(checkpoint, read_only=True) as file:
        shots = file.shots()
        found = {name: getattr(shots, name) for name in ("descriptors", "counts", "steps", "chains", "predicted_committor")}
        found |= {f"leg frames {name}": getattr(shots.auxiliary, name) for name in ("descriptors", "outcomes", "shot")}
        for number in file.model_versions():
            _, description, arrays = file.model_version(number)
            found |= {f"model {number} {name}": array for name, array in arrays.items()}
            report = {name: value for name, value in (description.pop("report") or {}).items() if name != "seconds"}
            found[f"model {number}"] = repr((description, report))  # losses may be NaN
        for number, path in enumerate(file.density_paths().values()):
            found[f"density {number}"], found[f"density frames {number}"] = path[:2], path.frames
        found["learner"] = file.state("learner")
        found["steps logged"] = file.logged_steps()
        for step in file.logged_steps():
            found[f"step {step}"] = what_happened(file.logged_step(step)["change"])
        active = file.logged_step(file.step)["active"]
        places = [file.path_frames(name) for _, name, _ in active]
        found["active"] = np.concatenate(
            [file.frame_block(block).arrays["coordinates"][row] for place in places for block, row, _ in place.tolist()]
        )
        return found


def what_happened(change):
    """Details of the shot in a logged step, but for identities and times."""
    while change["subchanges"]:
        change = change["subchanges"][0]
    plain = {name: value for name, value in (change["details"] or {}).items() if not isinstance(value, dict)}
    return change["class"], plain


def differences(one, other):
    names = [name for name in one.keys() | other.keys() if name not in one or name not in other]
    return names + [name for name in one.keys() & other.keys() if not same(one[name], other[name])]


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return one == other


# ---- alanine dipeptide ----------------------------------------------------------------------------------------------


def begin_alanine(directory):
    """A run that goes on, and its copy from before it accepts a path; whether it accepted the trial of each step."""
    system = alanine_dipeptide()
    seed_everything(0)
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=2, fit_options=QUICK_WITH_FRAMES)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine)
    initial = system.initial_trajectory(3)
    sampler = simulation(directory / "whole.nc", learner, scheme, initial, rejected_trials="ends")
    sampler.run(1)
    copy_run(directory / "whole.nc", directory / "run.nc")
    run_to(sampler, 4)
    return [accepted for _, accepted, *_ in steps_in(directory / "whole.nc")]


def resume_alanine(directory):
    report = {}
    file = copy_run(directory / "run.nc", directory / "elsewhere.nc")
    try:
        resume(file, platform="Abacus")
    except ValueError as error:
        report["no such platform"] = str(error)
    sampler = resume(file, platform="CPU")
    report["platform"] = platform_of(sampler)
    run_to(sampler, 2)
    sampler = resume(file)
    report["platform now"] = platform_of(sampler)
    sampler.storage.close()
    sampler = resume(directory / "run.nc")
    report["platform of the run"] = platform_of(sampler)
    run_to(sampler, 4)
    return report


def platform_of(sampler):
    (mover,) = sampler.move_scheme.movers["shooting"]
    return mover.engine.simulation.context.getPlatform().getName()


if __name__ == "__main__":
    warnings.simplefilter("always")
    action, path, *numbers = sys.argv[1:]
    actions = {"die": die, "resume_alanine": resume_alanine}
    print("\n" + json.dumps(actions[action](Path(path), *map(int, numbers))))
