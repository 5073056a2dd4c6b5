"""Why a file cannot be read: it is damaged, or something else keeps it from being opened now.

The libraries give the same error for both ("NetCDF: HDF error"). So damage needs evidence, and everything else counts as
"cannot be opened now":

- sqlite says itself that it is damage (`SQLITE_CORRUPT`, `SQLITE_NOTADB`).
- A netCDF file cannot be read in a fresh process either, which takes no lock and reads all of it, although the operating
  system gives its bytes.
- The file can be opened, and its content makes no sense.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ops_aimmd.checkpoint import FileUnavailableError
from ops_aimmd.checkpoint.checkpoint_file import first_page
from ops_aimmd.checkpoint.errors import is_damage

try:
    import fcntl
except ImportError:  # there are no such locks on this system
    fcntl = None

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of a file system without locks."""

CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
"""Signals that kill a process which reads a damaged file."""

SLOWEST_READ = 600.0
"""Seconds after which it is not waited any longer for a process that reads a whole file."""

DAMAGED, WHOLE = 3, 0
"""Exit status of :data:`READ_ALL`; any other one says nothing about the file."""

READ_ALL = f"""
import sys
with open(sys.argv[1], "rb") as file:
    while file.read(2**24):
        pass
import netCDF4
def read(group):
    for variable in group.variables.values():
        if not variable.ndim:
            variable[...]
            continue
        row = 1
        for length in variable.shape[1:]:
            row *= length
        n_rows = max(1, 2**20 // max(1, row))
        for first in range(0, variable.shape[0], n_rows):
            variable[first:first + n_rows]
    for inner in group.groups.values():
        read(inner)
try:
    with netCDF4.Dataset(sys.argv[1]) as dataset:
        dataset.set_auto_maskandscale(False)
        read(dataset)
except MemoryError:
    raise
except Exception as error:
    sys.exit({DAMAGED})
"""
"""Program that reads a netCDF file: its bytes first, so that a failing disk is not taken for a damaged file."""

PROGRAM_ENVIRONMENT = {"HDF5_USE_FILE_LOCKING": "FALSE"}


class UnreadableFileError(RuntimeError):
    """An OPS file is damaged or something else."""


@contextmanager
def telling_damage(path: Path, writing: bool = False) -> Iterator[None]:
    """Turn every error of reading an OPS file, or of opening it for writing, into one that says whether it is damaged.

    Raises
    ------
    UnreadableFileError
        If there is evidence of damage.
    FileUnavailableError
        If there is none.
    """
    try:
        yield
    except (UnreadableFileError, FileUnavailableError):
        raise
    except Exception as error:  # the libraries below raise many kinds
        why = why_unavailable(path, error, writing)
        if why is None:
            raise UnreadableFileError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
        raise FileUnavailableError(f"{path} cannot be opened now: {why}. Nothing was changed") from error


def why_unavailable(path: Path, error: Exception, writing: bool = False) -> str | None:
    """What kept a file from being read, or opened for writing, other than damage, and what to do; None if it is damaged."""
    refused = None
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return "there is too little memory: free some and try again"
        if isinstance(cause, ImportError):
            return f"{cause}: make the module importable"
        if isinstance(cause, sqlite3.Error):
            return None if is_damage(cause) else _sqlite_says(path, cause)
        if isinstance(cause, OSError):
            refused = cause
            if (cause.errno or 0) > 0:
                return _system_says(cause)
    users = [] if _is_database(path) else users_of(path, others_only=True)  # readers of a database see whole transactions
    if users:
        return f"it is open in {' and '.join(users)}: close it there ({error})"
    if refused is not None:  # only opening a netCDF file raises an OSError of netCDF
        return _why_opening_failed(path, writing)
    if "NetCDF" in str(error):
        return _unless_a_fresh_process_fails(path)
    return None


