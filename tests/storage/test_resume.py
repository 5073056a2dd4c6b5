"""A run that is resumed is the run that was never interrupted, with all kinds of moves.

The files are whole here; the other files `test_resume_*` are about what becomes of files and runs in the meantime.
"""

import gc
import shutil

import numpy as np
import openpathsampling as paths
import pytest
from openpathsampling.netcdfplus import WeakLRUCache
from resume_support import (
    HALF,
    SUFFIX,
    WHOLE,
    begin,
    both_kinds,
    both_kinds_alike,
    check_ops_analysis,
    check_same_run,
    check_that_it_goes_on,
    checkpoint_of,
    contents,
    copy_run,
    differences,
    equal_paths,
    netcdf_only,
    resume,
    run_to,
    same_steps,
    simulation,
    slow,
    steps_in,
    two_wells,
)
from sampling_support import QUICK_WITH_FRAMES, QuickChain, seed_everything, table_model

import ops_aimmd
from ops_aimmd import CommittorLearner, CommittorSelector
from ops_aimmd.runs import ResumeWarning
from ops_aimmd.sampling import CommittorShootingStrategy
from ops_aimmd.shooting.frame_blocks import frame_key
from ops_aimmd.storage.existing_files import selection_table

pytest_plugins = ["resume_fixtures"]


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


def branch(sampler, directory, step, last):
    """Let a run go on that stands at a step, and resume its copy; give the files of both."""
    whole, copy = directory / f"run.{SUFFIX}", directory / f"copy.{SUFFIX}"
    sampler.run(step - sampler.step)
    copy_run(whole, copy)
    run_to(sampler, last)
    run_to(resume(copy), last)
    return copy, whole


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
