"""Settings that must be made before the first test is collected."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of two test processes, and of their workers, wait for each other
os.environ.setdefault("OPENMM_CPU_THREADS", "1")  # more of them add up forces in another order each time

import netcdf_files  # noqa: E402, F401
import openpathsampling as paths  # noqa: E402
import pytest  # noqa: E402

from ops_aimmd.shooting.executors.choose import DaskExecutor, SpawnedProcesses, local_cluster  # noqa: E402


@pytest.fixture(autouse=True)
def default_engine_of_ops():
    """OPS's simulations that shoot from snapshots set a default engine for the whole process."""
    before = paths.EngineMover.default_engine
    yield
    paths.EngineMover.default_engine = before


# ---- worker processes take seconds to start: those of a test session are shared --------------------------------------

WORKER_TTL = 15.0
"""Seconds; the shortest that dask knows are 5, after which a worker on a busy machine may be taken for dead."""


@pytest.fixture(scope="session")
def spawned():
    """Two worker processes."""
    with SpawnedProcesses(2) as executor:
        yield executor


@pytest.fixture(scope="session")
def dask_client():
    """Client of a cluster of two worker processes."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'ops_aimmd[distributed]'")
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'ops_aimmd[distributed]'")
    with local_cluster(2, worker_ttl=WORKER_TTL) as cluster, cluster.get_client() as client:
        yield client


@pytest.fixture
def dask_executor(dask_client):
    dask_client.wait_for_workers(2, timeout=120)
    with DaskExecutor(dask_client) as executor:
        yield executor
