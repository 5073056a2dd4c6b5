"""Settings that must be made before the first test is collected."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of two test processes, and of their workers, wait for each other
os.environ.setdefault("OPENMM_CPU_THREADS", "1")  # more of them add up forces in another order each time

import openpathsampling as paths  # noqa: E402
import pytest  # noqa: E402
import small_netcdf_files  # noqa: E402, F401


@pytest.fixture(autouse=True)
def default_engine_of_ops():
    """OPS's simulations that shoot from snapshots set a default engine for the whole process."""
    before = paths.EngineMover.default_engine
    yield
    paths.EngineMover.default_engine = before
