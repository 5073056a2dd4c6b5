"""What was stored comes back in a fresh process, from both stores of OPS, and nothing of it is silently null."""

import json
import subprocess
import sys

import numpy as np
import pytest
import storage_script
from child_processes import result_of


def run_script(*arguments):
    return result_of(storage_script.__file__, *arguments)


@pytest.fixture(scope="module")
def netcdf_run(tmp_path_factory):
    """The netCDF file of a run, and what was known when it was written."""
    file = tmp_path_factory.mktemp("storage") / "run.nc"
    return file, json.loads(json.dumps(storage_script.write("netcdf", str(file))))


@pytest.fixture(scope="module", params=["netcdf", "simstore"])
def written_and_read(request, netcdf_run, tmp_path_factory):
    file, written = netcdf_run
    if request.param == "simstore":  # changes the classes of OPS in its process
        file = tmp_path_factory.mktemp("storage") / "run.db"
        written = run_script("write", "simstore", file)
    return written, run_script("read", request.param, file)


def test_details_of_every_step_come_back(written_and_read):
    written, read = written_and_read
    assert len(written["details"]) == len(read["details"]) == storage_script.N_STEPS
    assert any(details["trial_reversed"] for details in read["details"])
    for before, after in zip(written["details"], read["details"], strict=True):
        assert after == before
        known = {name for name, value in after.items() if value is not None}
        assert known >= set(before) - {"selection_probability_new", "weight_sum_new"}
        joined = sorted(after["leg_outcomes"]) == [0, 1] and "stopping_reason" not in after
        assert (after["selection_probability_new"] is not None) == joined


def test_scheme_mover_selector_and_learner_come_back(written_and_read):
    _, read = written_and_read
    assert read["scheme"] == ["CommittorShootingScheme", 6]
    assert read["mover"] == ["ShootingMover", "both", 80, "BoltzmannVelocities", 80]
    assert read["mover parts"] == ["wolfe_quapp", True, ["A", "B"]]
    assert read["selector"] == ["CommittorSelector", "gaussian", 1.5, True, [[0, 1]]]
    assert read["learner"] == [6, ["A", "B"], 2]
    assert read["one-way"] == [["ShootingMover", legs, 60, 6] for legs in ("forward", "backward")]
    assert read["committor"] and read["picks"] and read["network alone"]


def test_functions_are_kept_by_name_and_asked_for_again(written_and_read):
    _, read = written_and_read
    assert read["function"] == ["function weight", None]
    assert "make the selector again" in read["function error"]


def test_hook_comes_back(written_and_read):
    assert written_and_read[0]["hook"]


def test_the_run_goes_on(written_and_read):
    step, learned_from = written_and_read[1]["goes on"]
    assert step == storage_script.N_STEPS + 3
    assert learned_from and set(learned_from) <= {storage_script.N_STEPS + i for i in (1, 2, 3)}


def test_the_table_of_a_running_simulation_is_that_of_its_file(written_and_read):
    written, read = written_and_read
    assert written["table"].keys() == read["table"].keys()
    for name, column in written["table"].items():
        assert np.array_equal(column, read["table"][name], equal_nan=True), name


WITHOUT_THE_PACKAGE = """
import sys
import openpathsampling as paths
storage = paths.Storage(sys.argv[1], "r")
for step in storage.steps:
    path = step.active[0].trajectory
    print(len(path), path[0].coordinates.shape, getattr(step.change.canonical.details, "leg_outcomes", None))
assert "ops_aimmd" not in sys.modules
"""


def test_without_the_package_a_netcdf_file_gives_paths_and_details(netcdf_run):
    file, written = netcdf_run
    read = subprocess.run([sys.executable, "-c", WITHOUT_THE_PACKAGE, file], capture_output=True, text=True, check=True)
    lines = read.stdout.splitlines()
    assert len(lines) == storage_script.N_STEPS + 1
    lengths = [int(line.split()[0]) for line in lines]
    assert lengths[1:] == written["table"]["path_length"]
    outcomes = [line.split(") ")[1] for line in lines[1:]]
    assert outcomes == [str(details["leg_outcomes"]) for details in written["details"]]
