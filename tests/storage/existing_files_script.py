"""Writes OPS files of many kinds, with what OPS itself knew when it wrote them; reads a file in a process of its own.

usage: existing_files_script.py write netcdf|simstore DIRECTORY
       existing_files_script.py alanine netcdf DIRECTORY
       existing_files_script.py read FILE
Prints JSON in its last line.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import openpathsampling as paths
from openmm import unit
from openpathsampling.analysis.shooting_point_analysis import ShootingPointAnalysis

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("sampling", ".")]

import netcdf_files  # noqa: E402, F401
from sampling_support import QuickChain, Steps, site_descriptors  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd.shooting.streams import seed_step  # noqa: E402
from ops_aimmd.systems import toy  # noqa: E402
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide  # noqa: E402

LEARNED = ("descriptors", "counts", "steps", "chains", "velocity_origin", "predicted_committor")


def two_wells():
    """Legs of some eight frames, with velocities that a shot can replace."""
    return toy.hummer_szabo(n_steps_per_frame=150)


def system_of(file):
    """Descriptors and states, made anew, of the system of a file."""
    if file.stem.startswith("alanine"):
        system = alanine_dipeptide()
    elif file.stem.startswith(("own", "committor")):
        system = two_wells()
    else:
        return site_descriptors, QuickChain().states
    return system.descriptors, system.states


class CountedByOPS(Steps):
    """What OPS's own analysis finds of each shot when it is made."""

    def __init__(self, descriptors, states):
        super().__init__()
        self.descriptors = descriptors
        self.states = states
        self.found = {"steps": [], "counts": [], "descriptors": [], "chains": []}

    def keep(self, sim, step_number, step_info, state, results, hook_state):
        analysis = ShootingPointAnalysis([results], self.states, error_if_no_state=False)
        for snapshot, counts in analysis.items():
            self.found["steps"].append(int(results.mccycle))
            self.found["counts"].append([int(counts[state]) for state in self.states])
            self.found["descriptors"].append(np.ravel(self.descriptors(paths.Trajectory([snapshot]))).tolist())
            self.found["chains"].append(int(results.change.canonical.trials[0].replica))


def learned(training_set):
    """A training set as lists."""
    auxiliary = training_set.auxiliary
    return {
        **{name: getattr(training_set, name).tolist() for name in LEARNED},
        "auxiliary": [auxiliary.descriptors.tolist(), auxiliary.outcomes.tolist(), auxiliary.is_end.tolist()],
        "auxiliary shot": auxiliary.shot.tolist(),
    }


def run(storage, scheme, initial, n_steps, hook):
    sampler = paths.PathSampling(storage, scheme, scheme.initial_conditions_from_trajectories(initial))
    sampler.output_stream = open(os.devnull, "w")
    sampler.save_frequency = 10  # SimStore takes half a second each time
    sampler.attach_hook(hook)
    sampler.run(n_steps)


def counted_run(storage, scheme, initial, n_steps, descriptors, states):
    hook = CountedByOPS(descriptors, states)
    run(storage, scheme, initial, n_steps, hook)
    return hook.found


def two_way_scheme(network, modifier, engine):
    scheme = paths.MoveScheme(network)
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, engine=engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    return scheme


def one_way(storage):
    chain = QuickChain()
    scheme = paths.OneWayShootingMoveScheme(chain.network(), engine=chain.engine)
    return counted_run(storage, scheme, chain.initial(), 40, site_descriptors, chain.states)


def two_way(storage):
    """Two simulations in one file."""
    chain = QuickChain()
    scheme = two_way_scheme(chain.network(), paths.NoModification(as_copy=True), chain.engine)
    first = counted_run(storage, scheme, chain.initial(), 20, site_descriptors, chain.states)
    second = counted_run(storage, scheme, chain.path([0, 1, 2, 1, 2, 3, 4, 5, 6]), 10, site_descriptors, chain.states)
    return {name: first[name] + second[name] for name in first}


def tis(storage):
    """Beside replica exchange, path reversal and minus moves."""
    chain = QuickChain()
    interfaces = paths.VolumeInterfaceSet(chain.site, -0.5, [0.5, 1.5, 2.5])
    network = paths.MISTISNetwork([(*chain.states[:1], interfaces, chain.states[1])])
    scheme = paths.DefaultScheme(network, engine=chain.engine)
    initial = [chain.initial(), chain.path([0, 1, 0, 1, 0])]
    return counted_run(storage, scheme, initial, 60, site_descriptors, chain.states)


