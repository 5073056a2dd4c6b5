"""Shots as data: what goes to a worker and what comes back, arrays and plain values, no objects of OPS.

A snapshot of OPS does not unpickle, and belongs to the process that made its uuid. A shooting point therefore travels as
arrays, the frames of the new legs come back as arrays, and snapshots are made of them where the paths are: uuids are made
in one process only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import BaseSnapshot

from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import ARRAYS, can_be_kept, has_unit
from ops_aimmd.shooting.frame_blocks import stacked, unstacked
from ops_aimmd.shooting.legs import Leg

DIRECTIONS = ("backward", "forward")
STATUSES = ("ok", "max_length", "nan")


class _Record:
    """Plain values and arrays, for a journal and back."""

    def to_document(self) -> dict:
        """All fields, without objects of this module."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_document(cls, document: Mapping):
        """Rebuild from `to_document`."""
        return cls(**document)


def _plain(value):
    if isinstance(value, tuple):
        return [part.to_document() if isinstance(part, _Record) else part for part in value]
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, eq=False)
class ShotSpec(_Record):
    """All that a worker needs to know about a shot; the same specification always gives the same frames.

    Attributes
    ----------
    shot_id : str
        Unique in a run.
    engine_key : str
        Key of engine and states: `ops_aimmd.shooting.engine_description.engine_key`.
    coordinates, velocities : float64 array, shape (n_atoms, n_spatial)
        The shooting point, forward in time; nm and nm/ps where the snapshot has units.
    box_vectors : float64 array, shape (3, 3), or None
        nm.
    directions : tuple of {"backward", "forward"}
        Legs to make, in this order; a backward leg starts with the velocities reversed.
    max_frames : int or None
        Largest number of frames of a leg, the shooting point included; None: no limit beside the engine's `n_frames_max`.
    seed : int
        At least 0; fixes all random numbers of the dynamics.
    with_units : bool
        Whether the arrays of the snapshot have units.
    values : dict of str to plain value
        Other parts of the snapshot.
    last_frame_only : bool
        Whether to return only the last frame of each leg, for shots that only need outcomes.
    """

    shot_id: str
    engine_key: str
    coordinates: np.ndarray
    velocities: np.ndarray
    box_vectors: np.ndarray | None
    directions: tuple[str, ...]
    max_frames: int | None
    seed: int
    with_units: bool = False
    values: Mapping = field(default_factory=dict)
    last_frame_only: bool = False

    def __post_init__(self):
        if not self.directions or len(set(self.directions)) < len(self.directions) or set(self.directions) - {*DIRECTIONS}:
            raise ValueError(f"directions of a shot are one or both of {DIRECTIONS}; got {self.directions!r}")
        if not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise ValueError(f"the seed of a shot must be an integer >= 0; got {self.seed!r}")

    @property
    def digest(self) -> str:
        """SHA-256 of the whole content, ids included, in hexadecimal digits; the same in every process."""
        sha = hashlib.sha256()
        for name, value in self.to_document().items():
            if isinstance(value, np.ndarray):
                value = np.ascontiguousarray(value)
                sha.update(f"{name}: {value.dtype.str} {value.shape}\n".encode())
                sha.update(value.tobytes())
            else:
                sha.update(f"{name}: {value!r}\n".encode())
        return sha.hexdigest()

    @classmethod
    def from_document(cls, document: Mapping) -> ShotSpec:
        return cls(**{**document, "directions": tuple(document["directions"])})


@dataclass(frozen=True, eq=False)
class LegResult(_Record):
    """A leg made by a worker.

    Attributes
    ----------
    direction : {"backward", "forward"}
    status : {"ok", "max_length", "nan"}
        It has reached a state, hit the length limit, or failed.
    outcome : int
        Index of the state that it reached, -1 if none.
    coordinates, velocities : float64 array, shape (n_frames, n_atoms, n_spatial)
        The frames after the shooting point, in the order of generation; the last one alone if the specification says so.
    box_vectors : float64 array, shape (n_frames, 3, 3) or, where all are equal, (1, 3, 3), or None
    values : dict of str to list
        Other parts of the snapshots, one value per frame.
    """

    direction: str
    status: str
    outcome: int
    coordinates: np.ndarray
    velocities: np.ndarray
    box_vectors: np.ndarray | None
    values: Mapping = field(default_factory=dict)

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"the status of a leg is one of {STATUSES}; got {self.status!r}")


@dataclass(frozen=True, eq=False)
class ShotResult(_Record):
    """The legs of a shot.

    Attributes
    ----------
    legs : tuple of LegResult
        In the order of the directions of the specification.
    worker : str
        Host and process.
    seconds : float
        Wall time of the dynamics.
    """

    shot_id: str
    legs: tuple[LegResult, ...]
    worker: str
    seconds: float

    @classmethod
    def from_document(cls, document: Mapping) -> ShotResult:
        return cls(**{**document, "legs": tuple(LegResult.from_document(leg) for leg in document["legs"])})


