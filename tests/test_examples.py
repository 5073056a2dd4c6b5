"""The examples run in their quick form and leave what they promise; see also `test_longer_examples`."""

import pytest
from child_processes import run_script
from example_support import EXAMPLES, LONGER, OF_THE_README, SLOW, WRITTEN, run_example


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in WRITTEN if name not in LONGER],
)
def test_example(name, tmp_path):
    run_example(name, tmp_path, "--quick")


def test_an_example_does_not_overwrite(tmp_path):
    (tmp_path / "alanine_dipeptide.aimmd").write_text("precious")
    result = run_script(EXAMPLES / OF_THE_README, "--quick", folder=tmp_path)
    assert result.returncode != 0
    assert "exists" in result.stderr
    assert (tmp_path / "alanine_dipeptide.aimmd").read_text() == "precious"


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(WRITTEN)
