"""Many chains that train one model, each shot weighed by one version, sample the exact ensemble; other disciplines do not.

The sampling is that of `benchmarks/asynchronous_balance.py`: many independent runs at once, so that a bias of a per cent
cannot hide.
"""

import numpy as np
import pytest
from asynchronous_balance import (
    LINKS,
    RESTLESS,
    RIGHT,
    STAYS,
    Chain,
    Densities,
    Discipline,
    measure,
)
from exact_markov_chains import committor
from exact_support import AGREES, DISAGREES

from ops_aimmd.committor.density import CommittorDensity

N_RUNS, N_STEPS = 1000, 100
"""The standard error of the mean path length is then 0.2 to 0.3 %, a tenth of what the wrong disciplines are off by."""

DIMINISHING, PRODUCTION = RIGHT[1], RIGHT[3]


@pytest.fixture(scope="module")
def chain():
    return Chain(LINKS, STAYS)


# ---- the parts ------------------------------------------------------------------------------------------------------


def test_legs_and_paths_are_those_of_the_chain(chain):
    rng = np.random.default_rng(1)
    n = 40_000
    exact = committor(chain.exact.transition_matrix, [[0], [chain.n_sites + 1]])[1:-1, 1]
    reached = np.array([chain.legs(site, n, rng)[1].mean() for site in range(chain.n_sites)])
    assert np.all(np.abs(reached - exact) < AGREES * np.sqrt(exact * (1 - exact) / n))
    visits = chain.transition_paths(n, rng)
    error = visits.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(visits.mean(axis=0) - chain.exact.mean_visits()[1:-1]) < AGREES * error)


def test_densities_of_runs_are_those_of_the_package():
    rng = np.random.default_rng(2)
    log_odds, visits, prior = rng.normal(0, 2, (5, 6)), rng.integers(0, 9, (5, 6)), rng.random(5)
    visits[3], prior[3] = 0, 0.0
    densities = Densities.from_visits(log_odds, visits, prior)
    found = densities.log_density(log_odds.ravel(), (0, 1)).reshape(log_odds.shape)
    for run in range(5):
        log_committor = -np.logaddexp(0, np.stack([log_odds[run], -log_odds[run]], axis=1))
        expected = CommittorDensity.from_frames(log_committor, visits[run], uniform_weight=prior[run])
        np.testing.assert_allclose(densities.values[run], expected.values[0])
        np.testing.assert_allclose(found[run], expected.log_density(log_odds[run], (0, 1)))


# ---- disciplines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discipline", RIGHT, ids=lambda discipline: discipline.name)
def test_one_version_from_pick_to_acceptance_keeps_the_ensemble(chain, discipline):
    measured = measure(chain, discipline, N_RUNS, N_STEPS)
    assert abs(measured.bias) < AGREES * measured.error, measured


@pytest.mark.parametrize(
    "discipline",
    [
        Discipline("the version changes before the acceptance", weighs_with="acceptance", **RESTLESS),
        Discipline("p_old from the old version, p_new from the new one", weighs_with="old and new", **RESTLESS),
        Discipline("density of the current path for both paths", weighs_with="old path"),
        Discipline("another shot is drawn where a worker died", lifetime=50.0, draws_again=True),
    ],
    ids=lambda discipline: discipline.name,
)
def test_control_wrong_disciplines_are_found_out(chain, discipline):
    measured = measure(chain, discipline, N_RUNS, N_STEPS)
    assert abs(measured.bias) > DISAGREES * measured.error, measured


def test_control_shots_in_flight_dropped_at_the_end(chain):
    """Where chains stop together, those with long shots have made fewer steps."""
    kept, dropped = (
        measure(chain, Discipline("", frozen_after=20, stops_at_total=stops), 2 * N_RUNS, 10) for stops in (False, True)
    )
    assert abs(kept.bias) < AGREES * kept.error, kept
    assert abs(dropped.bias) > DISAGREES * dropped.error, dropped


@pytest.mark.slow
@pytest.mark.parametrize("discipline", [DIMINISHING, PRODUCTION], ids=lambda discipline: discipline.name)
def test_unbiased_within_a_fifth_of_a_per_cent(chain, discipline):
    measured = measure(chain, discipline, n_runs=16_000, n_steps=200)
    assert measured.error < 0.05, measured
    assert abs(measured.bias) < 0.2, measured