@dataclass(frozen=True)
class ShotFailure:
    """A shot that could not be run. (`max_length` and `nan` are results, not failures.)

    Attributes
    ----------
    error : str
        What happened, for a human reader.
    kind : {"error", "killed_worker", "cancelled"}
        The dynamics or a collective variable raised an error; each worker that took the shot died; it was cancelled.
    """

    shot_id: str
    error: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.error}"


@dataclass(frozen=True, eq=False)
class ShotHere:
    """A shot that stays in this process, with its shooting point as it is, whatever the snapshot holds.

    Attributes as those of `ShotSpec`.
    """

    shot_id: str
    engine_key: str
    snapshot: BaseSnapshot
    directions: tuple[str, ...]
    max_frames: float | None
    seed: int


@dataclass(frozen=True, eq=False)
class ResultHere:
    """The legs of a `ShotHere`, by direction."""

    shot_id: str
    legs: dict[str, Leg]


def specification(
    shot_id: str,
    engine_key: str,
    snapshot,
    directions: Sequence[str],
    max_frames: float | None,
    seed: int,
    last_frame_only: bool = False,
) -> ShotSpec:
    """Specification of a shot from a snapshot with the velocities to start with; other parameters as in `ShotSpec`.

    Raises
    ------
    TypeError
        If the snapshot holds more than coordinates, velocities, a box and plain values, or its coordinates lie in a file.
    """
    if not can_be_kept(snapshot):
        raise TypeError(
            f"snapshots of the class {snapshot.__class__.__name__} hold more than coordinates, velocities, box vectors and "
            "plain values (None, bool, int, float, str), or their coordinates lie in files of the engine, and only arrays "
            "and plain values in memory travel to workers: use an engine that keeps its "
            "frames in memory, or sample with openpathsampling.PathSampling, in one process"
        )
    parts = adapter_of(snapshot.engine).arrays_of(snapshot)
    return ShotSpec(
        shot_id=shot_id,
        engine_key=engine_key,
        coordinates=np.array(parts["coordinates"]),
        velocities=np.array(parts["velocities"]),
        box_vectors=None if parts.get("box_vectors") is None else np.array(parts["box_vectors"]),
        directions=tuple(directions),
        max_frames=None if max_frames is None or math.isinf(max_frames) else int(max_frames),
        seed=int(seed),
        with_units=has_unit(snapshot.coordinates),
        values={name: value for name, value in parts.items() if name not in ARRAYS},
        last_frame_only=last_frame_only,
    )


def shooting_point(spec: ShotSpec, engine):
    """The snapshot of a specification, as a frame of an engine."""
    arrays = {name: getattr(spec, name)[None] for name in ARRAYS if getattr(spec, name) is not None}
    return _snapshots(arrays, {name: [value] for name, value in spec.values.items()}, spec.with_units, engine)[0]


def leg_result(direction: str, leg: Leg, last_frame_only: bool = False) -> LegResult:
    """A leg as arrays."""
    start, frames = leg.trajectory[0], list(leg.trajectory[1:])
    if last_frame_only:
        frames = frames[-1:]
    adapter = adapter_of(start.engine)
    arrays, values = stacked([adapter.arrays_of(frame) for frame in frames or [start]])
    if not frames:
        arrays, values = ({name: column[:0] for name, column in columns.items()} for columns in (arrays, values))
    return LegResult(
        direction=direction,
        status="ok" if leg.failure is None else leg.failure,
        outcome=int(leg.outcome),
        coordinates=arrays["coordinates"],
        velocities=arrays["velocities"],
        box_vectors=arrays.get("box_vectors"),
        values=values,
    )


def legs_from_result(result: ShotResult | ResultHere, snapshot, engine) -> dict[str, Leg]:
    """The legs of a shot by direction, as `ops_aimmd.shooting.legs.run_legs` makes them; new frames get their uuids here.

    Parameters
    ----------
    snapshot : openpathsampling snapshot
        The shooting point of the specification: first frame of a forward leg, and reversed that of a backward leg.
    engine : openpathsampling.engines.DynamicsEngine
        Engine of the new frames.
    """
    if isinstance(result, ResultHere):
        return result.legs
    with_units = has_unit(snapshot.coordinates)
    legs = {}
    for leg in result.legs:
        arrays = {name: getattr(leg, name) for name in ARRAYS if getattr(leg, name) is not None}
        frames = _snapshots(arrays, leg.values, with_units, engine)
        start = snapshot if leg.direction == "forward" else snapshot.reversed
        failure = None if leg.status == "ok" else leg.status
        legs[leg.direction] = Leg(paths.Trajectory([start, *frames]), leg.outcome, failure)
    return legs


def _snapshots(arrays: Mapping, values: Mapping, with_units: bool, engine) -> list:
    """New snapshots of an engine from arrays with one row per frame."""
    adapter = adapter_of(engine)
    return [adapter.frame_of(parts, with_units) for parts in unstacked(arrays, values)]
