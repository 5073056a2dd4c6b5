"""A run that is resumed is the run that was never interrupted, whatever became of its files in the meantime.

The tests in `WITH_SIMSTORE` run here with netCDF, and with SimStore in a process of its own, since OPS cannot use both.
"""

import gc
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
import resume_support
import torch
from child_processes import run_script
from openpathsampling.high_level.move_scheme import MoveAcceptanceAnalysis
from openpathsampling.netcdfplus import WeakLRUCache
from openpathsampling.visualize import PathTree, ReplicaEvolution
from resume_support import (
    SILENCE,
    At,
    QuickChain,
    begin,
    begin_alanine,
    checkpoint_of,
    copy_run,
    resume,
    run_to,
    same_steps,
    simulation,
    steps_in,
)
from sampling_support import QUICK_WITH_FRAMES, seed_everything, site_descriptors, table_model
from test_kills import contents, differences

import ops_aimmd
from ops_aimmd import CommittorLearner, CommittorSelector, CommittorShootingScheme, CommittorShootingStrategy, ResumeWarning
from ops_aimmd.analysis.series import step_table
from ops_aimmd.checkpoint import Checkpoint, CheckpointLockedError
from ops_aimmd.sampling.learner_checkpoint import create_checkpoint
from ops_aimmd.shooting.frames import frame_key
from ops_aimmd.storage.existing_files import selection_table
from ops_aimmd.storage.ops_files import open_storage
from ops_aimmd.storage.series_block import SeriesBlock, read_series
from ops_aimmd.systems import toy

SUFFIX = os.environ.get("RESUME_TESTS_SUFFIX", "nc")
HALF, WHOLE = 6, 12

WITH_SIMSTORE = {"where it differs": [], "where it does not": []}
"""Names of tests; the second kind only with the slow ones."""


def both_kinds(test, why="where it differs"):
    WITH_SIMSTORE[why].append(test.__name__)
    return test


def both_kinds_alike(test):
    return both_kinds(test, "where it does not")


slow = pytest.mark.slow

netcdf_only = pytest.mark.skipif(SUFFIX != "nc", reason="one kind of file is enough, or only netCDF has it")


