"""The step log gives back frames, paths and documents to the bit, forgets only what it is told to, and costs what a
step brings."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_support import everything, fill, make_block, make_log, same_bits

from ops_aimmd.checkpoint import Checkpoint, CheckpointCorruptError, CheckpointError, FrameBlock, StepLog
from ops_aimmd.checkpoint.rows import MAX_ROW_BYTES


def same_arrays(one, other):
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


@pytest.fixture
def checkpoint(tmp_path):
    with Checkpoint.create(tmp_path / "run.aimmd") as checkpoint:
        yield checkpoint


# What comes back


def test_the_log_comes_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "run.aimmd"
    awkward = np.array([[np.nan, -0.0, np.inf], [5e-324, np.nextafter(1, 2), 1e300]])
    strided = rng.normal(size=(6, 8))[::2, ::-3]
    arrays = {"coordinates": awkward, "box": strided, "flags": np.array([True, False]), "none": np.empty((0, 3))}
    meta = {"engine": "Verlet é", "kT": 0.1, "nested": [1, None, {"a": np.inf}]}
    document = {"accepted": True, "weights": strided, "paths": ["old", "new"]}
    places = np.array([[2**40, 1, 1], [7, 0, 0]])
    with Checkpoint.create(path) as checkpoint:
        assert checkpoint.last_frame_block == -1
        assert checkpoint.logged_steps() == checkpoint.path_names() == checkpoint.frame_block_numbers() == []
        checkpoint.record_step(1)  # without a log
        new = {np.int64(9): FrameBlock({}, {}), 7: FrameBlock(meta, arrays)}  # in any order
        checkpoint.record_step(2, log=StepLog(document, new, {"new": places, "a": places[:1], "é/0": places[::-1]}))
        checkpoint.record_step(5, log=StepLog({}, paths={"b": [[7, 0, 0]], "of no frames": np.empty((0, 3))}))
        checkpoint.record_step(6, log=StepLog(None, {2**40: make_block(rng)}))
    with Checkpoint.open(path, read_only=True) as checkpoint:
        assert checkpoint.logged_steps() == [2, 5] and checkpoint.logged_step(5) == {}
        found = checkpoint.logged_step(2)
        assert same_bits(found.pop("weights"), np.ascontiguousarray(strided))
        assert found == {"accepted": True, "paths": ["old", "new"]}
        assert checkpoint.frame_block_numbers() == [7, 9, 2**40] and checkpoint.last_frame_block == 2**40
        block = checkpoint.frame_block(7)
        assert block.meta == meta
        assert same_arrays(block.arrays, {name: np.ascontiguousarray(array) for name, array in arrays.items()})
        assert checkpoint.frame_block(9) == ({}, {})
        assert checkpoint.path_names() == ["a", "b", "new", "of no frames", "é/0"]
        assert same_bits(checkpoint.path_frames("new"), places) and same_bits(checkpoint.path_frames("a"), places[:1])
        assert same_bits(checkpoint.path_frames("é/0"), places[::-1])
        assert checkpoint.path_frames("of no frames").shape == (0, 3)


def test_what_is_not_there_is_named(checkpoint):
    fill(checkpoint)
    for read, key, words in (
        (checkpoint.logged_step, 3, r"no step 3 in its steps; it has \[7, 8, 9, 10, 11, 12\]"),
        (checkpoint.frame_block, 15, r"no block 15 in its frame blocks; it has \[14, 16, 18, 20, 22, 24\]"),
        (checkpoint.path_frames, "path 1", r"no path 'path 1' in its paths; it has .'path 10', "),
        (checkpoint.file, "notes", r"no name 'notes' in its files; it has .'setup'."),
    ):
        with pytest.raises(KeyError, match=words):
            read(key)
    for read in (checkpoint.path_frames, checkpoint.file):
        with pytest.raises(TypeError, match="strings; got 3"):
            read(3)
    for step in range(13, 60):
        checkpoint.record_step(step, log=StepLog({}))
    with pytest.raises(KeyError, match="it has 53 from 7 to 59"):
        checkpoint.logged_step(60)


def test_a_path_is_made_again_with_sqlite3_alone(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "run.aimmd"
    coordinates, velocities = rng.normal(size=(2, 5, 3, 3)), rng.normal(size=(2, 5, 3, 3))
    blocks = {i: FrameBlock({"i": i}, {"coordinates": coordinates[i], "velocities": velocities[i]}) for i in (0, 1)}
    with Checkpoint.create(path) as checkpoint:
        places = [[1, 4, 1], [1, 3, 1], [0, 0, 0], [0, 1, 0]]
        checkpoint.record_step(1, log=StepLog({"accepted": "path"}, blocks, {"path": places}, reduce_blocks=[0]))
    connection = sqlite3.connect(path)
    schema = " ".join(row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    assert "(n, 3) little-endian int64" in schema and "safetensors" in schema and "velocities times -1" in schema
    name = json.loads(connection.execute("SELECT json FROM steps WHERE step = 1").fetchone()[0])["accepted"]
    frames = np.frombuffer(connection.execute("SELECT frames FROM paths WHERE path = ?", (name,)).fetchone()[0], "<i8")
    rebuilt = []
    for block, row, reverse in frames.reshape(-1, 3).tolist():
        content = connection.execute("SELECT arrays FROM frame_blocks WHERE block = ?", (block,)).fetchone()[0]
        arrays = safetensors.numpy.load(content)
        rebuilt.append((arrays["coordinates"][row], arrays["velocities"][row] * (-1 if reverse else 1)))
    connection.close()
    for (x, v), (block, row, sign) in zip(rebuilt, [(1, 4, -1), (1, 3, -1), (0, 0, 1), (0, 1, 1)], strict=True):
        kind = np.float64 if block == 1 else np.float32
        assert same_bits(x, coordinates[block, row].astype(kind)) and same_bits(
            v, (sign * velocities[block, row]).astype(kind)
        )


def test_files_are_kept_whole_and_replaced(tmp_path):
    path = tmp_path / "run.aimmd"
    content = np.random.default_rng(3).bytes(100_000)
    with Checkpoint.create(path) as checkpoint:
        checkpoint.store_file("setup.nc.gz", b"\0 first")
        checkpoint.record_step(1)
        checkpoint.store_file("setup.nc.gz", content)
        checkpoint.store_file("empty", b"")
        for name, bad in ((3, b""), ("text", "text"), ("none", None)):
            with pytest.raises(TypeError):
                checkpoint.store_file(name, bad)
        assert checkpoint.step == 1
    with Checkpoint.open(path, read_only=True) as checkpoint:
        assert checkpoint.file_names() == ["empty", "setup.nc.gz"]
        assert checkpoint.file("setup.nc.gz") == content and checkpoint.file("empty") == b""
        with pytest.raises(CheckpointError, match="read_only=True"):
            checkpoint.store_file("a", b"")


# What is reduced and what is dropped


def test_reducing_rounds_float64_and_nothing_else(checkpoint):
    rng = np.random.default_rng(4)
    block = make_block(rng)
    checkpoint.record_step(1, log=StepLog(None, {1: block, 2: block}))
    assert same_arrays(checkpoint.frame_block(1).arrays, block.arrays)
    expected = {
        name: array.astype(np.float32) if name in ("coordinates", "velocities") else array
        for name, array in block.arrays.items()
    }
    for step in (2, 3):  # a reduced block stays as it is
        checkpoint.record_step(step, log=StepLog(reduce_blocks=[1]))
        assert checkpoint.frame_block(1).meta == block.meta and same_arrays(checkpoint.frame_block(1).arrays, expected)
    assert same_arrays(checkpoint.frame_block(2).arrays, block.arrays)  # control: the other one is exact
    with pytest.raises(ValueError, match="block 3 cannot be reduced"):
        checkpoint.record_step(4, log=StepLog({}, {4: block}, reduce_blocks=[2, 3]))
    assert same_arrays(checkpoint.frame_block(2).arrays, block.arrays) and checkpoint.step == 3


def test_a_damaged_block_is_not_reduced(tmp_path, checkpoint):
    checkpoint.record_step(1, log=StepLog(None, {1: make_block(np.random.default_rng(1))}))
    checkpoint.close()
    with sqlite3.connect(checkpoint.path) as connection:
        connection.execute("UPDATE frame_blocks SET checksum = checksum + 1")
    connection.close()
    with Checkpoint.open(checkpoint.path) as again:
        with pytest.raises(CheckpointCorruptError, match="frame_blocks, block 1"):
            again.record_step(2, log=StepLog(reduce_blocks=[1]))
        assert again.step == 1


def test_what_is_dropped_is_gone_and_its_numbers_stay_used(tmp_path):
    path = tmp_path / "run.aimmd"
    block = FrameBlock({}, {"x": np.arange(3.0)})
    with Checkpoint.create(path) as checkpoint:
        for step in range(1, 9):
            checkpoint.record_step(step, log=StepLog({"n": step}, {step: block}, {f"path {step}": [[step, 0, 0]]}))
        checkpoint.record_step(
            9, log=StepLog({"n": 9}, drop_blocks=[2, 7, 8, 2, 50], drop_paths=["path 8", "no"], drop_steps_until=5)
        )
        assert checkpoint.frame_block_numbers() == [1, 3, 4, 5, 6] and checkpoint.last_frame_block == 8
        assert checkpoint.path_names() == [f"path {i}" for i in range(1, 8)]
        assert checkpoint.logged_steps() == [6, 7, 8, 9]
        checkpoint.record_step(10, log=StepLog(None, drop_blocks=range(9), drop_steps_until=100))
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.frame_block_numbers() == checkpoint.logged_steps() == [] and checkpoint.last_frame_block == 8
        with pytest.raises(ValueError, match="block 8 cannot follow block 8"):
            checkpoint.record_step(11, log=StepLog(None, {8: block}))
        checkpoint.record_step(11, log=StepLog(None, {9: block}))
        assert checkpoint.frame_block_numbers() == [9]


def test_a_name_belongs_to_one_path(checkpoint):
    rng = np.random.default_rng(1)
    checkpoint.record_step(1, log=make_log(rng, 1))
    places = checkpoint.path_frames("path 1")
    checkpoint.record_step(2, log=StepLog({}, paths={"path 1": places}))
    assert checkpoint.path_names() == ["path 1"] and same_bits(checkpoint.path_frames("path 1"), places)
    for other in (places[:-1], places[::-1]):
        with pytest.raises(ValueError, match="'path 1' is in .* already, with other frames"):
            checkpoint.record_step(3, log=StepLog({}, paths={"path 1": other}))
    assert checkpoint.step == 2


# One step is one transaction, and costs what it brings


def test_a_log_is_recorded_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.aimmd"
    rng = np.random.default_rng(1)
    good = make_block(rng)
    with Checkpoint.create(path) as checkpoint:
        fill(checkpoint)
        before = everything(path)
        bad_logs = [
            (ValueError, "expected \\(block, row, reversed\\)", dict(paths={"good": [[0, 0, 0]], "bad": [[0, 0, 2]]})),
            (ValueError, "frame 1 of path 'bad' is \\[0, -1, 0\\]", dict(paths={"bad": [[0, 0, 0], [0, -1, 0]]})),
            (ValueError, "must have shape", dict(paths={"bad": [[0, 0]]})),
            (ValueError, "integers", dict(paths={"bad": [[0.5, 0, 0]]})),
            (TypeError, "strings; got 3", dict(paths={3: [[0, 0, 0]]})),
            (TypeError, "strings; got 3", dict(drop_paths=["path 9", 3])),
            (TypeError, "function at /a", dict(document={"a": everything})),
            (ValueError, "block 3 cannot follow block 24", dict(frame_blocks={30: good, 3: good})),
            (ValueError, "block -1 cannot follow block 24", dict(frame_blocks={-1: good})),
            (TypeError, "integer", dict(frame_blocks={"31": good})),
            (TypeError, "dtype <U4", dict(frame_blocks={31: FrameBlock({}, {"x": np.array("text")})})),
            (TypeError, "holds arrays", dict(frame_blocks={31: FrameBlock({"x": np.zeros(2)}, {})})),
            (ValueError, "cannot be reduced", dict(reduce_blocks=[24, 31])),
            (TypeError, "integer", dict(drop_blocks=[24, 0.5])),
            (TypeError, "integer", dict(drop_steps_until="12")),
        ]
        for error, words, arguments in bad_logs:
            log = StepLog(**({"document": {}, "frame_blocks": {30: good}, "drop_steps_until": 12} | arguments))
            with pytest.raises(error, match=words):
                checkpoint.record_step(13, state={"step": 13}, log=log)
            assert everything(path) == before
        checkpoint.record_step(13, log=StepLog({}, {30: good}, drop_steps_until=12))
        assert checkpoint.logged_steps() == [13]  # control


def test_rows_larger_than_sqlite_takes_are_refused_in_words(checkpoint, monkeypatch):
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT length(zeroblob(?))", (MAX_ROW_BYTES + 900,)).fetchone()[0] > MAX_ROW_BYTES
    with pytest.raises(sqlite3.Error, match="too big"):  # control: the limit is where it is thought to be
        connection.execute("SELECT length(zeroblob(?))", (10**9 + 1,)).fetchone()
    connection.close()
    monkeypatch.setattr("ops_aimmd.checkpoint.rows.MAX_ROW_BYTES", 10_000)
    large = np.zeros(1250)
    for name, arguments in (
        ("block 4 of the frame blocks", dict(log=StepLog(None, {4: FrameBlock({}, {"x": large})}))),
        ("path 'long' of the paths", dict(log=StepLog(paths={"long": np.zeros((420, 3), int)}))),
        ("step 1 of the steps", dict(log=StepLog({"x": large}))),
        ("key 'x' of the state", dict(state={"x": large})),
    ):
        with pytest.raises(ValueError, match=f"{name} takes 1.... bytes; .* at most 10000: split it"):
            checkpoint.record_step(1, **arguments)
    with pytest.raises(ValueError, match="name 'x' of the files takes 10001 bytes"):
        checkpoint.store_file("x", bytes(10_001))
    assert checkpoint.step == -1 and checkpoint.file_names() == []
    checkpoint.record_step(1, log=StepLog({"x": large[:1200]}))  # control


def test_work_of_a_step_does_not_grow_with_the_log(checkpoint):
    rng = np.random.default_rng(1)

    def instructions(action):
        """Instructions of sqlite's virtual machine: a scan of a table takes some for every row."""
        count = [0]
        checkpoint._connection.set_progress_handler(lambda: count.__setitem__(0, count[0] + 1), 1)
        action()
        checkpoint._connection.set_progress_handler(None, 0)
        return count[0]

    work, listing = [], []
    for step in range(1, 801):
        log = StepLog(
            {"step": step},
            {step: make_block(rng, 1)},
            {str(step): [[step, 0, 0]], "first": [[1, 0, 0]]},
            reduce_blocks=[step],
            drop_blocks=[step - 5] if step % 100 == 0 else [],
            drop_paths=[str(step - 5)] if step % 100 == 0 else [],
            drop_steps_until=0,
        )
        used = instructions(lambda step=step, log=log: checkpoint.record_step(step, log=log))
        if step % 100 == 0:
            work.append(used)
            listing.append(instructions(checkpoint.path_names))
    assert max(work) < 1.02 * min(work)
    assert listing[-1] > 5 * listing[0]  # control: looking at all rows would have been counted


