"""Intervals of autocorrelation times, means and fractions of correlated series, and the comparison of chains.

Each has the estimator of version 0.1.0 as the control that fails: autocorrelations of the series minus its mean, summed up
to a window. A coverage of 95 % is known to 1.3 % from 300 repeats, one of 68 % to 2.7 %.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scipy.stats import chi2

from ops_aimmd.analysis.health import BY_CHANCE
from ops_aimmd.analysis.measures import clusters_of, efficiency, mean_of
from ops_aimmd.committor.autocorrelation import chance_of_difference, integrated_autocorrelation

REPEATS = [pytest.param(300, id="quick"), pytest.param(1000, id="full", marks=pytest.mark.slow)]


def windowed(series):
    """The estimator of version 0.1.0: tau and its standard error, of one chain."""
    x = series - series.mean()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * len(x))) ** 2)[: len(x)]
    taus = 0.5 + np.append(0, np.cumsum(correlation[1:] / correlation[0]))
    inside = np.arange(len(x)) >= 5 * taus
    window = int(np.argmax(inside)) if inside.any() else len(x) - 1
    tau = max(taus[window], 0.5)
    return tau, tau * np.sqrt(2 * (2 * window + 1) / len(x))


def old_mean(series):
    """Mean of one chain and its standard error in version 0.1.0."""
    n_effective = len(series) / (2 * windowed(series)[0])
    return series.mean(), series.std() / np.sqrt(max(n_effective - 1, 1e-3))


def autoregressive(tau, n, n_chains, rng):
    """Chains (n_chains, n) of unit variance with autocorrelation a**t and this tau = 1 / 2 + a / (1 - a)."""
    a = (2 * tau - 1) / (2 * tau + 1)
    noise = rng.standard_normal((n_chains, n)) * np.where(np.arange(n), np.sqrt(1 - a * a), 1.0)
    return lfilter([1.0], [1.0, -a], noise, axis=1)


def slow_beside_noise(tau, n, n_chains, rng):
    """80 % white noise, and a slow rest."""
    slow = autoregressive((tau - 0.4) / 0.2, n, n_chains, rng)
    return np.sqrt(0.8) * rng.standard_normal((n_chains, n)) + np.sqrt(0.2) * slow


def rejecting(tau, n, n_chains, rng):
    """A Metropolis chain with independent proposals: accepted with probability a, tau = 1 / a - 1 / 2."""
    accepted = rng.random((n_chains, n)) < 1 / (tau + 0.5)
    accepted[:, 0] = True
    rows = np.arange(n_chains)[:, None] * n + np.maximum.accumulate(np.where(accepted, np.arange(n), 0), axis=1)
    return rng.standard_normal(n_chains * n)[rows]


QUICK = [
    (autoregressive, 0.5, 1000, 1),
    (autoregressive, 5, 1000, 1),
    (autoregressive, 25, 1000, 1),
    (autoregressive, 5, 300, 4),
    (rejecting, 5, 1000, 1),
    (slow_beside_noise, 6.97, 3000, 1),
]
LENGTHS = (100, 300, 1000, 3000)
FULL = [
    *((autoregressive, tau, n, 1) for tau in (0.5, 5, 25, 100) for n in LENGTHS),
    *((autoregressive, tau, n, 4) for tau in (5, 25) for n in LENGTHS),
    *((rejecting, tau, n, 1) for tau in (5, 25) for n in LENGTHS),
    *((slow_beside_noise, 6.97, n, 1) for n in LENGTHS),
]


def check_intervals(process, tau, n, n_chains, repeats):
    """Coverage of the intervals of tau (and so of n / (2 tau)) of many series of chains that are interleaved row by row."""
    rng = np.random.default_rng([int(10 * tau), n, n_chains])
    steps, chains = (index.ravel() for index in np.indices((n, n_chains)))
    found, old, told = [], [], []
    for _ in range(repeats):
        series = process(tau, n, n_chains, rng)
        result = integrated_autocorrelation(series.T.ravel(), chains, steps)
        intervals = np.array([result.tau_interval(), result.tau_interval(0.6827)])
        found.append((intervals[:, 0] <= tau) & (tau <= intervals[:, 1]))
        told.append(not result.too_short)
        value, error = windowed(series[0])
        old.append(abs(value - tau) < np.array([1.96, 1.0]) * error)
    (of_95, of_68), told = np.mean(found, axis=0), np.mean(told)
    assert of_95 >= 0.90
    if told > 0.9:  # else many intervals have no upper end, and hold the truth the more often
        assert of_95 <= 0.98 and 0.60 <= of_68 <= 0.76
    return told, np.mean(old, axis=0)[0]


@pytest.mark.parametrize("process, tau, n, n_chains", QUICK)
def test_intervals_of_tau(process, tau, n, n_chains):
    told, old = check_intervals(process, tau, n, n_chains, 300)
    if n <= 60 * tau:
        assert old < 0.90  # the control


@pytest.mark.slow
@pytest.mark.parametrize("process, tau, n, n_chains", FULL)
def test_intervals_of_tau_in_full(process, tau, n, n_chains):
    told, old = check_intervals(process, tau, n, n_chains, 1000)
    if n * n_chains < 10 * tau:
        assert told < 0.05  # too short to tell
    if n * n_chains > max(500 * tau, 900):
        assert told > 0.9
    if n <= 50 * tau and tau > 1:
        assert old < 0.90  # the control


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("tau, n, n_chains", [(5, 120, 1), (25, 600, 1), (5, 120, 4)])
def test_the_mean_transition_path_time(tau, n, n_chains, repeats):
    rng = np.random.default_rng([tau, n, n_chains])
    steps, chains = (index.ravel() for index in np.indices((n, n_chains)))
    truth = np.exp(0.5**2 / 2)
    found, old = [], []
    for _ in range(repeats):
        times = np.exp(0.5 * autoregressive(tau, n, n_chains, rng))
        result = mean_of(times.T.ravel(), chains, steps)
        if np.isfinite(result.error):
            low, high = result.interval
            found.append([low <= truth <= high, abs(result.value - truth) < result.error])
        value, error = old_mean(times[0])
        old.append(abs(value - truth) < 1.96 * error)
    assert len(found) > 0.7 * repeats
    (of_95, of_68), old = np.mean(found, axis=0), np.mean(old)
    assert 0.90 <= of_95 <= 0.98 and 0.60 <= of_68 <= 0.76
    assert old < 0.90  # the control


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("n_chains", [1, 4])
def test_the_fractions_generated_and_accepted(n_chains, repeats):
    """A slow coordinate decides how many shots are accepted; the control is the binomial error."""
    rng = np.random.default_rng([7, n_chains])
    n = 1200 // n_chains
    steps, chains = (index.ravel() for index in np.indices((n, n_chains)))
    found, binomial = [], []
    for _ in range(repeats):
        hidden = autoregressive(10, n, n_chains, rng).T.ravel()
        accepted = rng.random(n * n_chains) < 0.3 * (1 + 0.9 * np.sign(hidden))
        result = mean_of(accepted, chains, steps)
        low, high = result.interval
        found.append([low <= 0.3 <= high, abs(result.value - 0.3) < result.error])
        p = result.value
        binomial.append(abs(p - 0.3) < 1.96 * np.sqrt(p * (1 - p) / len(accepted)))
    of_95, of_68 = np.mean(found, axis=0)
    assert 0.90 <= of_95 <= 0.98 and 0.60 <= of_68 <= 0.76
    assert np.mean(binomial) < 0.90


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("share", [0.0, 0.8])
def test_generated_minus_expected_paths(share, repeats):
    """Of a right model that does not know a slow coordinate; the control is the error of independent shots."""
    rng = np.random.default_rng([8, int(10 * share)])
    deviations, independent = [], []
    for _ in range(repeats):
        expected = rng.uniform(0.15, 0.45, 600)
        hidden = np.tanh(autoregressive(9.5, 600, 1, rng)[0])
        generated = rng.random(600) < expected * (1 + share * hidden)
        rows = {"step": np.arange(600), "replica": 0, "generated": generated, "expected": expected}
        result = efficiency(pd.DataFrame(rows), np.arange(600))
        deviation = result.generated - result.of_independent_legs
        deviations.append(deviation / result.error)
        independent.append(deviation / np.sqrt((expected * (1 - expected)).sum()))
    of_95, of_68 = (np.mean(np.abs(deviations) < limit) for limit in (1.96, 1.0))
    # with the slow coordinate 68 % intervals hold 77 %: some runs see little of the correlation, others too much
    assert 0.90 <= of_95 <= 0.98 and 0.60 <= of_68 <= (0.80 if share else 0.76)
    assert (np.mean(np.abs(independent) < 1.96) < 0.90) == (share > 0)  # the control


# ---- chains and halves -----------------------------------------------------------------------------------------------


def old_chance(series):
    """Chi-squared with estimated errors, as in version 0.1.0."""
    means, errors = np.transpose([old_mean(one) for one in series])
    common = np.average(means, weights=errors**-2)
    return chi2.sf(np.sum(((means - common) / errors) ** 2), len(series) - 1)


CHAINS = [(1, 100), (5, 300), (25, 1000)]


@pytest.mark.parametrize("repeats", [pytest.param(200, id="quick"), pytest.param(5000, id="full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tau, n", CHAINS)
def test_chains_that_agree_are_seldom_said_to_disagree(tau, n, repeats):
    """Four chains, and the halves of one: a chance comes at most about as often as it says."""
    rng = np.random.default_rng([9, tau, n])
    steps, chains = (index.ravel() for index in np.indices((n, 4)))
    found = []
    for _ in range(repeats):
        series = autoregressive(tau, n, 4, rng)
        one, later = series[0], np.arange(n) >= n // 2
        found.append(
            [
                chance_of_difference(series.T.ravel(), chains, chains, steps)[0],
                chance_of_difference(one, later, np.zeros(n, dtype=int))[0],
                old_chance(series),
            ]
        )
    for level in (0.05, BY_CHANCE):
        by_chance = 1.2 * level + 4 * np.sqrt(level / repeats)
        assert (np.mean(np.array(found)[:, :2] < level, axis=0) <= by_chance).all()
    if tau > 1:
        assert np.mean(np.array(found)[:, 2] < 0.05) > 0.1  # the control


@pytest.mark.parametrize("repeats", REPEATS)
def test_a_chain_that_disagrees_is_found(repeats):
    """At three combined errors as often as by a test that is told the autocorrelation, within 10 %; at six mostly."""
    rng = np.random.default_rng(10)
    tau, n = 5, 1000
    chains = np.repeat(np.arange(4), n)
    error = np.sqrt(2 * tau / n)
    for shift, level, at_least in ((3.0, 0.05, 0.5), (6.0, BY_CHANCE, 0.75)):
        told, found = [], []
        for _ in range(repeats):
            series = autoregressive(tau, n, 4, rng)
            series[0] += shift * error * np.sqrt(4 / 3)
            told.append(chi2.sf(np.sum(((series.mean(axis=1) - series.mean()) / error) ** 2), 3))
            found.append(chance_of_difference(series.ravel(), chains, chains)[0])
        known, mine = np.mean(np.array(told) < level), np.mean(np.array(found) < level)
        assert mine >= at_least
        assert mine > 0.9 * known - 0.05 or level == BY_CHANCE


# ---- blocks of the calibration ---------------------------------------------------------------------------------------


def test_blocks_of_the_calibration_are_as_long_as_the_correlation():
    """Residuals of shots with a slow hidden coordinate: fewer blocks than 20; independent ones: twenty."""
    rng = np.random.default_rng(11)
    n = 400
    steps, chains = np.arange(n), np.zeros(n, dtype=int)
    predicted = np.full((n, 2), 0.5)
    independent, slow = [], []
    for _ in range(30):
        for found, p in ((independent, 0.5), (slow, 0.5 + 0.45 * np.sign(autoregressive(15, n, 1, rng)[0]))):
            reached = rng.binomial(2, p, n)
            clusters = clusters_of(predicted, np.stack([2 - reached, reached], axis=1), chains, steps)
            found.append(len(np.unique(clusters)))
    assert np.median(independent) == 20
    assert np.median(slow) < 15
