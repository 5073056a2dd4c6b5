"""The series in the file of a run: what OPS itself has in its steps, readable without OPS, whole after a kill."""

import doctest
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import netCDF4
import numpy as np
import openpathsampling as paths
import pandas as pd
import pytest
from child_processes import run_code
from netcdf_files import in_memory
from openpathsampling.experimental.storage import Storage as SimStore
from sampling_support import QUICK

import ops_aimmd
from ops_aimmd.analysis.series import step_table
from ops_aimmd.sampling.step_records import COLUMNS
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.storage.series_block import SeriesBlock, read_series
from ops_aimmd.systems import toy

N_STEPS = 12
LEGS = ("backward", "forward")
SCALARS = (
    "shooting_index selection_probability_old selection_probability_new weight_sum_old weight_sum_new seed model_version "
    "frozen"
).split()


def run(storage, n_steps, shooting="two-way", stock=False, on_step=lambda results: None):
    """Sample the two wells; `on_step` sees every step before it is stored. Gives the states and the steps."""
    system = toy.wolfe_quapp(n_steps_per_frame=30)  # a netCDF file takes milliseconds for each frame
    learner = ops_aimmd.CommittorLearner([system.descriptors], system.states, seed=1, fit_options=QUICK)
    network = system.network()
    if stock:
        scheme = paths.OneWayShootingMoveScheme(network, paths.UniformSelector(), engine=system.engine)
    else:
        scheme = ops_aimmd.CommittorShootingScheme(network, learner, system.engine, shooting, max_length=300)
    seed_step(1, 0)
    conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(1))
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    return system.states, go_on(sampler, n_steps, on_step)


