"""OPS's file of a run, open for appending again, in whatever state the end of the run has left it."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path

from ops_aimmd.checkpoint import Checkpoint, FileUnavailableError
from ops_aimmd.storage.file_access import UnreadableFileError, telling_damage, users_of
from ops_aimmd.storage.ops_files import (
    SIMSTORE,
    check_steps,
    find_simulation,
    is_something_else,
    kind_of_file,
    last_steps,
    open_storage,
    roll_back,
)
from ops_aimmd.storage.run_files import newest_mark, setup_copy

JOURNALS = ("-journal", "-wal", "-shm")
"""Endings of the files in which sqlite keeps unfinished changes of a SimStore file."""


class ResumeWarning(UserWarning):
    """Something was not as a run leaves it, and was repaired; the message says what and how."""


def reopen(path: Path, file: Checkpoint, run: dict):
    """OPS's file, open for appending; put aside and made again where it cannot be read, made again where it is gone.

    `run` is what the checkpoint says of the simulation.

    Raises
    ------
    ValueError
        If the file is something else, or of another run.
    FileNotFoundError, ops_aimmd.storage.file_access.UnreadableFileError
        If there is no copy of the beginning of the file to make it again from.
    FileUnavailableError
        If the file cannot be opened now, or is damaged and open in another process. No file is changed.

    Warns
    -----
    ResumeWarning
        If it is made again.
    """
    with telling_damage(path):
        there = path.exists()
    if not there:
        _restore_setup(path, file, f"there is no OPS file {path}")
        return open_storage(path, "a")
    kind = "directory" if path.is_dir() else kind_of_file(path)
    if kind not in (run["ops_file"]["kind"], None) or is_something_else(path):
        raise ValueError(
            f"{path} is {'no OPS file' if kind == run['ops_file']['kind'] else f'a {kind}'}; the run of {file.path} has "
            f"written a {run['ops_file']['kind']} file of OPS, {run['ops_file']['name']}: give that one"
        )
    try:
        if run["ops_file"]["kind"] == SIMSTORE:
            _take_off_half_written_end(path, file, run)
        return _opened_and_checked(path, run)
    except UnreadableFileError as error:
        if setup_copy(file) is None:
            raise UnreadableFileError(
                f"{error}. The checkpoint {file.path} has no copy of the set-up (the file was too large when the run "
                "began), so the run cannot be resumed from it alone; its learner can be used in a new run, "
                "ops_aimmd.load_learner(...)"
            ) from error
        users = users_of(path, others_only=True)  # an attempt that has failed can leave the file open in this process
        if users:
            raise FileUnavailableError(
                f"{error}. It would be put aside, but {' and '.join(users)} has it open: close it there and resume again. "
                "Nothing was changed"
            ) from error
        aside = _free_name(path)
        _restore_setup(path, file, f"{error}. It was renamed to {aside.name}", aside)
        return open_storage(path, "a")


def _take_off_half_written_end(path: Path, file: Checkpoint, run: dict) -> None:
    mark = newest_mark(file)
    if mark is None:
        return
    with telling_damage(path, writing=True):
        roll_back(path, mark, run["simulation"], file.step)


def _opened_and_checked(path: Path, run: dict):
    storage = open_storage(path, "a")
    try:
        with telling_damage(path, writing=True):
            found = find_simulation(storage, run["simulation"])
            check_steps(last_steps(storage, run["simulation"], run["save_frequency"] + 1))
    except RuntimeError:
        with suppress(Exception):
            storage.close()
        raise
    if found is None:
        storage.close()
        raise ValueError(
            f"{path} does not hold the run of this checkpoint, but another: give the two files of one run (its OPS file "
            f"was {run['ops_file']['name']}). If that was overwritten, move this one away: it is made again from the "
            "checkpoint"
        )
    return storage


def _restore_setup(path: Path, file: Checkpoint, why: str, aside: Path | None = None) -> None:
    """Make an OPS file from the copy of its beginning; what is in its place is renamed once the new file is on disk."""
    setup = setup_copy(file)
    if setup is None:
        raise FileNotFoundError(f"{why}, and the checkpoint {file.path} has no copy of its beginning")
    temporary = Path(f"{path}.new")
    with telling_damage(path, writing=True):
        try:
            with open(temporary, "wb") as output:
                output.write(setup)
                output.flush()
                os.fsync(output.fileno())
            if aside is not None:
                _put_aside(path, aside)
            for suffix in JOURNALS:  # sqlite would apply them to the new file
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                if aside is not None and aside.exists() and not path.exists():
                    aside.rename(path)
                temporary.unlink()
            raise
    warnings.warn(
        f"{why}. A new {path.name} is made from the steps that are in the checkpoint; of rejected trials it holds the "
        "shooting point and the end frames. Nothing that was learned is lost",
        ResumeWarning,
        stacklevel=4,
    )


def _put_aside(path: Path, aside: Path) -> None:
    """Rename an OPS file, then what sqlite has left beside it."""
    path.rename(aside)
    for suffix in JOURNALS:
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")


def _free_name(path: Path) -> Path:
    number = 1
    while Path(f"{path}.damaged-{number}").exists():
        number += 1
    return Path(f"{path}.damaged-{number}")
