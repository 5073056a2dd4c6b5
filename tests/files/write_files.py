"""Write small files of every kind with the installed version, for later versions to open, analyse, resume and extend.

usage: write_files.py DIRECTORY

Run it once, when a version is dated, and commit what it writes under ``tests/files/VERSION``. OPS files are compressed
(``.nc.xz``, ``.db.xz``): a new netCDF file of OPS has 25 to 100 MB, nearly all of them zeros. ``expected.json`` says
what that version itself made of its files: the numbers in them, and the steps with which it went on.
"""

import contextlib
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.shooting.executors.choose import InThisProcess
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

STEPS = {"two_way.nc": 18, "one_way.db": 12, "alanine.nc": 4}
"""Steps of each run of one chain."""

STEPS_MORE = 3
"""Steps with which each run goes on."""

N_CHAINS = 3
POINTS = 5
"""Rows of the training set whose committor is written down."""


def open_new(file):
    if file.suffix == ".nc":
        return paths.Storage(str(file), "w")
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    return Storage(str(file), "w")


def quiet(sampler):
    sampler.output_stream = open(os.devnull, "w")
    return sampler


def toy_parts(seed):
    """Wolfe-Quapp's surface with short paths: a learner that trains at shots 4 and 8, and not again before shot 20."""
    system = toy.wolfe_quapp(dynamics="langevin")
    schedule = ops_aimmd.committor.DiminishingSchedule(every=4, until=8, growth=1.5)
    learner = ops_aimmd.CommittorLearner([system.descriptors], system.states, seed=seed, schedule=schedule)
    seed_step(seed, 0)
    return system, learner


def begun(file, scheme, learner, initial, **options):
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        conditions = scheme.initial_conditions_from_trajectories(initial)
    sampler = quiet(paths.PathSampling(open_new(file), scheme, conditions))
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, file.with_suffix(".aimmd"), **options))
    return sampler


def two_way(file):
    """Two-way shooting, with exchange of shooting points."""
    system, learner = toy_parts(1)
    scheme = ops_aimmd.CommittorShootingScheme(
        system.network(), learner, system.engine, exchange_temperatures=[2.0], max_length=2000
    )
    return begun(file, scheme, learner, system.initial_trajectory(1))


def one_way(file):
    """One-way shooting in a SimStore file."""
    system, learner = toy_parts(2)
    scheme = ops_aimmd.CommittorShootingScheme(
        system.network(), learner, system.engine, shooting="one-way", max_length=2000
    )
    return begun(file, scheme, learner, system.initial_trajectory(1), rejected_trials="ends")


def alanine(file):
    """OpenMM snapshots and descriptors of this package."""
    system = alanine_dipeptide()
    seed_step(3, 0)
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=3)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine)
    return begun(file, scheme, learner, system.initial_trajectory(3), rejected_trials="ends")


class DiesAt(InThisProcess):
    """The process dies when results are asked for the n-th time, with shots under way."""

    n = 8

    def results(self, timeout=None):
        self.n -= 1
        if self.n == 0:
            os._exit(9)
        return super().results(timeout)


def many_chains(file):
    """Many chains, killed while shots were under way."""
    system, learner = toy_parts(4)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine, max_length=2000)
    initial = [system.initial_trajectory(seed) for seed in range(1, N_CHAINS + 1)]
    sampler = ops_aimmd.ParallelPathSampling(
        open_new(file), scheme, initial, executor=DiesAt(), checkpoint=file.with_suffix(".aimmd")
    )
    sampler.show_progress = False
    sampler.run(10)


def committor(file):
    """A committor simulation with the learner of the run beside it, finished."""
    return extended_committor(file, n_shots=3)


def extended_committor(file, n_shots=5):
    system = toy.wolfe_quapp(dynamics="langevin")
    learner = ops_aimmd.load_learner(file.with_name("two_way.aimmd"), [system.descriptors], system.states)
    frames = system.initial_trajectory(1)
    snapshots = [frames[index] for index in np.linspace(1, len(frames) - 2, 4).astype(int)]
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        return ops_aimmd.committor_simulation(
            snapshots, learner, system.engine, n_shots=n_shots, checkpoint=file, seed=5, progress=False
        )


RUNS = {"two_way.nc": two_way, "one_way.db": one_way, "alanine.nc": alanine}


# ---- runs that depend on random numbers alone ------------------------------------------------------------------------


def uniform_runs(names=("toy, one-way", "toy, two-way", "alanine, two-way", "toy, TIS")):
    """Steps of short runs with uniform selection, which depend on the random numbers of a step and not on the model."""
    wells, surface = toy.two_gaussian_wells(), toy.wolfe_quapp()
    found = {}
    for name in names:
        if name == "toy, one-way":
            steps = uniform_run(wells, wells.network(), wells.initial_trajectory(1), 12, shooting="one-way")
        elif name == "toy, two-way":
            steps = uniform_run(surface, surface.network(), surface.initial_trajectory(1), 8)
        elif name == "alanine, two-way":
            molecule = alanine_dipeptide()
            steps = uniform_run(molecule, molecule.network(), molecule.initial_trajectory(3), 3)
        else:
            steps = uniform_run(wells, interfaces_of(wells), wells.initial_trajectory(1), 12)
        found[name] = steps
    return found


