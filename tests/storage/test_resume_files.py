"""Runs resumed with an OPS file that lags behind the checkpoint, is ahead of it, is damaged, gone, or another's."""

import random
import shutil
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
import resume_support
import test_resume  # noqa: F401 - its tests are in `WITH_SIMSTORE`
import test_resume_interrupted  # noqa: F401
from child_processes import PYTEST, run_script
from resume_support import (
    HALF,
    SILENCE,
    SUFFIX,
    WHOLE,
    WITH_SIMSTORE,
    begin,
    both_kinds,
    both_kinds_alike,
    check_ops_analysis,
    check_that_it_goes_on,
    checkpoint_of,
    contents,
    copy_run,
    differences,
    equal_paths,
    netcdf_only,
    numbers_in,
    resume,
    run_to,
    same_steps,
    slow,
    stands_at,
    steps_in,
    steps_that_can_be_read,
)

import ops_aimmd
from ops_aimmd.runs import ResumeWarning
from ops_aimmd.storage.ops_files import open_storage

pytest_plugins = ["resume_fixtures"]


# ---- it lags ---------------------------------------------------------------------------------------------------------


@netcdf_only
def test_steps_that_ops_had_not_written_when_the_process_died(directory, runs, whole):
    file = directory / f"run.{SUFFIX}"
    died = run_script(resume_support.__file__, "die", file, 5, 9)
    assert died.returncode == 9, died.stderr[-4000:]
    assert stands_at(file) == 9
    assert steps_that_can_be_read(file) <= 6
    sampler = resume(file)
    assert [step.mccycle for step in sampler.storage.steps] == list(range(10))
    assert len(check_ops_analysis(sampler)) == 9
    assert sampler.save_frequency == 5
    run_to(sampler, WHOLE)
    assert differences(contents(checkpoint_of(file)), whole) == []
    assert numbers_in(file) == list(range(WHOLE + 1))


# ---- it is ahead -----------------------------------------------------------------------------------------------------


@both_kinds
def test_steps_that_an_older_checkpoint_lacks_are_learned_once(file, directory):
    shutil.copy(checkpoint_of(file), directory / "old.aimmd")
    run_to(resume(file), 10)
    newest = contents(checkpoint_of(file))
    shutil.copy(directory / "old.aimmd", checkpoint_of(file))
    with pytest.warns(ResumeWarning, match="4 steps more than the checkpoint, which stands at step 6"):
        sampler = resume(file)
    assert sampler.step == 10
    run_to(sampler, WHOLE)
    found = contents(checkpoint_of(file))
    assert found["steps"].tolist() == list(range(1, WHOLE + 1))
    assert numbers_in(file) == list(range(WHOLE + 1))
    for name in ("descriptors", "counts", "predicted_committor"):
        assert np.allclose(found[name][:10], newest[name], atol=1e-5)
    with warnings.catch_warnings():  # and not again
        warnings.simplefilter("error", ResumeWarning)
        resume(file).storage.close()


@netcdf_only
def test_a_thinned_file_that_is_ahead_has_no_path_to_go_on_from(directory):
    file = directory / "run.nc"
    run_to(begin(file, path_stride=5), 3)
    shutil.copy(checkpoint_of(file), directory / "old.aimmd")
    run_to(resume(file), 5)
    shutil.copy(directory / "old.aimmd", checkpoint_of(file))
    with pytest.raises(ValueError, match="every 5-th frame"):
        resume(file)
    file.rename(directory / "aside.nc")  # as the message says
    with pytest.warns(ResumeWarning, match="no OPS file"):
        run_to(resume(file), 5)
    assert numbers_in(file) == list(range(6))


# ---- it is damaged, gone, or another ---------------------------------------------------------------------------------


def zero_bytes(content):
    return b""


def garbage(content):
    return random.Random(1).randbytes(10_000)


