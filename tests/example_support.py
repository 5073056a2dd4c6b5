"""Runs an example and looks at what it leaves."""

import os
import subprocess
import sys
from pathlib import Path

from child_processes import run_script

EXAMPLES = Path(__file__).parents[1] / "examples"

WRITTEN = {
    "01_alanine_dipeptide.py": [f"alanine_dipeptide.{extension}" for extension in ("nc", "aimmd", "png", "html")],
    "02_exact_committor.py": ["exact_committor.png"],
    "03_existing_file.py": ["plain.nc", "guided.nc", "guided.aimmd", "existing_file.png"],
    "04_licl.py": ["licl.nc", "licl.aimmd", "licl.png"],
    "05_machine_learned_potential.py": [f"learned_potential.{extension}" for extension in ("nc", "aimmd", "png")],
    "06_alanine_in_solvent.py": [f"alanine_in_solvent.{extension}" for extension in ("nc", "aimmd", "png", "html")],
    "07_many_chains.py": [f"many_chains.{extension}" for extension in ("nc", "aimmd", "png", "html")],
}
LONGER = {"06_alanine_in_solvent.py": [], "07_many_chains.py": ["--processes", "1"]}
"""Examples with a file of tests of their own, so that two processes share the time, and their further options."""

SLOW = {"04_licl.py", "05_machine_learned_potential.py"}
OF_THE_README = "01_alanine_dipeptide.py"
"""This one begins as a user begins it, imports included."""


def run_example(name, folder, *options):
    if name == OF_THE_README:
        command = [sys.executable, str(EXAMPLES / name), *options]
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    else:
        result = run_script(EXAMPLES / name, *options, folder=folder, MPLBACKEND="Agg")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout and "strategy #" not in result.stdout
    assert "excepthook" not in result.stderr and "pymbar" not in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(WRITTEN[name])
    assert all((folder / file).stat().st_size > 1000 for file in WRITTEN[name])
