"""Run the shots of a worker: legs without a model; a shot leaves nothing behind."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback

from ops_aimmd.shooting.engine_description import EngineDescription, PreparedEngine, prepared_engine
from ops_aimmd.shooting.legs import Leg, length_limit, run_legs
from ops_aimmd.shooting.shots import DIRECTIONS, ResultHere, ShotHere, ShotResult, ShotSpec, leg_result, shooting_point
from ops_aimmd.shooting.streams import FIRST_STREAM, generators_kept, seed_step

_one_shot_at_a_time = threading.Lock()
"""Engines draw from numpy's global generator, or from one that all engines of this process share."""


def run_shot(description: EngineDescription, spec: ShotSpec) -> ShotResult:
    """Run a shot in a worker: a pure function of its arguments, which may be called twice.

    Engine and states are built from the description at the first shot in this process. A leg that is too long or fails is a
    result, not an error.

    Raises
    ------
    RuntimeError
        If the dynamics, a state or a collective variable raised an error, with its text: errors of OPS engines do not
        unpickle.
    """
    try:
        return shoot(prepared_engine(description), spec)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise RuntimeError(f"{type(error).__name__}: {error}\n{text}") from None


def shoot(prepared: PreparedEngine, spec: ShotSpec) -> ShotResult:
    """Run a shot with an engine of this process; the generators of random numbers are left as they were."""
    start = shooting_point(spec, prepared.engine)
    with _one_shot_at_a_time, generators_kept():
        began = time.perf_counter()
        legs = _seeded_legs(prepared, spec, start)
        results = tuple(leg_result(direction, leg, spec.last_frame_only) for direction, leg in legs.items())
        seconds = time.perf_counter() - began
    return ShotResult(spec.shot_id, results, f"{socket.gethostname()}:{os.getpid()}", seconds)


def shoot_here(prepared: PreparedEngine, shot: ShotHere) -> ResultHere:
    """Run a shot from a snapshot as it is; otherwise as `shoot`."""
    with _one_shot_at_a_time, generators_kept():
        return ResultHere(shot.shot_id, _seeded_legs(prepared, shot, shot.snapshot))


def _seeded_legs(prepared: PreparedEngine, shot: ShotSpec | ShotHere, start) -> dict[str, Leg]:
    """The legs of a shot by direction.

    Each leg is seeded from ``SeedSequence([seed, FIRST_STREAM + number of the direction])``: it does not depend on
    what the engine did before, nor on the other leg. Only the generator inside an engine keeps the new seed.
    """
    limit = length_limit(prepared.engine, shot.max_frames)
    legs = {}
    for direction in shot.directions:
        stream = FIRST_STREAM + DIRECTIONS.index(direction)
        prepared.adapter.forget_history(start, [shot.seed, stream, 1])
        seed_step(shot.seed, stream, [prepared.engine])
        legs |= run_legs(prepared.engine, start, [direction], prepared.states, limit)
    return legs