def _is_database(path: Path) -> bool:
    with suppress(sqlite3.Error), closing(first_page(path)) as connection:
        connection.execute("PRAGMA application_id").fetchone()
        return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised from; SQLAlchemy keeps the one of sqlite in `orig`."""
    while error is not None:
        yield error
        if isinstance(getattr(error, "orig", None), BaseException):
            yield error.orig
        error = error.__cause__ or error.__context__


def _system_says(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open ({error}): close some, or raise the limit (ulimit -n)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission ({error}): see to the permissions of the file and its folder"
    return f"the operating system says {error}: see to the disk, its permissions and locks"


def _sqlite_says(path: Path, error: sqlite3.Error) -> str:
    users = users_of(path, others_only=False)
    where = f"; it is open in {' and '.join(users)}" if users else ""
    return (
        f"sqlite says {str(error)!r}{where}: close it where it is open, and see to the permissions and locks of the disk "
        "and to the number of open files"
    )


def _why_opening_failed(path: Path, writing: bool) -> str | None:
    """HDF5 could not open the file, and did not say why."""
    try:
        file = os.open(path, os.O_RDWR if writing else os.O_RDONLY)
        try:
            if fcntl is not None and os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() not in ("FALSE", "0"):
                fcntl.flock(file, (fcntl.LOCK_EX if writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        finally:
            os.close(file)
    except BlockingIOError:
        users = users_of(path, others_only=False)
        where = f"it is open in {' and '.join(users)}" if users else "another process has locked it, perhaps elsewhere"
        return f"{where}: close it there" + ("" if writing else _MEANWHILE)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return (
                f"its file system has no locks ({error}): copy it to another one, or, if nobody else has it open, set the "
                "environment variable HDF5_USE_FILE_LOCKING=FALSE before python starts"
            )
        return _system_says(error)
    return _unless_a_fresh_process_fails(path)


def _unless_a_fresh_process_fails(path: Path) -> str | None:
    """None if a process that has all its memory and open files to itself and asks for no lock cannot read the file."""
    try:
        status = subprocess.run(
            [sys.executable, "-c", READ_ALL, str(path)],
            env={**os.environ, **PROGRAM_ENVIRONMENT},
            capture_output=True,
            timeout=SLOWEST_READ,
        ).returncode
    except (OSError, subprocess.SubprocessError) as error:
        return f"HDF5 fails, and whether the file is damaged could not be found out ({error}). {_IF_DAMAGED}"
    if status == DAMAGED or -status in CRASHES:
        return None
    if status == WHOLE:
        return (
            "HDF5 fails here, and reads it in a process of its own: close the file where this process has it open, and see "
            "to the number of open files and to the memory"
        )
    return f"HDF5 fails, and whether the file is damaged could not be found out (status {status}). {_IF_DAMAGED}"


_MEANWHILE = ", or wait until the run has ended; its checkpoint can be read meanwhile (`report`, `load_learner`)"
_IF_DAMAGED = "If it is, move it away: `resume` makes a new one from the checkpoint"


def users_of(path: Path, others_only: bool = False) -> list[str]:
    """Processes of this machine that have a file open, as far as the operating system tells.

    Each is "this process", which `others_only` leaves out, or number and command line.
    """
    found: list[str] = []
    with suppress(OSError):
        wanted = os.stat(path)
        for process in Path("/proc").glob("[0-9]*"):
            own = int(process.name) == os.getpid()
            if not (own and others_only) and _has_open(process, wanted):
                found.append("this process" if own else f"process {process.name}{_command(process)}")
    return found


def _has_open(process: Path, wanted: os.stat_result) -> bool:
    with suppress(OSError), os.scandir(process / "fd") as links:  # of another user, or gone
        for link in links:
            with suppress(OSError):
                if os.path.samestat(link.stat(), wanted):
                    return True
    return False


def _command(process: Path) -> str:
    with suppress(OSError):
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return f" ({command[:80]})" if command else ""
    return ""
