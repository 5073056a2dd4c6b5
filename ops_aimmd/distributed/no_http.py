"""The preload that job scripts of version 0.1.0 give to dask."""

from ops_aimmd.shooting.executors.no_http import dask_setup  # noqa: F401
