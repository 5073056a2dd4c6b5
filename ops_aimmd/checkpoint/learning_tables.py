"""The tables of the learning: how shots, frames, the density and model versions become rows and come back.

All functions here act inside a transaction that the caller has begun.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ops_aimmd.checkpoint.documents import decode, decode_arrays, encode, encode_arrays
from ops_aimmd.checkpoint.errors import CheckpointCorruptError, damaged
from ops_aimmd.checkpoint.rows import check_count, checksum_of, raw_bytes
from ops_aimmd.committor.training_set import AuxiliaryFrames

SCHEMA = (
    """CREATE TABLE run (
    -- 'identity': run_id, created, keep_every, metadata; 'progress': last finished step and number of rows per table
    key TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL,        -- strict JSON; {"$array": name} stands for an array in arrays, {"$float": "nan"} for NaN
    arrays BLOB,               -- safetensors, or NULL
    checksum INTEGER NOT NULL  -- zlib crc32 of key, a zero byte, json, arrays
)""",
    """CREATE TABLE state (
    -- what is replaced as the run goes on: optimiser, schedule, random generators; columns as in run
    key TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL,
    arrays BLOB,
    checksum INTEGER NOT NULL
)""",
    """CREATE TABLE shots (
    -- the training set, one row per shot, numbered from 0 without gaps
    shot INTEGER PRIMARY KEY NOT NULL,
    step INTEGER NOT NULL,           -- MC step, -1 where unknown
    chain INTEGER NOT NULL,
    weight REAL NOT NULL,            -- statistical weight in training
    velocity_origin TEXT NOT NULL,   -- boltzmann, path or unknown
    descriptors BLOB NOT NULL,       -- of the shooting point: n_descriptors little-endian float64
    counts BLOB NOT NULL,            -- legs that reached each state: n_states little-endian float64
    predicted_committor BLOB,        -- before the shot: n_states little-endian float64, NULL where unknown
    checksum INTEGER NOT NULL        -- zlib crc32 of the columns before: int64, float64, text, blobs
)""",
    """CREATE TABLE leg_frames (
    -- auxiliary: m frames of the legs of a shot, the shooting point left out; no row where there are none
    shot INTEGER PRIMARY KEY NOT NULL,
    descriptors BLOB NOT NULL,       -- (m, n_descriptors) little-endian float64, frame by frame
    outcomes BLOB NOT NULL,          -- state that the leg of each frame reached: m little-endian int32
    is_end BLOB NOT NULL,            -- 1 for the frame inside the state: m bytes
    displacements BLOB NOT NULL,     -- change since the frame before: as descriptors, but float32; NaN where unknown
    checksum INTEGER NOT NULL        -- zlib crc32 of shot (int64), descriptors, outcomes, is_end, displacements
)""",
    """CREATE TABLE density_paths (
    -- the sampled transition paths whose frames make the density, numbered from 0 in the order of their first step
    number INTEGER PRIMARY KEY NOT NULL,
    path TEXT NOT NULL UNIQUE,       -- identity given by the writer
    count INTEGER NOT NULL,          -- MC steps in which it was the current path
    thinning INTEGER NOT NULL,       -- frames that each remaining one stands for
    checksum INTEGER NOT NULL        -- zlib crc32 of the columns before: int64, text
)""",
    """CREATE TABLE density_frames (
    number INTEGER PRIMARY KEY NOT NULL,  -- of the path
    frames BLOB NOT NULL,                 -- (m, density_columns) little-endian float64, frame by frame
    checksum INTEGER NOT NULL             -- zlib crc32 of number (int64), frames
)""",
    """CREATE TABLE model_versions (
    number INTEGER PRIMARY KEY NOT NULL,
    step INTEGER NOT NULL,           -- the step that published it
    checksum INTEGER NOT NULL,       -- zlib crc32 of number, step (int64), description, arrays
    description TEXT NOT NULL,       -- strict JSON as in run
    arrays BLOB NOT NULL             -- weights and buffers by name, safetensors
)""",
)


NO_PROGRESS = {
    "step": -1,
    "shots": 0,
    "leg_frames": 0,
    "n_descriptors": 0,
    "n_states": 0,
    "density_paths": 0,
    "density_columns": 0,
    "model_version": None,
    "model_versions": 0,
    "state_keys": 0,
}
"""Contents of the row ``progress`` of a new file: where the run stands, and how many rows there must be."""


@dataclass(frozen=True)
class ShotColumns:
    """All n shots in the order in which they were recorded.

    Attributes
    ----------
    descriptors : float64 array, shape (n, d)
    counts : float64 array, shape (n, n_states)
    weights : float64 array, shape (n,)
    steps, chains : int64 array, shape (n,)
    velocity_origin : str array, shape (n,)
    predicted_committor : float64 array, shape (n, n_states)
        NaN where unknown.
    auxiliary : AuxiliaryFrames
    """

    descriptors: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    steps: np.ndarray
    chains: np.ndarray
    velocity_origin: np.ndarray
    predicted_committor: np.ndarray
    auxiliary: AuxiliaryFrames

    def __len__(self) -> int:
        return len(self.descriptors)


class DensityPath(NamedTuple):
    """A sampled transition path as the density sees it: MC steps in which it was current, how many frames each of
    the remaining ones stands for, and these, shape (m, c)."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    thinning: int
    frames: np.ndarray | None