# Damage


def test_a_damaged_index_hides_nothing(tmp_path):
    # Names stand twice in the file, in the table and in its index; a changed letter in either must not lose a row.
    path, copy = tmp_path / "run.aimmd", tmp_path / "copy.aimmd"
    with Checkpoint.create(path) as checkpoint:
        log = StepLog(None, {}, {f"a long name {i}": [[i, 0, 0]] for i in range(9)})
        checkpoint.record_step(1, state={"the generator": 1}, log=log)
    data, expected, found = path.read_bytes(), everything(path), []
    for name, read in (
        (b"a long name 5", lambda checkpoint: checkpoint.path_frames("a long name 5").tolist() == [[5, 0, 0]]),
        (b"the generator", lambda checkpoint: checkpoint.state("the generator") == 1),
    ):
        positions = [i for i in range(len(data)) if data.startswith(name, i)]
        assert len(positions) == 2
        for position in [first + letter for first in positions for letter in range(len(name))]:
            damaged = bytearray(data)
            damaged[position] ^= 1
            copy.write_bytes(damaged)
            with Checkpoint.open(copy, read_only=True) as checkpoint:
                try:
                    assert read(checkpoint)
                    found.append("intact")
                except CheckpointCorruptError as error:
                    found.append("index" if "index of" in str(error) else str(error))
            try:
                assert everything(copy) == expected  # reads what is listed
            except CheckpointCorruptError:
                pass
    assert found.count("intact") == len(found) / 2  # the letter was one of the table
    assert found.count("index") == len(found) / 2 - 1  # in one case two names become the same, and a row is missing


