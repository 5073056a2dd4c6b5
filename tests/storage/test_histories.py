"""A simulation that is set back to an earlier step does not mix two histories."""

import re

import openpathsampling as paths
import pytest
from resume_support import SILENCE, begin, checkpoint_of, resume, run_to
from sampling_support import Chain, simulation

import ops_aimmd
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.storage.ops_files import open_storage, step_numbers
from ops_aimmd.storage.training_hook import TrainingHook


def set_back(sampler, number):
    sampler.restart_at_step(sampler.storage.steps[number], storage=sampler.storage)
    assert sampler.step == number


def without_the_check(monkeypatch):
    monkeypatch.setattr(TrainingHook, "_check_that_no_step_is_made_twice", lambda hook, sim: None)


def numbers(file):
    storage = open_storage(file)
    found = step_numbers(storage, str(storage.pathsimulators[0].__uuid__))
    storage.close()
    return found


def test_a_run_that_is_set_back_is_refused_and_nothing_changes(tmp_path):
    sampler = begin(tmp_path / "run.nc")
    sampler.run(10)
    learner = sampler.move_scheme.learner
    shots = len(learner.training_set)
    set_back(sampler, 5)
    words = r"stands at step 5.*run\.nc holds its steps up to 10.*ops_aimmd\.resume.*new PathSampling"
    with pytest.raises(ValueError, match=words):
        sampler.run(2)
    assert len(learner.training_set) == shots
    set_back(sampler, 10)  # the last step is where the run stands: it goes on
    run_to(sampler, 12)
    assert numbers(tmp_path / "run.nc") == list(range(13))
    with Checkpoint.open(checkpoint_of(tmp_path / "run.nc"), read_only=True) as file:
        assert file.step == 12


def test_without_files_the_memory_of_the_learner_counts():
    chain = Chain()
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(4)
    sampler.step = 2
    with pytest.raises(ValueError, match="the learner holds its steps up to 4"):
        sampler.run(1)


def test_a_hook_that_knows_nothing_of_the_run_asks_the_file(tmp_path):
    file = tmp_path / "run.nc"
    run_to(begin(file), 6)
    storage = paths.Storage(str(file), "a")
    sampler = storage.pathsimulators[0]
    sampler.output_stream = SILENCE
    sampler.restart_at_step(storage.steps[3], storage=storage)
    sampler.attach_hook(TrainingHook(sampler.move_scheme.learner))
    with pytest.raises(ValueError, match=re.escape(f"{file} holds its steps up to 6")):
        sampler.run(1)
    storage.close()
    assert numbers(file) == list(range(7))


def test_a_file_with_two_histories_is_not_resumed(tmp_path, monkeypatch):
    """Version 0.1.0 made such files. The checkpoint holds the first history, from which a new file can be made."""
    file = tmp_path / "run.nc"
    sampler = begin(file)
    sampler.run(6)
    with monkeypatch.context() as before:
        without_the_check(before)
        set_back(sampler, 3)
        run_to(sampler, 5)
    assert numbers(file) == [0, 1, 2, 3, 4, 5, 6, 4, 5]  # the control: this is what the check prevents
    with pytest.raises(
        ValueError, match="two histories.*step 6 is followed by step 4.*stands at step 6.*Move the OPS file"
    ):
        resume(file)
    file.rename(tmp_path / "two_histories.nc")
    with pytest.warns(ops_aimmd.runs.ResumeWarning, match="A new run.nc is made"):
        run_to(resume(file), 8)
    assert numbers(file) == list(range(9))