def pack_shot(shot: int, result, n_descriptors: int | None, n_states: int | None) -> tuple[tuple, tuple | None]:
    """Rows of ``shots`` and ``leg_frames`` for one shooting result.

    The only place that knows what a shooting result looks like: ``descriptors`` (d,), ``counts`` (n_states,),
    ``weight``, ``step``, ``chain``, ``velocity_origin`` (str), ``predicted_committor`` (n_states,) or None, and
    ``leg_frames``, None or an object with ``descriptors`` and ``displacements`` (m, d), ``outcomes`` (m,) and ``is_end``
    (m,): see :class:`ops_aimmd.committor.training_set.ShootingResult`.
    """
    step, chain, weight = operator.index(result.step), operator.index(result.chain), float(result.weight)
    if not np.isfinite(weight) or len(result.velocity_origin) > 16:
        raise ValueError(
            f"a shot needs a finite weight and a velocity_origin of at most 16 letters; got {weight} and "
            f"{result.velocity_origin!r}"
        )
    weight += 0.0  # -0.0 becomes 0.0, as it would in sqlite
    descriptors = raw_bytes("descriptors", result.descriptors, (n_descriptors,))
    counts = raw_bytes("counts", result.counts, (n_states,))
    n_descriptors, n_states = len(descriptors) // 8, len(counts) // 8
    predicted = result.predicted_committor
    predicted = None if predicted is None else raw_bytes("predicted_committor", predicted, (n_states,))
    content = (result.velocity_origin, descriptors, counts, predicted)
    row = (shot, step, chain, weight, *content)
    shot_row = (*row, checksum_of(*row))
    if result.leg_frames is None or not len(result.leg_frames.descriptors):
        return shot_row, None
    n_frames = len(result.leg_frames.descriptors)
    content = (
        raw_bytes("descriptors of leg frames", result.leg_frames.descriptors, (n_frames, n_descriptors)),
        raw_bytes("outcomes of leg frames", result.leg_frames.outcomes, (n_frames,), "<i4"),
        raw_bytes("is_end of leg frames", result.leg_frames.is_end, (n_frames,), "u1"),
        raw_bytes("displacements of leg frames", result.leg_frames.displacements, (n_frames, n_descriptors), "<f4"),
    )
    return shot_row, (shot, *content, checksum_of(shot, *content))


def append_shots(connection, progress: dict, results: Sequence) -> None:
    shot_rows, frame_rows = [], []
    for result in results:
        sizes = (progress["n_descriptors"], progress["n_states"]) if progress["shots"] else (None, None)
        shot_row, frame_row = pack_shot(progress["shots"], result, *sizes)
        progress["n_descriptors"], progress["n_states"] = len(shot_row[5]) // 8, len(shot_row[6]) // 8
        progress["shots"] += 1
        shot_rows.append(shot_row)
        if frame_row is not None:
            progress["leg_frames"] += len(frame_row[3])
            frame_rows.append(frame_row)
    connection.executemany("INSERT INTO shots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", shot_rows)
    connection.executemany("INSERT INTO leg_frames VALUES (?, ?, ?, ?, ?, ?)", frame_rows)


