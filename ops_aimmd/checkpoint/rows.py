"""Rows of a checkpoint: each carries a CRC-32 of its key and content, and the row ``progress`` counts those of every table.

All functions here act inside a transaction that the caller has begun. Columns are read with CASTs because one flipped bit
may turn a blob into a text of the same bytes and the same checksum, or back.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ops_aimmd.checkpoint.documents import decode
from ops_aimmd.checkpoint.errors import CheckpointCorruptError, damaged

MAX_ROW_BYTES = 10**9 - 1000
"""sqlite's limit for a row (SQLITE_MAX_LENGTH), less some room for keys and lengths."""

DOCUMENT = "CAST(json AS TEXT), CAST(arrays AS BLOB)"


class Table(NamedTuple):
    """Name and type of the key of a table, and the columns that are read."""

    key: str
    type: str
    content: str


TABLES = {
    "run": Table("key", "TEXT", DOCUMENT),
    "state": Table("key", "TEXT", DOCUMENT),
    "frame_blocks": Table("block", "INTEGER", DOCUMENT),
    "paths": Table("path", "TEXT", "CAST(frames AS BLOB)"),
    "steps": Table("step", "INTEGER", DOCUMENT),
    "files": Table("name", "TEXT", "CAST(content AS BLOB)"),
    "shots_in_flight": Table("shot", "TEXT", DOCUMENT),
    "shot_results": Table("shot", "TEXT", DOCUMENT),
}
"""Tables of rows that consist of a key, some content and the checksum of the key, a zero byte and the content."""


def check_count(path: Path, table: str, found: int, expected: int) -> None:
    if found != expected:
        raise CheckpointCorruptError(damaged(path, f"{table}: {found} of {expected} rows found"))


def check_keys(path: Path, table: str, keys: list, expected: int) -> None:
    """Refuse a list of the keys of all rows in which one is missing or has become None or another."""
    check_count(path, table, len(set(keys) - {None}), expected)


def check_missing(connection, path: Path, table: str, column: str, key: int | str, keys: list) -> None:
    """Refuse a row that was not found although it is there: a damaged index hides it, or order and key disagree."""
    found = connection.execute(f"SELECT count(*) FROM {table} NOT INDEXED WHERE {column} = ?", (key,)).fetchone()
    if found[0] or key in keys:
        raise CheckpointCorruptError(damaged(path, f"{table}, index of {column} {key!r}"))


def checksum_of(*parts: bytes | str | int | float | None) -> int:
    """CRC-32 of the parts one after another: integers as int64 and floats as float64, little-endian, text as UTF-8,
    nothing for None. A value that cannot be written so, as damage may leave it, gives -1, which no row has."""
    checksum = 0
    for part in parts:
        try:
            if isinstance(part, str):
                part = part.encode()
            elif isinstance(part, int):
                part = part.to_bytes(8, "little", signed=True)
            elif isinstance(part, float):
                part = struct.pack("<d", part)
        except (OverflowError, UnicodeEncodeError):
            return -1
        checksum = checksum if part is None else zlib.crc32(part, checksum)
    return checksum


def _check_size(table: str, key: int | str, *content: str | bytes | None) -> None:
    size = sum(len(part) for part in content if part is not None)
    if size > MAX_ROW_BYTES:
        name = f"{TABLES[table].key} {key!r} of the {table.replace('_', ' ')}"
        raise ValueError(f"{name} takes {size} bytes; a row of a checkpoint holds at most {MAX_ROW_BYTES}: split it")


def insert_row(connection, table: str, key: int | str, *content: str | bytes | None) -> None:
    _check_size(table, key, *content)
    values = (key, *content, checksum_of(key, b"\0", *content))
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def find_row(connection, path: Path, table: str, key: int | str) -> tuple | None:
    """Content of a row, checked; None if there is none."""
    column, _, content = TABLES[table]
    row = connection.execute(f"SELECT {content}, checksum FROM {table} WHERE {column} = ?", (key,)).fetchone()
    return None if row is None else _checked(path, table, key, *row)


def read_documents(connection, path: Path, table: str) -> dict[str, Any]:
    """All documents of a table by key, in the order in which they were written."""
    key, kind, content = TABLES[table]
    rows = connection.execute(f"SELECT CAST({key} AS {kind}), {content}, checksum FROM {table} ORDER BY rowid")
    return {row[0]: decode(*_checked(path, table, *row)) for row in rows}


def _checked(path: Path, table: str, key: int | str, *row) -> tuple:
    *content, checksum = row
    if checksum != checksum_of(key, b"\0", *content):
        raise CheckpointCorruptError(damaged(path, f"{table}, {TABLES[table].key} {key!r}"))
    return tuple(content)


def write_document(connection, table: str, key: str, document: tuple[str, bytes | None]) -> int:
    """Insert or replace; returns the number of rows that were new."""
    if not isinstance(key, str):
        raise TypeError(f"keys of the {table} are strings; got {key!r}")
    _check_size(table, key, *document)
    values = (*document, checksum_of(key, b"\0", *document), key)
    updated = connection.execute(f"UPDATE {table} SET json = ?, arrays = ?, checksum = ? WHERE key = ?", values)
    if not updated.rowcount:
        insert_row(connection, table, key, *document)
    return 1 - updated.rowcount


def read_document(connection, path: Path, table: str, key: str) -> Any:
    content = find_row(connection, path, table, key)
    if content is None and table == "run":
        raise CheckpointCorruptError(damaged(path, f"run: the row {key!r} is missing"))
    if content is None:
        raise KeyError(key)
    return decode(*content)


def raw_bytes(name: str, values, shape: tuple[int | None, ...], dtype: str = "<f8") -> bytes:
    """Raw little-endian bytes of an array of a given shape; None in it stands for any size."""
    array = np.asarray(values)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} must have shape {shape} in this checkpoint; got {array.shape}")
    raw = array.astype(dtype)
    if raw.dtype.kind in "iu" and not np.array_equal(raw, array):
        raise ValueError(f"{name} must be integers that fit into {raw.dtype.name}; got values such as {array.flat[0]!r}")
    return raw.tobytes()
