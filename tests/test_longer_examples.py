"""The examples that take the longest run in their quick form and leave what they promise."""

import pytest
from example_support import LONGER, run_example


@pytest.mark.parametrize("name", LONGER)
def test_example(name, tmp_path):
    run_example(name, tmp_path, "--quick", *LONGER[name])


@pytest.mark.slow
def test_many_chains_from_climbs(tmp_path):
    """The search for first paths takes a minute, and the quick form leaves it out."""
    run_example("07_many_chains.py", tmp_path, "--chains", "2", "--steps", "4")
