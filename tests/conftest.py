"""Settings that must be made before the first test is collected."""

import os

import openpathsampling as paths
import pytest

os.environ.setdefault("OPENMM_CPU_THREADS", "1")  # more of them add up forces in another order each time


@pytest.fixture(autouse=True)
def default_engine_of_ops():
    """OPS's simulations that shoot from snapshots set a default engine for the whole process."""
    before = paths.EngineMover.default_engine
    yield
    paths.EngineMover.default_engine = before
