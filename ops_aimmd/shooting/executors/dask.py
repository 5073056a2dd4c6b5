"""Shots on a cluster of `dask.distributed`: on this machine, on the nodes of a batch system, wherever its workers are."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import socket
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from ops_aimmd.engines.choose import THREAD_VARIABLES as ENGINE_THREADS
from ops_aimmd.shooting.engine_description import describe
from ops_aimmd.shooting.executors.base import Executor, check_known
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec

NO_HTTP = "ops_aimmd.shooting.executors.no_http"

SHORTEST_TTL = 5
"""Seconds; a scheduler that waits less takes shots from workers that are only busy."""


class DaskExecutor(Executor):
    """Runs shots through a `distributed.Client`.

    Dask runs a shot again when its worker dies or is not heard of for longer than the scheduler's ``worker-ttl``; the
    same shot may so run twice, and one result is kept. A shot that has lost its workers too often
    (``distributed.scheduler.allowed-failures``), and loses them again when it runs alone, comes back as a failure.

    Parameters
    ----------
    client : distributed.Client
        It and its cluster stay the user's: `close` only gives up shots that are under way.
    resources : mapping of str to number, optional
        What a shot takes of the resources that workers were started with: ``{"GPU": 1}`` for one shot at a time on each
        worker that was started with ``--resources GPU=1``.

    Raises
    ------
    ImportError
        If dask.distributed is not installed.
    TypeError
        If the client is none.
    """

    def __init__(self, client, resources: Mapping[str, float] | None = None):
        check_dask()
        from distributed import Client

        if not isinstance(client, Client):
            raise TypeError(
                f"client must be a distributed.Client, for instance Client(scheduler_file='scheduler.json'); got {client!r}"
            )
        self._client = client
        self._resources = dict(resources or {})
        self._run_id = ""
        self._known: set[str] = set()
        self._specs: dict[str, ShotSpec] = {}
        self._futures: dict = {}
        self._suspects: list[str] = []
        self._ended: queue.SimpleQueue = queue.SimpleQueue()

    @property
    def n_workers(self) -> int:
        return len(self._client.nthreads())

    def start(self, engine, states: Sequence, run_id: str = "") -> str:
        """See `Executor.start`.

        Raises
        ------
        RuntimeError
            If workers are threads of this process.
        """
        self._check_connected()
        if process_identity() in self._client.run(process_identity, on_error="ignore").values():
            raise RuntimeError(
                "workers of this dask cluster are threads of this process, where they would draw from the same random "
                "number generators as the sampling: make the cluster with processes=True, or take executor=None"
            )
        from ops_aimmd.shooting.executors.dask_worker import KnownEngine

        self._run_id = run_id
        description = describe(engine, states)
        try:
            self._client.register_plugin(KnownEngine(description))
        except OSError:  # from a worker that has just died; the scheduler gives it to the one that takes its place
            pass
        self._known.add(description.key)
        return description.key

    def submit(self, spec: ShotSpec) -> None:
        self._check_connected()
        check_known(spec, self._known, self._specs)
        self._specs[spec.shot_id] = spec
        self._send(spec)

    def _send(self, spec: ShotSpec, attempt: str = "") -> None:
        from ops_aimmd.shooting.executors.dask_worker import run_known_shot

        key = f"shot-{self._run_id}/{spec.shot_id}/{spec.digest[:16]}{attempt}"
        future = self._client.submit(run_known_shot, spec, key=key, pure=False, resources=self._resources or None)
        self._futures[spec.shot_id] = future
        future.add_done_callback(lambda _: self._ended.put(spec.shot_id))

    def results(self, timeout: float | None = None) -> list[ShotResult | ShotFailure]:
        """See `Executor.results`.

        Raises
        ------
        RuntimeError
            If the connection to the scheduler is lost; the shots under way are lost with it, and can be submitted again
            through another client.
        """
        results = []
        while self._specs and (not results or not self._ended.empty()):
            try:
                shot_id = self._ended.get(timeout=timeout)
            except queue.Empty:
                break
            if shot_id in self._specs:  # else given up by close
                results += self._outcome(shot_id)
        return results

    def withdraw(self) -> set[str]:
        self._check_connected()
        begun = {str(key) for keys in self._client.processing().values() for key in keys}
        waiting = {shot for shot, future in self._futures.items() if not future.done() and str(future.key) not in begun}
        self._client.cancel([self._futures[shot] for shot in waiting])
        for shot in waiting:
            del self._specs[shot], self._futures[shot]
        self._suspects = [shot for shot in self._suspects if shot not in waiting]
        return waiting

    def close(self) -> None:
        futures = list(self._futures.values())
        self._specs.clear()
        self._futures.clear()
        self._suspects.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def _outcome(self, shot_id: str) -> list[ShotResult | ShotFailure]:
        from distributed import CancelledError, KilledWorker

        try:
            outcome = self._futures[shot_id].result()
        except KilledWorker as error:
            if shot_id not in self._suspects:
                self._suspect(shot_id)
                return []
            outcome = ShotFailure(shot_id, str(error), "killed_worker")
        except CancelledError as error:
            self._check_connected()
            outcome = ShotFailure(shot_id, str(error), "cancelled")
        except Exception as error:  # from the dynamics, a state, or a worker that lacks a module
            outcome = ShotFailure(shot_id, f"{type(error).__name__}: {error}", "error")
        del self._specs[shot_id], self._futures[shot_id]
        if shot_id in self._suspects:
            self._suspects.remove(shot_id)
            self._try_suspect()
        return [outcome]

    def _suspect(self, shot_id: str) -> None:
        """Dask blames a death on all shots that the worker had, also on those that waited there. So suspects are run once
        more, one at a time, and none of them is blamed for another one."""
        self._suspects.append(shot_id)
        if len(self._suspects) == 1:
            self._try_suspect()

    def _try_suspect(self) -> None:
        if self._suspects:
            self._send(self._specs[self._suspects[0]], attempt="/alone")

    def _check_connected(self) -> None:
        if self._client.status != "running":
            raise RuntimeError(
                f"there is no connection to the dask scheduler (the client is {self._client.status}): the scheduler has "
                "ended, or the client was closed. Connect another client and resume the run: no finished shot is lost"
            )


def local_cluster(n_workers: int, worker_ttl: float = 60.0, dashboard: bool = False, **options):
    """A dask cluster of processes on this machine, closed to other users.

    All connections are encrypted and need a certificate that exists in the memory of these processes only; no http port is
    open. Workers that die are restarted.

    ::

        if __name__ == "__main__":
            with local_cluster(8) as cluster, cluster.get_client() as client:
                executor = DaskExecutor(client)

    Parameters
    ----------
    n_workers : int
        Processes, with one thread each.
    worker_ttl : float
        Seconds after which the shot of a worker that is not heard of is given to another one; at least 5.
    dashboard : bool
        Whether to serve dask's dashboard at 127.0.0.1:8787, open to every user of this machine (needs bokeh).
    **options
        For `distributed.LocalCluster`.

    Raises
    ------
    ImportError
        If dask.distributed or cryptography is not installed.
    RuntimeError
        In a script that is not guarded by ``if __name__ == "__main__":``.
    ValueError
        If `n_workers` is no positive integer or `worker_ttl` less than 5.
    """
    check_dask()
    if not isinstance(n_workers, Integral) or n_workers < 1:
        raise ValueError(f"n_workers must be an integer >= 1; got {n_workers!r}")
    if not isinstance(worker_ttl, Real) or not worker_ttl >= SHORTEST_TTL:
        raise ValueError(
            f"worker_ttl must be a number of seconds >= {SHORTEST_TTL}; got {worker_ttl!r}: workers are heard of every "
            "second or so, and a busy one later"
        )
    import dask
    from distributed import LocalCluster, Security

    # while a worker process imports the script it does not know its parent yet
    if multiprocessing.parent_process() is not None or getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a worker process of dask has come to local_cluster while it imported the script: put what the script does "
            'under if __name__ == "__main__":'
        )
    if not dashboard:
        options["scheduler_kwargs"] = {"preload": NO_HTTP, **options.get("scheduler_kwargs", {})}
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # for good, since dask looks it up when a worker dies: after 15 s it would give up waiting for the next one to start
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    quiet_workers = {"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning"}
    with dask.config.set({"distributed.scheduler.worker-ttl": f"{worker_ttl}s", **quiet_workers}):
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            security=Security.temporary(),
            dashboard_address="127.0.0.1:8787" if dashboard else None,
            preload=NO_HTTP,
            env={**dict.fromkeys(ENGINE_THREADS, "1"), **options.pop("env", {})},
            **options,
        )


def check_dask() -> None:
    """Raise an ImportError that says what to do if dask.distributed is not installed."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "clusters need dask.distributed, which is not installed: pip install 'ops_aimmd[distributed]'. On one machine "
            "SpawnedProcesses (executor=number of processes) do without"
        ) from error


def process_identity() -> tuple[str, int]:
    """Host and number of this process."""
    return socket.gethostname(), os.getpid()
