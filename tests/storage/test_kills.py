"""A run that is killed again and again, at any moment, is the run that was never killed."""

import random
import signal
import time
from pathlib import Path

import kill_script
import pytest
from child_processes import Child, result_of, run_script
from resume_support import contents, differences

from ops_aimmd.checkpoint import Checkpoint

SCRIPT = Path(kill_script.__file__)


WHEN = {"starting or resuming": 0.15, "sampling": 0.35, "storing": 0.5}
"""In which part of its life a run is killed, and how often."""


def run_and_kill(file, checkpoint, when, chance):
    """Kill the run at a random moment of a part of its life; what it said on stderr."""
    process = Child(SCRIPT, file, checkpoint)
    if when == "starting or resuming":
        time.sleep(chance.uniform(0, 2))
    else:
        assert process.stdout.readline() == "ready\n", process.kill()[-3000:]
    if when == "sampling":
        time.sleep(chance.uniform(0, 2))
    if when == "storing":
        for _ in range(chance.randint(1, 3)):
            assert process.stdout.readline() == "storing\n", process.kill()[-3000:]
        time.sleep(chance.uniform(0, 0.1))
    errors = process.kill()
    assert process.returncode == -signal.SIGKILL, errors[-3000:]
    return errors


def finish(file, checkpoint, n_steps):
    done = run_script(SCRIPT, file, checkpoint, n_steps)
    assert done.returncode == 0, done.stderr[-3000:]


def steps_of(file):
    by_ops, by_us = result_of(SCRIPT, "steps of", file)
    assert by_ops == by_us
    return by_ops


def check_killed_runs(directory, suffix, n_kills):
    file, checkpoint = directory / f"run.{suffix}", directory / "run.aimmd"
    chance = random.Random(n_kills)
    damaged, step, lost = 0, -1, 0
    for _ in range(n_kills):
        (when,) = chance.choices(list(WHEN), WHEN.values())
        errors = run_and_kill(file, checkpoint, when, chance)
        damaged += "renamed to" in errors
        if kill_script.has_begun(checkpoint):
            with Checkpoint.open(checkpoint, read_only=True) as now:
                lost += now.step < step
                step = now.step
    assert lost == 0
    n_steps = step + 3
    finish(file, checkpoint, n_steps)
    finish(directory / f"whole.{suffix}", directory / "whole.aimmd", n_steps)
    killed, whole = contents(checkpoint), contents(directory / "whole.aimmd")
    assert differences(killed, whole) == []
    assert steps_of(file) == list(range(n_steps + 1))
    print(f"\n{suffix}: {n_kills} kills, {n_steps} steps, {len(killed['steps'])} shots, {damaged} OPS files damaged")
    return killed


@pytest.mark.parametrize("suffix", ["nc", pytest.param("db", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_is_the_run_that_was_not(tmp_path, suffix):
    killed = check_killed_runs(tmp_path, suffix, n_kills=2)
    assert len(killed["steps"]) > 0
    other = dict(killed, counts=killed["counts"][:, ::-1])  # control
    assert differences(killed, other) == ["counts"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nc", "db"])
def test_fifty_kills(tmp_path, suffix):
    check_killed_runs(tmp_path, suffix, n_kills=50)