@pytest.fixture
def directory(tmp_path):
    yield tmp_path
    gc.collect()
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of WHOLE steps, the same up to step HALF, and another one."""
    runs = tmp_path_factory.mktemp("runs")
    for name, seed, n_steps in (("whole", 7, WHOLE), ("half", 7, HALF), ("other", 2, WHOLE)):
        run_to(begin(runs / f"{name}.{SUFFIX}", seed), n_steps)
    yield runs
    shutil.rmtree(runs)


@pytest.fixture
def file(runs, directory):
    """The file of a run that stands at step HALF."""
    return copy_run(runs / f"half.{SUFFIX}", directory / f"run.{SUFFIX}")


@pytest.fixture
def whole(runs):
    """What the run that went on left in its checkpoint."""
    return contents(runs / "whole.aimmd")


def stands_at(file):
    with Checkpoint.open(checkpoint_of(file), read_only=True) as checkpoint:
        return checkpoint.step


def numbers_in(file):
    """Numbers of the steps in a file. The last step is read whole."""
    with closing(open_storage(file)) as storage:
        assert all(len(sample.trajectory.xyz) for sample in storage.steps[-1].active)
        return [step.mccycle for step in storage.steps]


def check_that_it_goes_on(file, whole, **options):
    """Resume, run to the end, and compare with the run that went on; whatever happened before, nothing is lost."""
    run_to(resume(file, **options), WHOLE)
    assert differences(contents(checkpoint_of(file)), whole) == []
    assert numbers_in(file) == list(range(WHOLE + 1))


def child(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


# ---- resumed = uninterrupted ----------------------------------------------------------------------------------------


@both_kinds
def test_a_resumed_run_is_the_run_that_went_on(runs, file, whole):
    check_that_it_goes_on(file, whole)
    assert same_steps(steps_in(file), steps_in(runs / f"whole.{SUFFIX}"))
    assert any(accepted for number, accepted, *_ in steps_in(file) if number > HALF)
    other = contents(runs / "other.aimmd")  # control
    assert {"active", "counts", "descriptors", "step 1"} <= set(differences(whole, other))
    assert not same_steps(steps_in(file), steps_in(runs / f"other.{SUFFIX}"))


@netcdf_only
def test_a_run_may_be_resumed_after_every_step(file, whole):
    for step in range(HALF + 1, WHOLE):
        run_to(resume(file), step)
    check_that_it_goes_on(file, whole)


def two_wells(file, shooting, seed=3, fit_options=QUICK_WITH_FRAMES, **options):
    system = toy.two_gaussian_wells(n_steps_per_frame=100)
    seed_everything(0)
    learner = CommittorLearner(system.descriptors, system.states, seed=seed, fit_options=fit_options)
    scheme = CommittorShootingScheme(system.network(), learner, system.engine, shooting, **options)
    return simulation(file, learner, scheme, system.initial_trajectory(1))


def branch(sampler, directory, step, last):
    """Let a run go on that stands at a step, and resume its copy; give the files of both."""
    whole, copy = directory / f"run.{SUFFIX}", directory / f"copy.{SUFFIX}"
    sampler.run(step - sampler.step)
    copy_run(whole, copy)
    run_to(sampler, last)
    run_to(resume(copy), last)
    return copy, whole


def check_same_run(one, other):
    """Two files hold the same steps, which are returned, and their checkpoints the same learning and paths."""
    assert differences(contents(checkpoint_of(one)), contents(checkpoint_of(other))) == []
    steps = steps_in(one)
    assert same_steps(steps, steps_in(other))
    return steps


@netcdf_only
@pytest.mark.parametrize("shooting", ["two-way", pytest.param("one-way", marks=slow)])
def test_with_velocities_and_real_numbers(directory, shooting):
    """Also with the training that users get."""
    copy, whole = branch(two_wells(directory / "run.nc", shooting, seed=1, fit_options=None), directory, 5, 12)
    steps = check_same_run(copy, whole)
    assert any(accepted for number, accepted, *_ in steps if number > 5)


@both_kinds_alike
def test_exchange_of_shooting_points(directory):
    """Configurations and the hotter engines that move them come back, and so does a lost file."""
    sampler = two_wells(directory / f"run.{SUFFIX}", "two-way", exchange_temperatures=[0.2, 0.3])
    copy, whole = branch(sampler, directory, 5, 14)
    steps = check_same_run(copy, whole)
    exchanged = [number for number, *_, active in steps if len(active) == 4 and number > 5]
    assert len(exchanged) == 9
    copy.unlink()
    with pytest.warns(ResumeWarning, match="no OPS file"):
        sampler = resume(copy)
    movers = [type(part.mover).__name__ for step in sampler.storage.steps for part in step.change]
    assert movers.count("ConfigurationMover") == movers.count("ShootingPointExchangeMover") > 0
    table = selection_table(sampler.storage, CommittorSelector(sampler.move_scheme.learner), progress=False)
    assert len(table) == movers.count("ShootingMover") > 0  # exchanges pick by a weight of their own
    sampler.storage.close()
    assert all(equal_paths(a[3], b[3]) for a, b in zip(steps, steps_in(copy), strict=True))


@netcdf_only
def test_a_run_goes_on_in_full_precision_from_a_file_that_was_behind(directory):
    """OPS puts placeholders for frames of its file into the paths that it stores, and into their reverse."""
    file, behind = directory / "run.nc", directory / "behind.nc"
    sampler = two_wells(file, "one-way", seed=1)
    sampler.run(3)
    shutil.copy(file, behind)
    first = sampler.sample_set[0].trajectory
    while (path := sampler.sample_set[0].trajectory) is first:
        sampler.run(1)
    assert {*map(frame_key, path)} & {*map(frame_key, first)}  # frames of both files
    digits = path.xyz, np.array([frame.velocities for frame in path])
    sampler.storage.close()
    shutil.copy(checkpoint_of(file), checkpoint_of(behind))
    sampler = resume(behind)
    backward = sampler.sample_set[0].trajectory.reversed
    for sign, path in ((1, sampler.sample_set[0].trajectory), (-1, backward[::-1])):
        sampler.storage.trajectories.save(path)
        assert np.array_equal(path.xyz, digits[0])
        assert np.array_equal([frame.velocities for frame in path], sign * digits[1])
    assert not np.array_equal(digits[0], digits[0].astype(np.float32))  # control: single precision is something else
    sampler.storage.close()


@netcdf_only
def test_control_a_run_that_goes_on_in_single_precision_is_another(directory):
    sampler = two_wells(directory / "run.nc", "one-way")
    sampler.run(5)
    copy = copy_run(directory / "run.nc", directory / "copy.nc")
    run_to(sampler, 10)
    sampler = resume(copy)
    (hook,) = {h.__self__ for h in sampler.hooks["after_step"] if isinstance(h.__self__, ops_aimmd.TrainingHook)}
    hook._current.clear()  # nobody holds the digits that OPS's file does not have
    sampler.sample_set = None
    sampler.storage.snapshots.clear_cache()
    gc.collect()
    sampler.sample_set = sampler.storage.steps[-1].active
    run_to(sampler, 10)
    assert differences(contents(checkpoint_of(copy)), contents(directory / "run.aimmd")) != []


@netcdf_only
def test_frames_that_ops_has_forgotten_keep_their_digits(directory):
    """Of what it has saved OPS remembers some thousand frames, and reads the others again, in single precision."""
    files = directory / "run.nc", directory / "forgetful.nc"
    for file in files:
        sampler = two_wells(file, "two-way")
        if file.stem == "forgetful":
            sampler.storage.snapshots.set_caching(WeakLRUCache(3))
        sampler.save_frequency = 100  # also the spacing of OPS's checks, which look at every frame
        run_to(sampler, 16)
    assert differences(*(contents(checkpoint_of(file)) for file in files)) == []


@netcdf_only
def test_alanine_dipeptide_on_the_reference_platform(directory):
    accepted = begin_alanine(directory)
    process = run_script(resume_support.__file__, "resume_alanine", directory)
    assert process.returncode == 0, process.stderr[-4000:]
    report = json.loads(process.stdout.splitlines()[-1])
    run, whole, elsewhere = (contents(directory / f"{name}.aimmd") for name in ("run", "whole", "elsewhere"))
    assert differences(run, whole) == []
    assert any(accepted[2:-1])  # of this path the copy has not read all digits from a file
    frames = elsewhere["leg frames descriptors"]
    assert not np.array_equal(whole["leg frames descriptors"][: len(frames)], frames)  # control: on another platform
    assert "'Abacus'" in report["no such platform"] and "platform=" in report["no such platform"]
    assert "Reference" in report["no such platform"]  # what there is
    assert report["platform"] == report["platform now"] == "CPU"
    assert report["platform of the run"] == "Reference"


@netcdf_only
def test_without_a_seed_the_generators_go_on(directory, monkeypatch):
    """Training without a seed draws from the operating system, so the learner is frozen."""
    sampler = begin(directory / "run.nc", seed=None, model=table_model(np.zeros(7)))
    sampler.move_scheme.learner.freeze()
    sampler.run(HALF)
    copies = [copy_run(directory / "run.nc", directory / name) for name in ("copy.nc", "control.nc")]
    run_to(sampler, WHOLE)
    for copy in copies:
        seed_everything(99)
        if copy.stem == "control":
            monkeypatch.setattr("ops_aimmd.storage.resume.restore_generators", lambda states: None)
        run_to(resume(copy, network=table_model(np.zeros(7)).network), WHOLE)
        same = differences(contents(directory / "run.aimmd"), contents(checkpoint_of(copy))) == []
        assert same == (copy.stem == "copy")


def stock_scheme(chain, selector, kind):
    if kind == "one-way":
        return paths.OneWayShootingMoveScheme(chain.network(), selector, engine=chain.engine)
    modifier = paths.NoModification(as_copy=True)
    scheme = paths.MoveScheme(chain.network())
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, selector=selector, engine=chain.engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    return scheme


@netcdf_only
@pytest.mark.parametrize("kind", ["one-way", pytest.param("two-way", marks=slow)])
def test_a_scheme_of_ones_own_with_stock_moves(directory, kind):
    chain = QuickChain()
    seed_everything(0)
    learner = CommittorLearner([chain.site], chain.states, seed=7, fit_options=QUICK_WITH_FRAMES)
    scheme = stock_scheme(chain, CommittorSelector(learner), kind)
    copy, whole = branch(simulation(directory / "run.nc", learner, scheme, chain.initial()), directory, 5, 12)
    check_same_run(copy, whole)
    sampler = resume(copy)
    (shooting,) = sampler.move_scheme.movers["shooting"]
    assert len({id(mover.selector.learner) for mover in shooting.submovers}) == 1


@netcdf_only
def test_several_ensembles_with_all_moves_of_ops(directory):
    paths.InterfaceSet._reset()  # OPS takes collective variables of one name, in one process, for the same
    chain = QuickChain()
    A, B = chain.states
    network = paths.MISTISNetwork([(A, paths.VolumeInterfaceSet(chain.site, -0.5, [0.5, 1.5, 2.5]), B)])
    seed_everything(0)
    learner = CommittorLearner([chain.site], chain.states, seed=1, fit_options=QUICK_WITH_FRAMES)
    strategy = CommittorShootingStrategy(
        CommittorSelector(learner), chain.states, modifier=paths.NoModification(as_copy=True), engine=chain.engine
    )
    scheme = paths.DefaultScheme(network, engine=chain.engine)
    scheme.append(strategy)
    sampler = simulation(directory / "run.nc", learner, scheme, [chain.initial(), chain.path([0, 1, 0, 1, 0])])
    sampler.run(2)
    file, whole = copy_run(directory / "run.nc", directory / "copy.nc"), directory / "run.nc"
    run_to(sampler, 26)
    for step in (3, 9, 15, 26):  # after all kinds of moves
        run_to(resume(file), step)
    steps = check_same_run(file, whole)
    file.unlink()
    with pytest.warns(ResumeWarning, match="no OPS file"):
        sampler = resume(file)
    movers = {type(step.change.canonical.mover).__name__ for step in sampler.storage.steps}
    assert movers >= {"ShootingMover", "PathReversalMover", "ReplicaExchangeMover", "MinusMover"}
    check_ops_analysis(sampler)
    sampler.storage.close()
    assert all(equal_paths(a[3], b[3]) for a, b in zip(steps, steps_in(file), strict=True))


def equal_paths(paths_of_one, paths_of_other):
    return [path.tolist() for path in paths_of_one] == [path.tolist() for path in paths_of_other]


def check_ops_analysis(sampler):
    """OPS's own analysis, and ours, see every step of the file."""
    steps = [sampler.storage.steps[index] for index in range(len(sampler.storage.steps))]
    numbers = [step.mccycle for step in steps]
    assert numbers == list(range(len(numbers)))
    scheme = sampler.move_scheme
    acceptance = MoveAcceptanceAnalysis(scheme)
    acceptance.add_steps(steps)
    assert sum(row.n_trials for row in acceptance.summary_data(None)) == len(steps) - 1
    scheme.move_summary(steps, output=SILENCE)
    tree = PathTree(steps, ReplicaEvolution(replica=steps[-1].active[0].replica))
    assert len(tree.generator) > 0
    shots = step_table(steps, [*scheme.network.all_states])
    assert set(shots["step"]) <= set(numbers[1:]) and len(shots) > 0
    return shots


