"""An OPS file that exists already gives the training set that its run would have given, in a process that never sampled."""

import functools
import gc
import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import existing_files_script
import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
from child_processes import result_of
from existing_files_script import learned, site_descriptors, system_of
from openpathsampling.engines.toy import Snapshot
from sampling_support import Chain

import ops_aimmd
from ops_aimmd import CommittorLearner, CommittorSelector, TrainingSet
from ops_aimmd.storage.existing_files import selection_table

WEIGHTS = ["selection_probability_old", "selection_probability_new", "weight_sum_old", "weight_sum_new"]


def run_script(*arguments):
    return result_of(existing_files_script.__file__, *arguments)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def reports(directory):
    """What was known in the process that wrote the netCDF files."""
    return run_script("write", "netcdf", directory)


@pytest.fixture(scope="module")
def training_set(reports, directory):
    """The training set from a netCDF file."""

    @functools.cache
    def from_file(name):
        return TrainingSet.from_storage(directory / f"{name}.nc", *system_of(Path(name)), progress=False)

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


@pytest.mark.parametrize("name", ["one-way", "two-way", "tis", "tis-two-way", "committor"])
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
    assert set(training_set("tis-two-way").counts.sum(axis=1)) == {1}  # the second legs there are no fair trials


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


def test_another_order_of_the_states(training_set, directory):
    there = training_set("own")
    descriptors, states = system_of(Path("own"))
    back = TrainingSet.from_storage(directory / "own.nc", descriptors, states[::-1], progress=False)
    assert np.array_equal(back.counts, there.counts[:, ::-1])
    assert np.array_equal(back.predicted_committor, there.predicted_committor[:, ::-1])
    assert not np.array_equal(back.counts, there.counts)


@pytest.mark.slow
def test_simstore_files(directory):
    """In processes of their own: SimStore changes the classes of OPS."""
    reports = run_script("write", "simstore", directory)
    damaged = directory / "damaged.db"
    shutil.copy(directory / "one-way.db", damaged)
    with sqlite3.connect(damaged) as database:
        database.execute("DELETE FROM details WHERE uuid = (SELECT max(uuid) FROM details WHERE json LIKE '%shooting%')")
    found = run_script("read", damaged, *(directory / f"{name}.db" for name in reports))
    for name, report in reports.items():
        assert_equal_in_single_precision(report, found[str(directory / f"{name}.db")])
    assert found[str(damaged)]["steps"] == found[str(directory / "one-way.db")]["steps"][:-1]


@pytest.mark.slow  # test_older_files reads a file of alanine dipeptide, too
def test_an_alanine_file_made_without_this_package_trains_a_committor(directory):
    report = run_script("alanine", "netcdf", directory)
    file = directory / "alanine.nc"
    descriptors, states = system_of(file)
    training_set = TrainingSet.from_storage(file, descriptors, states, progress=False)
    found = learned(training_set)
    assert found["counts"] == report["counts"] and found["steps"] == report["steps"]
    # float32 moves atoms by 6e-8 nm, angles by that over a bond length of 0.1 nm
    np.testing.assert_allclose(found["descriptors"], report["descriptors"], rtol=0, atol=1e-5)
    assert found["velocity_origin"] == ["path"] * 14 + ["boltzmann"] * 4
    model = ops_aimmd.CommittorModel.for_descriptors(training_set.n_descriptors, n_states=2, seed=1)
    legs_to_C7ax = training_set.counts[:, 1]
    before = np.corrcoef(model.reaction_coordinate(training_set.descriptors), legs_to_C7ax)[0, 1]
    ops_aimmd.fit(model, training_set, seed=1)
    assert np.corrcoef(model.reaction_coordinate(training_set.descriptors), legs_to_C7ax)[0, 1] > max(0.4, before)


# ---- files and states that do not fit --------------------------------------------------------------------------------


def test_states_that_no_leg_reached(reports, directory):
    chain = Chain()
    states = [chain.states[0], chain.volume(9).named("nowhere")]
    with pytest.raises(ValueError, match=r"no leg reached \['nowhere'\]: of 40 legs .*'A': \d+, 'nowhere': 0"):
        TrainingSet.from_storage(directory / "one-way.nc", site_descriptors, states, progress=False)