def empty_columns(progress: dict) -> ShotColumns:
    """Columns of the size that the file announces, to be filled by the functions that follow."""
    n, m, d = progress["shots"], progress["leg_frames"], progress["n_descriptors"]
    return ShotColumns(
        descriptors=np.empty((n, d)),
        counts=np.empty((n, progress["n_states"])),
        weights=np.empty(n),
        steps=np.empty(n, np.int64),
        chains=np.empty(n, np.int64),
        velocity_origin=np.empty(n, "U16"),
        predicted_committor=np.empty((n, progress["n_states"])),
        auxiliary=AuxiliaryFrames(
            descriptors=np.empty((m, d)),
            outcomes=np.empty(m, np.int64),
            is_end=np.empty(m, bool),
            displacements=np.empty((m, d)),
            shot=np.empty(m, np.int64),
        ),
    )


def read_shots(connection, path: Path, shots: ShotColumns, rows: slice) -> None:
    """Fill rows of the columns from the file."""
    found = connection.execute(
        "SELECT shot, step, chain, weight, CAST(velocity_origin AS TEXT), CAST(descriptors AS BLOB), "
        "CAST(counts AS BLOB), CAST(predicted_committor AS BLOB), checksum "
        "FROM shots WHERE shot >= ? AND shot < ? ORDER BY shot",
        (rows.start, rows.stop),
    ).fetchall()
    check_count(path, f"shots {rows.start} to {rows.stop - 1}", len(found), rows.stop - rows.start)
    unknown = np.full(shots.counts.shape[1], np.nan).astype("<f8").tobytes()
    for expected, row in enumerate(found, start=rows.start):
        if row[0] != expected or row[8] != checksum_of(*row[:8]):
            raise CheckpointCorruptError(damaged(path, f"shots, shot {expected}"))
    _, steps, chains, weights, origins, descriptors, counts, predicted, _ = zip(*found, strict=True)
    shots.steps[rows], shots.chains[rows], shots.weights[rows] = steps, chains, weights
    shots.velocity_origin[rows] = origins
    shots.descriptors[rows] = np.frombuffer(b"".join(descriptors), "<f8").reshape(len(found), -1)
    shots.counts[rows] = np.frombuffer(b"".join(counts), "<f8").reshape(len(found), -1)
    known = b"".join(unknown if values is None else values for values in predicted)
    shots.predicted_committor[rows] = np.frombuffer(known, "<f8").reshape(len(found), -1)


def read_leg_frames(connection, path: Path, frames: AuxiliaryFrames, rows: slice, first: int) -> int:
    """Fill the columns, from the frame ``first`` on, with the leg frames of some shots; returns where it stopped."""
    found = connection.execute(
        "SELECT shot, CAST(descriptors AS BLOB), CAST(outcomes AS BLOB), CAST(is_end AS BLOB), "
        "CAST(displacements AS BLOB), checksum FROM leg_frames WHERE shot >= ? AND shot < ? ORDER BY shot",
        (rows.start, rows.stop),
    ).fetchall()
    for row in found:
        if row[5] != checksum_of(*row[:5]):
            raise CheckpointCorruptError(damaged(path, f"leg_frames, shot {row[0]}"))
    if not found:
        return first
    shot, descriptors, outcomes, is_end, displacements, _ = zip(*found, strict=True)
    sizes = [len(flags) for flags in is_end]
    here = slice(first, first + sum(sizes))
    if here.stop > len(frames):
        raise CheckpointCorruptError(damaged(path, f"leg_frames: more than the {len(frames)} frames expected"))
    frames.descriptors[here] = np.frombuffer(b"".join(descriptors), "<f8").reshape(sum(sizes), -1)
    frames.outcomes[here] = np.frombuffer(b"".join(outcomes), "<i4")
    frames.is_end[here] = np.frombuffer(b"".join(is_end), "u1")
    frames.displacements[here] = np.frombuffer(b"".join(displacements), "<f4").reshape(sum(sizes), -1)
    frames.shot[here] = np.repeat(shot, sizes)
    return here.stop