def test_every_flipped_bit_of_a_small_log_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("ops_aimmd.checkpoint.checkpoint_file.QUICK_CHECK_BYTES", 0)
    path, copy = tmp_path / "run.aimmd", tmp_path / "copy.aimmd"
    content = b"a set-up of which every byte matters"
    block = FrameBlock({"engine": "a verlet"}, {"coordinates": np.arange(1.0, 7.0)})
    places = np.array([[3, 1, 0], [3, 0, 1]])
    document = {"accepted": "the second path"}
    with Checkpoint.create(path) as checkpoint:
        checkpoint.record_step(1, log=StepLog(document, {3: block}, {"one": places}))
        checkpoint.store_file("setup", content)
    data = path.read_bytes()
    for written, read in (
        (content, lambda c: c.file("setup")),
        (np.arange(1.0, 7.0).tobytes(), lambda c: c.frame_block(3)),
        (b"a verlet", lambda c: c.frame_block(3)),
        (places.tobytes(), lambda c: c.path_frames("one")),
        (b"the second path", lambda c: c.logged_step(1)),
    ):
        start = data.index(written)
        for bit in range(0, 8 * len(written), 3):
            damaged = bytearray(data)
            damaged[start + bit // 8] ^= 1 << bit % 8
            copy.write_bytes(damaged)
            with Checkpoint.open(copy, read_only=True) as checkpoint:
                with pytest.raises(CheckpointCorruptError, match="damaged"):
                    read(checkpoint)
    shutil.copy(path, copy)
    assert everything(copy) == everything(path)  # control