def interfaces_of(system):
    A, B = system.states
    x = paths.FunctionCV("x of the wells", x_of)
    interfaces = paths.VolumeInterfaceSet(x, float("-inf"), [-0.5, -0.3])
    return paths.MISTISNetwork([(A, interfaces, B)])


def x_of(snapshot):
    return snapshot.xyz[0][0]


def uniform_run(system, network, initial, n_steps, shooting="two-way"):
    seed_step(1, 0)
    never = ops_aimmd.committor.DiminishingSchedule(every=10**6, until=10**6)
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=6, schedule=never)
    scheme = ops_aimmd.CommittorShootingScheme(
        network, learner, system.engine, shooting=shooting, selector=paths.UniformSelector()
    )
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        conditions = scheme.initial_conditions_from_trajectories(initial)
    sampler = quiet(paths.PathSampling(None, scheme, conditions))
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    steps = []

    def keep(results, **kwargs):
        steps.append(results)

    sampler.attach_hook(keep, "after_step")
    sampler.run(n_steps)
    return steps_of(steps)


# ---- what is in them -------------------------------------------------------------------------------------------------


def learned(checkpoint):
    """Shots, model and density of a checkpoint in numbers."""
    learner = ops_aimmd.load_learner(checkpoint)
    shots = learner.training_set
    rows = shots.descriptors[:POINTS]
    density = learner.version.density
    return {
        "version": learner.version.number,
        "counts": shots.counts.tolist(),
        "predicted": shots.predicted_committor.tolist(),
        "descriptors": hashlib.sha256(np.ascontiguousarray(shots.descriptors)).hexdigest(),
        "log_odds": np.asarray(learner.model.reaction_coordinate(rows)).tolist(),
        "density": None if density is None else np.asarray(density.values).tolist(),
        "density_frames": len(learner.transition_path_frames),
    }


def steps_of(steps, after=0):
    """Number, acceptance, lengths of paths, outcomes and lengths of legs, model version and seed of each step."""
    found = []
    for step in steps:
        if step.mccycle <= after:
            continue
        change = step.change.canonical
        details = change.details
        lengths = {str(sample.replica): len(sample.trajectory) for sample in step.active}
        legs = [list(getattr(details, name, [])) for name in ("leg_outcomes", "leg_lengths")]
        version, seed = getattr(details, "model_version", None), getattr(details, "seed", None)
        found.append([step.mccycle, bool(change.accepted), lengths, *legs, version, seed])
    return found


def steps_in(file, after=0):
    from ops_aimmd.storage.ops_files import open_storage

    storage = open_storage(file)
    found = steps_of(storage.steps, after)
    storage.close()
    return found


def went_on(file, n_steps=STEPS_MORE):
    """The steps with which a copy of a run goes on."""
    sampler = ops_aimmd.resume(file, file.with_suffix(".aimmd"), progress=False)
    last = sampler.step
    if isinstance(sampler, ops_aimmd.ParallelPathSampling):
        sampler.show_progress = False
    else:
        quiet(sampler)
    sampler.run(n_steps)
    sampler.storage.close()
    return {"last": last, "learned": learned(file.with_suffix(".aimmd")), "steps": steps_in(file, last)}


def copy_of(file, directory):
    """A copy of the files of a run, with what sqlite has left beside them."""
    directory.mkdir()
    for part in file.parent.glob(f"{file.stem}.*"):
        shutil.copy(part, directory / part.name)
    return directory / file.name


def pack(file):
    file.with_name(f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes(), preset=6))
    file.unlink()


def unpack(packed, directory):
    """A writable copy of a packed run, with its checkpoint; returns the OPS file."""
    stem = packed.name.split(".")[0]
    for part in packed.parent.glob(f"{stem}.aimmd*"):
        shutil.copy(part, directory / part.name)
    file = directory / packed.stem
    file.write_bytes(lzma.decompress(packed.read_bytes()))
    return file


# ---- one process for each run: OPS cannot have both kinds of files in one ----------------------------------------------


def one(directory, name):
    """Write one run, and print what is in it and how it goes on."""
    if name == "uniform runs":
        return uniform_runs()
    file = directory / name
    if name == "committor.aimmd":
        committor(file)
        result = ops_aimmd.runs.CommittorSimulation.load(file)
        return {"counts": result.counts.tolist(), "predicted": result.predicted.tolist()}
    if name == "many_chains.nc":
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([sys.executable, __file__, str(directory), "die"], check=True)
    else:
        sampler = RUNS[name](file)
        sampler.run(STEPS[name])
        sampler.storage.close()
    report = learned(file.with_suffix(".aimmd"))
    report["steps"] = [] if name == "many_chains.nc" else steps_in(file)
    report["went on"] = went_on(copy_of(file, directory / "again"))
    shutil.rmtree(directory / "again")
    pack(file)
    return report


def main(directory):
    directory.mkdir(parents=True)
    expected = {"version": ops_aimmd.__version__}
    for name in [*RUNS, "many_chains.nc", "committor.aimmd", "uniform runs"]:
        output = subprocess.run(
            [sys.executable, __file__, str(directory), name], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        expected[name] = json.loads(output.splitlines()[-1])
    for leftover in [*directory.glob("*-lock"), *directory.glob("*-shm")]:
        leftover.unlink()
    (directory / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    elif sys.argv[2] == "die":
        many_chains(Path(sys.argv[1]) / "many_chains.nc")
    else:
        print("\n" + json.dumps(one(Path(sys.argv[1]), sys.argv[2])))
