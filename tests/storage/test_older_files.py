"""Files outlive versions: those that each version since 0.1.0 has written are opened, analysed, resumed and extended."""

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from child_processes import result_of

import ops_aimmd
from ops_aimmd.checkpoint import Checkpoint, CheckpointLockedError, CheckpointVersionError, conversion
from ops_aimmd.checkpoint.conversion import FORMAT_VERSION, ConversionWarning
from ops_aimmd.checkpoint.write_lock import WriteLock
from ops_aimmd.shooting.executors.in_this_process import InThisProcess
from ops_aimmd.storage.run_files import SETUP_FILE, compressed, decompressed, setup_copy

FILES = Path(__file__).parents[1] / "files"
sys.path.insert(0, str(FILES))

from write_files import RUNS, learned, uniform_runs, unpack  # noqa: E402

VERSIONS = sorted(path.parent for path in FILES.glob("*/expected.json"))
OPS_FILES = [*RUNS, "many_chains.nc"]


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def version(request):
    return request.param


def expected_of(version):
    return json.loads((version / "expected.json").read_text())


def copied(version, name, directory):
    """A copy of a checkpoint and of what sqlite has left beside it."""
    for part in version.glob(f"{name}*"):
        shutil.copy(part, directory / part.name)
    return directory / name


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def rows(file):
    """All rows of all tables."""
    with closing(sqlite3.connect(file)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"'))) for table in tables}


def close_to(found, expected):
    """Whether nested values are the same, numbers but for the last digits."""
    if isinstance(expected, float):
        return np.isclose(found, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close_to(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(close_to(a, b) for a, b in zip(found, expected, strict=True))
    return found == expected


@pytest.mark.parametrize("name", OPS_FILES)
def test_a_run_is_opened_analysed_resumed_and_extended(version, name, tmp_path):
    script = Path(__file__).with_name("older_files_script.py")
    found, expected = result_of(script, version, name, tmp_path), expected_of(version)[name]
    went_on = expected.pop("went on")
    steps = expected.pop("steps")
    assert close_to(found["learned"], expected)
    if steps:
        assert found["steps"] == steps
    if "shots in the OPS file" in found:
        assert found["shots in the OPS file"] == len(expected["counts"])
    assert found["one learner"] and found["report"] == [True, True]
    assert found["went on"]["last"] == went_on["last"]
    # until the model is trained again, the run goes on with the old steps to the bit
    old = [step for step in went_on["steps"] if step[5] in (None, expected["version"])]
    new = found["went on"]["steps"]
    assert new and new[: len(old)] == old[: len(new)]
    assert "ConversionWarning" in found["warnings"] and f"{Path(name).stem}.aimmd.v2" in found["beside it"]


class Recording(InThisProcess):
    """Notes what is handed out."""

    def __init__(self):
        super().__init__()
        self.submitted = {}

    def submit(self, spec):
        self.submitted[spec.shot_id] = spec
        super().submit(spec)


def test_shots_under_way_are_finished_as_they_were_specified(version, tmp_path):
    file = unpack(version / "many_chains.nc.xz", tmp_path)
    with Checkpoint.open(file.with_suffix(".aimmd"), read_only=True) as checkpoint:
        noted = checkpoint.journaled_shots()
    unfinished = {shot: entry.specification["specification"] for shot, entry in noted.items() if entry.result is None}
    assert unfinished
    with pytest.warns(ConversionWarning):
        sampler = ops_aimmd.resume(file, file.with_suffix(".aimmd"), progress=False)
    sampler.show_progress = False
    sampler.executor = executor = Recording()
    sampler.run(1)
    sampler.storage.close()
    for shot, document in unfinished.items():
        handed_out = executor.submitted[shot].to_document()
        assert handed_out.keys() == document.keys()
        for name in {*document} - {"engine_key"}:
            np.testing.assert_array_equal(handed_out[name], document[name])
    assert not {*executor.submitted} & ({*noted} - {*unfinished})  # a result that was there is not made again
    seeds = [spec.seed for spec in executor.submitted.values()]
    assert len(set(seeds)) == len(seeds) > len(unfinished)  # the control: the shots after these are others


def test_the_random_numbers_of_a_run_that_goes_on_are_the_old_ones(version, monkeypatch):
    """With the old key nothing but the key has changed; with the new one the same runs are others."""
    expected = expected_of(version)["uniform runs"]
    if version.name == "0.1.0":
        monkeypatch.setattr("ops_aimmd.sampling.step_learning.simulation_key", lambda samples, n_before: None)
        assert uniform_runs() == expected
        monkeypatch.undo()
        assert uniform_runs(["toy, one-way"])["toy, one-way"] != expected["toy, one-way"]
    else:
        assert uniform_runs() == expected


def test_a_committor_simulation_is_read_and_extended(version, tmp_path):
    file = copied(version, "committor.aimmd", tmp_path)
    expected = expected_of(version)["committor.aimmd"]
    before = contents(tmp_path)
    result = ops_aimmd.runs.CommittorSimulation.load(file)
    assert contents(tmp_path) == before
    assert result.counts.tolist() == expected["counts"]
    assert close_to(result.predicted.tolist(), expected["predicted"])
    copied(version, "two_way.aimmd", tmp_path)
    from write_files import extended_committor

    with pytest.warns(ConversionWarning):
        counts = extended_committor(file).counts
    assert (counts.sum(axis=1) == 5).all() and (counts >= result.counts).all()


def test_the_copy_of_a_new_ops_file_is_read(version):
    """Also as versions before 0.2.0 compressed it, with LZMA alone."""
    with Checkpoint.open(version / "two_way.aimmd", read_only=True) as checkpoint:
        stored, copy = checkpoint.file(SETUP_FILE), setup_copy(checkpoint)
    assert copy.startswith(b"\x89HDF")
    again = compressed(copy)
    assert decompressed(again) == copy
    assert len(again) < len(stored) / 2 or version.name != "0.1.0"


@pytest.mark.parametrize("name", sorted({f"{Path(name).stem}.aimmd" for name in OPS_FILES}))
def test_reading_writes_nothing(version, name, tmp_path):
    file = copied(version, name, tmp_path)
    before = contents(tmp_path)
    expected = expected_of(version)[next(run for run in OPS_FILES if Path(run).stem == Path(name).stem)]
    found = learned(file)
    assert contents(tmp_path) == before
    assert close_to(found, {key: expected[key] for key in found})


@pytest.fixture
def old_file(tmp_path):
    return copied(VERSIONS[0], "one_way.aimmd", tmp_path)


def test_a_converted_file_holds_what_the_old_one_holds(old_file):
    before, old_bytes = rows(old_file), old_file.read_bytes()
    with pytest.warns(ConversionWarning, match=r"kept as one_way\.aimmd\.v2"), Checkpoint.open(old_file) as file:
        assert file.step == 12
    with closing(sqlite3.connect(old_file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT_VERSION
    assert rows(old_file) == before
    kept = old_file.with_name("one_way.aimmd.v2")
    assert kept.read_bytes() == old_bytes
    assert {path.name for path in old_file.parent.iterdir()} == {old_file.name, kept.name}
    with Checkpoint.open(old_file):  # and only once
        pass


def test_the_steps_in_the_log_of_a_killed_run_are_converted_too(tmp_path):
    file = copied(VERSIONS[0], "many_chains.aimmd", tmp_path)
    assert file.with_name("many_chains.aimmd-wal").stat().st_size
    with Checkpoint.open(file, read_only=True) as old:
        step, shots = old.step, old.journaled_shots().keys()
    with pytest.warns(ConversionWarning), Checkpoint.open(file) as new:
        assert new.step == step and new.journaled_shots().keys() == shots and shots


@pytest.mark.parametrize("fails", ["os.replace", "os.link", "ops_aimmd.checkpoint.checkpoint_file._read_whole", "rename"])
def test_a_conversion_that_fails_leaves_the_old_file(old_file, fails, monkeypatch):
    before = old_file.read_bytes()
    with monkeypatch.context() as broken:

        def fail(*args, **kwargs):
            raise OSError("no space left")

        if fails in ("os.link", "rename"):  # no links here, and then the copy fails
            broken.setattr("os.link", fail)
            broken.setattr("shutil.copy2" if fails == "rename" else "pathlib.Path.rename", fail)
        else:
            broken.setattr(fails, fail)
        with pytest.raises(OSError, match="no space left"):
            Checkpoint.open(old_file)
    assert old_file.read_bytes() == before
    with pytest.warns(ConversionWarning), Checkpoint.open(old_file) as file:
        assert file.step == 12


def test_without_links_the_old_file_is_copied(old_file, monkeypatch):
    before = old_file.read_bytes()

    def fail(*args):
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    with pytest.warns(ConversionWarning), Checkpoint.open(old_file):
        pass
    assert old_file.with_name("one_way.aimmd.v2").read_bytes() == before


def test_a_copy_that_is_not_the_original_does_not_take_its_name(old_file, monkeypatch):
    before = old_file.read_bytes()

    def lose_shots(connection):
        connection.execute("DELETE FROM shots WHERE rowid = 1")

    monkeypatch.setitem(conversion.CONVERSIONS, 2, lose_shots)
    with pytest.raises(ops_aimmd.checkpoint.CheckpointCorruptError):
        Checkpoint.open(old_file)
    assert old_file.read_bytes() == before


@pytest.mark.parametrize("how", ["writes", "reads"])
def test_an_old_file_that_somebody_else_has_open_is_not_converted(tmp_path, how):
    file = copied(VERSIONS[0], "many_chains.aimmd", tmp_path)
    before = contents(tmp_path)
    with contextlib.ExitStack() as other:
        if how == "writes":
            other.callback(WriteLock(file).release)
            other.enter_context(closing(sqlite3.connect(file))).execute("SELECT count(*) FROM shots").fetchone()
        else:
            other.enter_context(Checkpoint.open(file, read_only=True))
        with pytest.raises(CheckpointLockedError):
            Checkpoint.open(file)
        after = contents(tmp_path)
        after.pop("many_chains.aimmd-lock", None)
        assert after == before
    with pytest.warns(ConversionWarning), Checkpoint.open(file):
        pass


def test_a_newer_format_is_refused_untouched(old_file):
    with closing(sqlite3.connect(old_file)) as connection:
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION + 1}")
    before = contents(old_file.parent)
    for read_only in (True, False):
        with pytest.raises(CheckpointVersionError, match="newer ops_aimmd"):
            Checkpoint.open(old_file, read_only=read_only)
    assert contents(old_file.parent) == before
