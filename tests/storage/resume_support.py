"""Short runs that are resumed, and what they leave behind; as a script, the runs that need a process of their own.

usage: resume_support.py die FILE SAVE_FREQUENCY STEP       run, and die in this step before OPS stores it
       resume_support.py resume_alanine DIRECTORY
Prints JSON.
"""

import contextlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import openpathsampling as paths
from openpathsampling.beta.hooks import PathSimulatorHook

sys.path.insert(0, str(Path(__file__).parents[1] / "sampling"))

from kill_script import new_storage  # noqa: E402
from netcdf_files import in_memory  # noqa: E402
from sampling_support import QUICK_WITH_FRAMES, QuickChain, seed_everything  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd.storage.ops_files import open_storage  # noqa: E402
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide  # noqa: E402

SILENCE = open(os.devnull, "w")


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