# ---- OPS's file lags ------------------------------------------------------------------------------------------------


def steps_that_can_be_read(file):
    """Their number, 0 if a netCDF file was damaged by the death of its writer."""
    if file.suffix == ".db":
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute("SELECT count(*) FROM steps").fetchone()[0]
    try:
        with netCDF4.Dataset(file) as dataset:
            return len(dataset.dimensions["steps"])
    except OSError:
        return 0


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


@both_kinds_alike
@pytest.mark.parametrize("save_frequency", [pytest.param(1, marks=slow), 5])
def test_a_hook_that_raises_between_the_checkpoint_and_ops_file(file, whole, save_frequency):
    sampler = resume(file)
    sampler.save_frequency = save_frequency
    sampler.attach_hook(At([9], fail))
    with pytest.raises(Breakdown):
        sampler.run(WHOLE)
    leave(sampler)
    assert stands_at(file) == 9 and steps_that_can_be_read(file) <= 9
    again = resume(file)
    assert again.save_frequency == save_frequency
    again.storage.close()
    check_that_it_goes_on(file, whole)


class Breakdown(Exception):
    pass


def fail():
    raise Breakdown


def interrupt():
    raise KeyboardInterrupt


def leave(sampler):
    """What is left of a simulation when its process ends after an error."""
    sampler.storage.close()
    (hook,) = {h.__self__ for h in sampler.hooks["after_step"] if isinstance(h.__self__, ops_aimmd.TrainingHook)}
    hook.open_checkpoint.close()


