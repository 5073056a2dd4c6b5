"""What can be wrong with a checkpoint file, and how sqlite's complaints are put into words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used as asked; the message says why and what to do."""


class NotACheckpointError(CheckpointError):
    """The file is something else."""


class CheckpointCorruptError(CheckpointError):
    """The file is a checkpoint, and damaged."""


class CheckpointVersionError(CheckpointError):
    """The file was written in a format that this program does not know."""


class CheckpointLockedError(CheckpointError):
    """Another process, or another object in this one, has the file open for writing."""


def damaged(path: Path, where: str) -> str:
    return (
        f"the checkpoint {path} is damaged: {where}. Nothing was changed. If this is a copy of a run that was under way or "
        "killed, copy its -wal file, too; else go on from an older copy, or read what is left with sqlite3"
    )


@contextlib.contextmanager
def translated(path: Path, done: str) -> Iterator[None]:
    """Turn what sqlite and decoding raise for a bad file into a CheckpointError that says so."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CheckpointCorruptError(damaged(path, str(error))) from error
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
        if any(
            words in message for words in ("full", "disk I/O", "unable to open", "readonly", "closed", "thread", "too big")
        ):
            raise CheckpointError(
                f"{path} cannot be {done}: {message}. What was recorded before is safe; see to the disk, its "
                "permissions and locks, and resume"
            ) from error
        raise CheckpointCorruptError(damaged(path, message)) from error
