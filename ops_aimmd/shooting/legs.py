"""Legs: dynamics from a shooting point to a state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import EngineMaxLengthError, EngineNaNError

from ops_aimmd.engines.running import generate
from ops_aimmd.shooting.states import state_index

WRECKED = 1e30
"""Coordinates larger than this (any unit) mean that the simulation has blown up."""


@dataclass(frozen=True)
class Leg:
    """A newly generated leg.

    Attributes
    ----------
    trajectory : Trajectory
        From the shooting point outwards, in the order of generation.
    outcome : int
        Index of the state that it reached, -1 if it hit the length limit or failed.
    failure : None or {"max_length", "nan"}
    """

    trajectory: paths.Trajectory
    outcome: int
    failure: str | None = None


def length_limit(engine, max_length: int | None) -> float:
    """The smaller one of `max_length` and the engine's `n_frames_max`; infinite where there is neither."""
    engine_limit = engine.options["n_frames_max"] or math.inf
    return engine_limit if max_length is None else min(max_length, engine_limit)


def check_engine(engine, max_length: int | None) -> None:
    """Check that an engine makes legs as they must be: see `ShootingMover.check_engine`."""
    if engine is None:
        raise ValueError("committor shooting needs an engine: pass engine= to the scheme, strategy or mover")
    engine_limit = engine.options["n_frames_max"] or math.inf
    if max_length is not None and max_length > engine_limit:
        raise ValueError(
            f"max_length={max_length} frames is more than the engine allows for one leg (n_frames_max={engine_limit}): "
            "raise n_frames_max in the engine's options to at least max_length"
        )
    if engine.options.get("on_nan", "fail") != "fail":
        raise ValueError(
            f"the engine's option on_nan is {engine.options['on_nan']!r}: a leg that fails would be repeated until it does "
            "not, which changes the distribution of the outcomes; use on_nan='fail', and the leg is recorded as failed"
        )


def run_leg(engine, start, states: Sequence, limit: float) -> Leg:
    """Dynamics from a snapshot on, with its velocities, until a state is reached or there are `limit` frames.

    The engine must be one that `check_engine` accepts. The outcome is -1 if the leg hit the limit or failed. Other errors
    of the engine propagate; the engine is stopped and can be used again.
    """
    outcome = -1

    def still_running(trajectory, trusted=None) -> bool:
        nonlocal outcome
        if not np.abs(trajectory[-1].xyz).max() < WRECKED:  # OPS notices NaN, but not the large numbers that precede it
            raise EngineNaNError("positions are beyond all bounds", trajectory)
        outcome = state_index(trajectory[-1], states)
        return outcome < 0 and len(trajectory) < limit

    try:
        leg = generate(engine, start, still_running)
    except EngineNaNError as error:
        return Leg(error.last_trajectory, -1, "nan")
    except EngineMaxLengthError as error:
        return Leg(error.last_trajectory, -1, "max_length")
    return Leg(leg, outcome, None if outcome >= 0 else "max_length")


def run_legs(engine, start, directions: Sequence[str], states: Sequence, limit: float) -> dict[str, Leg]:
    """The legs of a shot by name, run one after another in this process; "backward" ones from the reversed snapshot."""
    return {
        direction: run_leg(engine, start if direction == "forward" else start.reversed, states, limit)
        for direction in directions
    }


_legs_made_by: ContextVar[Callable] = ContextVar("legs_made_by", default=run_legs)


@contextmanager
def legs_made_by(maker: Callable) -> Iterator[None]:
    """Inside the block all shooting moves get their legs from `maker`, called like `run_legs`; it may raise."""
    token = _legs_made_by.set(maker)
    try:
        yield
    finally:
        _legs_made_by.reset(token)


def make_legs(engine, start, directions: Sequence[str], states: Sequence, limit: float) -> dict[str, Leg]:
    """The legs of a shot, from `run_legs` or from the function given to `legs_made_by`."""
    return _legs_made_by.get()(engine, start, directions, states, limit)
