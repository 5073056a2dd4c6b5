"""Nothing that a checkpoint acknowledged is lost, nothing comes back changed, and bad files are refused in words."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import sqlite_errors
from checkpoint_support import (
    CHILD,
    check_child_file,
    child_process,
    everything,
    fill,
    make_log,
    make_shot,
    output_of,
    run_until_killed,
    same_bits,
)

from ops_aimmd.checkpoint import (
    Checkpoint,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointUnavailableError,
    CheckpointVersionError,
    DensityPath,
    FileUnavailableError,
    NotACheckpointError,
    checkpoint_file,
    is_checkpoint,
)
from ops_aimmd.checkpoint.conversion import FORMAT_VERSION
from ops_aimmd.checkpoint.documents import decode, encode

# What comes back


def test_everything_comes_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(5)
    path = tmp_path / "run.aimmd"
    awkward = np.array([np.nan, -0.0, np.inf, 5e-324, np.nextafter(1, 2)])
    shots = [
        make_shot(rng, np.int64(1), d=5, descriptors=awkward, chain=np.int32(3), weight=np.float64(0.1)),
        make_shot(rng, 1, d=5, n_frames=0, predicted_committor=None, velocity_origin="path", weight=-0.0),
        make_shot(rng, 2, d=5, leg_frames=None),
        make_shot(rng, 2, d=5, counts=np.array([1, 1]), descriptors=np.arange(5, dtype=np.float32)),
    ]
    strided = rng.normal(size=(6, 8))[::2, ::-3]
    arrays = {"weight": strided, "bias": np.float32([1, 2]), "count": np.array(7), "none": np.empty((0, 3))}
    state = {"losses": [np.float32(0.1), np.inf, -np.inf], "nested": {"a/b": strided.T, "a": {"b": np.arange(3)}}}
    with Checkpoint.create(path, {"seed": np.int64(1), "name": "Zähler"}) as checkpoint:
        assert checkpoint.step == -1 and len(checkpoint.shots()) == 0 and checkpoint.density_paths() == {}
        run_id = checkpoint.run_id
        checkpoint.record_step(1, shots[:2], model_version=(0, {"width": 4}, arrays), state=state)
        checkpoint.record_step(2, shots[2:], density_paths={"x": (1, 1, strided)})
        checkpoint.record_step(5, density_paths={"y": DensityPath(1, 1, strided[:1]), "x": (2, 1, None)})
        checkpoint.record_step(6, density_paths={"x": (2, 2, strided[1:])})
    assert os.listdir(tmp_path) == ["run.aimmd"]
    with Checkpoint.open(path) as checkpoint:
        assert (checkpoint.step, checkpoint.run_id) == (6, run_id)
        assert checkpoint.metadata == {"seed": 1, "name": "Zähler"}
        columns = checkpoint.shots()
        for row, shot in enumerate(shots):
            assert same_bits(columns.descriptors[row], np.asarray(shot.descriptors, float))
            assert same_bits(columns.counts[row], np.asarray(shot.counts, float))
            assert columns.weights[row] == shot.weight and columns.velocity_origin[row] == shot.velocity_origin
            assert (columns.steps[row], columns.chains[row]) == (shot.step, shot.chain)
        assert same_bits(columns.predicted_committor[0], shots[0].predicted_committor)
        assert np.isnan(columns.predicted_committor[1]).all()
        frames = columns.auxiliary
        assert frames.shot.tolist() == [0] * 4 + [3] * 4
        for shot, rows in ((shots[0], slice(0, 4)), (shots[3], slice(4, 8))):
            assert same_bits(frames.descriptors[rows], shot.leg_frames.descriptors)
            assert same_bits(frames.outcomes[rows], shot.leg_frames.outcomes)
            assert same_bits(frames.is_end[rows], shot.leg_frames.is_end)
            assert np.array_equal(frames.displacements[rows], shot.leg_frames.displacements)
        number, description, found = checkpoint.model_version()
        assert (number, description, found.keys()) == (0, {"width": 4}, arrays.keys())
        assert all(same_bits(found[name], arrays[name]) for name in arrays)
        density = checkpoint.density_paths()
        assert list(density) == ["x", "y"] and density["x"][:2] == (2, 2) and density["y"][:2] == (1, 1)
        assert same_bits(density["x"].frames, np.ascontiguousarray(strided[1:]))
        nested = checkpoint.state("nested")
        assert same_bits(nested["a/b"], np.ascontiguousarray(strided.T)) and nested["a"]["b"].tolist() == [0, 1, 2]
        assert checkpoint.state("losses") == [float(np.float32(0.1)), np.inf, -np.inf]
        with pytest.raises(KeyError, match="it has .'losses', 'nested'."):
            checkpoint.state("loss")


def test_documents_keep_values_and_name_what_they_cannot_hold():
    rng = np.random.default_rng(1)
    value = {"pcg": rng.bit_generator.state, "mt": np.random.MT19937(1).state, "x": [1, -0.0, 0.1, None, True, "é\ud800"]}
    back = decode(*encode(value))
    assert back["pcg"] == value["pcg"] and back["x"] == value["x"] and str(back["x"][1]) == "-0.0"
    assert same_bits(back["mt"]["state"]["key"], value["mt"]["state"]["key"])
    assert np.isnan(decode(*encode(np.float64("nan"))))
    for bad, place in (
        ({"a": [0, {"b": {1, 2}}]}, "/a/1/b"),
        ({"a": {0: 1}}, "key 0 .*at /a"),
        ({"a": np.array(["text"])}, "dtype <U4"),
        ({"a": np.array([None])}, "dtype object"),
        ({"a": np.longdouble(1)}, "longdouble at /a|float128 at /a"),
        ({"$array": "x"}, "other than"),
        ({"a": lambda: 1}, "function at /a"),
    ):
        with pytest.raises(TypeError, match=place):
            encode(bad)


def test_old_model_versions_are_dropped_except_multiples_of_the_spacing_and_the_newest(tmp_path):
    with Checkpoint.create(tmp_path / "run.aimmd", keep_every=5) as checkpoint:
        for number in range(13):
            checkpoint.record_step(number, model_version=(number, {}, {"w": np.full(3, number)}))
        assert checkpoint.model_versions() == [0, 5, 10, 12]
        assert checkpoint.model_version()[0] == 12 and checkpoint.model_version(5)[2]["w"].tolist() == [5, 5, 5]
        with pytest.raises(KeyError, match=r"no model version 7; it has \[0, 5, 10, 12\]"):
            checkpoint.model_version(7)
        with pytest.raises(ValueError, match="cannot follow version 12"):
            checkpoint.record_step(20, model_version=(12, {}, {}))


def test_neither_ops_nor_torch_is_needed():
    code = "import ops_aimmd.checkpoint\nprint({'torch', 'openpathsampling'} & set(sys.modules))"
    assert output_of(code) == "set()\n"


def test_file_explains_itself(tmp_path):
    with Checkpoint.create(tmp_path / "run.aimmd") as checkpoint:
        fill(checkpoint)
    connection = sqlite3.connect(tmp_path / "run.aimmd")
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    learning = {"run", "state", "shots", "leg_frames", "density_paths", "density_frames", "model_versions"}
    assert set(tables) == learning | {"frame_blocks", "paths", "steps", "files"}
    assert "little-endian float64" in tables["shots"]
    first = connection.execute("SELECT descriptors FROM shots WHERE shot = 0").fetchone()[0]
    assert len(np.frombuffer(first, "<f8")) == 3
    connection.close()


# One step is one transaction


def test_a_step_is_recorded_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.aimmd"
    rng = np.random.default_rng(0)
    with Checkpoint.create(path) as checkpoint:
        fill(checkpoint)
        before = everything(path)
        good = make_shot(rng, 13)
        bad_steps = [
            (ValueError, dict(shots=[good, make_shot(rng, 13, d=4)])),
            (ValueError, dict(shots=[good, make_shot(rng, 13, weight=np.nan)])),
            (ValueError, dict(shots=[good, make_shot(rng, 13, n_states=3)])),
            (TypeError, dict(shots=[good], state={"a": 1, "b": object()})),
            (TypeError, dict(shots=[good], state={1: 1})),
            (ValueError, dict(shots=[good], density_paths={"new": (1, 1, None)})),
            (ValueError, dict(shots=[good], density_paths={"new": (1, 1, np.zeros((2, 7)))})),
            (TypeError, dict(shots=[good], model_version=(50, {"a": np.zeros(2)}, {}))),
            (TypeError, dict(shots=[good], model_version=(50, {}, {"a": np.array("text")}), state={"a": 1})),
        ]
        for error, arguments in bad_steps:
            with pytest.raises(error):
                checkpoint.record_step(13, **arguments)
            assert everything(path) == before
        pages = checkpoint._connection.execute("PRAGMA page_count").fetchone()[0]
        checkpoint._connection.execute(f"PRAGMA max_page_count={pages + 5}")
        with pytest.raises(CheckpointError, match="full"):
            checkpoint.record_step(13, [good], state={"big": np.zeros(100_000)})
        assert everything(path) == before
        checkpoint._connection.execute("PRAGMA max_page_count=1000000")
        checkpoint.record_step(13, [good])
        assert checkpoint.step == 13 and everything(path) != before


def test_steps_increase(tmp_path):
    with Checkpoint.create(tmp_path / "run.aimmd") as checkpoint:
        for wrong in (-1, 0.5, "1"):
            with pytest.raises((ValueError, TypeError)):
                checkpoint.record_step(wrong)
        checkpoint.record_step(3)
        for wrong in (3, 2):
            with pytest.raises(ValueError, match="step 3 is already there"):
                checkpoint.record_step(wrong)
        checkpoint.record_step(np.int64(4))


WITHOUT_LOG = """
import sqlite3
from ops_aimmd.checkpoint import checkpoint_file
class Connection(sqlite3.Connection):
    def execute(self, statement, *arguments):
        return super().execute(statement.replace("journal_mode=WAL", "journal_mode=DELETE"), *arguments)
