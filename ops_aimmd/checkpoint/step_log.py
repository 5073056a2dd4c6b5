"""The step log: what each step did to the paths, from which a lost or lagging file of the simulation is made again.

Frames stand in blocks, as they were generated. A path is a list of places in blocks, so that paths which share frames
share them here too. A document for each step says what the step did with which paths. What the documents and the
arrays of a block mean is up to who writes them. All functions here act inside a transaction that the caller has begun.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ops_aimmd.checkpoint.documents import decode, decode_arrays, encode, encode_arrays
from ops_aimmd.checkpoint.rows import TABLES, check_keys, check_missing, checksum_of, find_row, insert_row, raw_bytes

STEP_LOG_SCHEMA = (
    """CREATE TABLE frame_blocks (
    -- frames as they were generated, numbered in this order from 0; blocks that nobody needs any more are deleted
    block INTEGER PRIMARY KEY NOT NULL,
    json TEXT NOT NULL,              -- what the arrays have in common, strict JSON as in run
    arrays BLOB NOT NULL,            -- safetensors: arrays by name, one row per frame; float64, or float32 once reduced
    checksum INTEGER NOT NULL        -- zlib crc32 of block (int64), a zero byte, json, arrays
)""",
    """CREATE TABLE paths (
    -- a path is made again by taking its n frames, in this order, from the arrays of their blocks
    path TEXT PRIMARY KEY NOT NULL,  -- identity given by the writer
    frames BLOB NOT NULL,            -- (n, 3) little-endian int64, frame by frame: block; row in the arrays of the block,
                                     -- from 0; 1 if the frame is time-reversed (velocities times -1), else 0
    checksum INTEGER NOT NULL        -- zlib crc32 of path, a zero byte, frames
)""",
    """CREATE TABLE steps (
    -- what each finished step did with which paths; steps that nobody needs any more are deleted
    step INTEGER PRIMARY KEY NOT NULL,
    json TEXT NOT NULL,              -- strict JSON and arrays as in run
    arrays BLOB,                     -- safetensors, or NULL
    checksum INTEGER NOT NULL        -- zlib crc32 of step (int64), a zero byte, json, arrays
)""",
    """CREATE TABLE files (
    -- bytes kept whole
    name TEXT PRIMARY KEY NOT NULL,
    content BLOB NOT NULL,
    checksum INTEGER NOT NULL        -- zlib crc32 of name, a zero byte, content
)""",
)

EMPTY_STEP_LOG = {"frame_blocks": 0, "last_frame_block": -1, "paths": 0, "steps": 0, "files": 0}
"""Joins :data:`.learning_tables.NO_PROGRESS`: the number of rows of each table, and the last number given to a block."""


LISTED_KEYS = 20
"""Keys that an error lists one by one; of more it gives number, first and last."""


class FrameBlock(NamedTuple):
    """Frames that were generated together.

    Attributes
    ----------
    meta : dict
        What they have in common: nested JSON-able values, no arrays.
    arrays : dict of str to array
        One row per frame in each.
    """

    meta: dict
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class StepLog:
    """What one step adds to the log, and what the log then no longer needs, in the order in which it is done.

    Attributes
    ----------
    document : dict or None
        What the step did: nested JSON-able values and arrays. None: the step is not logged.
    frame_blocks : mapping of int to FrameBlock
        New blocks by number. Numbers increase from 0 or more through the whole run and may have gaps.
    paths : mapping of str to integer array, shape (n_frames, 3)
        Paths by a name that is theirs for ever: block, row in the block, and 1 if the frame is time-reversed, else 0,
        of each frame. A path that is there already must be the same.
    reduce_blocks : sequence of int
        Blocks whose float64 arrays are rounded to float32; arrays of other types stay.
    drop_blocks, drop_paths : sequences of int and str
        Blocks and paths to delete; those that are not there are passed over. That no remaining path needs a deleted
        block is up to the writer.
    drop_steps_until : int or None
        Documents of this and all earlier steps are deleted.
    """

    document: dict | None = None
    frame_blocks: Mapping[int, FrameBlock] = field(default_factory=dict)
    paths: Mapping[str, np.ndarray] = field(default_factory=dict)
    reduce_blocks: Sequence[int] = ()
    drop_blocks: Sequence[int] = ()
    drop_paths: Sequence[str] = ()
    drop_steps_until: int | None = None


def write_log(connection, path: Path, progress: dict, step: int, log: StepLog) -> None:
    blocks = {operator.index(number): block for number, block in log.frame_blocks.items()}
    for number in sorted(blocks):
        _append_block(connection, progress, number, blocks[number])
    for name, frames in log.paths.items():
        _append_path(connection, path, progress, name, frames)
    if log.document is not None:
        _insert(connection, progress, "steps", step, *encode(log.document, f"document of step {step}"))
    for number in log.reduce_blocks:
        _reduce_block(connection, path, operator.index(number))
    for number in log.drop_blocks:
        _delete(connection, progress, "frame_blocks", "= ?", operator.index(number))
    for name in log.drop_paths:
        _delete(connection, progress, "paths", "= ?", _name("paths", name))
    if log.drop_steps_until is not None:
        _delete(connection, progress, "steps", "<= ?", operator.index(log.drop_steps_until))


def write_file(connection, progress: dict, name: str, content: bytes) -> None:
    """Insert or replace."""
    if not isinstance(content, bytes):
        raise TypeError(f"the content of a file is bytes; got {type(content).__name__} for {name!r}: convert it")
    _delete(connection, progress, "files", "= ?", _name("files", name))
    _insert(connection, progress, "files", name, content)


def read_block(connection, path: Path, progress: dict, number: int) -> FrameBlock:
    text, arrays = read_row(connection, path, progress, "frame_blocks", number)
    return FrameBlock(decode(text, None), decode_arrays(arrays))


def read_path(connection, path: Path, progress: dict, name: str) -> np.ndarray:
    (frames,) = read_row(connection, path, progress, "paths", _name("paths", name))
    return np.frombuffer(frames, "<i8").astype(np.int64).reshape(-1, 3)


def read_file(connection, path: Path, progress: dict, name: str) -> bytes:
    (content,) = read_row(connection, path, progress, "files", _name("files", name))
    return content


def read_step(connection, path: Path, progress: dict, step: int) -> Any:
    return decode(*read_row(connection, path, progress, "steps", step))


def read_keys(connection, path: Path, progress: dict, table: str) -> list:
    """Keys of all rows of a table, sorted."""
    key, kind, _ = TABLES[table]
    keys = [row[0] for row in connection.execute(f"SELECT CAST({key} AS {kind}) FROM {table} ORDER BY {key}")]
    check_keys(path, table, keys, progress[table])
    return keys


def read_row(connection, path: Path, progress: dict, table: str, key: int | str) -> tuple:
    """Content of a row that must be there.

    Raises
    ------
    KeyError
        If it is not; the message says which are.
    """
    content = find_row(connection, path, table, key)
    if content is not None:
        return content
    column = TABLES[table].key
    keys = read_keys(connection, path, progress, table)
    check_missing(connection, path, table, column, key, keys)
    there = f"{len(keys)} from {keys[0]!r} to {keys[-1]!r}" if len(keys) > LISTED_KEYS else keys
    raise KeyError(f"{path} holds no {column} {key!r} in its {table.replace('_', ' ')}; it has {there}")


def _name(table: str, name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the {table} of a checkpoint are named by strings; got {name!r}")
    return name


def _insert(connection, progress: dict, table: str, key: int | str, *content: str | bytes | None) -> None:
    insert_row(connection, table, key, *content)
    progress[table] += 1


def _delete(connection, progress: dict, table: str, condition: str, key: int | str) -> None:
    deleted = connection.execute(f"DELETE FROM {table} WHERE {TABLES[table].key} {condition}", (key,))
    progress[table] -= deleted.rowcount


def _append_block(connection, progress: dict, number: int, block: FrameBlock) -> None:
    if number <= progress["last_frame_block"]:
        raise ValueError(
            f"frame block {number} cannot follow block {progress['last_frame_block']}: numbers increase, from 0 or more"
        )
    meta, arrays = block
    text, block_of_meta = encode(meta, f"meta of frame block {number}")
    if block_of_meta is not None:
        raise TypeError(f"meta of frame block {number} holds arrays: give them with its arrays")
    _insert(connection, progress, "frame_blocks", number, text, encode_arrays(arrays, f"arrays of frame block {number}"))
    progress["last_frame_block"] = number


def _reduce_block(connection, path: Path, number: int) -> None:
    content = find_row(connection, path, "frame_blocks", number)
    if content is None:
        raise ValueError(f"frame block {number} cannot be reduced: it is not in {path}")
    text, arrays = content[0], decode_arrays(content[1])
    if not any(array.dtype == np.float64 for array in arrays.values()):
        return
    reduced = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}
    block = encode_arrays(reduced)
    connection.execute(
        "UPDATE frame_blocks SET arrays = ?, checksum = ? WHERE block = ?",
        (block, checksum_of(number, b"\0", text, block), number),
    )


def _append_path(connection, path: Path, progress: dict, name: str, frames: np.ndarray) -> None:
    raw = raw_bytes(f"frames of path {name!r}", frames, (None, 3), "<i8")
    places = np.frombuffer(raw, "<i8").reshape(-1, 3)
    wrong = (places < 0).any(axis=1) | (places[:, 2] > 1)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"frame {first} of path {name!r} is {places[first].tolist()}; expected (block, row, reversed) with block and "
            "row from 0 and reversed 0 or 1"
        )
    known = find_row(connection, path, "paths", _name("paths", name))
    if known is None:
        _insert(connection, progress, "paths", name, raw)
    elif known != (raw,):
        raise ValueError(f"path {name!r} is in {path} already, with other frames: a name belongs to one path for ever")