def truncated(content):
    return content[: len(content) // 2]


@both_kinds_alike
@pytest.mark.parametrize("damage", [zero_bytes, pytest.param(garbage, marks=slow), truncated])
def test_a_file_that_cannot_be_read_is_put_aside_and_made_again(file, whole, damage):
    content = file.read_bytes()
    for number in (1, 2):
        file.write_bytes(damage(content))
        aside = file.with_name(f"{file.name}.damaged-{number}")
        with pytest.warns(ResumeWarning, match=f"renamed to {aside.name}"):
            resume(file).storage.close()
        assert aside.read_bytes() == damage(content)
    check_that_it_goes_on(file, whole)


@both_kinds_alike
def test_a_file_that_is_gone_is_made_again(runs, file, whole):
    file.unlink()
    with pytest.warns(ResumeWarning, match="there is no OPS file"):
        sampler = resume(file)
    check_ops_analysis(sampler)
    sampler.storage.close()
    for in_file, made_again in zip(steps_in(runs / f"half.{SUFFIX}"), steps_in(file), strict=True):
        number, accepted, trials, active = in_file
        assert made_again[:2] == (number, accepted)
        assert equal_paths(active, made_again[3])
        if accepted:
            assert equal_paths(trials, made_again[2])
        else:  # shooting point and ends
            assert [path[[0, -1]].tolist() for path in trials] == [path[[0, -1]].tolist() for path in made_again[2]]
            assert all(len(path) == 3 for path in made_again[2])
    check_that_it_goes_on(file, whole)


@netcdf_only
@pytest.mark.parametrize("n_flips", [3, 30])
def test_flipped_bits(file, whole, n_flips):
    """The file is made again, or they are where no run looks: in what is empty, a coordinate, or an old step."""
    content = bytearray(file.read_bytes())
    chance = random.Random(n_flips)
    for _ in range(n_flips):
        content[chance.randrange(len(content) // 2, len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResumeWarning)
        resume(file).storage.close()
    damaged = [path.name for path in file.parent.glob("*.damaged-*")]
    assert damaged == ["run.nc.damaged-1"] * any("renamed to" in str(warning.message) for warning in caught)
    sampler = resume(file)
    run_to(sampler, WHOLE)
    assert differences(contents(checkpoint_of(file)), whole) == []
    with netCDF4.Dataset(file) as dataset:
        assert dataset["steps_mccycle"][:].tolist() == list(range(WHOLE + 1))


@netcdf_only
def test_text_that_is_damaged_is_no_error_of_the_user(file, whole):
    """Wrong characters raise UnicodeDecodeError, which is a ValueError."""
    content = file.read_bytes()
    uuid = b"initial_trajectory"
    assert uuid in content
    file.write_bytes(content.replace(uuid, b"\xff" * len(uuid)))
    with pytest.warns(ResumeWarning, match="renamed to"):
        check_that_it_goes_on(file, whole)


@both_kinds
def test_the_file_of_another_run_is_refused_and_left_alone(runs, file):
    check_refused(file, runs / f"other.{SUFFIX}", "not hold the run of this checkpoint, but another")


def check_refused(file, other, message):
    """Another file in the place of a run's is refused, unchanged, and nothing stands beside it."""
    shutil.copy(other, file)
    before = sorted(file.parent.iterdir())
    with pytest.raises(ValueError, match=message):
        resume(file)
    assert sorted(file.parent.iterdir()) == before
    assert same_steps(steps_in(file), steps_in(other))


@both_kinds
@pytest.mark.parametrize("ahead", ["the checkpoint", "the file"])
def test_files_that_went_separate_ways_are_refused(file, directory, ahead):
    copy = copy_run(file, directory / f"copy.{SUFFIX}")
    run_to(resume(file), 9 if ahead == "the checkpoint" else 7)
    run_to(resume(copy), 7 if ahead == "the checkpoint" else 9)
    check_refused(file, copy, "disagree on step 7")


@netcdf_only
def test_files_that_are_no_ops_files_are_refused(file, directory):
    whole = file.read_bytes()
    with netCDF4.Dataset(directory / "trajectory.nc", "w") as dataset:
        dataset.createDimension("frame", 3)
    for other, message in ((directory / "trajectory.nc", "no OPS file"), (checkpoint_of(file), "is a simstore")):
        shutil.copy(other, file)
        before = file.read_bytes()
        with pytest.raises(ValueError, match=message):
            resume(file)
        assert file.read_bytes() == before
    with pytest.raises(ValueError, match="is a directory"):
        ops_aimmd.resume(directory, checkpoint_of(file))
    assert not list(directory.glob("*.damaged-*"))
    file.write_bytes(whole)
    resume(file).storage.close()


@both_kinds
@pytest.mark.skipif(SUFFIX != "db", reason="of netCDF another signature is seen")
def test_a_database_that_is_no_ops_file_is_refused(file):
    before = contents(checkpoint_of(file))
    with pytest.raises(ValueError, match="no OPS file"):
        ops_aimmd.resume(checkpoint_of(file), checkpoint_of(file))
    assert differences(contents(checkpoint_of(file)), before) == []


@both_kinds
@pytest.mark.skipif(SUFFIX != "db", reason="journals are sqlite's")
@pytest.mark.parametrize("content", [None, b"garbage" * 1000])
def test_a_journal_left_by_a_dead_process_is_not_applied_to_a_new_file(file, whole, content):
    shutil.copy(journal_of(file), keep := file.with_name("keep"))
    file.unlink()
    shutil.copy(keep, f"{file}-journal")
    if content is not None:
        file.write_bytes(content)
    with pytest.warns(ResumeWarning):
        resume(file).storage.close()
    assert content is None or Path(f"{file}.damaged-1-journal").exists()
    check_that_it_goes_on(file, whole)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def journal_of(file):
    """The journal that a process leaves which dies in the middle of a large transaction."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN")
    for _ in range(20):
        connection.execute("UPDATE details SET json = json || json")
        connection.execute("UPDATE details SET json = substr(json, 1, 10000)")
    journal = shutil.copy(f"{file}-journal", file.with_name("journal"))
    connection.execute("ROLLBACK")
    connection.close()
    return journal


@both_kinds
@pytest.mark.skipif(SUFFIX != "db", reason="a netCDF file cannot go back")
def test_what_was_saved_after_the_run_stays_in_the_file(file, whole):
    """Only a sync that died is undone, and this one ended."""
    storage = open_storage(file, "a")
    storage.save(paths.FunctionCV("later", len))
    storage.close()
    sampler = resume(file)
    assert "later" in [cv.name for cv in sampler.storage.cvs]
    run_to(sampler, WHOLE)
    assert differences(contents(checkpoint_of(file)), whole) == []


@netcdf_only
def test_a_file_with_the_steps_of_several_simulations(file):
    first = resume(file)
    second = paths.PathSampling(first.storage, first.move_scheme, first.sample_set)
    second.output_stream = SILENCE
    second.run(3)
    first.storage.close()
    sampler = resume(file)
    assert sampler.step == HALF
    run_to(sampler, HALF + 2)
    assert numbers_in(file) == [*range(HALF + 1), *range(4), HALF + 1, HALF + 2]


@netcdf_only
def test_a_simulation_that_is_still_there_does_not_stand_in_the_way(runs, file, whole):
    """OPS remembers placeholders of stored objects for the whole process, also those of closed files."""
    other = open_storage(runs / "other.nc")  # takes the number that the file will have when it is opened again
    first = resume(file)
    paths_of_first = [step.active[0].trajectory for step in first.storage.steps]
    first.storage.close()
    other.close()
    run_to(resume(file), 8)
    assert numbers_in(file) == list(range(9))
    assert len(paths_of_first) == HALF + 1
    check_that_it_goes_on(file, whole)
    assert not list(file.parent.glob("*.damaged-*"))


# ---- all that again, with SimStore -----------------------------------------------------------------------------------


@pytest.mark.skipif(SUFFIX != "nc", reason="this is the process with SimStore")
@pytest.mark.parametrize("why", ["where it differs", pytest.param("where it does not", marks=pytest.mark.slow)])
def test_with_simstore(why):
    """All tests of resumed runs that say so, in a process of its own."""
    options = [] if why == "where it differs" else ["-m", "slow or not slow"]
    process = run_script(PYTEST, "-q", "-p", "no:cacheprovider", *options, *WITH_SIMSTORE[why], RESUME_TESTS_SUFFIX="db")
    assert process.returncode == 0, process.stdout[-6000:]
    assert "skipped" not in process.stdout.splitlines()[-1]
