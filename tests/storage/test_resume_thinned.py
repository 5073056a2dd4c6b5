"""Runs resumed with a file or a checkpoint that does not keep all paths, or not all of their frames."""

import json
import shutil
from contextlib import closing

import numpy as np
import openpathsampling as paths
import pytest
import resume_support
from child_processes import run_script
from resume_support import (
    HALF,
    WHOLE,
    At,
    Breakdown,
    begin,
    begin_alanine,
    checkpoint_of,
    contents,
    copy_run,
    differences,
    fail,
    leave,
    netcdf_only,
    numbers_in,
    resume,
    run_to,
    slow,
    stands_at,
    steps_in,
    steps_that_can_be_read,
)
from sampling_support import QuickChain

import ops_aimmd
from ops_aimmd.analysis.series import step_table
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs import ResumeWarning
from ops_aimmd.storage.ops_files import open_storage
from ops_aimmd.storage.series_block import read_series

pytest_plugins = ["resume_fixtures"]


# ---- paths are not kept ----------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("ops_aimmd.shooting.frame_blocks.can_be_kept", lambda snapshot: False)
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
        ops_aimmd.runs.current_paths(checkpoint_of(file), sampler.move_scheme.movers["shooting"][0].engine)
    with pytest.raises(ValueError, match="path_stride needs frames that the checkpoint can hold"):
        begin(directory / "thin.nc", path_stride=2).run(1)


# ---- thinning --------------------------------------------------------------------------------------------------------


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


@netcdf_only
def test_alanine_dipeptide_on_the_reference_platform(directory):
    """Of rejected trials only the ends are stored."""
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