# ---- OPS's file is ahead --------------------------------------------------------------------------------------------


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


# ---- OPS's file is damaged, gone, or another ------------------------------------------------------------------------


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


# ---- what must be given again ---------------------------------------------------------------------------------------


def other_function(trajectory):
    return site_descriptors(trajectory)


def weight(log_odds):
    return 1 / (1 + log_odds**2)


class OwnNetwork(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x)


@netcdf_only
def test_functions_and_networks_of_ones_own_are_asked_for(directory):
    """One by one, in one process, in which the file stays usable after each refusal."""
    model = ops_aimmd.CommittorModel(OwnNetwork(), 1)
    sampler = begin(directory / "run.nc", descriptors=site_descriptors, model=model, weight=weight)
    sampler.run(5)
    file = copy_run(directory / "run.nc", directory / "copy.nc")
    run_to(sampler, 9)
    given = {}
    for name, value, message in (
        ("network", OwnNetwork(), "'OwnNetwork'.*`network`"),
        ("descriptors", site_descriptors, r"function 'site_descriptors'.*descriptors=\.\.\."),
        ("weight", weight, r"function weight.*weight=\.\.\."),
    ):
        with pytest.raises(ValueError, match=message):
            resume(file, **given)
        given[name] = value
    with pytest.raises(ValueError, match="function 'other_function' was given"):
        resume(file, **{**given, "descriptors": other_function})
    with pytest.raises(ValueError, match="has the states"):
        resume(file, **given, states=QuickChain().states[::-1])
    run_to(resume(file, **given), 9)
    check_same_run(file, directory / "run.nc")
    learner = resume(file, **given).move_scheme.learner
    assert isinstance(learner.model.network, OwnNetwork) and learner.version.number > 0


