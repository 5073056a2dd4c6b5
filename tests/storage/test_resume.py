"""A run that is resumed is the run that was never interrupted, whatever became of its files in the meantime.

The tests in `BOTH_KINDS` run here with netCDF, and with SimStore in a process of its own, since OPS cannot use both.
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
from openpathsampling.visualize import PathTree, ReplicaEvolution
from resume_support import (
    SILENCE,
    At,
    QuickChain,
    begin,
    checkpoint_of,
    copy_run,
    resume,
    run_to,
    same_steps,
    simulation,
    steps_in,
)
from sampling_support import breaking_chain, seed_everything, site_descriptors, table_model
from test_kills import contents, differences

import ops_aimmd
from ops_aimmd import CommittorLearner, CommittorSelector, CommittorShootingScheme, CommittorShootingStrategy, ResumeWarning
from ops_aimmd.analysis.series import step_table
from ops_aimmd.checkpoint import Checkpoint, CheckpointLockedError
from ops_aimmd.sampling.learner_checkpoint import create_checkpoint
from ops_aimmd.storage.ops_files import UnreadableFileError, open_storage, roll_back
from ops_aimmd.systems import toy

SUFFIX = os.environ.get("RESUME_TESTS_SUFFIX", "nc")
HALF, WHOLE = 6, 12

BOTH_KINDS = []
"""Names of tests."""


def both_kinds(test):
    BOTH_KINDS.append(test.__name__)
    return test


netcdf_only = pytest.mark.skipif(SUFFIX != "nc", reason="one kind of file is enough, or only netCDF has it")


@pytest.fixture
def directory(tmp_path):
    yield tmp_path
    gc.collect()
    shutil.rmtree(tmp_path)  # every netCDF file has 100 MB


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
    return [number for number, *_ in steps_in(file)]


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


def two_wells(file, shooting, seed=1):
    system = toy.two_gaussian_wells(n_steps_per_frame=100)
    seed_everything(0)
    learner = CommittorLearner(system.descriptors, system.states, seed=seed)
    scheme = CommittorShootingScheme(system.network(), learner, system.engine, shooting)
    return simulation(file, learner, scheme, system.initial_trajectory(1))


@netcdf_only
@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_with_velocities_and_real_numbers(directory, shooting):
    whole, file, other = (directory / f"{name}.nc" for name in ("whole", "run", "other"))
    run_to(two_wells(whole, shooting), 12)
    run_to(two_wells(file, shooting), 5)
    run_to(resume(file), 12)
    assert differences(contents(checkpoint_of(file)), contents(checkpoint_of(whole))) == []
    assert same_steps(steps_in(file), steps_in(whole))
    assert any(accepted for number, accepted, *_ in steps_in(whole) if number > 5)
    run_to(two_wells(other, shooting, seed=2), 12)  # control
    assert "active" in differences(contents(checkpoint_of(whole)), contents(checkpoint_of(other)))


@netcdf_only
def test_control_paths_in_the_precision_of_the_ops_file_are_not_exact(directory, monkeypatch):
    whole, file = directory / "whole.nc", directory / "run.nc"
    run_to(two_wells(whole, "one-way"), 9)
    run_to(two_wells(file, "one-way"), 5)
    sampler = resume(file)
    sampler.sample_set = sampler.storage.steps[-1].active
    run_to(sampler, 9)
    assert "active" in differences(contents(checkpoint_of(file)), contents(checkpoint_of(whole)))


@netcdf_only
def test_alanine_dipeptide_on_the_reference_platform(directory):
    reports = []
    for action in ("begin_alanine", "resume_alanine"):
        process = child(resume_support.__file__, action, directory)
        assert process.returncode == 0, process.stderr[-4000:]
        reports.append(json.loads(process.stdout.splitlines()[-1]))
    run, whole, other = (contents(directory / f"{name}.aimmd") for name in ("run", "whole", "other"))
    assert differences(run, whole) == []
    assert {"step 1", "step 3"} <= set(differences(whole, other))
    assert "'Abacus'" in reports[1]["no such platform"] and "platform=" in reports[1]["no such platform"]
    assert "Reference" in reports[1]["no such platform"]  # what there is
    assert (reports[1]["platform"], reports[1]["platform of the run"]) == ("CPU", "Reference")


@netcdf_only
@pytest.mark.parametrize("restored", [True, False])
def test_without_a_seed_the_generators_go_on(directory, monkeypatch, restored):
    """Training without a seed draws from the operating system, so the learner is frozen."""
    sampler = begin(directory / "run.nc", seed=None, model=table_model(np.zeros(7)))
    sampler.move_scheme.learner.freeze()
    sampler.run(HALF)
    copy = copy_run(directory / "run.nc", directory / "copy.nc")
    run_to(sampler, WHOLE)
    seed_everything(99)
    if not restored:  # control
        monkeypatch.setattr("ops_aimmd.storage.resume.restore_generators", lambda states: None)
    run_to(resume(copy, network=table_model(np.zeros(7)).network), WHOLE)
    same = differences(contents(directory / "run.aimmd"), contents(directory / "copy.aimmd")) == []
    assert same == restored


def stock_scheme(chain, selector, kind):
    if kind == "one-way":
        return paths.OneWayShootingMoveScheme(chain.network(), selector, engine=chain.engine)
    modifier = paths.NoModification(as_copy=True)
    scheme = paths.MoveScheme(chain.network())
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, selector=selector, engine=chain.engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    return scheme


@netcdf_only
@pytest.mark.parametrize("kind", ["one-way", "two-way"])
def test_a_scheme_of_ones_own_with_stock_moves(directory, kind):
    def start(file):
        chain = QuickChain()
        seed_everything(0)
        learner = CommittorLearner([chain.site], chain.states, seed=1)
        return simulation(file, learner, stock_scheme(chain, CommittorSelector(learner), kind), chain.initial())

    run_to(start(directory / "whole.nc"), 12)
    run_to(start(directory / "run.nc"), 5)
    sampler = resume(directory / "run.nc")
    selectors = {mover.selector for mover in sampler.root_mover.submovers[0].submovers[0].submovers}
    assert len({id(selector.learner) for selector in selectors}) == 1
    run_to(sampler, 12)
    assert differences(contents(directory / "run.aimmd"), contents(directory / "whole.aimmd")) == []
    assert same_steps(steps_in(directory / "run.nc"), steps_in(directory / "whole.nc"))


@netcdf_only
def test_several_ensembles_with_all_moves_of_ops(directory):
    chain = QuickChain()
    A, B = chain.states
    network = paths.MISTISNetwork([(A, paths.VolumeInterfaceSet(chain.site, -0.5, [0.5, 1.5, 2.5]), B)])

    def start(file):
        seed_everything(0)
        learner = CommittorLearner([chain.site], chain.states, seed=1)
        selector = CommittorSelector(learner)
        modifier = paths.NoModification(as_copy=True)
        scheme = paths.DefaultScheme(network, engine=chain.engine)
        scheme.append(CommittorShootingStrategy(selector, chain.states, modifier=modifier, engine=chain.engine))
        return simulation(file, learner, scheme, [chain.initial(), chain.path([0, 1, 0, 1, 0])])

    file, whole = directory / "run.nc", directory / "whole.nc"
    run_to(start(whole), 26)
    run_to(start(file), 2)
    for step in (3, 5, 9, 10, 11, 15, 22, 26):  # after all kinds of moves
        run_to(resume(file), step)
    assert differences(contents(checkpoint_of(file)), contents(checkpoint_of(whole))) == []
    in_file = steps_in(file)
    assert same_steps(in_file, steps_in(whole))
    file.unlink()
    with pytest.warns(ResumeWarning, match="no OPS file"):
        sampler = resume(file)
    movers = {type(step.change.canonical.mover).__name__ for step in sampler.storage.steps}
    assert movers >= {"ShootingMover", "PathReversalMover", "ReplicaExchangeMover", "MinusMover"}
    check_ops_analysis(sampler)
    sampler.storage.close()
    made_again = steps_in(file)
    assert all(equal_paths(a[3], b[3]) for a, b in zip(in_file, made_again, strict=True))


def equal_paths(paths_of_one, paths_of_other):
    return [path.tolist() for path in paths_of_one] == [path.tolist() for path in paths_of_other]


def check_ops_analysis(sampler):
    """OPS's own analysis, and ours, see every step of the file."""
    steps = [sampler.storage.steps[index] for index in range(len(sampler.storage.steps))]
    numbers = [step.mccycle for step in steps]
    assert numbers == list(range(len(numbers)))
    scheme = sampler.move_scheme
    scheme.move_summary(steps, output=SILENCE)
    assert sum(n for accepted, n in scheme.move_acceptance(steps).values()) >= len(steps) - 1
    tree = PathTree(steps, ReplicaEvolution(replica=steps[-1].active[0].replica))
    assert len(tree.generator) > 0
    states = [*scheme.network.all_states]
    shots = step_table(steps, states)
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


