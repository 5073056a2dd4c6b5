"""The write-ahead journal of a checkpoint: shots that were handed out and whose steps are not finished yet.

A specification is here before its shot begins, a result before anybody acts on it, both until the step that they belong to
is recorded. So after a death no shot is drawn anew: that would leave out those that take longest to die with.

The tables are made when they are first needed, so that checkpoints of runs without a journal have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops_aimmd.checkpoint.documents import encode
from ops_aimmd.checkpoint.rows import find_row, insert_row, read_documents

SPECIFICATIONS, RESULTS = "shots_in_flight", "shot_results"

_COLUMNS = """(
    shot TEXT PRIMARY KEY NOT NULL,  -- its name, unique in the run
    json TEXT NOT NULL,              -- strict JSON as in run
    arrays BLOB,                     -- safetensors, or NULL
    checksum INTEGER NOT NULL        -- zlib crc32 of shot, a zero byte, json, arrays
)"""


class JournaledShot(NamedTuple):
    """A shot in the journal: its specification, and its result or None; nested JSON-able values and arrays."""

    specification: dict
    result: dict | None


def write_specifications(connection, documents: Mapping[str, Any]) -> None:
    for table in (SPECIFICATIONS, RESULTS):
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} {_COLUMNS}")
    for shot, document in documents.items():
        insert_row(connection, SPECIFICATIONS, shot, *encode(document, f"shot {shot!r}"))


def write_result(connection, path: Path, shot: str, document: Any) -> None:
    if not _has_tables(connection) or find_row(connection, path, SPECIFICATIONS, shot) is None:
        raise KeyError(f"shot {shot!r} is not in the journal of {path}: its specification must be there before its result")
    insert_row(connection, RESULTS, shot, *encode(document, f"shot {shot!r}"))


def delete_shots(connection, shots: Iterable[str]) -> None:
    if _has_tables(connection):
        for table in (SPECIFICATIONS, RESULTS):
            connection.executemany(f"DELETE FROM {table} WHERE shot = ?", [(shot,) for shot in shots])


def read_journal(connection, path: Path) -> dict[str, JournaledShot]:
    if not _has_tables(connection):
        return {}
    results = read_documents(connection, path, RESULTS)
    specifications = read_documents(connection, path, SPECIFICATIONS)
    return {shot: JournaledShot(document, results.get(shot)) for shot, document in specifications.items()}


def _has_tables(connection) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)", (SPECIFICATIONS, RESULTS))
    return found.fetchone()[0] == 2
