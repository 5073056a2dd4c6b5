"""An OPS file that exists already gives the training set that its run would have given, in a process that never sampled."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import existing_files_script
import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
from existing_files_script import learned, site_descriptors, system_of

import ops_aimmd
from ops_aimmd import CommittorLearner, CommittorSelector, TrainingSet
from ops_aimmd.storage.existing_files import selection_table

SCRIPT = Path(existing_files_script.__file__)


def run_script(*arguments):
    process = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    yield directory
    shutil.rmtree(directory)  # every netCDF file has 100 MB


@pytest.fixture(scope="module")
def reports(directory):
    """What was known in the process that wrote the netCDF files."""
    return run_script("write", "netcdf", directory)


@pytest.fixture
def training_set(reports, directory):
    """The training set from a netCDF file."""

    def from_file(name, states=None, descriptors=None):
        file = directory / f"{name}.nc"
        known = system_of(file)
        return TrainingSet.from_storage(file, descriptors or known[0], states or known[1], progress=False)

    return from_file


def assert_equal_in_single_precision(report, found):
    """What OPS stores has a relative precision of 6e-8, and the coordinates of the toy systems are of the order of 1."""
    assert len(found["steps"]) > 15
    for name, expected in report.items():
        if name in ("descriptors", "predicted_committor"):
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6)
        elif name == "auxiliary":
            np.testing.assert_allclose(found[name][0], expected[0], rtol=0, atol=1e-6)
            assert found[name][1:] == expected[1:]
        else:
            assert found[name] == expected, name


@pytest.mark.parametrize("name", ["one-way", "two-way", "tis", "committor"])
def test_counts_of_ops_moves_are_those_of_ops(reports, training_set, name):
    found = learned(training_set(name))
    assert_equal_in_single_precision(reports[name], found)
    assert np.isnan(found["predicted_committor"]).all()  # nobody predicted, and nothing was invented
    assert set(found["velocity_origin"]) == {"boltzmann" if name == "committor" else "path"}
    shifted = {"descriptors": np.roll(found["descriptors"], 1, axis=0).tolist()}
    with pytest.raises(AssertionError):
        assert_equal_in_single_precision(shifted, found)


def test_two_simulations_in_one_file(training_set):
    assert training_set("two-way").steps.tolist() == [*range(1, 21), *range(1, 11)]


def test_several_replicas(training_set):
    assert len(set(training_set("tis").chains)) > 1


def test_both_outcomes_of_a_shot_are_one_row(training_set):
    assert set(training_set("two-way").counts.sum(axis=1)) == {1, 2}  # OPS leaves out the second leg of hopeless trials
    assert set(training_set("one-way").counts.sum(axis=1)) == {1}


@pytest.mark.parametrize("name", ["own", "own-one-way"])
def test_the_file_of_a_run_gives_the_training_set_of_its_learner(reports, training_set, name):
    found = learned(training_set(name))
    assert_equal_in_single_precision(reports[name], found)
    assert np.ptp(found["predicted_committor"]) > 0.1


def test_shots_of_which_only_the_ends_were_stored(reports, training_set):
    """All but the frames between, which are auxiliary."""
    found, report = learned(training_set("own-ends")), reports["own-ends"]
    assert_equal_in_single_precision({name: report[name] for name in existing_files_script.LEARNED}, found)
    ends = [np.array(kept["auxiliary"][0])[kept["auxiliary"][2]] for kept in (found, report)]
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-6)
    assert len(found["auxiliary shot"]) < len(report["auxiliary shot"])


def test_another_order_of_the_states(training_set):
    there = training_set("own")
    back = training_set("own", states=system_of(Path("own"))[1][::-1])
    assert np.array_equal(back.counts, there.counts[:, ::-1])
    assert np.array_equal(back.predicted_committor, there.predicted_committor[:, ::-1])
    assert not np.array_equal(back.counts, there.counts)


def test_simstore_files(directory):
    """In processes of their own: SimStore changes the classes of OPS."""
    reports = run_script("write", "simstore", directory)
    found = run_script("read", *(directory / f"{name}.db" for name in reports))
    for name, report in reports.items():
        assert_equal_in_single_precision(report, found[str(directory / f"{name}.db")])


def test_an_alanine_file_made_without_this_package_trains_a_committor(directory):
    report = run_script("alanine", "netcdf", directory)
    file = directory / "alanine.nc"
    descriptors, states = system_of(file)
    training_set = TrainingSet.from_storage(file, descriptors, states, progress=False)
    found = learned(training_set)
    assert found["counts"] == report["counts"] and found["steps"] == report["steps"]
    # float32 moves atoms by 6e-8 nm, angles by that over a bond length of 0.1 nm
    np.testing.assert_allclose(found["descriptors"], report["descriptors"], rtol=0, atol=1e-5)
    assert found["velocity_origin"] == ["path"] * 15 + ["boltzmann"] * (len(training_set) - 15)
    model = ops_aimmd.CommittorModel.for_descriptors(training_set.n_descriptors, n_states=2, seed=1)
    legs_to_C7ax = training_set.counts[:, 1]
    before = np.corrcoef(model.reaction_coordinate(training_set.descriptors), legs_to_C7ax)[0, 1]
    ops_aimmd.fit(model, training_set, seed=1)
    assert np.corrcoef(model.reaction_coordinate(training_set.descriptors), legs_to_C7ax)[0, 1] > max(0.4, before)
