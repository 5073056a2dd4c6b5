"""A file that cannot be opened now is never taken for a damaged one: nothing is renamed, deleted or written.

The tests run here with netCDF, and with SimStore in a process of its own, since OPS cannot use both.
"""

import contextlib
import errno
import fcntl
import gc
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import netCDF4
import openpathsampling as paths
import pytest
import sqlite_errors
from child_processes import PYTEST, run_script
from resume_support import SUFFIX, QuickChain, begin, checkpoint_of, child, copy_run, numbers_in, resume, run_to, stands_at

import ops_aimmd
from ops_aimmd.analysis.run_data import read_run
from ops_aimmd.checkpoint import is_checkpoint
from ops_aimmd.runs import FileUnavailableError
from ops_aimmd.storage import existing_files, file_access, ops_files, reopening
from ops_aimmd.storage.file_access import UnreadableFileError, users_of
from ops_aimmd.storage.ops_files import kind_of_file, open_storage

N_STEPS = 3

netcdf_only = pytest.mark.skipif(SUFFIX != "nc", reason="of netCDF")
simstore_only = pytest.mark.skipif(SUFFIX != "db", reason="of SimStore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / f"run.{SUFFIX}"
    run_to(begin(run, keep_paths=False), N_STEPS)
    yield run
    shutil.rmtree(run.parent)


@pytest.fixture
def file(run):
    """A run of which the checkpoint has only those paths that OPS's file lacks: with that file they would be lost."""
    directory = Path(tempfile.mkdtemp())  # not below pytest's, which only its owner may enter
    yield copy_run(run, directory / run.name)
    gc.collect()
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(ops_files, "LONGEST_WAIT", 0.1)


def state_of(file):
    """Names in the folder, and the content of OPS's file and its journals."""
    names = sorted(path.name for path in file.parent.iterdir())
    return names, {name: zlib.crc32((file.parent / name).read_bytes()) for name in names if name.startswith(file.name)}


@contextlib.contextmanager
def refused(file, words):
    """The block is refused and changes nothing."""
    before = state_of(file)
    with pytest.raises(FileUnavailableError, match=words) as caught:
        yield
    del caught
    gc.collect()
    assert state_of(file) == before


def check_that_it_can_be_resumed(file):
    """Control: with the reason gone, the run goes on in the same file."""
    run_to(resume(file), N_STEPS + 1)
    assert numbers_in(file) == list(range(N_STEPS + 2))
    assert not list(file.parent.glob("*.damaged-*"))


@contextlib.contextmanager
def other_process(code, file):
    """A process that has begun to do something with a file."""
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        process.communicate()


DATASET = "import sys, netCDF4; file = netCDF4.Dataset(sys.argv[1], {mode!r}); print('ready', flush=True); input()"
LOCK = (
    "import sys, sqlite3; file = sqlite3.connect(sys.argv[1], isolation_level=None); file.execute('BEGIN EXCLUSIVE'); "
    "print('ready', flush=True); input()"
)


# ---- somebody else has the file -------------------------------------------------------------------------------------


@netcdf_only
def test_a_reader_in_the_same_process(file):
    for opened in (netCDF4.Dataset, paths.Storage):
        reader = opened(str(file), "r")
        with refused(file, "it is open in this process.*close it"):
            resume(file)
        reader.close()
    assert stands_at(file) == N_STEPS
    check_that_it_can_be_resumed(file)


def training_set_of(file):
    chain = QuickChain()
    return ops_aimmd.TrainingSet.from_storage(file, [chain.site], chain.states, progress=False)


@netcdf_only
@pytest.mark.parametrize("mode", ["r", "a"])
def test_another_process_has_the_file_open(file, mode):
    with other_process(DATASET.format(mode=mode), file) as process:
        with refused(file, f"it is open in process {process.pid} .*close it"):
            resume(file)
        if mode == "a":
            for read in (ops_aimmd.analysis.read_series, read_run, training_set_of):
                with refused(file, f"process {process.pid}.*close it"):
                    read(file)
            assert "process" in read_run(file, checkpoint_of(file)).notes[0]
    open_storage(file, "a").close()  # control


@simstore_only
def test_a_locked_database(file):
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with refused(file, "database is locked.*open in this process"):
        resume(file)
    connection.close()
    with other_process(LOCK, file) as process, refused(file, f"database is locked.*process {process.pid}"):
        resume(file)
    check_that_it_can_be_resumed(file)


@simstore_only
def test_looking_at_a_database_keeps_the_locks_of_this_process(file):
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert kind_of_file(file) == "simstore"
    assert not is_checkpoint(file)
    ask = f"import sqlite3; sqlite3.connect({str(file)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    assert "locked" in child("-c", ask).stderr
    connection.execute("ROLLBACK")
    assert child("-c", ask).returncode == 0  # control
    connection.execute("BEGIN IMMEDIATE")
    file.open().close()
    assert child("-c", ask).returncode == 0  # control: so a file handle would have done
    connection.close()


def test_a_damaged_file_that_is_open_elsewhere_is_not_renamed(file):
    content = file.read_bytes()[:20_000]
    file.write_bytes(content)
    with other_process("import sys; file = open(sys.argv[1]); print('ready', flush=True); input()", file) as process:
        with refused(file, f"process {process.pid} "):
            resume(file)
    with pytest.warns(ops_aimmd.runs.ResumeWarning, match="renamed to"):  # control
        resume(file).storage.close()
    assert file.with_name(f"{file.name}.damaged-1").read_bytes() == content


# ---- the system does not let us -------------------------------------------------------------------------------------


def in_a_fork(action):
    """The name and text of the exception that a function raises in a child process, or "none"."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        answer = "none"
        try:
            action()
        except BaseException as error:
            answer = f"{type(error).__name__} {error}"
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with open(receive) as answer:
        text = answer.read()
    os.waitpid(process, 0)
    return text


@pytest.mark.parametrize("what", ["file", "folder"])
def test_write_protected(file, what):
    """As a user who is not root, who may do everything."""
    with checkpoint_is_elsewhere(file) as checkpoint:
        (file.parent if what == "folder" else file).chmod(0o555)
        before = state_of(file)

        def open_it():
            if os.geteuid() == 0:
                os.setuid(65534)
            with ops_aimmd.checkpoint.Checkpoint.open(checkpoint, read_only=True) as opened:
                reopening.reopen(file, opened, opened.state("run")).close()

        file.chmod(0o444 if what == "file" else 0o666)
        answer = in_a_fork(open_it)
        if what == "folder" and SUFFIX == "nc":
            assert answer == "none"  # it need not write there
        else:
            assert answer.startswith("FileUnavailableError") and "no permission" in answer
        assert state_of(file) == before
        file.parent.chmod(0o755)
        file.chmod(0o644)
    open_storage(file, "a").close()  # control


@contextlib.contextmanager
def checkpoint_is_elsewhere(file):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        copy = shutil.copy(checkpoint_of(file), folder)
        os.chmod(copy, 0o666)
        yield copy


def test_a_write_protected_file_system(file, monkeypatch):
    monkeypatch.setattr(ops_files.os, "access", lambda place, mode: mode != os.W_OK)
    with refused(file, "no permission"):
        open_storage(file, "a")
    monkeypatch.undo()
    open_storage(file, "a").close()  # control


def test_a_damaged_file_in_a_folder_that_cannot_be_written(file, monkeypatch):
    file.write_bytes(b"garbage" * 1000)

    def rename(path, target):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", rename)
    with refused(file, "Read-only file system"):
        resume(file)


def test_too_many_open_files(file):
    def open_with(n_more):
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for number in taken[:n_more]:
            os.close(number)
        open_storage(file, "a").close()

    open_storage(file, "a").close()
    before = state_of(file)
    answers = [in_a_fork(lambda n_more=n_more: open_with(n_more)) for n_more in (0, 1, 2, 3, 4, 30)]
    assert {answer.split()[0] for answer in answers} == {"FileUnavailableError", "none"}
    assert answers[0] != "none" and answers[-1] == "none"
    assert state_of(file) == before


@netcdf_only
def test_a_file_system_without_locks(file, monkeypatch):
    reader = netCDF4.Dataset(file)  # which makes HDF5 fail

    def flock(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with refused(file, "no locks.*HDF5_USE_FILE_LOCKING"):
        resume(file)
    reader.close()
    open_storage(file, "a").close()  # control


@netcdf_only
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler")
def test_a_system_without_locks(file, tmp_path):
    (tmp_path / "flock.c").write_text("#include <errno.h>\nint flock(int file, int how) { errno = ENOLCK; return -1; }\n")
    library = tmp_path / "flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "flock.c"], check=True)
    code = f"import ops_aimmd; ops_aimmd.resume({str(file)!r}, {str(checkpoint_of(file))!r}, progress=False)"
    before = state_of(file)
    modules = os.pathsep.join(sys.path)  # those of the run
    answer = child("-c", code, LD_PRELOAD=str(library), PYTHONPATH=modules)
    assert "FileUnavailableError" in answer.stderr and "HDF5_USE_FILE_LOCKING" in answer.stderr
    assert state_of(file) == before
    unlocked = child("-c", code, LD_PRELOAD=str(library), PYTHONPATH=modules, HDF5_USE_FILE_LOCKING="FALSE")
    assert unlocked.returncode == 0, unlocked.stderr  # control


def raising(error):
    def function(*arguments, **options):
        raise error

    return function


UNAVAILABLE = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    ModuleNotFoundError("No module named 'states_of_the_user'"),
    *sqlite_errors.UNAVAILABLE,
]


@pytest.mark.parametrize("error", UNAVAILABLE, ids=repr)
def test_errors_that_say_nothing_about_the_file(tmp_path, error):
    for raised in (error, caused_by(error)):
        with pytest.raises(FileUnavailableError, match="cannot be opened now"):
            with file_access.telling_damage(tmp_path / "run.nc"):
                raise raised


def caused_by(error):
    try:
        raise RuntimeError("a library could not read a step") from error
    except RuntimeError as raised:
        return raised


def test_such_errors_while_the_last_steps_are_read(file, monkeypatch):
    for name, error in (("find_simulation", UNAVAILABLE[1]), ("check_steps", MemoryError())):
        monkeypatch.setattr(reopening, name, raising(error))
        with refused(file, "cannot be opened now"):
            resume(file)
        monkeypatch.undo()
    open_storage(file, "a").close()  # control


def test_steps_are_not_passed_over_because_of_such_errors(file, monkeypatch):
    storage = open_storage(file)
    for error in UNAVAILABLE[:3]:
        monkeypatch.setattr(existing_files, "_check_whole", raising(error))
        with pytest.raises(FileUnavailableError, match="step 0 "):
            list(existing_files.read_steps(storage, lambda step: [step], progress=False))
    monkeypatch.setattr(existing_files, "_check_whole", raising(ValueError("a frame without coordinates")))
    with pytest.warns(UserWarning, match="passed over"):  # control
        assert list(existing_files.read_steps(storage, lambda step: [step], progress=False)) == []
    storage.close()


@pytest.mark.parametrize("error", [ValueError("a path without frames"), sqlite3.DatabaseError("disk image is malformed")])
def test_errors_that_show_damage(tmp_path, error):
    with pytest.raises(UnreadableFileError), file_access.telling_damage(tmp_path / "run.nc"):
        raise error


# ---- evidence of damage ---------------------------------------------------------------------------------------------


@netcdf_only
def test_a_fresh_process_tells_whether_hdf5_can_read_the_file(file, monkeypatch):
    error = RuntimeError("NetCDF: HDF error")
    assert "in a process of its own" in file_access.why_unavailable(file, error)
    monkeypatch.setattr(file_access, "READ_ALL", "import os; os.kill(os.getpid(), 9)")  # as where memory is short
    assert "could not be found out" in file_access.why_unavailable(file, error)
    monkeypatch.undo()
    with file.open("r+b") as opened:
        opened.truncate(20_000)
    assert file_access.why_unavailable(file, error) is None


def test_users_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert users_of(path) == []
    with path.open():
        assert users_of(path) == ["this process"]
        assert users_of(path, others_only=True) == []


# ---- all that again, with SimStore ----------------------------------------------------------------------------------


@netcdf_only
def test_with_simstore():
    """In a process of its own."""
    process = run_script(PYTEST, "-q", "-p", "no:cacheprovider", __file__, RESUME_TESTS_SUFFIX="db")
    assert process.returncode == 0, process.stdout[-6000:]