def test_a_state_of_the_run_that_was_left_out(reports, directory):
    descriptors, (A, B) = system_of(Path("own"))
    lower = paths.CVDefinedVolume(A.collectivevariable, 0.0, 0.15).named("lower A")
    with pytest.raises(ValueError, match=r"legs stopped in a state that is not among \['lower A', 'B'\]"):
        TrainingSet.from_storage(directory / "own.nc", descriptors, [lower, B], progress=False)


def test_a_file_of_a_reactive_flux_simulation(tmp_path):
    chain = Chain()
    storage = paths.Storage(str(tmp_path / "flux.nc"), "w")
    simulation = paths.ReactiveFluxSimulation(
        storage, chain.engine, chain.states, paths.NoModification(as_copy=True), [chain.path([3])[0]], chain.site
    )
    simulation.output_stream = open(os.devnull, "w")
    simulation.run(3)
    storage.close()
    with pytest.raises(ValueError, match="3 steps of a reactive-flux simulation.*openpathsampling.CommittorSimulation"):
        TrainingSet.from_storage(tmp_path / "flux.nc", site_descriptors, chain.states, progress=False)


def test_a_file_without_shots(tmp_path):
    storage = paths.Storage(str(tmp_path / "empty.nc"), "w")
    with pytest.raises(ValueError, match="empty.nc holds no shooting move"):
        TrainingSet.from_storage(storage, site_descriptors, Chain().states, progress=False)
    storage.close()


@pytest.fixture
def damaged(reports, directory):
    """One step has lost its move, and the last one a frame."""
    file = directory / "damaged.nc"
    shutil.copy(directory / "one-way.nc", file)
    with netCDF4.Dataset(file, "a") as data:
        data.variables["steps_change"][5] = str(uuid.UUID(int=2**100))
        data.variables["snapshot0_coordinates"][-1] = netCDF4.default_fillvals["f4"]
    return file


def test_unreadable_steps_are_passed_over(reports, damaged):
    with pytest.warns(UserWarning, match="2 of 41 steps in .*damaged.nc cannot be read .* number 5") as caught:
        training_set = TrainingSet.from_storage(damaged, *system_of(damaged), progress=False)
    (ours,) = (warning for warning in caught if "cannot be read" in str(warning.message))
    assert ours.filename == __file__
    rows = [row for row, step in enumerate(reports["one-way"]["steps"]) if step not in (5, 40)]
    assert training_set.steps.tolist() == [reports["one-way"]["steps"][row] for row in rows]
    assert training_set.counts.tolist() == [reports["one-way"]["counts"][row] for row in rows]


@pytest.mark.filterwarnings("error:.*cannot be read:UserWarning")
def test_a_file_that_was_opened_a_second_time_can_still_be_read(reports, directory):
    """OPS's placeholders of the process would look for their content in the copy that is closed."""
    file = directory / "one-way.nc"
    with closing(paths.Storage(str(file), "r")) as storage:
        sources = (file, storage)
        found = [TrainingSet.from_storage(source, *system_of(file), progress=False) for source in sources]
    assert len(found[0]) > 15 and np.array_equal(found[0].descriptors, found[1].descriptors)


def test_an_error_of_the_user_is_no_unreadable_step(reports, directory):
    def undefined_in_the_middle(trajectory):
        return np.where(site_descriptors(trajectory) == 3, np.nan, 1.0)

    with pytest.raises(ValueError, match="NaN or infinite in frames"):
        TrainingSet.from_storage(directory / "one-way.nc", undefined_in_the_middle, Chain().states, progress=False)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def new_objects_of():
    """Counts the objects of a class that were made since the test began."""
    gc.collect()
    gc.freeze()

    def count(kind):
        gc.collect()
        return sum(type(thing) is kind for thing in gc.get_objects())

    yield count
    gc.unfreeze()