class FirstLegsOfSteps(CountedByOPS):
    """In interface ensembles only the first leg of a two-way shot is a fair trial."""

    def keep(self, sim, step_number, step_info, state, results, hook_state):
        super().keep(sim, step_number, step_info, state, results, hook_state)
        change = results.change.canonical
        trial = change.trials[0].trajectory
        end = trial[-1] if isinstance(change.mover, paths.ForwardFirstTwoWayShootingMover) else trial[0]
        self.found["counts"][-1] = [int(volume(end)) for volume in self.states]


def tis_two_way(storage):
    """Two-way shots in the interface ensembles."""
    chain = QuickChain()
    paths.InterfaceSet._reset()  # OPS takes collective variables of one name, in one process, for the same
    interfaces = paths.VolumeInterfaceSet(chain.site, -0.5, [0.5, 1.5])
    network = paths.MISTISNetwork([(chain.states[0], interfaces, chain.states[1])])
    scheme = two_way_scheme(network, paths.NoModification(as_copy=True), chain.engine)
    hook = FirstLegsOfSteps(site_descriptors, chain.states)
    run(storage, scheme, chain.initial(), 24, hook)
    return hook.found


def committor(storage):
    system = two_wells()
    path = system.initial_trajectory(1)
    points = [path[len(path) * i // 4] for i in (1, 2, 3)]
    randomizer = paths.RandomVelocities(beta=1.0)
    simulation = paths.CommittorSimulation(storage, system.engine, system.states, randomizer, points)
    simulation.output_stream = open(os.devnull, "w")
    simulation.save_frequency = 10
    hook = CountedByOPS(system.descriptors, system.states)
    simulation.attach_hook(hook)
    simulation.run(6)
    return hook.found


def own(storage, checkpoint=None, shooting="two-way", **options):
    system = two_wells()
    schedule = ops_aimmd.committor.DiminishingSchedule(every=4)
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1, schedule=schedule, fit_options=FIT)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine, shooting=shooting)
    run(storage, scheme, system.initial_trajectory(1), 20, ops_aimmd.TrainingHook(learner, checkpoint, **options))
    return learned(learner.training_set)


def alanine(storage):
    """As a user of OPS alone would have made it: one-way and two-way shooting with OPS's moves."""
    system = alanine_dipeptide()
    network = system.network()
    randomizer = paths.RandomVelocities(1.0 / (300.0 * unit.kelvin * unit.BOLTZMANN_CONSTANT_kB), system.engine)
    initial = system.initial_trajectory(seed=4)  # found in a second
    scheme = paths.OneWayShootingMoveScheme(network, engine=system.engine)
    first = counted_run(storage, scheme, initial, 14, system.descriptors, system.states)
    scheme = two_way_scheme(network, randomizer, system.engine)
    second = counted_run(storage, scheme, initial, 4, system.descriptors, system.states)
    return {name: first[name] + second[name] for name in first}


FIT = {"max_epochs": 40, "relevance": None}
"""Training that takes a tenth of a second, after which predictions differ from frame to frame."""

WRITERS = {
    "one-way": one_way,
    "two-way": two_way,
    "tis": tis,
    "tis-two-way": tis_two_way,
    "committor": committor,
    "own": own,
}

OPTIONS = {
    "own": {"checkpoint": "own.aimmd"},
    "own-one-way": {"shooting": "one-way"},
    "own-ends": {"rejected_trials": "ends"},
    "own-stride": {"checkpoint": "own-stride.aimmd", "path_stride": 3},
}
"""Runs with this package's moves, in netCDF only."""


def write(kind, directory):
    """All files of one kind, each with a report."""
    reports = {}
    for name in ("one-way", "two-way", "tis", "committor", "own") if kind == "simstore" else {**WRITERS, **OPTIONS}:
        seed_step(1, 0)
        storage = open_storage(kind, directory / name)
        if kind == "netcdf" and name in OPTIONS:
            options = dict(OPTIONS[name])
            if "checkpoint" in options:
                options["checkpoint"] = directory / options["checkpoint"]
            reports[name] = own(storage, **options)
        else:
            reports[name] = WRITERS[name](storage)
        storage.close()
    return reports


def write_alanine(kind, directory):
    seed_step(1, 0)
    storage = open_storage(kind, directory / "alanine")
    report = alanine(storage)
    storage.close()
    return report


def open_storage(kind, file):
    if kind == "netcdf":
        return paths.Storage(f"{file}.nc", "w")
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    return Storage(f"{file}.db", "w")


def read(file):
    """What is learned from a file in this process."""
    return learned(ops_aimmd.TrainingSet.from_storage(file, *system_of(file), progress=False))


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    if action == "read":
        report = {name: read(Path(name)) for name in arguments}
    else:
        report = {"write": write, "alanine": write_alanine}[action](arguments[0], Path(arguments[1]))
    print("\n" + json.dumps(report))
