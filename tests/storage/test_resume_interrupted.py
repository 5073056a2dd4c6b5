"""Runs that end by an error or Ctrl-C, and what must be given again, or is refused, where they are resumed."""

import numpy as np
import openpathsampling as paths
import pytest
import torch
from resume_support import (
    SILENCE,
    WHOLE,
    At,
    Breakdown,
    begin,
    both_kinds,
    both_kinds_alike,
    check_same_run,
    check_that_it_goes_on,
    copy_run,
    fail,
    interrupt,
    leave,
    netcdf_only,
    numbers_in,
    resume,
    run_to,
    slow,
    stands_at,
    steps_in,
    steps_that_can_be_read,
    two_wells,
)
from sampling_support import QuickChain, site_descriptors

import ops_aimmd
from ops_aimmd import CommittorLearner
from ops_aimmd.checkpoint import Checkpoint, CheckpointLockedError
from ops_aimmd.sampling.learner_checkpoint import create_checkpoint
from ops_aimmd.storage.series_block import SeriesBlock, read_series

pytest_plugins = ["resume_fixtures"]


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


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


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


# ---- what must be given again ----------------------------------------------------------------------------------------


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


# ---- runs that cannot be resumed -------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"no OPS file.*load_learner.*ops_aimmd\.runs\.current_paths"):
        resume(directory / "run.nc")
    (path,) = ops_aimmd.runs.current_paths(directory / "run.aimmd", chain.engine)
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
    (path,) = ops_aimmd.runs.current_paths(directory / "run.aimmd", engine)
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
