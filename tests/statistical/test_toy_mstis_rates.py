"""OPS's toy example of multiple-state TIS: its default scheme gives the same rates, guided by a committor or not."""

import os
import sys
from pathlib import Path

import numpy as np
import openpathsampling as paths
import pytest
from exact_support import DISAGREES, WithoutRatio

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))

from mstis_script import QUICK, ThreeWells  # noqa: E402

from ops_aimmd import CommittorLearner, CommittorSelector, TrainingHook  # noqa: E402
from ops_aimmd.systems.toy import ToyDistance  # noqa: E402

SILENCE = open(os.devnull, "w")

N_RUNS = 6
"""Independent runs of each kind: from paths of their own, with random numbers of their own."""

N_STEPS = 20_000
"""With 8000, OPS's WHAM found too little overlap in one of three plain runs: 5 % of the paths must cross."""

N_EQUILIBRATION = 1000
"""Steps of each run that are left out: they still know the bootstrapped paths."""

PAIRS = ["AB", "AC", "BA", "BC", "CA", "CB"]


class WrongSelector(WithoutRatio, CommittorSelector):
    """Wrong on purpose: accepts all trials that satisfy their ensemble."""


def rates(selector_class, seed, n_steps=N_STEPS):
    """The rates of PAIRS from one run, with the fluxes of its minus moves; array (6,), of unit time."""
    wells = ThreeWells(ToyDistance, n_steps_per_frame=4)
    learner = CommittorLearner(wells.distances, wells.states, seed=seed, fit_options=QUICK)
    scheme = wells.scheme(None if selector_class is None else selector_class(learner))
    sampler = paths.PathSampling(None, scheme, wells.initial_conditions(scheme, seed))
    sampler.output_stream = SILENCE
    steps = []
    sampler.hooks["after_step"] = [lambda results, **kwargs: steps.append(results)]  # not OPS's check of all paths
    if selector_class is not None:
        sampler.attach_hook(TrainingHook(learner))
    sampler.run(n_steps)
    sampler.sample_set.sanity_check()
    matrix = wells.network.rate_matrix(steps[N_EQUILIBRATION:], force=True).to_numpy(float)
    return matrix[~np.eye(3, dtype=bool)]


def runs(selector_class, seeds):
    return np.array([rates(selector_class, seed) for seed in seeds])


def standard_errors_apart(one, other):
    """Difference of the mean rates of two sets of runs, in combined standard errors from the spread of the runs."""
    errors = [found.std(axis=0, ddof=1) / np.sqrt(len(found)) for found in (one, other)]
    return (one.mean(axis=0) - other.mean(axis=0)) / np.hypot(*errors)


@pytest.mark.slow
def test_rates_are_those_of_plain_ops():
    """Six entries, Student's t of ten degrees of freedom: one of them is beyond 2.5 in one of six sets of exact runs."""
    plain = runs(None, range(1, 1 + N_RUNS))
    guided = runs(CommittorSelector, range(101, 101 + N_RUNS))
    assert np.isfinite(plain).all() and np.isfinite(guided).all()
    z = standard_errors_apart(guided, plain)
    report = dict(zip(PAIRS, zip(plain.mean(axis=0), guided.mean(axis=0), z, strict=True), strict=True))
    print("\n".join(f"{pair}: plain {p:.5f}, guided {g:.5f}, z {z:+.2f}" for pair, (p, g, z) in report.items()))
    assert np.abs(z).max() < 2.5, report
    wrong = runs(WrongSelector, range(201, 201 + N_RUNS))  # control
    assert np.abs(standard_errors_apart(wrong, plain)).max() > DISAGREES