@both_kinds
def test_a_refused_file_can_be_resumed_in_the_same_process(file, whole):
    """It was closed: HDF5 crashes where one process opens a file twice to write."""
    for _ in range(3):
        with pytest.raises(ValueError, match="was given"):
            resume(file, descriptors=other_function)
    check_that_it_goes_on(file, whole)


# ---- runs that cannot be resumed ------------------------------------------------------------------------------------


@netcdf_only
def test_a_run_without_ops_file_leaves_its_paths(directory):
    chain = QuickChain()
    learner = chain.learner(seed=1)
    scheme = chain.scheme(learner)
    sampler = paths.PathSampling(None, scheme, scheme.initial_conditions_from_trajectories(chain.initial()))
    sampler.output_stream = SILENCE
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, directory / "run.aimmd"))
    sampler.run(8)
    (directory / "run.nc").touch()
    with pytest.raises(ValueError, match=r"no OPS file.*load_learner.*ops_aimmd\.current_paths"):
        resume(directory / "run.nc")
    (path,) = ops_aimmd.current_paths(directory / "run.aimmd", chain.engine)
    (sample,) = sampler.sample_set
    assert [frame.__uuid__ for frame in path] == [frame.__uuid__ for frame in sample.trajectory]
    assert np.array_equal(path.xyz, sample.trajectory.xyz)
    conditions = chain.scheme(learner).initial_conditions_from_trajectories(path)
    assert conditions[0].trajectory.xyz.tolist() == path.xyz.tolist()


@netcdf_only
def test_paths_of_the_checkpoint_have_all_digits(directory):
    sampler = two_wells(directory / "run.nc", "one-way")
    sampler.run(6)
    assert sampler.sample_set[0].trajectory.xyz.dtype == np.float64
    engine = sampler.move_scheme.movers["shooting"][0].movers[0].engine
    current = sampler.sample_set[0].trajectory.xyz
    sampler.storage.close()
    (path,) = ops_aimmd.current_paths(directory / "run.aimmd", engine)
    assert np.array_equal(path.xyz, current)
    assert not np.array_equal(path.xyz, steps_in(directory / "run.nc")[-1][3][0])  # control


@netcdf_only
def test_a_run_that_goes_on_cannot_be_resumed(file, directory):
    refused = []

    def try_to_resume():
        before = sorted(directory.iterdir())
        with pytest.raises(CheckpointLockedError):
            resume(file)
        assert sorted(directory.iterdir()) == before
        refused.append(True)

    sampler = resume(file)
    sampler.attach_hook(At([8], try_to_resume))
    run_to(sampler, 9)
    assert refused
    resume(file).storage.close()


@netcdf_only
def test_a_run_that_died_before_its_first_step(directory, file):
    chain = QuickChain()
    path = directory / "unborn.aimmd"
    create_checkpoint(path, chain.learner(seed=1)).close()
    with pytest.raises(ValueError, match="before its first step"):
        ops_aimmd.resume(file, path)
    with pytest.raises(FileNotFoundError):
        ops_aimmd.resume(file, directory / "nothing.aimmd")
    for names, match in (
        ((None, path), "storage must be the name of a file; got None"),
        ((file, 3), "checkpoint must be .* 3"),
    ):
        with pytest.raises(ValueError, match=match):
            ops_aimmd.resume(*names)


@netcdf_only
def test_a_run_that_died_in_its_first_step(directory, whole):
    run_to(begin(directory / "run.nc"), 0)
    check_that_it_goes_on(directory / "run.nc", whole)


# ---- paths are not kept ---------------------------------------------------------------------------------------------


def size_of_log(file):
    with Checkpoint.open(checkpoint_of(file), read_only=True) as checkpoint:
        return len(checkpoint.logged_steps()), len(checkpoint.path_names()), len(checkpoint.frame_block_numbers())


def what_is_learned(found):
    return {name: value for name, value in found.items() if not name.startswith("step ") and name != "steps logged"}


