"""The module that OPS files (SimStore) of version 0.1.0 name."""

from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling  # noqa: F401