def go_on(sampler, n_steps, on_step):
    steps = []

    def after_step(sim, step_number, step_info, state, results, hook_state):
        steps.append(results)
        on_step(results)

    sampler.output_stream = open(os.devnull, "w")
    sampler.hooks["after_step"].insert(0, after_step)
    sampler.run(n_steps)
    return steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A file with steps and series, and what OPS reads from it."""
    file = str(tmp_path_factory.mktemp("series") / "run.nc")
    storage = paths.Storage(file, "w")
    block = SeriesBlock(storage, toy.wolfe_quapp().states, run_id="this run")

    def record(step):
        block.append(step)
        block.flush()

    states, _ = run(storage, N_STEPS, on_step=record)
    storage.close()
    return SimpleNamespace(file=file, states=states, table=table_of(file, states), details=details_of(file))


@pytest.fixture
def copy(finished, tmp_path):
    """The file again, to be changed."""
    return shutil.copy(finished.file, tmp_path / "copy.nc")


def table_of(file, states):
    storage = in_memory(paths.Storage(file, "r"))
    table = step_table(storage.steps, states)
    storage.close()
    return table


def details_of(file):
    storage = in_memory(paths.Storage(file, "r"))
    details = [vars(step.change.canonical.details).copy() for step in storage.steps if step.mccycle > 0]
    storage.close()
    return details


def assert_same(values, table):
    for name in COLUMNS:
        assert np.array_equal(np.asarray(values[name], float), table[name].astype(float), equal_nan=True), name


def read_without_ops(file, tmp_path):
    """The lines of the docstring of `read_series`, in a process that imports nothing else."""
    lines = [e.source.replace("run.nc", file) for e in doctest.DocTestParser().get_examples(read_series.__doc__)]
    script = (
        f"{''.join(lines[:-1])}values = {lines[-1]}import sys, numpy as np\n"
        "arrays = {name: np.ma.filled(value.astype(float), np.nan) for name, value in values.items()}\n"
        f"np.savez({str(tmp_path / 'values.npz')!r}, **arrays)\n"
        "print(series.states, sorted({'ops_aimmd', 'openpathsampling', 'netCDF4', 'pandas'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    return np.load(tmp_path / "values.npz"), process.stdout.strip()


def test_netcdf4_alone_reads_what_ops_reads(finished, tmp_path):
    values, said = read_without_ops(finished.file, tmp_path)
    assert said == "['A', 'B'] ['netCDF4']"
    assert len(finished.table) == N_STEPS
    assert_same(values, finished.table)
    for name in (*SCALARS, "predicted_committor", "leg_outcomes", "leg_lengths"):
        expected = np.array([details[name] for details in finished.details], dtype=float)  # None becomes NaN
        assert np.array_equal(values[name], expected, equal_nan=True), name
    rejected = np.isnan(values["selection_probability_new"])
    assert 0 < rejected.sum() < N_STEPS  # both kinds were looked at


def test_the_table_is_that_of_the_steps(finished):
    table = read_series(finished.file)
    pd.testing.assert_frame_equal(table[COLUMNS], finished.table)
    assert np.array_equal(table[[f"leg_outcomes_{leg}" for leg in LEGS]], [d["leg_outcomes"] for d in finished.details])
    committor = table[["predicted_committor_0", "predicted_committor_1"]]
    assert np.array_equal(committor, [d["predicted_committor"] for d in finished.details])
    with pytest.raises(AssertionError):  # the comparison sees one wrong number
        pd.testing.assert_frame_equal(table[COLUMNS].replace({"step": {3: 4}}), finished.table)


def test_every_variable_says_what_it_is(finished):
    with netCDF4.Dataset(finished.file) as file:
        group = file["ops_aimmd"]
        assert all(variable.long_name and variable.units for variable in group.variables.values())
        assert (group.run_id, group.states, group.ops_aimmd_version) == ("this run", ["A", "B"], ops_aimmd.__version__)


def test_ops_goes_on_with_the_file(finished, copy):
    storage = paths.Storage(copy, "a")
    simulation = storage.pathsimulators[0]
    simulation.restart_at_step(storage.steps[-1], storage=storage)
    states = list(simulation.move_scheme.movers["shooting"][0].states)
    block = SeriesBlock(storage, states, "this run")
    assert block.last_step == N_STEPS
    go_on(simulation, 3, block.append)
    block.flush()
    storage.close()
    table = table_of(copy, states)
    assert table["step"].tolist() == list(range(1, N_STEPS + 4))
    pd.testing.assert_frame_equal(read_series(copy)[COLUMNS], table)
    pd.testing.assert_frame_equal(table[:N_STEPS], finished.table)


@pytest.mark.parametrize("stock", [False, True])
def test_one_way_moves_with_and_without_details(tmp_path, stock):
    storage = paths.Storage(str(tmp_path / "run.nc"), "w")
    states, steps = run(None, 8, "one-way", stock)
    block = SeriesBlock(storage, states)
    for step in steps:
        block.append(step)
    block.flush()
    storage.close()
    table = read_series(tmp_path / "run.nc")
    pd.testing.assert_frame_equal(table[COLUMNS], step_table(steps, states))
    outcomes, lengths = (table[[f"leg_{what}_{leg}" for leg in LEGS]].to_numpy() for what in ("outcomes", "lengths"))
    assert ((lengths > 0).sum(axis=1) == 1).all() and (outcomes[lengths == 0] == -1).all()
    assert (lengths.sum(axis=1) - 1 == table["frames"]).all() and (outcomes[lengths > 0] >= 0).any()
    unknown = table[["model_version", "frozen", "seed", "predicted_committor_0", "weight_sum_old"]].isna()
    assert unknown.all(axis=None) if stock else not unknown.any(axis=None)
    with netCDF4.Dataset(tmp_path / "run.nc") as file:
        masked = [np.ma.getmaskarray(file["ops_aimmd"][name][:]) for name in ("model_version", "frozen", "seed")]
    assert np.all(masked) if stock else not np.any(masked)
    details = [step.change.canonical.details for step in steps]
    indices = [d.initial_trajectory.index(d.shooting_snapshot) for d in details]
    assert table["shooting_index"].tolist() == indices


def keep_rows(file, n_rows):
    """Make a file as a killed process would leave it: rows from a number on are incomplete."""
    with netCDF4.Dataset(file, "a") as dataset:
        steps = dataset["ops_aimmd"]["step"]
        steps[n_rows:] = steps.getncattr("_FillValue")


def test_rows_written_together_are_those_written_one_by_one(finished, copy):
    keep_rows(copy, 0)
    storage = paths.Storage(copy, "a")
    block = SeriesBlock(storage, finished.states)
    for step in storage.steps:
        block.append(step)
    assert block.last_step == N_STEPS  # also before they are written
    block.flush()
    block.flush()
    storage.close()
    pd.testing.assert_frame_equal(read_series(copy), read_series(finished.file))


def test_a_row_is_written_once(finished, copy):
    keep_rows(copy, 7)
    storage = paths.Storage(copy, "a")
    block = SeriesBlock(storage, finished.states)
    block.append(storage.steps[8])
    for number in (7, 8):  # written, and waiting to be
        with pytest.raises(ValueError):
            block.append(storage.steps[number])
    assert block.last_step == 8
    block.flush()
    storage.close()
    pd.testing.assert_frame_equal(read_series(copy), read_series(finished.file)[:8])


@pytest.mark.parametrize("unwritten", ["step", "accepted", "expected", "leg_lengths", "seed"])
def test_rows_from_the_first_incomplete_one_on_do_not_count(finished, copy, unwritten):
    """A kill may lose a piece of any variable, also with whole rows behind it."""
    with netCDF4.Dataset(copy, "a") as file:
        variable = file["ops_aimmd"][unwritten]
        variable[9] = variable.getncattr("_FillValue")
    whole = read_series(finished.file)
    pd.testing.assert_frame_equal(read_series(copy), whole[:9])
    storage = paths.Storage(copy, "a")
    block = SeriesBlock(storage, finished.states)
    assert block.last_step == 9
    block.append(storage.steps[10])
    block.flush()
    storage.sync()
    block = SeriesBlock(storage, finished.states)
    assert block.last_step == 10  # the old rows 11 and 12 have not come back
    block.append(storage.steps[11])
    block.append(storage.steps[12])
    block.flush()
    storage.close()
    pd.testing.assert_frame_equal(read_series(copy), whole)


def test_one_variable_longer_than_the_others(finished, copy):
    with netCDF4.Dataset(copy, "a") as file:
        file["ops_aimmd"]["accepted"][N_STEPS : N_STEPS + 3] = 1
        assert len(file["ops_aimmd"]["step"]) == N_STEPS + 3
        for name in set(file["ops_aimmd"].variables) - {"accepted"}:  # what the docstring of read_series promises
            assert np.ma.getmaskarray(file["ops_aimmd"][name][:])[N_STEPS:].all(), name
    pd.testing.assert_frame_equal(read_series(copy), read_series(finished.file))


KILLED = """
import os, signal, sys
import openpathsampling as paths
from ops_aimmd.storage.series_block import SeriesBlock
storage = paths.Storage(sys.argv[1], "a")
states = list(storage.pathsimulators[0].move_scheme.movers["shooting"][0].states)
block = SeriesBlock(storage, states)
for step in storage.steps[1:9]:
    block.append(step)
