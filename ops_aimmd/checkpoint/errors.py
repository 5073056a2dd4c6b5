"""What can be wrong with a checkpoint file, and how sqlite's complaints are put into words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


class FileUnavailableError(RuntimeError):
    """A file of a run cannot be opened or read now, and nothing says that it is damaged.

    It is open or locked elsewhere, write-protected, on a file system without locks, or the process has too many open files
    or too little memory. The message says which, and what to do. The file was not changed.
    """


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used as asked; the message says why and what to do."""


class NotACheckpointError(CheckpointError):
    """The file is something else."""


class CheckpointCorruptError(CheckpointError):
    """The file is a checkpoint, and damaged."""


class CheckpointVersionError(CheckpointError):
    """The file was written in a format that this program does not know."""


class CheckpointUnavailableError(CheckpointError, FileUnavailableError):
    """The file cannot be opened, read or written now, which says nothing about its content."""


class CheckpointLockedError(CheckpointUnavailableError):
    """Another process, or another object in this one, has the file open for writing."""


def damaged(path: Path, where: str) -> str:
    return (
        f"the checkpoint {path} is damaged: {where}. Nothing was changed. If this is a copy of a run that was under way or "
        "killed, copy its -wal file, too; else go on from an older copy, or read what is left with sqlite3"
    )


DAMAGE = ("malformed", "not a database", "no such", "decode", "constraint", "unsupported file format", "syntax error")
"""Words in the messages of sqlite that show damage. All others (locks, permissions, disk, open files) show none."""

MISTAKES = ("closed", "thread", "too big")
"""Words in the messages of sqlite about a mistake of the caller."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether sqlite says that a file is damaged, or is no database."""
    return any(words in str(error) for words in DAMAGE)


@contextlib.contextmanager
def translated(path: Path, done: str) -> Iterator[None]:
    """Turn what sqlite and decoding raise for a bad file into a CheckpointError that says so."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CheckpointCorruptError(damaged(path, str(error))) from error
    except MemoryError as error:
        raise CheckpointUnavailableError(
            f"{path} cannot be {done}: there is too little memory. What was recorded before is safe; free some memory, and "
            "resume"
        ) from error
    except sqlite3.Error as error:
        message = str(error)
        if "locked" in message or "busy" in message:
            raise CheckpointLockedError(
                f"{path} cannot be {done}: another process, or this one, has it open for writing. Close it there; to "
                "look at it meanwhile open it with read_only=True"
            ) from error
        if "not a database" in message:
            raise NotACheckpointError(
                f"{path} is no ops_aimmd checkpoint (no sqlite database), or its first page is damaged"
            ) from error
        if is_damage(error):
            raise CheckpointCorruptError(damaged(path, message)) from error
        kind = CheckpointError if any(words in message for words in MISTAKES) else CheckpointUnavailableError
        raise kind(
            f"{path} cannot be {done}: {message}. What was recorded before is safe; see to the disk, its permissions and "
            "locks, and to the number of open files, and resume"
        ) from error
