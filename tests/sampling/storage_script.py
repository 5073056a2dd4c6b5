"""Writes a short run to a storage, or reads one in a process that knows nothing of the run, and prints what it found.

usage: storage_script.py write|read netcdf|simstore FILE
"""

import json
import os
import sys

import numpy as np
import openpathsampling as paths
from sampling_support import QUICK

import ops_aimmd
from ops_aimmd.analysis.series import StepRecorder, step_table
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems import toy

DETAILS = (
    "model_version frozen shooting_index predicted_committor leg_outcomes leg_lengths trial_reversed "
    "selection_probability_old selection_probability_new weight_sum_old weight_sum_new seed"
).split()

N_STEPS = 30
"""Enough for trials that are valid only in reverse, which SimStore files could once not give back."""


def open_storage(kind, file, mode):
    if kind == "netcdf":
        return paths.Storage(file, mode)
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    return Storage(file, mode)


def write(kind, file):
    system = toy.wolfe_quapp(n_steps_per_frame=60)  # a netCDF file takes milliseconds for each frame
    storage = open_storage(kind, file, "w")
    schedule = ops_aimmd.committor.DiminishingSchedule(every=2)
    learner = ops_aimmd.CommittorLearner(
        [system.descriptors], system.states, seed=np.int64(6), schedule=schedule, fit_options=QUICK
    )
    selector = ops_aimmd.CommittorSelector(learner, "gaussian", np.float64(1.5), np.bool_(True), pairs=[(0, 1)])
    network = system.network()
    scheme = ops_aimmd.CommittorShootingScheme(network, learner, system.engine, selector=selector, max_length=np.int64(80))
    seed_step(1, 0)
    conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(7))
    one_way = ops_aimmd.sampling.OneWayShooting(network.sampling_ensembles[0], selector, system.states, system.engine, 60)
    function = ops_aimmd.CommittorSelector(ops_aimmd.CommittorLearner(centre, system.states), weight=weight)
    storage.save([one_way.named("one-way"), function.named("function")])
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    sampler.save_frequency = 10  # SimStore takes half a second each time
    hook = ops_aimmd.TrainingHook(learner)
    sampler.attach_hook(hook)
    recorder = StepRecorder(system.states)
    sampler.attach_hook(recorder)
    sampler.run(N_STEPS)
    again = ops_aimmd.TrainingHook.from_dict(hook.to_dict())
    report = {
        "details": [details_of(step) for step in storage.steps if step.mccycle > 0],
        "table": recorder.table.to_dict("list"),
        "hook": again.learner is learner and again.checkpoint is None,
    }
    storage.close()
    return report


def centre(trajectory):
    return np.array([frame.coordinates[0] for frame in trajectory])


def weight(log_odds):
    return np.exp(-np.abs(log_odds))


def details_of(step):
    details = step.change.canonical.details
    return {name: plain(getattr(details, name)) for name in [*DETAILS, "stopping_reason"] if hasattr(details, name)}


def plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


def read(kind, file):
    storage = open_storage(kind, file, "r")
    simulation = storage.pathsimulators[0]
    (mover,) = simulation.move_scheme.movers["shooting"]
    selector = mover.selector
    learner = selector.learner
    if kind == "simstore":
        everything = (storage.simulation_objects, storage.simulation_objects)
    else:
        everything = (storage.pathmovers, storage.shootingpointselectors)
    one_way, function = (named(name, store) for name, store in zip(("one-way", "function"), everything, strict=True))
    states = list(mover.states)
    path = storage.steps[-1].active[0].trajectory
    forward, backward = one_way.movers
    uniform = ops_aimmd.CommittorShootingScheme(simulation.move_scheme.network)
    report = {
        "details": [details_of(step) for step in storage.steps if step.mccycle > 0],
        "table": step_table([step for step in storage.steps], states).to_dict("list"),
        "scheme": [type(simulation.move_scheme).__name__, simulation.move_scheme.learner.seed],
        "mover": [type(mover).__name__, mover.legs, mover.max_length, type(mover.modifier).__name__, mover.length_limit],
        "mover parts": [mover.engine.name, mover.ensemble is not None, [state.name for state in states]],
        "selector": [type(selector).__name__, selector.weight, selector.scale, selector.density_adaptation]
        + [[list(pair) for pair in selector.pairs]],
        "learner": [learner.seed, [s.name for s in learner.states], learner.training_schedule.every],
        "one-way": [[type(m).__name__, m.legs, m.max_length, m.selector.learner.seed] for m in (forward, backward)],
        "committor": learner.committor(path).shape == (len(path),),
        "picks": mover.selector.pick(path) > 0,
        "network alone": uniform.learner is None,
        "function": [function.weight, function.learner.descriptors],
    }
    try:
        function.learner.descriptors = learner.descriptors
        function.pick(path)
    except RuntimeError as error:
        report["function error"] = str(error)
    sampler = simulation
    sampler.restart_at_step(storage.steps[-1], storage=None)
    sampler.storage = None
    sampler.output_stream = open(os.devnull, "w")
    sampler.attach_hook(ops_aimmd.TrainingHook(sampler.move_scheme.learner))  # a ValueError if it is another learner
    sampler.run(3)
    report["goes on"] = [sampler.step, learner.training_set.steps.tolist()]
    return report


def named(name, store):
    return next(item for item in store if getattr(item, "name", None) == name)


if __name__ == "__main__":
    action, kind, file = sys.argv[1:]
    print("\n" + json.dumps({"write": write, "read": read}[action](kind, file)))
