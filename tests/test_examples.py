"""The examples run in their quick form and leave what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_processes import run_script

EXAMPLES = Path(__file__).parents[1] / "examples"


WRITTEN = {
    "01_alanine_dipeptide.py": [f"alanine_dipeptide.{extension}" for extension in ("nc", "aimmd", "png", "html")],
    "02_exact_committor.py": ["exact_committor.png"],
    "03_existing_file.py": ["plain.nc", "guided.nc", "guided.aimmd", "existing_file.png"],
    "04_licl.py": ["licl.nc", "licl.aimmd", "licl.png"],
    "05_machine_learned_potential.py": [f"learned_potential.{extension}" for extension in ("nc", "aimmd", "png")],
    "07_many_chains.py": [f"many_chains.{extension}" for extension in ("nc", "aimmd", "png", "html")],
    "06_alanine_in_solvent.py": [f"alanine_in_solvent.{extension}" for extension in ("nc", "aimmd", "png", "html")],
}
OPTIONS = {"07_many_chains.py": ["--processes", "1"]}
SLOW = {"04_licl.py", "05_machine_learned_potential.py"}
OF_THE_README = "01_alanine_dipeptide.py"
"""This one begins as a user begins it, imports included."""


@pytest.mark.parametrize(
    "name, written",
    [pytest.param(*case, marks=pytest.mark.slow if case[0] in SLOW else ()) for case in WRITTEN.items()],
)
def test_example(name, written, tmp_path):
    run_example(name, written, tmp_path, "--quick", *OPTIONS.get(name, []))


@pytest.mark.slow
def test_many_chains_from_climbs(tmp_path):
    """The search for first paths takes a minute, and the quick form leaves it out."""
    name = "07_many_chains.py"
    run_example(name, WRITTEN[name], tmp_path, "--chains", "2", "--steps", "4")


def run_example(name, written, tmp_path, *options):
    if name == OF_THE_README:
        command = [sys.executable, str(EXAMPLES / name), *options]
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    else:
        result = run_script(EXAMPLES / name, *options, folder=tmp_path, MPLBACKEND="Agg")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout and "strategy #" not in result.stdout
    assert "excepthook" not in result.stderr and "pymbar" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)
    assert all((tmp_path / file).stat().st_size > 1000 for file in written)


def test_an_example_does_not_overwrite(tmp_path):
    (tmp_path / "alanine_dipeptide.aimmd").write_text("precious")
    result = run_script(EXAMPLES / OF_THE_README, "--quick", folder=tmp_path)
    assert result.returncode != 0
    assert "exists" in result.stderr
    assert (tmp_path / "alanine_dipeptide.aimmd").read_text() == "precious"


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(WRITTEN)
