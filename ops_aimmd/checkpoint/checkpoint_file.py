"""The checkpoint file: one sqlite database to which every finished MC step is appended in one transaction.

What it holds
-------------
The learning: shots with the frames of their legs, the paths of the density and model versions are rows that are
appended; the rest (optimiser, schedule, random generators) is ``state``, one row per key, replaced; so are the count of
a path and its frames when the density is thinned.

The step log (:class:`.step_log.StepLog`): the frames that a step generated, as a block in float64; the paths, each a list
of places in blocks; and a document for each step. From it the active paths come back to the bit, and a file of the
simulation that was lost or lags behind can be made again. What is no longer needed so exactly is rounded to float32,
what is no longer needed is deleted, whenever the writer says so. ``files`` keeps bytes whole, such as a copy of the
set-up of the simulation.

A step therefore costs what it brings, however long the run. The tables are described by comments in the schema, which
sqlite keeps in the file: ``sqlite3 run.aimmd .schema`` explains them to any reader. Numbers of shots, frames of legs,
density and paths are raw little-endian arrays; model weights, blocks of frames and arrays in documents are in the
safetensors format; the rest is strict JSON. Nothing in the file is executed, and neither OPS nor torch is needed to
read it.

Every row carries a CRC-32 of its content, and the row ``progress`` counts the rows of every table, so that
damage gives a :class:`CheckpointCorruptError` that says where, never other numbers or fewer of them.

What survives
-------------
Death of the process at any moment (``kill -9``, out of memory, a Python exception): every step whose
``record_step`` has returned, nothing of the step in progress.

Loss of power or a crash of the operating system: the file stays consistent and holds a step not older than
:data:`SYNC_SECONDS` (plus one step); the steps after it are lost as one.

The price of more would be three or four synchronisations with the disk in every step, 1 ms on a good day and 30 ms
on a busy disk (``benchmarks/checkpoint_cost.py``). So steps go to sqlite's write-ahead log, ``run.aimmd-wal``, and
are moved from there into the file every :data:`SYNC_SECONDS`, or as soon as they fill 4 MB (sqlite's default). At
rest the run is the one file: :meth:`Checkpoint.close` leaves nothing beside it. After a kill, or during the run, the
newest seconds lie in ``run.aimmd-wal``, and whoever opens the file finds them there; a copy of ``run.aimmd`` alone
holds the run up to the last move, or, taken in the middle of a move, cannot be opened. A copy that is complete at any
time: ``sqlite3 run.aimmd "VACUUM INTO 'copy.aimmd'"``. Never put another file under the name of a killed run while its
``-wal`` is there.

Who may open it
---------------
One writer, which holds ``run.aimmd-lock`` from opening to closing (:mod:`.write_lock`); the operating system drops the
lock when the process dies, so none is ever stale. Any number of readers beside it (``read_only=True``), each seeing
whole steps, neither waiting for the other, if they run on the same host. Where no write-ahead log is possible (some
network file systems), steps are committed with a rollback journal and full synchronisation: nothing is lost even with
the power, but a step costs more, and waits for readers.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ops_aimmd.checkpoint.conversion import FORMAT_VERSION, can_be_read, convert
from ops_aimmd.checkpoint.documents import encode
from ops_aimmd.checkpoint.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointVersionError,
    NotACheckpointError,
    damaged,
    is_damage,
    translated,
)
from ops_aimmd.checkpoint.learning_tables import (
    NO_PROGRESS,
    SCHEMA,
    DensityPath,
    ShotColumns,
    append_model_version,
    append_shots,
    empty_columns,
    read_density,
    read_leg_frames,
    read_model_version,
    read_shots,
    write_density,
)
from ops_aimmd.checkpoint.rows import check_count, check_keys, check_missing, read_document, write_document
from ops_aimmd.checkpoint.shot_journal import (
    JournaledShot,
    delete_shots,
    read_journal,
    write_result,
    write_specifications,
)
from ops_aimmd.checkpoint.step_log import (
    EMPTY_STEP_LOG,
    STEP_LOG_SCHEMA,
    FrameBlock,
    StepLog,
    read_block,
    read_file,
    read_keys,
    read_path,
    read_step,
    write_file,
    write_log,
)
from ops_aimmd.checkpoint.write_lock import WriteLock

APPLICATION_ID = int.from_bytes(b"AIMD", "big")
"""Marks an sqlite file as a checkpoint, in bytes 68 to 71 of the file."""

SMALLEST_DATABASE = 512
"""Bytes of the smallest page of sqlite, which takes anything shorter for a database without content."""

QUICK_CHECK_BYTES = 32 * 2**20
"""Files up to this size have the structure of all their pages checked when opened (about 0.1 s). Larger ones rely
on checksums and row counts, which are checked for whatever is read."""

SYNC_SECONDS = 10.0
"""Steps are moved from the log into the file, and both synchronised with the disk, this often: some 30 ms each time on
a busy disk, 0.3 % of the time."""

READ_ROWS = 10_000
"""Shots that are held in memory in two forms while they are read."""

WAIT_FOR_OTHERS = 600.0
"""Seconds that a commit waits for somebody else (without a write-ahead log: a reader) before it gives up."""


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file says in its first bytes that it is a checkpoint; False for a file that is not there.

    Raises CheckpointUnavailableError if it cannot be read now.
    """
    path = _absolute(path)
    if not path.is_file() or path.stat().st_size < SMALLEST_DATABASE:
        return False
    with translated(path, "read"):
        try:
            with contextlib.closing(first_page(path)) as connection:
                return connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return False
            raise


