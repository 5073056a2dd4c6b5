"""Processes that are forked after the import of OPS go on with each other's files."""

from child_processes import run_script
from openpathsampling.netcdfplus import StorableObject

from ops_aimmd.storage.forked_processes import COUNTED


def test_forked_processes_number_their_objects_differently(tmp_path):
    """Both are forked from one process, which has imported OPS, and numbers begin with bits of their own."""
    script = tmp_path / "numbers.py"
    script.write_text("import openpathsampling as paths\nprint(paths.Trajectory([]).__uuid__)\n")
    numbers = [int(run_script(script).stdout) for _ in range(2)] + [StorableObject.ACTIVE_LONG]
    assert len({number >> COUNTED for number in numbers}) == 3
    assert all(number % 2 == 0 for number in numbers)  # odd ones are OPS's reversed snapshots
