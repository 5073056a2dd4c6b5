"""What a worker does: it makes the legs of a shot. It knows no model, and nothing of it outlasts the shot."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Sequence

import numpy as np

from ops_aimmd.distributed.shots import DIRECTIONS, ShotResult, ShotSpec, leg_result, shooting_point
from ops_aimmd.distributed.workbench import EngineDescription, Workbench, workbench
from ops_aimmd.sampling.engines import is_openmm
from ops_aimmd.sampling.legs import length_limit, run_leg
from ops_aimmd.sampling.random_state import generators_kept, seed_step
from ops_aimmd.sampling.thermal_forces import thermal_forces

FIRST_STREAM = 2**64
"""Number of the first leg where `seed_step` expects the number of an MC step: no step has such a number, so that a shot and
a step never draw the same random numbers, even if they have the same seed."""

_one_shot_at_a_time = threading.Lock()
"""Toy engines draw from numpy's global generator, the Reference platform of OpenMM from one that all contexts share."""


def run_shot(description: EngineDescription, spec: ShotSpec) -> ShotResult:
    """Run a shot in a worker: a pure function of its arguments, which may be called twice.

    Parameters
    ----------
    description : EngineDescription
        From which engine and states are built at the first shot in this process.
    spec : ShotSpec

    Returns
    -------
    ShotResult

    Raises
    ------
    RuntimeError
        If the dynamics, a state or a collective variable raised an error, with its text: errors of OPS engines do not
        unpickle. A leg that is too long or breaks down is a result, no error.
    """
    try:
        return shoot(workbench(description), spec)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise RuntimeError(f"{type(error).__name__}: {error}\n{text}") from None


def shoot(bench: Workbench, spec: ShotSpec) -> ShotResult:
    """Run a shot with an engine of this process; the generators of random numbers are left as they were.

    Each leg is seeded anew from ``SeedSequence([seed, FIRST_STREAM + number of the direction])``: it does not depend on
    what the engine did before, nor on the other leg. Only the generator inside OpenMM keeps the new seed.
    """
    engine = bench.engine
    start = shooting_point(spec, engine)
    limit = length_limit(engine, spec.max_frames)
    legs = []
    with _one_shot_at_a_time, generators_kept():
        began = time.perf_counter()
        for direction in spec.directions:
            stream = FIRST_STREAM + DIRECTIONS.index(direction)
            _forget_history(bench, start, [spec.seed, stream, 1])
            seed_step(spec.seed, stream, [engine])
            leg = run_leg(engine, start if direction == "forward" else start.reversed, bench.states, limit)
            legs.append(leg_result(direction, leg, spec.last_frame_only))
        seconds = time.perf_counter() - began
    return ShotResult(spec.shot_id, tuple(legs), f"{socket.gethostname()}:{os.getpid()}", seconds)


def _forget_history(bench: Workbench, start, seed: Sequence[int]) -> None:
    """Put all that an OpenMM context keeps from one leg to the next to what it was before the first one: positions that may
    be wrecked, the box where frames have none, the clock (forces that act every so many steps look at it), variables of
    the integrator, barostats with their adapted step sizes and generators, which are seeded only while a context is made.
    """
    engine = bench.engine
    if not is_openmm(engine):
        return
    context = engine.simulation.context
    if bench.blank is None:
        engine.current_snapshot = start
        bench.blank = _blank(context)
        engine._changed()
    context.setState(bench.blank)
    if start.box_vectors is None:
        context.setPeriodicBoxVectors(*context.getSystem().getDefaultPeriodicBoxVectors())
    engine.current_snapshot = start
    engine._changed()  # the leg shall load its first frame, whatever happens to the context until then
    random_forces = thermal_forces(context.getSystem())
    if not random_forces:
        return
    numbers = np.random.SeedSequence(seed).generate_state(len(random_forces))
    for force, number in zip(random_forces, numbers, strict=True):
        force.setRandomNumberSeed(int(number) % (2**31 - 1) + 1)
    state = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    context.reinitialize(preserveState=False)
    context.setState(state)


def _blank(context):
    """Time, parameters and variables of the integrator, after a step: custom integrators may do something in their first
    step that they do not do again, and those of openmmtools then draw other random numbers."""
    context.setVelocities(np.zeros((context.getSystem().getNumParticles(), 3)))
    context.getIntegrator().step(1)
    context.setTime(0.0)
    context.setStepCount(0)
    return context.getState(parameters=True, integratorParameters=True)
