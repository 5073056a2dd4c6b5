"""Dynamics of an engine that is stopped however it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

import openpathsampling as paths

from ops_aimmd.engines.choose import adapter_of


def generate(engine, start, running: Callable) -> paths.Trajectory:
    """Dynamics from a snapshot on, as `engine.generate` makes it, with an engine that is stopped however it ends.

    OPS stops the engine at the end of the dynamics and at an error in making a frame. At an error, or Ctrl-C, in the
    condition that looks at a frame it does not: the process of an external engine would run on. After an error the engine
    forgets its frame, so that the next dynamics begins from its own one.

    Parameters
    ----------
    engine : openpathsampling.engines.DynamicsEngine
    start : Snapshot
    running : callable
        ``running(trajectory, trusted=None)`` tells whether the dynamics goes on.
    """
    trajectory = paths.Trajectory([start])
    stopped_by_ops = False
    own = vars(engine).get("stop")
    stop = engine.stop

    def still_running(so_far, trusted=None) -> bool:
        nonlocal trajectory
        trajectory = so_far
        return running(so_far, trusted)

    def note_stop(so_far) -> None:
        nonlocal stopped_by_ops
        stop(so_far)
        stopped_by_ops = True

    engine.stop = note_stop
    _running_engines[id(engine)] = stop
    try:
        return engine.generate(start, running=[still_running])
    except BaseException as error:
        if not stopped_by_ops:
            try:
                stop(trajectory)
            except Exception as second:  # it must not hide the first
                warnings.warn(f"after {error!r} the engine could not be stopped: {second!r}", stacklevel=2)
        adapter_of(engine).forget_current_frame()
        raise
    finally:
        del _running_engines[id(engine)]
        if own is None:
            del engine.stop
        else:
            engine.stop = own


_running_engines: dict[int, Callable] = {}
"""The method that stops each running engine."""


def stop_running_engines() -> None:
    """Stop all engines that run in this process, before it ends in the middle of their dynamics."""
    for stop in list(_running_engines.values()):
        with suppress(Exception):
            stop(None)
