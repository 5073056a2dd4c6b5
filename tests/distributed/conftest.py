"""Worker processes take seconds to start: those of a test session are shared."""

import pytest

from ops_aimmd.distributed.executors import DaskExecutor, SpawnedProcesses, local_cluster

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