@both_kinds
def test_steps_that_ops_had_not_written_when_the_process_died(directory, runs, whole):
    file = directory / f"run.{SUFFIX}"
    died = child(resume_support.__file__, "die", file, 5, 9)
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


@both_kinds
@pytest.mark.parametrize("save_frequency", [1, 5])
def test_a_hook_that_raises_between_the_checkpoint_and_ops_file(directory, whole, save_frequency):
    file = directory / f"run.{SUFFIX}"
    sampler = begin(file, save_frequency=save_frequency)
    sampler.attach_hook(At([HALF], fail))
    with pytest.raises(Breakdown):
        sampler.run(WHOLE)
    leave(sampler)
    assert stands_at(file) == HALF and steps_that_can_be_read(file) <= HALF
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
    hook._files._file.close()


# ---- OPS's file is ahead --------------------------------------------------------------------------------------------


@both_kinds
def test_steps_that_an_older_checkpoint_lacks_are_learned_once(runs, directory):
    file = copy_run(runs / f"half.{SUFFIX}", directory / f"run.{SUFFIX}")
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


def without_beginning(content):
    return bytes(1000) + content[1000:]


@both_kinds
@pytest.mark.parametrize("damage", [zero_bytes, garbage, truncated, without_beginning])
def test_a_file_that_cannot_be_read_is_put_aside_and_made_again(file, whole, damage):
    content = file.read_bytes()
    for number in (1, 2):
        file.write_bytes(damage(content))
        aside = file.with_name(f"{file.name}.damaged-{number}")
        with pytest.warns(ResumeWarning, match=f"renamed to {aside.name}"):
            resume(file).storage.close()
        assert aside.read_bytes() == damage(content)
    check_that_it_goes_on(file, whole)


