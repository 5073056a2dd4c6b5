"""Conversion of a checkpoint of an older format, so that it can be written: a new file takes its place.

The new file gets the name only after it was read back whole. The old one is kept, as NAME.v2 for format 2. A crash at any
moment leaves the old file under its name, or the new one.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

from ops_aimmd.checkpoint.errors import CheckpointError, CheckpointLockedError, translated
from ops_aimmd.checkpoint.write_lock import WriteLock

FORMAT_VERSION = 3
"""Raised only when an older program would misread the file. New tables and new state keys do not raise it.

3: inputs of models are bounded, and random numbers belong to a simulation; a program for format 2 would overlook both.
2: version 0.1.0.
"""

CONVERSIONS: dict[int, Callable[[sqlite3.Connection], None]] = {2: lambda connection: None}
"""For each older format that can be read: what changes the tables of a copy into those of the next format."""


class ConversionWarning(UserWarning):
    """A file of an older version was converted; the message says where the old file is."""


def can_be_read(version: int) -> bool:
    """Whether a file of a format can be read as it is: that of this program, or an older one with the same tables."""
    return version == FORMAT_VERSION or version in CONVERSIONS


def convert(path: Path, version: int, check: Callable[[Path], None]) -> None:
    """Put a converted copy in place of a checkpoint of the format `version`, and keep that as NAME.vVERSION.

    `check` reads a checkpoint whole; it is called with the path of the converted copy before that takes the name.

    Raises
    ------
    CheckpointLockedError
        If another process has the file open.
    CheckpointError
        If the copy cannot be written or read back; the file is then as it was.
    """
    old = Path(f"{path}.v{version}")
    new = Path(f"{path}.v{FORMAT_VERSION}-unfinished")
    with translated(path, "converted"), contextlib.ExitStack() as finally_:
        lock = WriteLock(path)
        finally_.callback(lock.release)
        finally_.callback(_remove, new)
        _remove(new)
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            _gather_in_one_file(connection, path)
            connection.execute("VACUUM INTO ?", (str(new),))
            contents = _contents(connection)
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            if _contents(connection) != contents:
                raise CheckpointError(f"the copy of {path} is not what was copied: see to the disk. Nothing was changed")
            for step in range(version, FORMAT_VERSION):
                CONVERSIONS[step](connection)
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        check(new)
        _synchronise(new)
        _keep(path, old)
        os.replace(new, path)
        _synchronise(path.parent)
    warnings.warn(
        f"{path} was written by an older version of ops_aimmd and has been converted; the old file is kept as {old.name}. "
        "Delete it when the run has gone on well",
        ConversionWarning,
        stacklevel=4,
    )


def _gather_in_one_file(connection: sqlite3.Connection, path: Path) -> None:
    """Move what a killed process has left in the write-ahead log into the file, and take the log away."""
    if connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
        raise CheckpointLockedError(
            f"{path} is of an older format and is to be converted, which another process or object that has it open "
            "prevents: close it there. Nothing was changed"
        )


def _contents(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of rows of each table."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}


def _keep(path: Path, old: Path) -> None:
    """Give the file a second name; where the file system has no links, a copy."""
    if old.exists():
        if filecmp.cmp(path, old, shallow=False):  # a conversion was interrupted here
            return
        raise CheckpointError(
            f"{path} is of an older format and would be kept as {old.name}, which exists: move that file away. Nothing was "
            "changed"
        )
    try:
        os.link(path, old)
    except OSError:
        unfinished = Path(f"{old}-unfinished")
        shutil.copy2(path, unfinished)
        _synchronise(unfinished)
        unfinished.rename(old)


def _synchronise(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # directories, on some systems
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(file: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm", "-lock"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
