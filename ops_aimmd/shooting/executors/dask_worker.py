"""What workers of a dask cluster know of engines; imports dask.distributed."""

from __future__ import annotations

from distributed import WorkerPlugin

from ops_aimmd.shooting.engine_description import EngineDescription
from ops_aimmd.shooting.shots import ShotResult, ShotSpec
from ops_aimmd.shooting.worker import run_shot

_descriptions: dict[str, EngineDescription] = {}


class KnownEngine(WorkerPlugin):
    """Makes an engine and its states known to all workers of a cluster, also to those that join it later."""

    def __init__(self, description: EngineDescription):
        self.name = f"engine-{description.key}"
        self.description = description

    def setup(self, worker) -> None:
        """Called by dask in each worker."""
        _descriptions[self.description.key] = self.description


def run_known_shot(spec: ShotSpec) -> ShotResult:
    """Run a shot with an engine that the worker knows."""
    return run_shot(_descriptions[spec.engine_key], spec)
