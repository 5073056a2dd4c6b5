"""Preload for dask (``--preload ops_aimmd.shooting.executors.no_http``): schedulers and workers close their http port.

Dask opens one in every scheduler and every worker, also without dashboard, and lets anybody read it.
"""


def dask_setup(server) -> None:
    """Called by dask when a scheduler or a worker has started."""
    server.http_server.stop()