connect = sqlite3.connect
checkpoint_file.sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)
"""


def test_kill_at_any_moment_loses_no_acknowledged_step(tmp_path):
    path = tmp_path / "run.aimmd"
    copy = tmp_path / "copy.aimmd"
    Checkpoint.create(path).close()
    clock = random.Random(1)
    behind = torn = 0
    for kill in range(24):
        acknowledged = run_until_killed(path, clock.uniform(0.0, 0.03))
        if kill % 3 == 0:
            shutil.copy(path, copy)  # without the log
        with Checkpoint.open(path, read_only=kill % 2 == 1) as checkpoint:
            last = check_child_file(checkpoint)
        # At most the one step is there that was committed and not yet acknowledged.
        assert last in (acknowledged, acknowledged + 1)
        if kill % 3 == 0:
            try:  # an earlier step, whole; or, killed while the log was moved into the file, a clear error
                with Checkpoint.open(copy) as checkpoint:
                    behind += check_child_file(checkpoint) < last
            except CheckpointCorruptError as error:
                assert "-wal" in str(error)
                torn += 1
            copy.unlink()
    assert behind > 0  # control: the log was needed
    assert torn <= 4  # of 8; the log is seldom moved


def test_a_copy_of_the_one_file_holds_the_run_up_to_the_last_synchronisation(tmp_path, monkeypatch):
    path, copy = tmp_path / "run.aimmd", tmp_path / "copy.aimmd"
    with Checkpoint.create(path) as checkpoint:
        monkeypatch.setattr("ops_aimmd.checkpoint.checkpoint_file.SYNC_SECONDS", 0.0)
        fill(checkpoint)
        expected = everything(path)
        monkeypatch.setattr("ops_aimmd.checkpoint.checkpoint_file.SYNC_SECONDS", 1e9)
        checkpoint.record_step(13)
        shutil.copy(path, copy)
    assert everything(copy) == expected


def test_a_torn_log_gives_back_whole_steps(tmp_path):
    # What a crash of the operating system may leave of the log that has not yet been synchronised: any part of it.
    path = tmp_path / "run.aimmd"
    torn = tmp_path / "torn.aimmd"
    log = Path(f"{torn}-wal")
    with Checkpoint.create(path) as checkpoint:
        at_step = {-1: everything(path)}
        rng = np.random.default_rng(1)
        for step in range(12):
            shots = [make_shot(rng, step), make_shot(rng, step)]
            model = (step, {}, {"weight": rng.normal(size=200)})
            density = {str(step // 2): (1, 1, rng.normal(size=(30, 3)))}
            checkpoint.record_step(step, shots, density, model, {"a": step}, make_log(rng, step))
            at_step[step] = everything(path)
        file, whole = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    found = []
    for cut in rng.integers(32, len(whole), size=40).tolist():
        damaged = bytearray(whole[:cut] if cut % 2 else whole)
        damaged[rng.integers(len(damaged))] ^= 8
        torn.write_bytes(file)
        log.write_bytes(damaged)
        Path(f"{torn}-shm").unlink(missing_ok=True)
        with Checkpoint.open(torn) as checkpoint:
            found.append(checkpoint.step)
        assert everything(torn) == at_step[found[-1]]
    assert len(set(found)) > 5


def test_without_a_write_ahead_log(tmp_path):
    # As on a file system where none is possible: a rollback journal, which a reader or the next writer rolls back.
    path = tmp_path / "run.aimmd"
    Checkpoint.create(path).close()
    child = CHILD.replace("checkpoint = Checkpoint.open(path)", WITHOUT_LOG + "checkpoint = Checkpoint.open(path)")
    assert child != CHILD
    clock = random.Random(2)
    half_written = 0
    for kill in range(10):
        acknowledged = run_until_killed(path, clock.uniform(0.0, 0.05), child)
        journal = Path(f"{path}-journal")
        half_written += journal.exists() and journal.stat().st_size > 0
        with Checkpoint.open(path, read_only=kill % 2 == 1) as checkpoint:
            assert check_child_file(checkpoint) in (acknowledged, acknowledged + 1)
    assert half_written > 0  # control: some kills hit a commit, and there was something to roll back


def test_kill_during_creation_leaves_nothing_in_the_way(tmp_path):
    path = tmp_path / "run.aimmd"
    code = (
        "import sqlite3, os\n"
        f"c = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=1'); c.execute('BEGIN'); c.execute('CREATE TABLE a (b)')\n"
        "for i in range(50): c.execute('INSERT INTO a VALUES (zeroblob(4000))')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code])
    assert path.stat().st_size > 0  # half a database, and the journal that undoes it
    with Checkpoint.create(path) as checkpoint:
        fill(checkpoint)
    path.unlink()
    path.touch()
    with pytest.raises(NotACheckpointError, match="empty"):
        Checkpoint.open(path)
    Checkpoint.create(path).close()
    run_until_killed(path, 0.02)
    path.unlink()  # the log of the old run must not get into a new one
    with Checkpoint.create(path) as checkpoint:
        assert checkpoint.step == -1
        fill(checkpoint)


# One writer, many readers


def test_second_writer_is_refused_and_readers_see_whole_steps(tmp_path):
    path = tmp_path / "run.aimmd"
    open_elsewhere = (
        f"from ops_aimmd.checkpoint import *\nfor read_only in (True, False):\n  try:\n"
        f"    print(Checkpoint.open({str(path)!r}, read_only=read_only).step)\n"
        "  except CheckpointLockedError as error: print(error)"
    )
    with Checkpoint.create(path) as checkpoint:
        fill(checkpoint)
        for _ in range(3):
            with pytest.raises(CheckpointLockedError, match="read_only=True"):
                Checkpoint.open(path)  # in this process
        answers = output_of(open_elsewhere)
        assert answers.startswith("12\n") and "open for writing" in answers
        with Checkpoint.open(path, read_only=True) as reader:
            for step in range(13, 40):
                checkpoint.record_step(step, [make_shot(np.random.default_rng(step), step)])
                assert reader.step == step and reader.shots().steps[-1] == step
            with pytest.raises(CheckpointError, match="read_only=True"):
                reader.record_step(50)
    Checkpoint.open(path).close()  # let go


def test_second_writer_is_refused_while_steps_are_recorded(tmp_path):
    # sqlite's own lock is free after each commit; whoever asks all the time must not slip in.
    path = tmp_path / "run.aimmd"
    Checkpoint.create(path).close()
    child = child_process(CHILD, path)
    try:
        with Checkpoint.open(path, read_only=True) as reader:
            while reader.step < 0:
                time.sleep(0.01)
        for _ in range(300):
            with pytest.raises(CheckpointLockedError):
                Checkpoint.open(path)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    Checkpoint.open(path).close()  # a dead writer leaves no lock
    assert os.listdir(tmp_path) == ["run.aimmd"]


def test_a_writer_notices_that_another_has_written(tmp_path):
    path = tmp_path / "run.aimmd"
    with Checkpoint.create(path) as checkpoint:
        checkpoint.record_step(1)
        checkpoint._connection.execute("ROLLBACK")  # as between two transactions
        with pytest.raises(CheckpointLockedError, match="open for writing"):
            Checkpoint.open(path)
        checkpoint._lock.release()  # control: without the lock, which nobody should lose
        with Checkpoint.open(path) as other:
            other.record_step(2)
        with pytest.raises(CheckpointLockedError, match="has written"):
            checkpoint.record_step(3)


def test_closing_twice_and_using_a_closed_one(tmp_path):
    checkpoint = Checkpoint.create(tmp_path / "run.aimmd")
    checkpoint.close()
    checkpoint.close()
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.record_step(1)


# Bad files


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact") / "run.aimmd"
    with Checkpoint.create(path, {"system": "two wells"}) as checkpoint:
        fill(checkpoint)
        checkpoint.record_step(20, state={"path": np.random.default_rng(1).normal(size=3000)})
    return path


def test_an_existing_file_is_never_overwritten(tmp_path, intact):
    before = intact.read_bytes()
    with pytest.raises(FileExistsError, match="step 20 with 12 shots.*ops_aimmd.resume.*ops_aimmd.load_learner"):
        Checkpoint.create(intact)
    assert intact.read_bytes() == before
    with Checkpoint.open(intact):
        with pytest.raises(FileExistsError, match="step 20 .*ops_aimmd.resume"):
            Checkpoint.create(intact)
    notes = tmp_path / "notes.txt"
    notes.write_text("not yours")
    with pytest.raises(FileExistsError, match="no checkpoint"):
        Checkpoint.create(notes)
    assert notes.read_text() == "not yours"
    with pytest.raises(FileExistsError):
        Checkpoint.create(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no directory .*nowhere for the checkpoint run.aimmd"):
        Checkpoint.create(tmp_path / "nowhere" / "run.aimmd")


def test_foreign_files_are_refused(tmp_path, intact):
    text = tmp_path / "text"
    text.write_text("a text that is longer than the header of a database " * 100)
    short = tmp_path / "short"
    short.write_bytes(b"SQLite")
    foreign = tmp_path / "run.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE shots (shot)")
    connection.close()
    shortest = tmp_path / "shortest"
    shortest.write_bytes(b"x")  # which sqlite takes for a new database
    for path in (text, short, shortest, foreign):
        before = path.read_bytes()
        for read_only in (True, False):
            with pytest.raises(NotACheckpointError, match=str(path)):
                Checkpoint.open(path, read_only=read_only)
        assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Checkpoint.open(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    with pytest.raises(IsADirectoryError):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        (f"PRAGMA user_version={FORMAT_VERSION + 1}", CheckpointVersionError, "newer ops_aimmd"),
        ("PRAGMA user_version=1", CheckpointVersionError, "the ops_aimmd that wrote it"),
        ("PRAGMA application_id=0", NotACheckpointError, "application_id 0"),
        ("CREATE VIEW v AS SELECT load_extension('evil')", NotACheckpointError, "triggers or views"),
        ("DELETE FROM shots WHERE shot = 4", CheckpointCorruptError, "11 of 12"),
        ("UPDATE shots SET step = step + 1 WHERE shot = 3", CheckpointCorruptError, "shots, shot 3"),
        ("UPDATE shots SET step = 'one' WHERE shot = 3", CheckpointCorruptError, "shots, shot 3"),
        ("DELETE FROM leg_frames WHERE shot = 0", CheckpointCorruptError, "leg_frames"),
        ("DELETE FROM model_versions WHERE number = 1", CheckpointCorruptError, "model_versions: 3 of 4"),
        ("DELETE FROM density_frames WHERE number = 1", CheckpointCorruptError, "density_frames"),
        ("UPDATE density_paths SET count = 9 WHERE number = 1", CheckpointCorruptError, "density_paths, number 1"),
        ("DELETE FROM state WHERE key = 'path'", CheckpointCorruptError, "state: 2 of 3"),
        ("UPDATE state SET json = '{}' WHERE key = 'path'", CheckpointCorruptError, "state, key 'path'"),
        ("UPDATE model_versions SET arrays = zeroblob(10)", CheckpointCorruptError, "model_versions, number 1"),
        ("DELETE FROM frame_blocks WHERE block = 16", CheckpointCorruptError, "frame_blocks: 5 of 6"),
        ("UPDATE frame_blocks SET arrays = zeroblob(10)", CheckpointCorruptError, "frame_blocks, block 14"),
        ("UPDATE frame_blocks SET block = 99 WHERE block = 20", CheckpointCorruptError, "frame_blocks, block 99"),
        ("DELETE FROM paths WHERE path = 'path 9'", CheckpointCorruptError, "paths: 5 of 6"),
        ("UPDATE paths SET frames = zeroblob(72) WHERE path = 'path 9'", CheckpointCorruptError, "paths, path 'path 9'"),
        ("DELETE FROM steps WHERE step = 8", CheckpointCorruptError, "steps: 5 of 6"),
        ("UPDATE steps SET arrays = NULL WHERE step = 9", CheckpointCorruptError, "steps, step 9"),
        ("DELETE FROM files", CheckpointCorruptError, "files: 0 of 1"),
        ("UPDATE files SET content = x'00'", CheckpointCorruptError, "files, name 'setup'"),
        ("DELETE FROM run", CheckpointCorruptError, "run: the row"),
        ("DROP TABLE shots", CheckpointCorruptError, "no such table"),
    ],
)
def test_changed_files_are_refused(tmp_path, intact, statement, error, words):
    path = tmp_path / "run.aimmd"
    shutil.copy(intact, path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(error, match=words):
        everything(path)


@pytest.mark.parametrize("kind", ["TEXT", "BLOB"])
def test_texts_and_blobs_of_the_same_bytes_are_the_same(tmp_path, intact, kind):
    # One flipped bit makes a blob of small numbers a text, with the same checksum.
    path, expected = tmp_path / "run.aimmd", everything(intact)
    shutil.copy(intact, path)
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, name, declared, _, _, is_key in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if declared in ("TEXT", "BLOB") and not is_key:
                    connection.execute(f"UPDATE {table} SET {name} = CAST({name} AS {kind})")
        changed = connection.execute(f"SELECT count(*) FROM paths WHERE typeof(frames) = '{kind.lower()}'").fetchone()[0]
    connection.close()
    assert changed == 6  # control
    assert everything(path) == expected


def refused_or_unharmed(path, expected):
    """Whether a damaged file was refused; anything read from it must be what was written."""
    try:
        assert everything(path) == expected
    except CheckpointError as error:
        assert str(path) in str(error)
        return True
    return False


def test_truncated_files_are_refused(tmp_path, intact):
    path, data, expected = tmp_path / "run.aimmd", intact.read_bytes(), everything(intact)
    for length in [1, 15, 50, 99, 100, 511, *np.random.default_rng(2).integers(512, len(data), size=30).tolist()]:
        path.write_bytes(data[:length])
        assert refused_or_unharmed(path, expected), length
        assert path.read_bytes() == data[:length]
    path.write_bytes(data)
    assert not refused_or_unharmed(path, expected)  # control


@pytest.mark.parametrize("quick_check", [True, False])
def test_a_flipped_bit_never_gives_other_numbers(tmp_path, intact, monkeypatch, quick_check):
    # Without the check of the pages, as for large files, checksums and counts must do alone.
    if not quick_check:
        monkeypatch.setattr("ops_aimmd.checkpoint.checkpoint_file.QUICK_CHECK_BYTES", 0)
    path, data, expected = tmp_path / "run.aimmd", intact.read_bytes(), everything(intact)
    rng = np.random.default_rng(3)
    positions = np.concatenate([np.arange(100), rng.integers(len(data), size=400)])  # all of the header
    refused = 0
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refused += refused_or_unharmed(path, expected)
    # Unused space in pages and counters of the header may flip unseen; the 24 kB array alone is a third of the file.
    assert refused > 0.2 * len(positions)


@pytest.mark.parametrize("error", [MemoryError(), *sqlite_errors.UNAVAILABLE], ids=repr)
def test_what_cannot_be_opened_now_is_not_called_damaged(intact, monkeypatch, error):
    def refuse(path, mode):
        raise error

    monkeypatch.setattr(checkpoint_file, "_connect", refuse)
    with pytest.raises(CheckpointUnavailableError) as caught:
        Checkpoint.open(intact)
    assert isinstance(caught.value, FileUnavailableError)
    monkeypatch.undo()
    Checkpoint.open(intact, read_only=True).close()  # control


def test_too_many_open_files(intact):
    def open_with_all_taken():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with contextlib.suppress(OSError):
            while True:
                os.open(os.devnull, os.O_RDONLY)
        Checkpoint.open(intact)

    before = intact.read_bytes()
    assert without_privileges(open_with_all_taken, leave_root=False).startswith("CheckpointUnavailableError")
    assert without_privileges(lambda: Checkpoint.open(intact).close(), leave_root=False) == "None"  # control
    assert intact.read_bytes()[100:] == before[100:]


def test_looking_for_a_checkpoint_keeps_the_locks_of_this_process(tmp_path, intact):
    path = Path(shutil.copy(intact, tmp_path / "run.aimmd"))
    ask = [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('BEGIN IMMEDIATE')"]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert is_checkpoint(path)
    assert b"locked" in subprocess.run(ask, capture_output=True).stderr
    path.open().close()
    assert subprocess.run(ask).returncode == 0  # control: a file handle drops them
    connection.close()


def without_privileges(action, leave_root=True):
    """What a function returns, or the name and text of its exception, in a child that is not root."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        if leave_root and os.geteuid() == 0:
            os.setuid(65534)  # root may do everything
        try:
            answer = str(action())
        except Exception as error:
            answer = f"{type(error).__name__} {error}"
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with open(receive) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def test_no_permission(intact):
    directory = Path(tempfile.mkdtemp())  # not below pytest's, which only its owner may enter
    path = directory / "run.aimmd"
    shutil.copy(intact, path)
    try:
        directory.chmod(0o555)
        path.chmod(0o444)
        answer = without_privileges(lambda: Checkpoint.open(path))
        assert answer.startswith("PermissionError") and "read_only=True" in answer
        answer = without_privileges(lambda: Checkpoint.create(directory / "new.aimmd"))
        assert answer.startswith("CheckpointUnavailableError") and "unable to open" in answer
        assert without_privileges(lambda: Checkpoint.open(path, read_only=True).step) == "20"
        directory.chmod(0o755)  # a copy of the file of a killed run, whose log was left behind
        path.chmod(0o644)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        directory.chmod(0o555)
        path.chmod(0o444)
        assert without_privileges(lambda: Checkpoint.open(path, read_only=True).step) == "20"
        path.chmod(0)
        answer = without_privileges(lambda: Checkpoint.open(path, read_only=True))
        assert answer.startswith("PermissionError no permission to read")
    finally:
        directory.chmod(stat.S_IRWXU)
        shutil.rmtree(directory)
