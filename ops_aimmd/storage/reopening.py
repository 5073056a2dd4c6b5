"""OPS's file of a run, open for appending again, in whatever state the end of the run has left it."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path

from ops_aimmd.checkpoint import Checkpoint

from .ops_files import (
    SIMSTORE,
    UnreadableFileError,
    check_steps,
    find_simulation,
    is_something_else,
    kind_of_file,
    last_steps,
    open_storage,
    roll_back,
)
from .run_files import newest_mark, setup_copy

JOURNALS = ("-journal", "-wal", "-shm")
"""Endings of the files in which sqlite keeps unfinished changes of a SimStore file."""


class ResumeWarning(UserWarning):
    """Something was not as a run leaves it, and was repaired; the message says what and how."""


def reopen(path: Path, file: Checkpoint, run: dict):
    """OPS's file, open for appending; put aside and made again where it cannot be read, made again where it is gone.

    Parameters
    ----------
    path : Path
    file : Checkpoint
        Of the run.
    run : dict
        What it says of the simulation.

    Raises
    ------
    ValueError
        If the file is something else, or of another run.
    FileNotFoundError, ops_aimmd.storage.ops_files.UnreadableFileError
        If there is no copy of the beginning of the file to make it again from.

    Warns
    -----
    ResumeWarning
        If it is made again.
    """
    if not path.exists():
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
        aside = _free_name(path)
        if setup_copy(file) is None:
            raise UnreadableFileError(
                f"{error}. The checkpoint {file.path} has no copy of the set-up (the file was too large when the run "
                "began), so the run cannot be resumed from it alone; its learner can be used in a new run, "
                "ops_aimmd.load_learner(...)"
            ) from error
        _put_aside(path, aside)
        _restore_setup(path, file, f"{error}. It was renamed to {aside.name}")
        return open_storage(path, "a")


def _take_off_half_written_end(path: Path, file: Checkpoint, run: dict) -> None:
    mark = newest_mark(file)
    if mark is None:
        return
    try:
        roll_back(path, mark, run["simulation"], file.step)
    except Exception as error:  # sqlite's many ways to say that it is no database
        raise UnreadableFileError(f"{path} cannot be read: {error}") from error


def _opened_and_checked(path: Path, run: dict):
    storage = open_storage(path, "a")
    try:
        found = find_simulation(storage, run["simulation"])
        check_steps(last_steps(storage, run["simulation"], run["save_frequency"] + 1))
    except Exception as error:  # damage shows in many ways
        with suppress(Exception):
            storage.close()
        raise UnreadableFileError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if found is None:
        storage.close()
        raise ValueError(
            f"{path} does not hold the run of this checkpoint, but another: give the two files of one run (its OPS file "
            f"was {run['ops_file']['name']}). If that was overwritten, move this one away: it is made again from the "
            "checkpoint"
        )
    return storage


def _restore_setup(path: Path, file: Checkpoint, why: str) -> None:
    setup = setup_copy(file)
    if setup is None:
        raise FileNotFoundError(f"{why}, and the checkpoint {file.path} has no copy of its beginning")
    warnings.warn(
        f"{why}. A new {path.name} is made from the steps that are in the checkpoint; of rejected trials it holds the "
        "shooting point and the end frames. Nothing that was learned is lost",
        ResumeWarning,
        stacklevel=4,
    )
    for suffix in JOURNALS:  # sqlite would apply them to the new file
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    temporary = Path(f"{path}.new")
    with open(temporary, "wb") as output:
        output.write(setup)
        output.flush()
        os.fsync(output.fileno())
    temporary.rename(path)


def _put_aside(path: Path, aside: Path) -> None:
    """Rename an OPS file, and what sqlite has left beside it."""
    for suffix in JOURNALS:
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    path.rename(aside)


def _free_name(path: Path) -> Path:
    number = 1
    while Path(f"{path}.damaged-{number}").exists():
        number += 1
    return Path(f"{path}.damaged-{number}")