class Checkpoint:
    """The checkpoint of one run: get one from :meth:`create` or :meth:`open`, and close it (or use ``with``).

    Asking for something that is not in the file raises a KeyError; its message lists what is. Writing raises a
    CheckpointError if the file cannot be written: disk full, opened read-only, taken over by another process.

    Attributes
    ----------
    path : Path
    read_only : bool
    run_id : str
        A uuid made when the file was created.
    metadata : dict
        As given to :meth:`create`.
    keep_every : int
        Spacing of the model versions that are kept.
    """

    def __init__(self, path: Path, identity: dict, connection: sqlite3.Connection, lock: WriteLock | None):
        self.path = path
        self.read_only = lock is None
        self.run_id: str = identity["run_id"]
        self.metadata: dict = identity["metadata"]
        self.keep_every: int = identity["keep_every"]
        self._connection = connection
        self._lock = lock
        self._process = os.getpid()
        self._data_version = _data_version(connection)
        self._synchronised = time.monotonic()

    @classmethod
    def create(cls, path: str | os.PathLike, metadata: dict | None = None, keep_every: int = 1) -> Checkpoint:
        """Make a new checkpoint and open it for writing.

        Parameters
        ----------
        path : path-like
            A file that does not exist, or an empty one.
        metadata : dict
            What never changes in the run, nested JSON-able values and arrays (:func:`.documents.encode`).
        keep_every : int
            Model versions whose number is a multiple of this are kept, and always the newest; 1 keeps all.

        Raises
        ------
        FileExistsError
            If there is anything at the path: another run is never overwritten.
        FileNotFoundError
            If the directory does not exist.
        """
        path = _absolute(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no directory {path.parent} for the checkpoint {path.name}: make it first")
        keep_every = operator.index(keep_every)
        if keep_every < 1:
            raise ValueError(f"keep_every must be a positive integer; got {keep_every}")
        identity = {
            "run_id": str(uuid.uuid4()),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "keep_every": keep_every,
            "metadata": {} if metadata is None else metadata,
        }
        encoded = encode(identity, "metadata")
        if path.exists() and path.stat().st_size:
            occupant = _occupant(path)
            if path.stat().st_size:  # else it was a creation that died half-way, which looking at it has rolled back
                raise FileExistsError(f"{path} exists{occupant}. It is not overwritten: choose another name")
        with translated(path, "created"), contextlib.closing(_connect(path, "rwc")) as connection:
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise FileExistsError(f"{path} has just been created by another process: choose another name")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
            for statement in SCHEMA + STEP_LOG_SCHEMA:
                connection.execute(statement)
            write_document(connection, "run", "identity", encoded)
            write_document(connection, "run", "progress", encode(NO_PROGRESS | EMPTY_STEP_LOG))
            connection.execute("COMMIT")
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike, read_only: bool = False) -> Checkpoint:
        """Open an existing checkpoint, rolling back a step that a killed process left half written.

        Parameters
        ----------
        path : path-like
        read_only : bool
            Read while another process may be writing; every answer then holds whole steps, and later answers more of
            them. A reader may need write permission for the directory while or after a writer was at work.
            A file of an older format is read as it is; opened for writing it is converted first
            (:mod:`.conversion`).

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
        NotACheckpointError
            If the file is something else, or empty.
        CheckpointVersionError
            If a newer program wrote it.
        CheckpointCorruptError
            If it is truncated or damaged.
        CheckpointLockedError
            If it is already open for writing and ``read_only`` is False.
        CheckpointUnavailableError
            If it cannot be opened now for another reason: the disk, its locks, too many open files, too little memory.
        """
        path = _absolute(path)
        _check_permissions(path, read_only)
        with translated(path, "opened"), contextlib.ExitStack() as undo:
            connection = _open_connection(path, read_only)
            undo.callback(connection.close)
            version = _format_of(connection, path)
            if version != FORMAT_VERSION and not read_only:
                connection.close()
                convert(path, version, _read_whole)
                connection = _open_connection(path, read_only)
                undo.callback(connection.close)
            lock = None
            if not read_only:
                lock = WriteLock(path)
                undo.callback(lock.release)
                _prepare_writing(connection)
            if path.stat().st_size <= QUICK_CHECK_BYTES:
                findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
                if findings != ["ok"]:
                    raise CheckpointCorruptError(damaged(path, "; ".join(map(str, findings))))
            identity = read_document(connection, path, "run", "identity")
            checkpoint = cls(path, identity, connection, lock)
            undo.pop_all()
            return checkpoint

    def close(self) -> None:
        """Let go of the file, which is then complete without any other, and on disk. Closing twice is allowed."""
        if self._process != os.getpid():
            return  # a forked child must not touch its parent's connection
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not self.read_only:
                self._connection.execute("PRAGMA busy_timeout=0")
                with contextlib.suppress(sqlite3.OperationalError):  # readers: the log stays until the last has gone
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                    self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, read_only={self.read_only}, run_id={self.run_id!r})"

    @property
    def step(self) -> int:
        """The last finished step; -1 before the first."""
        return self._progress()["step"]

    @property
    def n_shots(self) -> int:
        """Number of shots recorded."""
        return self._progress()["shots"]

    def record_step(
        self,
        step: int,
        shots: Sequence = (),
        density_paths: Mapping[str, DensityPath] | None = None,
        model_version: tuple[int, dict, dict[str, np.ndarray]] | None = None,
        state: dict[str, Any] | None = None,
        log: StepLog | None = None,
    ) -> None:
        """Put one finished step on disk: all of it, durably, or nothing and an exception.

        Parameters
        ----------
        step : int
            Non-negative and larger than the last one recorded.
        shots : sequence of shooting results
            Objects with the attributes listed at :func:`ops_aimmd.checkpoint.learning_tables.pack_shot`.
        density_paths : mapping of str to DensityPath, or to a tuple (count, thinning, frames)
            Paths of the density that are new or have changed, by a name that is theirs for ever; frames (m, c), or
            None where those in the file stay. Paths not given stay as they are.
        model_version : (number, description, arrays)
            A new model: its number, larger than all before, a JSON-able description from which the network can be
            built, and its arrays by name.
        state : dict
            Values to replace, by key: nested JSON-able values and arrays. Keys not given stay as they are.
        log : StepLog
            What the step did to the paths, and what the step log no longer needs.

        Raises
        ------
        ValueError, TypeError
            If something does not fit; nothing is then recorded.
        """
        step = operator.index(step)
        documents = {key: encode(value, f"state[{key!r}]") for key, value in (state or {}).items()}
        with self._transaction() as connection:
            progress = self._progress()
            if step <= progress["step"] or step < 0:
                raise ValueError(
                    f"step {step} cannot be recorded in {self.path}: step {progress['step']} is already there, and "
                    "steps must increase. A resumed run goes on with the next one"
                )
            progress["step"] = step
            append_shots(connection, progress, shots)
            write_density(connection, progress, density_paths or {})
            if model_version is not None:
                append_model_version(connection, progress, step, model_version, self.keep_every)
            for key, document in documents.items():
                progress["state_keys"] += write_document(connection, "state", key, document)
            if log is not None:
                write_log(connection, self.path, progress, step, log)
            write_document(connection, "run", "progress", encode(progress))

    def shots(self) -> ShotColumns:
        """All shots and their leg frames, as arrays that the caller owns; shapes (0, 0) before the first shot."""
        with self._reading() as connection:
            shots = empty_columns(self._progress())
            first_frame = 0
            for start in range(0, len(shots), READ_ROWS):
                rows = slice(start, min(start + READ_ROWS, len(shots)))
                read_shots(connection, self.path, shots, rows)
                first_frame = read_leg_frames(connection, self.path, shots.auxiliary, rows, first_frame)
            check_count(self.path, "leg_frames, frames", first_frame, len(shots.auxiliary))
        return shots

    def density_paths(self) -> dict[str, DensityPath]:
        """The paths of the density with all their frames, in the order in which they were first recorded."""
        with self._reading() as connection:
            return read_density(connection, self.path, self._progress())

    def model_versions(self) -> list[int]:
        """Numbers of the model versions that are in the file, oldest first."""
        with self._reading() as connection:
            numbers = [row[0] for row in connection.execute("SELECT number FROM model_versions ORDER BY number")]
            check_keys(self.path, "model_versions", numbers, self._progress()["model_versions"])
        return numbers

    @property
    def last_model_version(self) -> int:
        """Number of the newest model version in the file; -1 before the first."""
        number = self._progress()["model_version"]
        return -1 if number is None else number

    def model_version(self, number: int | None = None) -> tuple[int, dict, dict[str, np.ndarray]]:
        """Number, description and arrays of a model version; of the newest if none is named."""
        with self._reading() as connection:
            kept = self.model_versions()
            number = self._progress()["model_version"] if number is None else operator.index(number)
            if number not in kept:
                raise KeyError(
                    f"{self.path} holds no model version{'' if number is None else f' {number}'}; it has {kept} "
                    f"(with keep_every={self.keep_every})"
                )
            return read_model_version(connection, self.path, number)

    def state_keys(self) -> list[str]:
        """Keys of the state, sorted."""
        with self._reading() as connection:
            keys = [row[0] for row in connection.execute("SELECT CAST(key AS TEXT) FROM state")]
            check_keys(self.path, "state", keys, self._progress()["state_keys"])
        return sorted(keys)

    def state(self, key: str) -> Any:
        """The value last recorded under a key: tuples come back as lists, all else as it was."""
        with self._reading() as connection:
            try:
                return read_document(connection, self.path, "state", key)
            except KeyError:
                keys = self.state_keys()
                check_missing(connection, self.path, "state", "key", key, keys)
                raise KeyError(f"{self.path} holds no state {key!r}; it has {keys}") from None

    def logged_steps(self) -> list[int]:
        """Numbers of the steps whose documents are in the log, in order."""
        return self._read(read_keys, "steps")

    def logged_step(self, step: int) -> dict:
        """The document of a step: tuples come back as lists, all else as it was."""
        return self._read(read_step, operator.index(step))

    def path_names(self) -> list[str]:
        """Names of the paths in the log, sorted."""
        return self._read(read_keys, "paths")

    def path_frames(self, name: str) -> np.ndarray:
        """Where the frames of a path are: block, row in the block, and 1 if the frame is time-reversed, else 0.

        Returns
        -------
        int64 array, shape (n_frames, 3)
        """
        return self._read(read_path, name)

    def frame_block_numbers(self) -> list[int]:
        """Numbers of the frame blocks in the log, in order."""
        return self._read(read_keys, "frame_blocks")

    def frame_block(self, number: int) -> FrameBlock:
        """A block of frames: float64 arrays come back to the bit, or as float32 if the block was reduced."""
        return self._read(read_block, operator.index(number))

    @property
    def last_frame_block(self) -> int:
        """The largest number that a frame block ever had, also if it was deleted; -1 before the first."""
        return self._progress()["last_frame_block"]

    def journal_shots(self, specifications: Mapping[str, Any]) -> None:
        """Note shots that are about to be handed out: documents (values and arrays) by a name that is unique in the run."""
        with self._transaction() as connection:
            write_specifications(connection, specifications)

    def journal_result(self, shot: str, document: Any) -> None:
        """Note the result of a shot, once.

        Raises
        ------
        KeyError
            If the shot is not in the journal.
        CheckpointError
            If it has a result already.
        """
        with self._transaction() as connection:
            write_result(connection, self.path, shot, document)

    def forget_shots(self, shots: Sequence[str]) -> None:
        """Take shots out of the journal, whose steps are recorded."""
        with self._transaction() as connection:
            delete_shots(connection, shots)

    def journaled_shots(self) -> dict[str, JournaledShot]:
        """Shots of steps that are not finished, in the order in which they were handed out."""
        with self._reading() as connection:
            return read_journal(connection, self.path)

    def store_file(self, name: str, content: bytes) -> None:
        """Keep bytes under a name, in place of those that it had.

        Raises
        ------
        ValueError, TypeError
            If the name is no string, or the content is not bytes or is larger than a row may be (1 GB).
        """
        with self._transaction() as connection:
            progress = self._progress()
            write_file(connection, progress, name, content)
            write_document(connection, "run", "progress", encode(progress))

    def file_names(self) -> list[str]:
        """Names of the files kept, sorted."""
        return self._read(read_keys, "files")

    def file(self, name: str) -> bytes:
        """The bytes last stored under a name."""
        return self._read(read_file, name)

    def _read(self, function: Callable, *arguments):
        with self._reading() as connection:
            return function(connection, self.path, self._progress(), *arguments)

    def _progress(self) -> dict:
        with self._reading() as connection:
            return read_document(connection, self.path, "run", "progress")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """All that is read inside belongs to one moment."""
        connection = self._connection
        with translated(self.path, "read"):
            if connection.in_transaction:  # a writer always is; a nested call
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or undo it; another transaction is begun before and after."""
        self._check_writable()
        connection = self._connection
        with translated(self.path, "written"):
            try:
                if not connection.in_transaction:  # the lock could not be taken back last time
                    connection.execute("BEGIN IMMEDIATE")
                if _data_version(connection) != self._data_version:
                    raise CheckpointLockedError(
                        f"another process has written to {self.path} while this one had it open. Stop one of the two, and "
                        "resume from the file"
                    )
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                with contextlib.suppress(sqlite3.Error):  # the step is safe all the same; the next one tries again
                    if time.monotonic() - self._synchronised > SYNC_SECONDS:
                        self._synchronised = time.monotonic()
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                    connection.execute("BEGIN IMMEDIATE")

    def _check_writable(self) -> None:
        if self.read_only:
            raise CheckpointError(f"{self.path} was opened with read_only=True: open it for writing to record a step")
        if self._process != os.getpid():
            raise CheckpointError(
                f"{self.path} was opened by process {self._process} and cannot be written by its forked child "
                f"{os.getpid()}: record steps in the process that opened it, and start others with spawn"
            )


def _absolute(path: str | os.PathLike) -> Path:
    return Path(os.path.abspath(os.fspath(path)))


def first_page(path: Path) -> sqlite3.Connection:
    """A connection that asks for no lock, for what is on the first page of a file.

    A file that may be open as a database is never opened in any other way: closing an ordinary handle drops all locks that
    this process has on the file, and another process could then write to it or delete its log.
    """
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection that has read from the file. Only mode "rw" may change it, and then only to finish the commits of a
    process that died."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout={int(WAIT_FOR_OTHERS * 1000)}")
        connection.execute("PRAGMA trusted_schema=OFF")  # no function runs because a foreign file's schema says so
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA schema_version").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _open_connection(path: Path, read_only: bool) -> sqlite3.Connection:
    if not read_only:
        return _connect(path, "rw")
    try:
        return _connect(path, "ro")
    except sqlite3.OperationalError:
        beside = [Path(f"{path}{suffix}") for suffix in ("-wal", "-journal")]
        if _writable(path):  # a half-written step must be rolled back before anything can be read
            connection = _connect(path, "rw")
            connection.execute("PRAGMA query_only=ON")
            return connection
        if not any(file.exists() and file.stat().st_size for file in beside):  # a copy of a killed run, write-protected
            return _connect(path, "ro&immutable=1")
        raise


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _check_permissions(path: Path, read_only: bool) -> None:
    # The file is left to sqlite; see `first_page`.
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; a checkpoint is one file")
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"no permission to read the checkpoint {path}")
    if not read_only and not _writable(path):
        raise PermissionError(
            f"no permission to write the checkpoint {path} and, for its journal, the directory around it; open it with "
            "read_only=True to look at it"
        )


def _read_whole(path: Path) -> None:
    """Read all that is in a checkpoint, and so compare it with its checksums and counts."""
    with Checkpoint.open(path, read_only=True) as file:
        file.shots()
        file.density_paths()
        file.journaled_shots()
        tables: tuple[tuple[Iterable, Callable], ...] = (
            (file.model_versions(), file.model_version),
            (file.state_keys(), file.state),
            (file.logged_steps(), file.logged_step),
            (file.path_names(), file.path_frames),
            (file.frame_block_numbers(), file.frame_block),
            (file.file_names(), file.file),
        )
        for names, read in tables:
            for name in names:
                read(name)


def _format_of(connection: sqlite3.Connection, path: Path) -> int:
    """Version of the format of a checkpoint that this program can read; raises for any other file."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if not path.stat().st_size:
        raise NotACheckpointError(f"{path} is empty: a run that ended before its checkpoint was begun. Start it anew")
    if path.stat().st_size < SMALLEST_DATABASE:
        raise NotACheckpointError(f"{path} is no ops_aimmd checkpoint: it has only {path.stat().st_size} bytes")
    if application_id != APPLICATION_ID:
        raise NotACheckpointError(
            f"{path} is an sqlite database, but no ops_aimmd checkpoint (application_id {application_id}, expected "
            f"{APPLICATION_ID})"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not can_be_read(version):
        raise CheckpointVersionError(
            f"{path} has format version {version}; this ops_aimmd reads versions up to {FORMAT_VERSION}. "
            + ("Install a newer ops_aimmd" if version > FORMAT_VERSION else "Read it with the ops_aimmd that wrote it")
        )
    foreign = connection.execute("SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')").fetchall()
    if foreign:
        raise NotACheckpointError(f"{path} has triggers or views ({foreign}), which no ops_aimmd checkpoint has")
    return version


def _prepare_writing(connection: sqlite3.Connection) -> None:
    """Set the way to commit, and begin the first transaction."""
    connection.execute("PRAGMA busy_timeout=0")
    if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")
    else:
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA busy_timeout={int(WAIT_FOR_OTHERS * 1000)}")


def _data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection, in this process or another, has committed."""
    return connection.execute("PRAGMA data_version").fetchone()[0]


def _occupant(path: Path) -> str:
    """What is at a path, as the continuation of a sentence that begins with its name."""
    try:
        with Checkpoint.open(path, read_only=True) as other:
            return (
                f" and is the checkpoint of a run that stands at step {other.step} with {other.n_shots} shots. "
                f"To go on from it, call ops_aimmd.resume(<its OPS file>, checkpoint={str(path)!r}); to begin a new run "
                f"with what it has learned, use ops_aimmd.load_learner({str(path)!r}, ...) with a checkpoint of another "
                "name"
            )
    except NotACheckpointError:
        return " and is no checkpoint"
    except (CheckpointError, OSError) as error:
        return f" and cannot be read ({error})"