@netcdf_only
@pytest.mark.parametrize("save_frequency", [pytest.param(1, marks=slow), 5])
def test_paths_that_are_not_kept(directory, whole, save_frequency):
    file = directory / "run.nc"
    sampler = begin(file, keep_paths=False, save_frequency=save_frequency)
    sizes = []
    sampler.attach_hook(lambda **kwargs: sizes.append(size_of_log(file)), "after_step")
    run_to(sampler, HALF)
    sampler = resume(file)
    sampler.attach_hook(lambda **kwargs: sizes.append(size_of_log(file)), "after_step")
    sampler.run(WHOLE - HALF)
    copy = copy_run(file, directory / "copy.nc")
    assert differences(what_is_learned(contents(checkpoint_of(copy))), what_is_learned(whole)) == []
    run_to(sampler, 24)
    n_steps, n_paths, n_blocks = np.max(sizes, axis=0)
    assert n_steps == save_frequency and n_paths <= save_frequency + 1 and n_blocks <= 2 * save_frequency + 1
    assert numbers_in(file) == list(range(25))
    assert sum(accepted for _, accepted, *_ in steps_in(file)) > n_paths + 1

    copy.unlink()
    with pytest.warns(ResumeWarning) as caught:
        sampler = resume(copy)
    last_lost = {1: 11, 5: 10}[save_frequency]
    assert any(f"paths of steps 1 to {last_lost} are lost" in str(warning.message) for warning in caught)
    run_to(sampler, 16)
    assert numbers_in(copy) == [0, *range(last_lost + 1, 17)]


@netcdf_only
def test_an_older_file_leaves_a_gap_where_paths_are_not_kept(directory):
    file = directory / "run.nc"
    run_to(begin(file, keep_paths=False), 2)
    shutil.copy(file, directory / "old.nc")
    run_to(resume(file), 5)
    shutil.copy(directory / "old.nc", file)
    with pytest.warns(ResumeWarning, match="paths of steps 3 to 4 are lost: they are not in run.nc"):
        run_to(resume(file), 6)
    assert numbers_in(file) == [0, 1, 2, 5, 6]


@netcdf_only
def test_a_process_that_dies_where_paths_are_not_kept_loses_none(directory, whole):
    file = directory / "run.nc"
    sampler = begin(file, keep_paths=False, save_frequency=5)
    sampler.attach_hook(At([5, 9], fail))
    for _ in range(2):  # in step 5 OPS should have brought all to the disk
        with pytest.raises(Breakdown):
            sampler.run(WHOLE)
    leave(sampler)
    run_to(resume(file), WHOLE)
    assert numbers_in(file) == list(range(WHOLE + 1))
    assert differences(what_is_learned(contents(checkpoint_of(file))), what_is_learned(whole)) == []


@netcdf_only
@pytest.mark.parametrize("path_stride", [pytest.param(1, marks=slow), 3])
def test_a_step_that_ops_had_not_written_where_paths_are_not_kept(directory, whole, path_stride):
    file = directory / "run.nc"
    sampler = begin(file, keep_paths=False, path_stride=path_stride)
    sampler.attach_hook(At([9], fail))
    with pytest.raises(Breakdown):
        sampler.run(WHOLE)
    leave(sampler)
    assert stands_at(file) == 9 and steps_that_can_be_read(file) == 9
    run_to(resume(file), WHOLE)
    assert numbers_in(file) == list(range(WHOLE + 1))
    assert differences(what_is_learned(contents(checkpoint_of(file))), what_is_learned(whole)) == []
    with closing(paths.Storage(str(file), "r")) as storage:
        for before, after in zip(storage.steps[1:-1], storage.steps[2:], strict=True):  # initial paths are stored whole
            assert before.active[0].trajectory.__uuid__ == after.previous[0].trajectory.__uuid__


@netcdf_only
@pytest.mark.filterwarnings("ignore:the snapshots of this engine")
def test_frames_that_the_checkpoint_cannot_hold(directory, monkeypatch):
    """Their paths are in OPS's file alone, and the run goes on from there."""
    monkeypatch.setattr("ops_aimmd.shooting.frames.can_be_kept", lambda snapshot: False)
    file = directory / "run.nc"
    sampler = begin(file)
    with pytest.warns(UserWarning, match="cannot be kept in the checkpoint"):
        run_to(sampler, 3)
    shutil.copy(file, directory / "old.nc")
    run_to(resume(file), 5)
    assert numbers_in(file) == list(range(6))
    shutil.copy(directory / "old.nc", file)
    with pytest.warns(ResumeWarning, match="paths of steps 4 to 5 are lost.*goes on from those of step 3"):
        run_to(resume(file), 6)
    assert numbers_in(file) == [0, 1, 2, 3, 6]
    with pytest.raises(ValueError, match="holds no paths"):
        ops_aimmd.current_paths(checkpoint_of(file), sampler.move_scheme.movers["shooting"][0].engine)
    with pytest.raises(ValueError, match="path_stride needs frames that the checkpoint can hold"):
        begin(directory / "thin.nc", path_stride=2).run(1)


