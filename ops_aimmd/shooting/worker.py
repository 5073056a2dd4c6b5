"""Run the shots of a worker: legs without a model; a shot leaves nothing behind."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback

from ops_aimmd.shooting.engine_description import EngineDescription, Workbench, workbench
from ops_aimmd.shooting.legs import length_limit, run_leg
from ops_aimmd.shooting.shots import DIRECTIONS, ShotResult, ShotSpec, leg_result, shooting_point
from ops_aimmd.shooting.streams import generators_kept, seed_step

FIRST_STREAM = 2**64
"""Number of the first leg where `seed_step` expects the number of an MC step: no step has such a number, so that a shot and
a step never draw the same random numbers, even if they have the same seed."""

_one_shot_at_a_time = threading.Lock()
"""Engines draw from numpy's global generator, or from one that all engines of this process share."""


def run_shot(description: EngineDescription, spec: ShotSpec) -> ShotResult:
    """Run a shot in a worker: a pure function of its arguments, which may be called twice.

    Parameters
    ----------
    description : EngineDescription
        Engine and states are built from it at the first shot in this process.
    spec : ShotSpec

    Returns
    -------
    ShotResult

    Raises
    ------
    RuntimeError
        If the dynamics, a state or a collective variable raised an error, with its text: errors of OPS engines do not
        unpickle. A leg that is too long or fails is a result, not an error.
    """
    try:
        return shoot(workbench(description), spec)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise RuntimeError(f"{type(error).__name__}: {error}\n{text}") from None


def shoot(bench: Workbench, spec: ShotSpec) -> ShotResult:
    """Run a shot with an engine of this process; the generators of random numbers are left as they were.

    Each leg is seeded from ``SeedSequence([seed, FIRST_STREAM + number of the direction])``: it does not depend on
    what the engine did before, nor on the other leg. Only the generator inside an engine keeps the new seed.
    """
    engine = bench.engine
    start = shooting_point(spec, engine)
    limit = length_limit(engine, spec.max_frames)
    legs = []
    with _one_shot_at_a_time, generators_kept():
        began = time.perf_counter()
        for direction in spec.directions:
            stream = FIRST_STREAM + DIRECTIONS.index(direction)
            bench.adapter.forget_history(start, [spec.seed, stream, 1])
            seed_step(spec.seed, stream, [engine])
            leg = run_leg(engine, start if direction == "forward" else start.reversed, bench.states, limit)
            legs.append(leg_result(direction, leg, spec.last_frame_only))
        seconds = time.perf_counter() - began
    return ShotResult(spec.shot_id, tuple(legs), f"{socket.gethostname()}:{os.getpid()}", seconds)
