"""Exchange of shooting points in many chains: the dynamics of the configurations runs on the executor, too."""

import shutil

import numpy as np
import pytest
from parallel_support import QUICK, new_storage, resume
from sampling_support import Steps

import ops_aimmd
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling
from ops_aimmd.storage.ops_files import open_storage
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def begin(system, temperatures, storage=None, **options):
    """Two chains in rounds, each of a path and the replicas of a configuration."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=5, fit_options=QUICK)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine, exchange_temperatures=temperatures)
    sampler = ParallelPathSampling(storage, scheme, [system.initial_trajectory(3)] * 2, rounds=True, **options)
    sampler.show_progress = False
    return sampler


def coordinates(steps):
    """Of the active samples of each step: replica and coordinates."""
    return [sorted((int(s.replica), s.trajectory.xyz.tolist()) for s in step.active) for step in steps if step.mccycle]


def sampled(system, temperatures, executor):
    sampler = begin(system, temperatures, executor=executor)
    steps = Steps()
    sampler.attach_hook(steps)
    sampler.run(4)
    assert len({replica for step in coordinates(steps) for replica, _ in step}) == 2 * (2 + len(temperatures))
    kinds = [type(part.mover).__name__ for step in steps for part in step.change]
    assert "ShootingPointExchangeMover" in kinds and "ShootingMover" in kinds
    return coordinates(steps)


@pytest.mark.parametrize(("make_system", "hot"), [(toy.two_gaussian_wells, 0.2), (alanine_dipeptide, 400.0)])
def test_the_same_wherever_the_dynamics_runs(spawned, make_system, hot):
    system = make_system()
    here = sampled(system, [hot], None)
    assert sampled(system, [hot], spawned) == here


def test_resumed_is_uninterrupted(tmp_path):
    system = toy.two_gaussian_wells(n_steps_per_frame=100)
    whole, copy = tmp_path / "whole.nc", tmp_path / "copy.nc"
    sampler = begin(system, [0.2], new_storage(str(whole)), checkpoint=whole.with_suffix(".aimmd"))
    sampler.run(3)
    sampler.storage.sync()
    for file in (whole, whole.with_suffix(".aimmd")):
        shutil.copy(file, copy.with_suffix(file.suffix))
    for one in (sampler, resume(copy)):
        one.run(4)
        one.storage.close()
    found = []
    for file in (whole, copy):
        storage = open_storage(file)
        found.append(coordinates(storage.steps))
        storage.close()
    assert found[0] == found[1] and len(found[0]) == 14
    assert not np.array_equal(found[0][5], found[0][-1])
