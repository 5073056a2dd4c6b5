"""Errors of the populations of channels cover the truth, of few stays and many, of one chain and of four."""

import numpy as np
import pytest

from ops_aimmd.analysis.channels import count_switches, population_errors

N_REPEATS = 400
"""A coverage of 95 % is then known to 1.1 %."""


def stays(n, leave, enter, rng):
    """Whether a chain is in the channel, (n,): it leaves and enters it at constant rates, and begins in equilibrium."""
    series = np.empty(n, dtype=int)
    at, inside = 0, int(rng.random() < enter / (leave + enter))
    while at < n:
        length = rng.geometric(leave if inside else enter)
        series[at : at + length] = inside
        at, inside = at + length, 1 - inside
    return series


def covered(n_chains, n_stays, leave, enter, rng):
    """Fractions of the intervals of the package, and of those of version 0.1.0, that hold the true population."""
    n = int(n_stays * (leave + enter) / (leave * enter) / n_chains)
    truth = enter / (leave + enter)
    found = []
    while len(found) < N_REPEATS:
        series = np.concatenate([stays(n, leave, enter, rng) for _ in range(n_chains)])
        switches = count_switches(series, np.repeat(np.arange(n_chains), n))[0]
        if switches == 0:  # no error is given
            continue
        p = series.mean()
        error = population_errors(np.array([p]), np.array([switches / 2]))[0]
        of_coins = np.sqrt(p * (1 - p) / ((switches + n_chains) / 2))
        found.append([abs(p - truth) < 1.96 * error, abs(p - truth) < 1.96 * of_coins])
    return np.mean(found, axis=0)


@pytest.mark.parametrize("n_chains", [1, 4])
@pytest.mark.parametrize("n_stays", [6, 12, 30])
@pytest.mark.parametrize("leave, enter", [(0.02, 0.02), (0.02, 0.18), (0.18, 0.02)])
def test_the_interval_holds_the_truth_as_often_as_it_says(n_chains, n_stays, leave, enter):
    rng = np.random.default_rng([n_chains, n_stays, int(1000 * leave)])
    new, old = covered(n_chains, n_stays, leave, enter, rng)
    assert 0.90 <= new <= 0.98
    assert old > 0.98 or n_stays < 30 and old > 0.96  # the control: independent draws for each stay are too careful


def test_a_channel_that_is_never_left_has_no_error():
    assert np.isnan(population_errors(np.array([1.0]), np.array([0.0]))[0])