block.flush()
storage.sync()
block.append(storage.steps[9])
block.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_synced_survives_a_kill(finished, copy, tmp_path):
    keep_rows(copy, 0)
    process = run_code(KILLED, tmp_path, copy)
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    table = read_series(copy)
    assert len(table) in (8, 9)
    pd.testing.assert_frame_equal(table, read_series(finished.file)[: len(table)])
    storage = paths.Storage(copy, "a")
    block = SeriesBlock(storage, finished.states)
    for step in storage.steps[block.last_step + 1 :]:
        block.append(step)
    block.flush()
    storage.close()
    pd.testing.assert_frame_equal(read_series(copy), read_series(finished.file))


def test_only_open_netcdf_files_hold_series(finished, copy, tmp_path):
    storage = paths.Storage(copy, "a")
    assert SeriesBlock.possible(storage)
    storage.close()
    read_only = paths.Storage(copy, "r")
    for wrong in (storage, read_only, SimStore(str(tmp_path / "run.db"), "w"), None):
        assert not SeriesBlock.possible(wrong)
        with pytest.raises(ValueError, match="netCDF file of OPS that is open for writing"):
            SeriesBlock(wrong, finished.states)
    read_only.close()


def test_series_of_another_run_or_other_states_are_refused(finished, copy):
    storage = paths.Storage(copy, "a")
    with pytest.raises(ValueError, match="of the run 'this run', got 'another'"):
        SeriesBlock(storage, finished.states, "another")
    with pytest.raises(ValueError, match=r"of the states \['A', 'B'\], got \['B', 'A'\]"):
        SeriesBlock(storage, finished.states[::-1])
    SeriesBlock(storage, finished.states)
    storage.close()


def test_a_file_without_series(tmp_path):
    netCDF4.Dataset(tmp_path / "other.nc", "w").close()
    with pytest.raises(ValueError, match="no group 'ops_aimmd'"):
        read_series(tmp_path / "other.nc")
