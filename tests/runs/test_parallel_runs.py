"""A run in rounds is the same to the bit wherever its shots run, and however often its coordinator is killed."""

import random
import signal
import time
from pathlib import Path

import numpy as np
import parallel_support
import pytest
from child_processes import Child, run_script
from parallel_support import QUICK, begin, deadly_chain, ledger, ledger_of, simulation
from sampling_support import Steps

import ops_aimmd
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

SCRIPT = Path(parallel_support.__file__)


def chain_run(executor, after_step=None, **options):
    sampler = simulation(rounds=True, executor=executor, **options)
    steps = Steps()
    sampler.attach_hook(steps)
    if after_step is not None:
        sampler.attach_hook(after_step, "after_step")
    sampler.run(4)
    return ledger(steps)


def alanine_run(executor):
    """Coordinates and velocities of all trials: two chains, two rounds, and the model that they made."""
    system = alanine_dipeptide()
    schedule = DiminishingSchedule(every=2)
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=5, schedule=schedule, fit_options=QUICK)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine)
    initial = system.initial_trajectory(3)
    sampler = ParallelPathSampling(None, scheme, [initial, initial], executor=executor, rounds=True)
    sampler.show_progress = False
    steps = Steps()
    sampler.attach_hook(steps)
    sampler.run(2)
    trials = [step.change.canonical.trials[0].trajectory for step in steps]
    return [array for trial in trials for frame in trial for array in (frame.xyz, frame.velocities._value)] + [
        learner.committor(initial)
    ]


@pytest.fixture(scope="module")
def here():
    return {"chain": chain_run(None), "alanine": alanine_run(None)}


@pytest.mark.parametrize("elsewhere", ["spawned", "dask_executor"])
def test_a_run_in_rounds_is_the_same_wherever_its_shots_run(request, here, elsewhere):
    executor = request.getfixturevalue(elsewhere)
    assert chain_run(executor) == here["chain"]
    arrays = alanine_run(executor)
    assert len(arrays) == len(here["alanine"]) > 100
    for one, other in zip(here["alanine"], arrays, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("elsewhere", ["spawned", pytest.param("dask_executor", marks=pytest.mark.slow)])
def test_workers_that_are_killed_in_mid_shot_change_nothing(request, here, elsewhere, tmp_path):
    def one_more_ticket(step_number, **kwargs):
        if step_number in (1, 4):  # one in each round: a shot that kills three workers would stop its chain
            (tmp_path / f"ticket-{step_number}").touch()

    executor = request.getfixturevalue(elsewhere)
    assert chain_run(executor, one_more_ticket, chain=deadly_chain(tmp_path)) == here["chain"]
    assert len(list(tmp_path.glob("used-*"))) == 2


def test_another_seed_gives_another_run(here):
    sampler = simulation(rounds=True, seed=8)
    steps = Steps()
    sampler.attach_hook(steps)
    sampler.run(4)
    assert ledger(steps) != here["chain"]


@pytest.mark.parametrize("n_kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_coordinator_that_is_killed_loses_nothing(tmp_path, n_kills):
    """Killed with SIGKILL at random moments of its run, in which two worker processes are at work."""
    whole, n_steps = tmp_path / "whole.nc", 5 * n_kills
    sampler = begin(whole, rounds=True)
    sampler.run(n_steps)
    sampler.storage.close()
    file = tmp_path / "run.nc"
    chance = random.Random(3)
    for _ in range(n_kills):
        process = Child(SCRIPT, file, n_steps, 2, 0.3)
        for _ in range(chance.randint(2, 6)):
            assert process.stdout.readline() == "step\n", process.kill()[-3000:]
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        assert process.returncode == -signal.SIGKILL
    done = run_script(SCRIPT, file, n_steps, 0, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ledger_of(file) == ledger_of(whole)