def write_density(connection, progress: dict, paths: Mapping[str, tuple]) -> None:
    for path, (count, thinning, frames) in paths.items():
        count, thinning = operator.index(count), operator.index(thinning)
        if not isinstance(path, str):
            raise TypeError(f"paths of the density are named by strings; got {path!r}")
        found = connection.execute("SELECT number FROM density_paths WHERE path = ?", (path,)).fetchone()
        if found is None and frames is None:
            raise ValueError(f"path {path!r} is new to the density of this checkpoint and needs its frames")
        number = progress["density_paths"] if found is None else found[0]
        progress["density_paths"] += found is None
        checksum = checksum_of(number, path, count, thinning)
        connection.execute(
            "INSERT OR REPLACE INTO density_paths VALUES (?, ?, ?, ?, ?)"
            if found is None
            else "UPDATE density_paths SET count = ?3, thinning = ?4, checksum = ?5 WHERE number = ?1 AND path = ?2",
            (number, path, count, thinning, checksum),
        )
        if frames is not None:
            raw = raw_bytes("frames of the density", frames, (None, progress["density_columns"] or None))
            progress["density_columns"] = np.shape(frames)[1]
            connection.execute(
                "INSERT OR REPLACE INTO density_frames VALUES (?, ?, ?)", (number, raw, checksum_of(number, raw))
            )


def read_density(connection, path: Path, progress: dict) -> dict[str, DensityPath]:
    rows = connection.execute(
        "SELECT number, CAST(path AS TEXT), count, thinning, checksum FROM density_paths ORDER BY number"
    ).fetchall()
    blocks = connection.execute(
        "SELECT number, CAST(frames AS BLOB), checksum FROM density_frames ORDER BY number"
    ).fetchall()
    check_count(path, "density_paths", len(rows), progress["density_paths"])
    check_count(path, "density_frames", len(blocks), progress["density_paths"])
    density = {}
    for expected, (row, block) in enumerate(zip(rows, blocks, strict=True)):
        for table, values in (("density_paths", row), ("density_frames", block)):
            if values[0] != expected or values[-1] != checksum_of(*values[:-1]):
                raise CheckpointCorruptError(damaged(path, f"{table}, number {expected}"))
        frames = np.frombuffer(block[1], "<f8").astype(np.float64).reshape(-1, progress["density_columns"])
        density[row[1]] = DensityPath(row[2], row[3], frames)
    return density


def append_model_version(connection, progress: dict, step: int, model_version: tuple, keep_every: int) -> None:
    number, description, arrays = model_version
    number, newest = operator.index(number), progress["model_version"]
    if number < 0 or (newest is not None and number <= newest):
        raise ValueError(f"model version {number} cannot follow version {newest}: numbers increase, from 0 or more")
    text, block = encode(description, "description of the model version")
    if block is not None:
        raise TypeError("the description of a model version holds arrays: give them with its arrays")
    block = encode_arrays(arrays, "arrays of the model version")
    checksum = checksum_of(number, step, text, block)
    connection.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?)", (number, step, checksum, text, block))
    progress["model_version"] = number
    progress["model_versions"] += 1
    if newest is not None and newest % keep_every:
        connection.execute("DELETE FROM model_versions WHERE number = ?", (newest,))
        progress["model_versions"] -= 1


def read_model_version(connection, path: Path, number: int) -> tuple[int, dict, dict[str, np.ndarray]]:
    step, checksum, description, arrays = connection.execute(
        "SELECT step, checksum, CAST(description AS TEXT), CAST(arrays AS BLOB) FROM model_versions WHERE number = ?",
        (number,),
    ).fetchone() or (None, None, None, None)
    if description is None or arrays is None or checksum != checksum_of(number, step, description, arrays):
        raise CheckpointCorruptError(damaged(path, f"model_versions, number {number}"))
    return number, decode(description, None), decode_arrays(arrays)
