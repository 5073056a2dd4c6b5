"""The two kinds of OPS files, netCDF and SimStore, behind one interface: what resuming needs to know and do.

The two do not go together in one process: SimStore changes classes of OPS, after which netCDF files come back broken.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import uuid
import weakref
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import netCDF4
import numpy as np
import openpathsampling as paths
from openpathsampling.netcdfplus import LoaderProxy, WeakLRUCache

from ops_aimmd.checkpoint.checkpoint_file import SMALLEST_DATABASE, first_page
from ops_aimmd.engines.frames import CONTAINERS
from ops_aimmd.sampling.shooting_results import samples_of
from ops_aimmd.shooting.legs import WRECKED
from ops_aimmd.storage import forked_processes  # noqa: F401 - what it does at import
from ops_aimmd.storage.file_access import UnreadableFileError, telling_damage

NETCDF, SIMSTORE = "netcdf", "simstore"

SIGNATURES = {b"\x89HDF\r\n\x1a\n": NETCDF, b"CDF\x01": NETCDF, b"CDF\x02": NETCDF, b"SQLite format 3\x00": SIMSTORE}

FRAMES_REMEMBERED = 10_000
"""As many as OPS does for a new file."""

LONGEST_WAIT = 5.0
"""Seconds that it is waited for another process which has a SimStore file locked."""

_opened: set[str] = set()
"""Kinds of files opened in this process."""


def kind_of(storage) -> str:
    """Kind of an open storage."""
    return NETCDF if isinstance(storage, paths.Storage) else SIMSTORE


def kind_of_file(path: Path) -> str | None:
    """Kind of a file by its first bytes, None for anything else; FileUnavailableError if it cannot be read now."""
    with telling_damage(path):
        if path.stat().st_size >= SMALLEST_DATABASE:
            with suppress(sqlite3.DatabaseError), closing(first_page(path)) as connection:
                connection.execute("PRAGMA application_id").fetchone()
                return SIMSTORE
        with open(path, "rb") as file:
            head = file.read(16)
    return next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)


def is_something_else(path: Path) -> bool:
    """Whether a file is sound and no OPS file: a trajectory in netCDF, a checkpoint, another database.

    Raises FileUnavailableError if it cannot be read now.
    """
    kind = kind_of_file(path)
    try:
        with telling_damage(path):
            if kind == NETCDF:
                with netCDF4.Dataset(path) as file:
                    return "steps" not in file.dimensions
            if kind == SIMSTORE:
                with closing(_sqlite(path)) as connection:
                    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                    return not {"tables", "uuid"} <= tables
    except UnreadableFileError:
        return False
    return False


def file_of(storage) -> Path:
    """Where an open storage is on disk."""
    name = storage.filename if kind_of(storage) == NETCDF else storage.backend.filename
    return Path(os.path.abspath(name))


def open_storage(path: str | os.PathLike, mode: str = "r"):
    """Open a netCDF (.nc) or SimStore (.db) file of OPS.

    Raises
    ------
    FileNotFoundError
    UnreadableFileError
        If the file is damaged or something else.
    FileUnavailableError
        If it cannot be opened now: it is open elsewhere, locked, write-protected, or the process lacks something.
    RuntimeError
        If this process has opened a file of the other kind.
    """
    path = Path(os.path.abspath(path))
    with telling_damage(path):
        there = path.exists()
    if not there:
        raise FileNotFoundError(f"there is no OPS file {path}")
    kind = kind_of_file(path)
    if kind is None:
        raise UnreadableFileError(f"{path} is neither a netCDF nor a SimStore file")
    _note_opened(kind)
    with telling_damage(path, writing=mode != "r"):
        if mode != "r":
            _check_permission_to_write(path, kind)
        if kind == NETCDF:
            forget_closed_files()
            storage = paths.Storage(str(path), mode)
            _remember_what_is_saved(storage)
            return storage
        from openpathsampling.experimental.storage import Storage, monkey_patch_all

        monkey_patch_all(paths)
        return Storage(str(path), mode)


def _check_permission_to_write(path: Path, kind: str) -> None:
    needed = [path, path.parent] if kind == SIMSTORE else [path]  # sqlite keeps its journal in the folder
    for place in needed:
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write", str(place))


def remember_frames(storage, trajectory) -> None:
    """Let a netCDF file give back the frames of a path as they are in memory, not as it would read them.

    OPS replaces frames that a file already holds with placeholders when it stores a path in which they occur again, forward
    or, after a path reversal, backward. A placeholder finds the frame in memory as long as somebody holds the frame.
    """
    store = storage.snapshots
    for frame in trajectory:
        for partner in (frame, frame.reversed):
            if partner.__uuid__ in store.index:
                store.cache[store.index[partner.__uuid__]] = partner
            placeholder = LoaderProxy._stash.get(partner.__uuid__)
            if placeholder is not None:  # it may have found the frame of the file before
                placeholder._subject = weakref.ref(partner)


def forget_closed_files() -> None:
    """OPS keeps placeholders of stored objects for the whole process, and would look for their content in closed files."""
    for uid, placeholder in list(LoaderProxy._stash.items()):
        if not placeholder._store.storage.isopen():
            LoaderProxy._stash.pop(uid, None)


def _remember_what_is_saved(storage: paths.Storage) -> None:
    """Give the arrays of frames the caches that they have in a new file but not in a reopened one.

    Without them OPS reads the current path from the file, in single precision, whenever it looks at it.
    """
    for store in storage.stores:
        if store.content_class in CONTAINERS:
            store.set_caching(WeakLRUCache(FRAMES_REMEMBERED))


def _note_opened(kind: str) -> None:
    from openpathsampling.experimental.storage import monkey_patches

    patched = monkey_patches._IS_PATCHED_SAVING or monkey_patches._IS_PATCHED_LOADING
    if kind == NETCDF and patched or kind == SIMSTORE and NETCDF in _opened:
        raise RuntimeError(
            f"this process has already used a {'SimStore' if kind == NETCDF else 'netCDF'} file, and OPS cannot use both "
            f"kinds in one process: open the {kind} file in a process of its own"
        )
    _opened.add(kind)


def step_numbers(storage, simulation: str) -> list[int]:
    """Numbers of the steps of a simulation (its uuid) that are in the file, in the order in which they were written."""
    return [number for _, number in _steps_of(storage, simulation)]


def last_steps(storage, simulation: str, n_steps: int) -> list[paths.MCStep]:
    """The last steps of a simulation that are in the file, oldest first."""
    return [storage.steps[index] for index, _ in _steps_of(storage, simulation)[-n_steps:]]


def current_samples(storage, simulation: str) -> paths.SampleSet:
    """The current path of each replica after the last step in the file, which need not hold those of all replicas."""
    steps = _steps_of(storage, simulation)
    replicas = {sample.replica for sample in storage.steps[steps[0][0]].active}
    found: dict = {}
    for index, _ in reversed(steps):
        for sample in storage.steps[index].active:
            found.setdefault(sample.replica, sample)
        if replicas <= found.keys():
            break
    return paths.SampleSet(list(found.values()))


def find_step(storage, simulation: str, number: int) -> paths.MCStep:
    """The step of a simulation that has a number."""
    return next(storage.steps[index] for index, found in reversed(_steps_of(storage, simulation)) if found == number)


def _steps_of(storage, simulation: str) -> list[tuple[int, int]]:
    """Index in the file and number of each step of a simulation."""
    if kind_of(storage) == NETCDF:
        owners = np.asarray(storage.variables["steps_simulation"][:])
        numbers = np.asarray(storage.variables["steps_mccycle"][:])
        indices = np.flatnonzero(owners == str(uuid.UUID(int=int(simulation)))) if len(owners) else []
        return [(int(index), int(numbers[index])) for index in indices]
    with closing(_sqlite(file_of(storage))) as connection:
        rows = connection.execute("SELECT mccycle, simulation FROM steps ORDER BY idx").fetchall()
        return [(index, number) for index, (number, owner) in enumerate(rows) if owner == simulation]


def find_simulation(storage, simulation: str):
    """The simulation with a uuid, None if the file does not hold it."""
    return next((found for found in storage.pathsimulators if str(found.__uuid__) == simulation), None)


def check_steps(steps: Iterable[paths.MCStep]) -> None:
    """Read steps with all that belongs to them; a part that is not there raises one of many kinds of errors."""
    for step in steps:
        for sample in step.active:
            check_frames(sample.trajectory)
        for change in step.change:
            if change.details is not None:
                vars(change.details)
            if any(len(sample.trajectory) == 0 for sample in samples_of(change)):
                raise ValueError("a trial without frames")


def check_frames(trajectory) -> None:
    """Read all frames of a path, and raise a ValueError where something is missing."""
    if len(trajectory) == 0:
        raise ValueError("a path without frames")
    for frame in trajectory:
        if not np.abs(frame.xyz).max() < WRECKED:  # what was never written is masked, or has a fill value of 1e37
            raise ValueError("a frame without coordinates")


def save_step(storage, step: paths.MCStep) -> None:
    """Hand a step to the storage; `storage.sync_all()` puts it on disk."""
    if kind_of(storage) == NETCDF:
        storage.save(step)
    else:
        storage.stash(step)


# ---- SimStore: a sync that died half-way is undone -------------------------------------------------------------------


def mark_of(storage) -> dict | None:
    """What :func:`roll_back` goes back to: last row of each table, uuid of the last step; None for netCDF, which cannot."""
    if kind_of(storage) == NETCDF:
        return None
    with closing(_sqlite(file_of(storage))) as connection:
        rows = {table: _last_row(connection, table) for table in _tables(connection)}
        return {"rows": rows, "last_step": _uuid_of_step(connection, rows["steps"])}


def roll_back(path: Path, mark: dict, simulation: str, last_step: int) -> bool:
    """Take out of a SimStore file what a sync that died has written after the mark; whether there was anything.

    A file is left alone if it is not the marked one, or if what follows the mark is more than that sync can have written:
    steps later than `last_step`, or those of other simulations than `simulation` (a uuid).
    """
    with closing(_sqlite(path)) as connection, connection:
        (kinds,) = [dict(connection.execute("SELECT name, idx FROM tables"))]
        last_row = mark["rows"]["steps"]
        if _uuid_of_step(connection, last_row) != mark["last_step"]:
            return False
        others = "SELECT count(*) FROM steps WHERE idx > ? AND NOT (simulation = ? AND mccycle <= ?)"
        if connection.execute(others, (last_row, simulation, last_step)).fetchone()[0]:
            return False
        changed = False
        for table in _tables(connection):
            last = mark["rows"].get(table, 0)
            if _last_row(connection, table) > last:
                changed = True
                connection.execute(f'DELETE FROM "{table}" WHERE idx > ?', (last,))
                connection.execute('DELETE FROM uuid WHERE "table" = ? AND row > ?', (kinds[table], last))
    return changed


def _sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=LONGEST_WAIT)


def _tables(connection) -> list[str]:
    """Tables of numbered rows, in which SimStore keeps objects."""
    names = [row[0] for row in connection.execute("SELECT name FROM tables")]
    return [
        name for name in names if any(column[1] == "idx" for column in connection.execute(f'PRAGMA table_info("{name}")'))
    ]


def _last_row(connection, table: str) -> int:
    return connection.execute(f'SELECT max(idx) FROM "{table}"').fetchone()[0] or 0


def _uuid_of_step(connection, row: int) -> str | None:
    found = connection.execute("SELECT uuid FROM steps WHERE idx = ?", (row,)).fetchone()
    return None if found is None else found[0]