# ---- thinning -------------------------------------------------------------------------------------------------------


THIN = {"rejected_trials": "ends", "path_stride": 3}


@pytest.fixture(scope="module")
def thin_run(tmp_path_factory):
    """A thinned run that was resumed at step HALF."""
    directory = tmp_path_factory.mktemp("thin")
    file = directory / "run.nc"
    run_to(begin(file, **THIN), HALF)
    run_to(resume(file), WHOLE)
    yield file
    shutil.rmtree(directory)


@netcdf_only
def test_a_thinned_run_is_the_same_run(thin_run, whole):
    assert differences(contents(checkpoint_of(thin_run)), whole) == []


@netcdf_only
def test_a_thinned_file_holds_less_and_says_so(thin_run, runs):
    thin, full = open_storage(thin_run), open_storage(runs / "whole.nc")
    assert len(thin.snapshots) < 0.8 * len(full.snapshots)
    active = {step.active[0].trajectory.__uuid__ for step in thin.steps}
    whole_active = {step.active[0].trajectory.__uuid__ for step in full.steps}
    assert len(active) == len(whole_active)  # a resume stores no path a second time
    n_rejected = 0
    for step, whole_step in zip(thin.steps, full.steps, strict=True):
        path, whole_path = step.active[0].trajectory, whole_step.active[0].trajectory
        assert path.xyz.tolist() == [frame.xyz.tolist() for frame in path]
        assert {0, len(whole_path) - 1} <= set(places_of(path, whole_path))
        if step.mccycle == 0:
            continue
        details, trial = step.change.canonical.details, step.change.canonical.trials[0].trajectory
        assert details.stored_stride == THIN["path_stride"]
        if step.change.canonical.accepted:
            assert not hasattr(details, "stored_trial")
        else:
            n_rejected += 1
            assert details.stored_trial == "ends" and len(trial) == 3
        assert sum(details.leg_lengths) - 1 == len(whole_step.change.canonical.trials[0].trajectory)
        for name in ("leg_outcomes", "shooting_index", "predicted_committor", "weight_sum_old", "seed"):
            assert getattr(details, name) == getattr(whole_step.change.canonical.details, name)
    assert 0 < n_rejected < WHOLE
    thin.close()
    full.close()


def places_of(path, whole):
    """Indices in the whole path that the frames of a thinned path may have."""
    return [index for index, frame in enumerate(whole.xyz.tolist()) if frame in path.xyz.tolist()]


@netcdf_only
def test_what_a_thinned_file_is_good_for(thin_run, runs):
    chain = QuickChain()
    tables, sets = [], []
    for file in (thin_run, runs / "whole.nc"):
        storage = open_storage(file)
        tables.append(step_table(storage.steps, chain.states))
        sets.append(ops_aimmd.TrainingSet.from_storage(storage, [chain.site], chain.states, progress=False))
        storage.close()
    thin, full = tables
    assert thin.equals(full)
    for name in ("descriptors", "counts", "steps", "chains", "velocity_origin", "predicted_committor", "weights"):
        assert np.array_equal(getattr(sets[0], name), getattr(sets[1], name)), name
    assert read_series(thin_run).equals(read_series(runs / "whole.nc"))


@netcdf_only
def test_ends_of_rejected_trials_alone_leave_the_paths_whole(directory, runs):
    file = directory / "run.nc"
    run_to(begin(file, rejected_trials="ends"), HALF)
    storage, full = open_storage(file), open_storage(runs / "half.nc")
    states = QuickChain().states
    assert step_table(storage.steps, states).equals(step_table(full.steps, states))
    assert len(storage.snapshots) < len(full.snapshots)
    for one, other in zip(storage.steps, full.steps, strict=True):
        assert np.array_equal(one.active[0].trajectory.xyz, other.active[0].trajectory.xyz)


@netcdf_only
def test_options_of_thinning_that_do_not_go_together():
    learner = QuickChain().learner(seed=1)
    with pytest.raises(ValueError, match="path_stride needs a checkpoint"):
        ops_aimmd.TrainingHook(learner, path_stride=5)
    for options in ({"rejected_trials": "none"}, {"path_stride": 0, "checkpoint": "x"}):
        with pytest.raises(ValueError):
            ops_aimmd.TrainingHook(learner, **options)


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


def run_on(sampler, step, times):
    """Run to a step through so many interruptions, in one process."""
    count = 0
    while sampler.step < step or count < times:
        try:
            sampler.run(step - sampler.step)
        except KeyboardInterrupt:
            count += 1
    assert count == times
    sampler.storage.close()


