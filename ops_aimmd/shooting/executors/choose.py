"""All executors by name, and the choice of one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

from ops_aimmd.shooting.executors.base import Executor
from ops_aimmd.shooting.executors.dask import DaskExecutor, local_cluster
from ops_aimmd.shooting.executors.in_this_process import InThisProcess
from ops_aimmd.shooting.executors.spawned import SpawnedProcesses

__all__ = [
    "DaskExecutor",
    "Executor",
    "InThisProcess",
    "SpawnedProcesses",
    "check_executor",
    "executor_for",
    "local_cluster",
    "opened",
]


def executor_for(thing) -> Executor:
    """The executor that a user means.

    None: in this process; a number: so many processes on this machine; a distributed.Client: on its cluster; an `Executor`:
    itself. TypeError for anything else.
    """
    check_executor(thing)
    if thing is None:
        return InThisProcess()
    if isinstance(thing, Executor):
        return thing
    return SpawnedProcesses(thing) if isinstance(thing, Integral) else DaskExecutor(thing)


def check_executor(thing) -> None:
    """Raise a TypeError for what `executor_for` does not know, a ValueError for a number of processes below 1."""
    if isinstance(thing, Integral) and not isinstance(thing, bool):
        if thing < 1:
            raise ValueError(f"{thing} processes can run nothing: give at least 1, or None for this process")
        return
    distributed = sys.modules.get("distributed")  # a client exists only if it was imported
    is_client = distributed is not None and isinstance(thing, distributed.Client)
    if thing is not None and not isinstance(thing, Executor) and not is_client:
        raise TypeError(
            f"an executor is None (this process), a number of processes, a distributed.Client, or an executor of "
            f"ops_aimmd.shooting.executors; got {thing!r}"
        )


@contextmanager
def opened(thing) -> Iterator[Executor]:
    """The executor that a user means (see `executor_for`); one that is made here is closed at the end of the block."""
    executor = executor_for(thing)
    try:
        yield executor
    finally:
        if executor is not thing:
            executor.close()