@both_kinds
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
@pytest.mark.parametrize("n_flips", [1, 300, 10_000])
def test_flipped_bits(file, whole, n_flips):
    """They are either not noticed, as where nothing is or in a coordinate, or the file is made again."""
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
    check_that_it_goes_on(file, whole)


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
    check_refused(file, (runs / f"other.{SUFFIX}").read_bytes(), "not hold the run of this checkpoint, but another")


def check_refused(file, content, message):
    """A file of this content is refused, unchanged, and nothing stands beside it."""
    file.write_bytes(content)
    before = sorted(file.parent.iterdir())
    with pytest.raises(ValueError, match=message):
        resume(file)
    assert sorted(file.parent.iterdir()) == before
    assert not checkpoint_of(file).with_suffix(".aimmd-wal").exists()
    storage = None
    if "another" in message or "disagree" in message:
        storage = open_storage(file)
        assert [step.mccycle for step in storage.steps] == list(range(len(storage.steps)))
        storage.close()


@netcdf_only
def test_files_that_are_no_ops_files_are_refused(file, directory):
    content = file.read_bytes()
    with netCDF4.Dataset(directory / "trajectory.nc", "w") as dataset:
        dataset.createDimension("frame", 3)
    check_refused(file, (directory / "trajectory.nc").read_bytes(), "no OPS file")
    check_refused(file, checkpoint_of(file).read_bytes(), "a simstore")
    with pytest.raises(ValueError, match="is a directory"):
        ops_aimmd.resume(directory, checkpoint_of(file))
    with pytest.raises(ValueError, match="is a simstore"):
        ops_aimmd.resume(checkpoint_of(file), checkpoint_of(file))
    file.write_bytes(content)
    resume(file).storage.close()


@pytest.mark.skipif(SUFFIX != "db", reason="of netCDF another signature is seen")
def test_a_database_that_is_no_ops_file_is_refused(file):
    before = checkpoint_of(file).read_bytes()
    with pytest.raises(ValueError, match="no OPS file"):
        ops_aimmd.resume(checkpoint_of(file), checkpoint_of(file))
    assert checkpoint_of(file).read_bytes() == before


BOTH_KINDS.append("test_a_database_that_is_no_ops_file_is_refused")


@both_kinds
@pytest.mark.parametrize("ahead", ["the checkpoint", "the file"])
def test_files_that_went_separate_ways_are_refused(file, directory, ahead):
    copy = copy_run(file, directory / f"copy.{SUFFIX}")
    run_to(resume(file), 9 if ahead == "the checkpoint" else 7)
    run_to(resume(copy), 7 if ahead == "the checkpoint" else 9)
    check_refused(file, copy.read_bytes(), "disagree on step 7")


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


def journal_of(file):
    """The journal that a process leaves which dies in the middle of a large transaction."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN")
    connection.execute("UPDATE details SET json = json || 'x'")
    journal = shutil.copy(f"{file}-journal", file.with_name("journal"))
    connection.execute("ROLLBACK")
    connection.close()
    return journal


BOTH_KINDS.append("test_a_journal_left_by_a_dead_process_is_not_applied_to_a_new_file")


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


BOTH_KINDS.append("test_what_was_saved_after_the_run_stays_in_the_file")


@netcdf_only
def test_a_file_with_the_steps_of_several_simulations(directory):
    chain = QuickChain()
    seed_everything(0)
    learner = CommittorLearner([chain.site], chain.states, seed=1)
    first = begin(directory / "run.nc", chain=chain)
    first.run(4)
    second = paths.PathSampling(first.storage, first.move_scheme, first.sample_set)
    second.output_stream = SILENCE
    second.run(5)
    first.storage.close()
    assert learner.has_seen_paths is False
    sampler = resume(directory / "run.nc")
    assert sampler.step == 4
    run_to(sampler, 6)
    assert numbers_in(directory / "run.nc") == [*range(5), *range(6), 5, 6]