@both_kinds_alike
@pytest.mark.parametrize("before_ops, save_frequency", [pytest.param(True, 1, marks=slow), (False, 1), (True, 5)])
def test_interruptions_between_steps(file, whole, before_ops, save_frequency):
    sampler = resume(file)
    sampler.save_frequency = save_frequency
    sampler.attach_hook(At([8, 10], interrupt, before_ops))
    run_on(sampler, 11, times=2)
    assert numbers_in(file) == list(range(12))
    check_that_it_goes_on(file, whole)


@netcdf_only
def test_interruptions_in_a_leg(file, whole):
    sampler = resume(file)
    (mover,) = sampler.move_scheme.movers["shooting"]
    make_frame, count = mover.engine.generate_next_frame, [0]

    def break_down():
        count[0] += 1
        if count[0] in (4, 30):
            raise KeyboardInterrupt
        return make_frame()

    mover.engine.generate_next_frame = break_down
    run_on(sampler, 11, times=2)
    assert numbers_in(file) == list(range(12))
    check_that_it_goes_on(file, whole)


@netcdf_only
@pytest.mark.parametrize(
    "owner, name, before, after",
    [(CommittorLearner, "fit", 1, None), (Checkpoint, "record_step", 2, 4), (SeriesBlock, "append", 2, 4)],
)
def test_interruptions_while_a_step_is_learned_and_recorded(file, whole, monkeypatch, owner, name, before, after):
    """Before and after training, which takes the longest, the checkpoint, and the series in OPS's file."""
    original, count = getattr(owner, name), [0]

    def interrupted(*arguments, **options):
        count[0] += 1
        if count[0] == before:
            raise KeyboardInterrupt
        result = original(*arguments, **options)
        if count[0] == after:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)
    run_on(resume(file), 11, times=1 if after is None else 2)
    assert read_series(file)["step"].tolist() == list(range(1, 12))
    check_that_it_goes_on(file, whole)


# ---- the learner ----------------------------------------------------------------------------------------------------


@netcdf_only
def test_a_learner_comes_back_as_it_was(file):
    sampler = resume(file)
    learner = sampler.move_scheme.learner
    learner.freeze()
    run_to(sampler, 7)
    version = learner.version.number

    sampler = resume(file)
    learner = sampler.move_scheme.learner
    assert learner.frozen and learner.version.number == version
    sampler.run(5)
    assert learner.version.number == version
    learner.unfreeze()
    learner.fit()
    learner.fit()  # by hand, between two runs
    run_to(sampler, 14)
    assert learner.version.number >= version + 2

    sampler = resume(file)
    again = sampler.move_scheme.learner
    assert not again.frozen
    assert again.version.number == learner.version.number
    assert again.learned.shots_at_last_fit == learner.learned.shots_at_last_fit
    assert again.last_report.held_out_loss_per_leg == learner.last_report.held_out_loss_per_leg
    x = learner.training_set.descriptors
    assert np.array_equal(again.model.committor(x), learner.model.committor(x))
    details = [step.change.canonical.details for step in sampler.storage.steps if step.mccycle > 0]
    assert [d.frozen for d in details] == [False] * HALF + [True] * 6 + [False] * 2
    versions = {d.model_version for d in details}
    assert len(versions) > 2 and version in versions
    for number, d in enumerate(details):
        guide = ops_aimmd.load_learner(checkpoint_of(file), version=d.model_version)
        assert guide.model.committor(x[number : number + 1]) == pytest.approx(d.predicted_committor[1], abs=1e-6)
    newest = again.model.committor(x[:1])  # control
    assert newest != pytest.approx(details[0].predicted_committor[1], abs=1e-3)


# ---- all that again, with SimStore ----------------------------------------------------------------------------------


@pytest.mark.skipif(SUFFIX != "nc", reason="this is the process with SimStore")
@pytest.mark.parametrize("why", ["where it differs", pytest.param("where it does not", marks=pytest.mark.slow)])
def test_with_simstore(why):
    """In a process of its own."""
    tests = [f"{__file__}::{name}" for name in WITH_SIMSTORE[why]]
    options = [] if why == "where it differs" else ["-m", "slow or not slow"]
    process = run_script(
        Path(pytest.__file__).with_name("__main__.py"),
        "-q",
        "-p",
        "no:cacheprovider",
        *options,
        *tests,
        RESUME_TESTS_SUFFIX="db",
    )
    assert process.returncode == 0, process.stdout[-6000:]
    assert "skipped" not in process.stdout.splitlines()[-1]
