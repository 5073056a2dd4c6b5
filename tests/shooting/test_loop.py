"""The loop that runs shots: each once, none after Ctrl-C, none lost, none of others."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest
from shots_support import Alanine, Walk, specs

from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.executors.in_this_process import InThisProcess, WithSnapshots
from ops_aimmd.shooting.loop import ShotLoop
from ops_aimmd.shooting.shots import legs_from_result


@dataclass
class Shot:
    """A specification, and its own result."""

    shot_id: str


class Pretending(Executor):
    """Gives back last what was submitted first, one at a time; `begun` shots cannot be withdrawn."""

    n_workers = 1

    def __init__(self, begun=()):
        self.held, self.submitted, self.begun, self.before = [], [], set(begun), {}

    def start(self, engine, states, run_id=""):
        return "key"

    def submit(self, spec):
        self.submitted.append(spec.shot_id)
        self.held.append(spec)

    def results(self, timeout=None):
        self.before.pop(len(self.submitted), lambda: None)()
        return [self.held.pop()] if self.held else []

    def withdraw(self):
        withdrawn = {spec.shot_id for spec in self.held} - self.begun
        self.held = [spec for spec in self.held if spec.shot_id not in withdrawn]
        return withdrawn

    def close(self):
        self.held.clear()


def in_turn(loop, names, at_once=2):
    """What `more` gives: so many shots at the same time."""
    waiting = iter(names)

    def more():
        while len(loop.waiting) < at_once and (name := next(waiting, None)) is not None:
            yield Shot(name)

    return more


def run(executor, names="abcde", take=None, loop=None):
    """Names of the shots that were taken in, and whether Ctrl-C has ended the loop."""
    loop, taken = ShotLoop(executor) if loop is None else loop, []

    def note(outcome):
        taken.append(outcome.shot_id)
        if take is not None:
            take(outcome)

    interrupted = loop.run(in_turn(loop, names), note)
    assert not loop.waiting
    return taken, interrupted


def test_each_shot_is_handed_out_and_taken_in_once():
    executor = Pretending()
    taken, interrupted = run(executor)
    assert sorted(taken) == executor.submitted == list("abcde") and taken != executor.submitted and not interrupted


def test_shots_of_others_are_left_out():
    executor = Pretending()
    for name in "xy":
        executor.submit(Shot(name))
    assert sorted(run(executor)[0]) == list("abcde")


def test_shots_that_the_executor_has_lost_are_handed_out_again():
    executor = Pretending()
    executor.before[3] = executor.held.clear
    taken, _ = run(executor)
    assert sorted(taken) == list("abcde") and executor.submitted == list("abcacde")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("begun", "expected"), [("a", "ab"), ("", "b")])
def test_ctrl_c_waits_for_what_has_begun_and_hands_out_nothing(begun, expected):
    executor = Pretending(begun)
    executor.before[2] = interrupt
    taken, interrupted = run(executor)
    assert interrupted and sorted(taken) == list(expected) and executor.submitted == ["a", "b"] and not executor.held


def test_after_an_error_a_shot_that_runs_on_is_not_handed_out_twice():
    executor = Pretending(begun="a")
    loop = ShotLoop(executor)

    def fail(outcome):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        run(executor, take=fail, loop=loop)  # b has ended, a runs
    assert sorted(run(executor, "abc", loop=loop)[0]) == list("abc")
    assert executor.submitted == list("ab") + list("bc")
    other = Pretending(begun="a")
    with pytest.raises(OSError, match="disk"):
        run(other, take=fail)
    run(other, "abc")  # the control: another loop does not know
    assert other.submitted == list("ab") + list("abc")


@pytest.mark.parametrize("make", [Walk, Alanine])
def test_snapshots_as_they_are_give_the_legs_of_those_that_travel(make):
    system = make()
    legs = []
    for executor in (InThisProcess(), WithSnapshots()):
        key = executor.start(system.engine, system.states)
        (travelled,) = specs(system, key, 1, max_frames=20)
        executor.submit(
            executor.specification("shot/0", key, system.point, travelled.directions, travelled.max_frames, travelled.seed)
        )
        (result,) = executor.results()
        legs.append(legs_from_result(result, system.point, system.engine))
    for direction, leg in legs[0].items():
        other = legs[1][direction]
        assert (leg.outcome, leg.failure) == (other.outcome, other.failure)
        np.testing.assert_array_equal(leg.trajectory.xyz, other.trajectory.xyz)
    assert legs[1]["forward"].trajectory[0] is system.point


def test_errors_are_raised_as_they_are():
    walk = Walk(site=lambda snapshot: 1 / 0)
    for executor, expected in ((WithSnapshots(), ZeroDivisionError), (InThisProcess(), None)):
        key = executor.start(walk.engine, walk.states)
        executor.submit(executor.specification("shot", key, walk.point, ("forward",), None, 1))
        if expected is None:
            assert "ZeroDivisionError" in executor.results()[0].error
        else:
            with pytest.raises(expected):
                executor.results()
