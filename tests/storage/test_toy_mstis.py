"""OPS's toy example of multiple-state TIS with a learned selector: killed, resumed, and as if it had not been killed."""

import contextlib
import io
import signal

import mstis_script
import openpathsampling as paths
import pytest
import torch
from child_processes import Child
from netcdf_files import in_memory
from resume_support import contents, differences

import ops_aimmd
from ops_aimmd.storage.ops_files import open_storage

N_STEPS, KILLED_AT = 130, 60


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the process that is killed: more threads add up in another order, and runs are compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """OPS file and checkpoint of a run that was killed in one process and finished in another."""
    directory = tmp_path_factory.mktemp("mstis")
    file, checkpoint = directory / "run.nc", directory / "run.aimmd"
    process = Child(mstis_script.__file__, file, checkpoint, 1_000_000)
    last = next((line for line in process.stdout if line == f"step {KILLED_AT}\n"), None)
    errors = process.kill()
    assert last is not None and process.returncode == -signal.SIGKILL, errors[-3000:]
    paths.InterfaceSet._reset()
    with contextlib.redirect_stdout(io.StringIO()):
        sampler = ops_aimmd.resume(file, checkpoint, progress=False)
    assert KILLED_AT <= sampler.step < N_STEPS
    finish(sampler)
    sampler.storage.close()
    return file, checkpoint


def finish(sampler):
    sampler.output_stream = io.StringIO()
    sampler.run(N_STEPS - sampler.step)


@pytest.fixture(scope="module")
def steps(run):
    storage = in_memory(open_storage(run[0]))
    yield storage.steps
    storage.close()


def mover_of(step):
    return type(step.change.canonical.mover).__name__


def test_the_file_holds_every_step_once(steps):
    assert [step.mccycle for step in steps] == list(range(N_STEPS + 1))
    assert mover_of(steps[1]) == "MinusMover"
    assert {mover_of(step) for step in steps[1:]} == {
        "MinusMover",
        "ReplicaExchangeMover",
        "PathReversalMover",
        "ForwardShootMover",
        "BackwardShootMover",
    }


def test_all_paths_satisfy_their_ensembles(steps):
    for step in [*steps[::20], steps[KILLED_AT], steps[KILLED_AT + 1]]:
        step.active.sanity_check()
        assert len(step.active) == 13  # three in each of the states, one that they share, three of the minus moves


def test_every_shot_was_learned_from(run, steps):
    shots = [step for step in steps[1:] if mover_of(step) in ("ForwardShootMover", "BackwardShootMover")]
    learner = ops_aimmd.load_learner(run[1])
    assert learner.training_set.steps.tolist() == [step.mccycle for step in shots]
    assert learner.training_set.chains.tolist() == [step.change.canonical.trials[0].replica for step in shots]
    outer = steps.storage.networks[0].ms_outers
    assert any(step.change.canonical.trials[0].ensemble in outer for step in shots)


def test_the_summary_of_ops_works_on_the_file(steps):
    scheme = steps.storage.schemes[0]
    summary = io.StringIO()
    scheme.move_summary(steps[1:], output=summary)
    lines = summary.getvalue().splitlines()
    assert {line.split()[0] for line in lines} >= {"shooting", "ms_outer_shooting", "repex", "pathreversal", "minus"}


def test_the_killed_run_is_the_run_that_was_not_killed(run):
    whole = run[1].parent / "whole.aimmd"
    with contextlib.redirect_stdout(io.StringIO()):
        sampler = mstis_script.start(None, whole)
    finish(sampler)
    killed = contents(run[1])
    assert differences(killed, contents(whole)) == []
    other = dict(killed, counts=killed["counts"][:, ::-1])  # control
    assert differences(killed, other) == ["counts"]
