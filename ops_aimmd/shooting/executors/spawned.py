"""Shots in processes of their own on this machine."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from numbers import Integral

from ops_aimmd.engines.choose import THREAD_VARIABLES as ENGINE_THREADS
from ops_aimmd.shooting.engine_description import EngineDescription, describe
from ops_aimmd.shooting.executors import worker_process
from ops_aimmd.shooting.executors.base import Executor, check_known
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", *ENGINE_THREADS)

ALLOWED_FAILURES = 3
"""Workers that a shot may lose, or that may end while they start, one after another."""

PATIENCE = 10.0
"""Seconds to wait for an answer."""


class SpawnedProcesses(Executor):
    """Runs shots in fresh processes on this machine.

    A worker that dies is replaced and its shot run again with the same seed; the other shots are not disturbed. A shot
    that loses its worker `ALLOWED_FAILURES` times comes back as a failure. Ctrl-C does not reach the workers; they end
    with this process, however it ends. The script that is run needs no ``if __name__ == "__main__":``, since workers do
    not import it: its functions travel as code.

    Parameters
    ----------
    n_workers : int
        Number of processes.
    threads_per_worker : int
        For engines, torch and linear algebra. With more than one, results need not be the same twice.
    """

    def __init__(self, n_workers, threads_per_worker=1):
        for name, number in (("n_workers", n_workers), ("threads_per_worker", threads_per_worker)):
            if not (isinstance(number, Integral) and number >= 1):
                raise ValueError(f"{name} must be an integer >= 1; got {number!r}")
        self._n_workers = int(n_workers)
        self._environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads_per_worker))}
        self._descriptions: dict[str, EngineDescription] = {}
        self._under_way: set[str] = set()
        self._orders: queue.SimpleQueue = queue.SimpleQueue()
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._supervisor: threading.Thread | None = None
        self._closed = False

    @property
    def n_workers(self) -> int:
        return self._n_workers

    def start(self, engine, states: Sequence, run_id: str = "") -> str:
        self._check_open()
        description = describe(engine, states)
        self._descriptions[description.key] = description
        if self._supervisor is None:
            self._supervisor = threading.Thread(target=self._supervise, name="workers", daemon=True)
            self._supervisor.start()
        return description.key

    def submit(self, spec: ShotSpec) -> None:
        self._check_open()
        check_known(spec, self._descriptions, self._under_way)
        self._under_way.add(spec.shot_id)
        self._order(spec)

    def results(self, timeout: float | None = None) -> list[ShotResult | ShotFailure]:
        """See `Executor.results`.

        Raises
        ------
        RuntimeError
            If worker processes cannot be started.
        """
        self._check_open()
        results = []
        while self._under_way and (not results or not self._done.empty()):
            try:
                done = self._done.get(timeout=timeout)
            except queue.Empty:
                break
            if isinstance(done, Exception):
                self.close()
                raise done
            self._under_way.discard(done.shot_id)
            results.append(done)
        return results

    def withdraw(self) -> set[str]:
        if self._supervisor is None or self._closed:
            return set()
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._order(answer)
        try:
            withdrawn = answer.get(timeout=PATIENCE)
        except queue.Empty:  # the supervising thread has ended; `results` raises its error
            return set()
        self._under_way -= withdrawn
        return withdrawn

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._under_way.clear()
        if self._supervisor is not None:
            self._order(None)
            self._supervisor.join()
        self._wake_sender.close()
        self._wake_receiver.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("these worker processes are closed: make a new SpawnedProcesses")

    def _order(self, order: ShotSpec | queue.SimpleQueue | None) -> None:
        self._orders.put(order)
        self._wake_sender.send(b"!")

    def _supervise(self) -> None:
        """Hand out shots and gather results, in a thread: a worker gets its next shot at once, whatever the others do."""
        pool = _WorkerPool(self._environment, self._descriptions, self._done)
        try:
            pool.start(self._n_workers)
            while pool.process_events(self._wake_receiver, self._orders):
                pass
        except Exception as error:  # `results` raises it
            self._done.put(error)
        finally:
            pool.stop()


class _WorkerPool:
    """The processes, the shots that wait for one, and what happens to both; used by one thread."""

    def __init__(self, environment, descriptions, done):
        self.environment, self.descriptions, self.done = environment, descriptions, done
        self.shots: deque[ShotSpec] = deque()
        self.deaths: Counter = Counter()
        self.false_starts = 0
        self.workers: list[_Worker] = []

    def start(self, n_workers: int) -> None:
        for _ in range(n_workers):
            self.workers.append(_Worker(self.environment))

    def process_events(self, wake_receiver, orders) -> bool:
        """Wait until something happens, and see to it; False when the order was to stop."""
        for connection in wait([wake_receiver, *(worker.connection for worker in self.workers)]):
            if connection is wake_receiver:
                for _ in wake_receiver.recv(4096):
                    order = orders.get()
                    if order is None:
                        return False
                    if isinstance(order, ShotSpec):
                        self.shots.append(order)
                    else:  # `withdraw` waits for the ids of the shots that have not begun
                        order.put({shot.shot_id for shot in self.shots})
                        self.shots.clear()
            else:
                self._receive(next(worker for worker in self.workers if worker.connection is connection))
        for worker in self.workers:
            if self.shots and worker.is_idle:
                self._send(worker, self.shots.popleft())
        return True

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionError):
            self._replace(worker)
            return
        if message == worker_process.READY:
            self.false_starts = 0
            worker.is_ready = True
        else:
            worker.shot = None
            self.deaths.pop(message.shot_id, None)
            self.done.put(message)

    def _send(self, worker: _Worker, shot: ShotSpec) -> None:
        worker.shot = shot
        try:
            if shot.engine_key not in worker.known:
                worker.connection.send(self.descriptions[shot.engine_key])
                worker.known.add(shot.engine_key)
            worker.connection.send(shot)
        except ConnectionError:  # it has just died, before it had the shot
            self.deaths[shot.shot_id] -= 1
            self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        exit_code = worker.kill()
        if not worker.is_ready:
            self.false_starts += 1
            if self.false_starts == ALLOWED_FAILURES:
                raise RuntimeError(
                    f"{self.false_starts} times in a row a worker process ended while it started, the last one with exit "
                    f"code {exit_code}: what it wrote to the standard error output says why. Common reasons: what the "
                    'script does is not under if __name__ == "__main__":, or a fresh process does not find a package'
                )
        if worker.shot is not None:
            self._count_death(worker.shot, exit_code)
        self.workers[self.workers.index(worker)] = _Worker(self.environment)

    def _count_death(self, shot: ShotSpec, exit_code: int) -> None:
        self.deaths[shot.shot_id] += 1
        if self.deaths[shot.shot_id] < ALLOWED_FAILURES:
            self.shots.appendleft(shot)
            return
        text = (
            f"{self.deaths.pop(shot.shot_id)} worker processes have died while they ran shot {shot.shot_id}, the last one "
            f"with exit code {exit_code} (-9: killed, for instance for want of memory; -11: a crash in compiled code)"
        )
        self.done.put(ShotFailure(shot.shot_id, text, "killed_worker"))


class _Worker:
    """A process and the connection to it."""

    def __init__(self, environment):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", worker_process.__file__, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.PIPE,  # nothing is written: its end tells the worker that this process is no more
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # out of reach of Ctrl-C
            )
        self.connection = Connection(ours.detach())
        with suppress(ConnectionError):  # it has ended already, which the supervising thread finds out
            self.connection.send(list(sys.path))
        self.is_ready = False
        self.known: set[str] = set()
        self.shot: ShotSpec | None = None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.shot is None

    def kill(self) -> int:
        """End the process, if it has not ended; returns its exit code."""
        self.process.stdin.close()
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):  # it stops an external engine, and ends by itself
            return self.process.wait(2 * worker_process.PATIENCE)
        self.process.kill()
        return self.process.wait()
