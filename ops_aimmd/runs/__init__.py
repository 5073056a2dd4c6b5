"""Runs: many chains, initial paths, committor simulations; going on with them; where their shots run.

- `ParallelPathSampling`: many chains on one learner.
- `ChainStoppedWarning`: a chain has stopped, the others go on.
- `initial_path`: a first transition path by shots from a configuration.
- `InitialPaths`: first transition paths of many chains, made by `ops_aimmd.initial_paths`.
- `CommittorSimulation`: outcomes of shots from configurations, made by `ops_aimmd.committor_simulation`.
- `FreeRuns`: excursions of free dynamics, made by `ops_aimmd.free_runs`.
- `spread_along_committor`: configurations of paths, spread evenly along the committor.
- `TrainingHook`: hook of OPS: learn from each step and write the checkpoint.
- `resume`: go on with a run from its files.
- `ResumeWarning`: something of the run differs from what its files say.
- `FileUnavailableError`: a file cannot be opened now; it is not damaged.
- `current_paths`: the newest path of each chain, from a checkpoint.
- `InThisProcess`: executor: shots run here, one after the other.
- `SpawnedProcesses`: executor: shots run in processes of this machine.
- `DaskExecutor`: executor: shots run on a dask cluster.
- `local_cluster`: a dask cluster on this machine.
"""

from ops_aimmd.checkpoint.errors import FileUnavailableError
from ops_aimmd.runs.committor_outcomes import CommittorSimulation
from ops_aimmd.runs.configurations import spread_along_committor
from ops_aimmd.runs.free_runs import FreeRuns
from ops_aimmd.runs.initial_paths import InitialPaths, initial_path
from ops_aimmd.runs.parallel_path_sampling import ChainStoppedWarning, ParallelPathSampling
from ops_aimmd.shooting.executors.choose import DaskExecutor, InThisProcess, SpawnedProcesses, local_cluster
from ops_aimmd.storage.logged_steps import current_paths
from ops_aimmd.storage.reopening import ResumeWarning
from ops_aimmd.storage.resume import resume
from ops_aimmd.storage.training_hook import TrainingHook

__all__ = [
    "ChainStoppedWarning",
    "CommittorSimulation",
    "DaskExecutor",
    "FileUnavailableError",
    "FreeRuns",
    "InThisProcess",
    "InitialPaths",
    "ParallelPathSampling",
    "ResumeWarning",
    "SpawnedProcesses",
    "TrainingHook",
    "current_paths",
    "initial_path",
    "local_cluster",
    "resume",
    "spread_along_committor",
]