def test_frames_of_two_steps_are_in_memory_at_a_time(reports, directory, new_objects_of):
    storage = paths.Storage(str(directory / "one-way.nc"), "r")
    caches = [store.cache for store in storage.stores]
    most = 0

    def watched(trajectory):
        nonlocal most
        most = max(most, new_objects_of(Snapshot))
        return site_descriptors(trajectory)

    TrainingSet.from_storage(storage, watched, Chain().states, progress=False)
    assert all(store.cache is cache for store, cache in zip(storage.stores, caches, strict=True))
    assert new_objects_of(Snapshot) == 0
    for path in storage.trajectories:
        site_descriptors(path)
    everything = new_objects_of(Snapshot)
    storage.close()
    assert 0 < most < everything / 3


# ---- selection weights -----------------------------------------------------------------------------------------------


def details_of(file):
    """Details of the shots of a file by step."""
    storage = paths.Storage(str(file), "r")
    found = {step.mccycle: vars(step.change.canonical.details) for step in storage.steps if step.mccycle > 0}
    storage.close()
    return found


def stored_weights(details):
    return np.array([[np.nan if shot[name] is None else shot[name] for name in WEIGHTS] for shot in details])


def test_each_model_version_gives_the_stored_weights_of_its_steps(reports, directory):
    """Coordinates of single precision, and weights that change by some units from one unit of length to the next."""
    file = directory / "own.nc"
    details = details_of(file)
    versions = {shot["model_version"] for shot in details.values()}
    assert len(versions) > 2
    differences = []
    for version in versions:
        learner = ops_aimmd.load_learner(directory / "own.aimmd", *system_of(file), version=version)
        table = selection_table(file, CommittorSelector(learner), progress=False)
        stored = stored_weights(details.values())
        mine = np.array([shot["model_version"] == version for shot in details.values()])
        np.testing.assert_allclose(table[WEIGHTS].to_numpy()[mine], stored[mine], rtol=1e-4)
        assert table["step"].tolist() == list(details)
        differences.append(np.abs(table[WEIGHTS].to_numpy() / stored - 1)[~mine])
    assert np.nanmax(np.concatenate(differences)) > 0.01  # control: the versions differ


def uniform_selector(descriptors, states):
    return CommittorSelector(CommittorLearner(descriptors, states, seed=1), weight="uniform", density_adaptation=False)


@pytest.mark.parametrize("name", ["one-way", "own-one-way"])
def test_ratio_of_probabilities_is_the_acceptance(reports, directory, name):
    """OPS picks uniformly in "one-way"; the control is a run that was guided."""
    file = directory / f"{name}.nc"
    table = selection_table(file, uniform_selector(*system_of(file)), progress=False)
    acceptance = [details["metropolis_acceptance"] for details in details_of(file).values()]
    ratio = table["selection_probability_new"] / table["selection_probability_old"]
    assert np.allclose(ratio.fillna(0.0), acceptance, rtol=1e-6) == (name == "one-way")
    assert 0 < ratio.isna().sum() < len(table)
    np.testing.assert_allclose(table["weight_sum_old"] * table["selection_probability_old"], 1.0)


def test_rejected_trials_of_which_only_the_ends_were_stored_have_no_new_weights(reports, directory):
    selector = uniform_selector(*system_of(Path("own")))
    whole, ends = (selection_table(directory / f"{name}.nc", selector, progress=False) for name in ("own", "own-ends"))
    old = ["selection_probability_old", "weight_sum_old"]
    assert (ends[old] == whole[old]).all().all()
    assert ends["weight_sum_new"].notna().equals(ends["accepted"])
    assert whole["weight_sum_new"].notna().sum() > whole["accepted"].sum()  # control: some rejected trials were paths


def test_paths_stored_with_a_stride_are_refused(reports, training_set, directory):
    file = directory / "own-stride.nc"
    with pytest.raises(ValueError, match="step 1: of its paths one frame in 3 was stored"):
        selection_table(file, uniform_selector(*system_of(file)), progress=False)
    report = reports["own-stride"]
    found = learned(training_set("own-stride"))  # but they can be learned from
    assert_equal_in_single_precision({name: report[name] for name in existing_files_script.LEARNED}, found)


def test_shooting_points_inside_a_state_are_refused(reports, directory):
    chain = Chain(with_middle_state=True)
    with pytest.raises(ValueError, match="has no chance of being picked: it lies in a state"):
        selection_table(directory / "one-way.nc", uniform_selector(site_descriptors, chain.states), progress=False)
