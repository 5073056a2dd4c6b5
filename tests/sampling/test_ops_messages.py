"""A run begins and ends without what OPS and others write beside the point."""

import io
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import openpathsampling as paths
import pytest

from ops_aimmd.sampling.ops_messages import leave_cursor_alone

SCRIPT = """
import openpathsampling as paths
from sampling_support import Chain
import ops_aimmd
chain = Chain()
learner = chain.learner(seed=1)
scheme = chain.scheme(learner)
conditions = scheme.initial_conditions_from_trajectories(chain.initial())
print("conditions are made")
closed, left_open = (paths.Storage(f"{name}.nc", "w") for name in ("closed", "left_open"))
for storage in (closed, left_open):
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    sampler.run(2)
closed.close()
import openmmtools  # as OPS does when it reads one of its integrators
"""


def run_script(folder, script):
    (folder / "script.py").write_text(script)
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]), "PATH": "/usr/bin"}
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def test_a_script_that_only_reads(tmp_path):
    paths.Storage(str(tmp_path / "run.nc"), "w").close()
    opens = "import openpathsampling as paths\nstorage = paths.Storage('run.nc', 'r')\n"
    assert run_script(tmp_path, f"import ops_aimmd\n{opens}").stderr == ""
    assert "Dataset" in run_script(tmp_path, opens).stderr  # control


def test_a_script_that_writes_to_files(tmp_path):
    result = run_script(tmp_path, SCRIPT)
    assert result.stdout.startswith("conditions are made\n")
    assert "DONE! Completed 2 Monte Carlo cycles" in result.stdout
    assert "\x1b" not in result.stdout
    assert "excepthook" not in result.stderr and "pymbar" not in result.stderr
    for name in ("closed", "left_open"):
        with paths.Storage(str(tmp_path / f"{name}.nc"), "r") as storage:
            assert len(storage.steps) == 3


@pytest.mark.parametrize("is_terminal", [True, False])
def test_messages_of_a_terminal_are_refreshed(is_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    run = SimpleNamespace(output_stream=stream, allow_refresh=True)
    leave_cursor_alone(run)
    assert run.allow_refresh is is_terminal


def test_other_warnings_of_pymbar_are_heard(caplog):
    logger = logging.getLogger("pymbar.mbar_solvers")
    logger.warning("\n*** JAX NOT FOUND ***")
    logger.warning("the equations do not converge")
    assert [record.getMessage() for record in caplog.records] == ["the equations do not converge"]
