"""The interface of executors, which run shots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec, specification

SHOTS_PER_WORKER = 2
"""Shots to have under way: the next one waits at the worker, and few are run again after an interruption."""


class Executor(ABC):
    """Runs shots somewhere: `start` with an engine, `submit` specifications, ask for `results`, `close`.

    Each submitted shot comes back exactly once, as a result or a failure, in any order. A shot that was interrupted from
    outside (a worker died, a connection was lost) is run again with the same specification, never with a new seed: failing
    workers must not select paths.
    """

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """How many shots can run at the same time, as far as known now."""

    @property
    def n_wanted(self) -> int:
        """How many shots should be under way at the same time, where there are many that do not depend on each other."""
        return SHOTS_PER_WORKER * max(self.n_workers, 1)

    specification = staticmethod(specification)
    """A shot in the form that `submit` takes: see `ops_aimmd.shooting.shots.specification`."""

    @abstractmethod
    def start(self, engine, states: Sequence, run_id: str = "") -> str:
        """Make an engine and its states known; may be called again, with others too.

        Parameters
        ----------
        engine : openpathsampling.engines.DynamicsEngine
        states : sequence of openpathsampling.Volume
            Where the legs stop.
        run_id : str
            Tells the shots of this run from those of others that use the same workers.

        Returns
        -------
        str
            The key of the engine and the states for specifications (`ops_aimmd.shooting.engine_description.engine_key`).
        """

    @abstractmethod
    def submit(self, spec: ShotSpec) -> None:
        """Take a shot; returns at once.

        Raises
        ------
        KeyError
            If the executor was not started with the engine of the specification.
        ValueError
            If a shot of this id is under way.
        """

    @abstractmethod
    def results(self, timeout: float | None = None) -> list[ShotResult | ShotFailure]:
        """Shots that have come to their end.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the first one; None: as long as it takes.

        Returns
        -------
        list
            Empty if the time was over, or no shot is under way.
        """

    def withdraw(self) -> set[str]:
        """Take back the shots that have not begun, as far as that is known; their ids."""
        return set()

    @abstractmethod
    def close(self) -> None:
        """Give up the shots that are under way, and the workers that are this executor's own."""


def check_known(spec: ShotSpec, known, under_way) -> None:
    """Check that an executor can take a shot: see `Executor.submit`."""
    if spec.engine_key not in known:
        raise KeyError(
            f"shot {spec.shot_id} is for an engine with the key {spec.engine_key[:16]}..., which this executor does not "
            "know: call start(engine, states) first, with the engine as it was when the shot was specified"
        )
    if spec.shot_id in under_way:
        raise ValueError(f"shot {spec.shot_id} is under way already: ids of shots must be unique in a run")
