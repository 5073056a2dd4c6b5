"""Fixtures of the tests of resumed runs, which name this module in `pytest_plugins`."""

import gc
import shutil

import pytest
from resume_support import HALF, SUFFIX, WHOLE, begin, contents, copy_run, run_to


@pytest.fixture
def directory(tmp_path):
    yield tmp_path
    gc.collect()
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A run of WHOLE steps, the same up to step HALF, and another one."""
    runs = tmp_path_factory.mktemp("runs")
    for name, seed, n_steps in (("whole", 7, WHOLE), ("half", 7, HALF), ("other", 2, WHOLE)):
        run_to(begin(runs / f"{name}.{SUFFIX}", seed), n_steps)
    yield runs
    shutil.rmtree(runs)


@pytest.fixture
def file(runs, directory):
    """The file of a run that stands at step HALF."""
    return copy_run(runs / f"half.{SUFFIX}", directory / f"run.{SUFFIX}")


@pytest.fixture
def whole(runs):
    """What the run that went on left in its checkpoint."""
    return contents(runs / "whole.aimmd")
