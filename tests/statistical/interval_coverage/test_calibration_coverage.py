"""Intervals of the calibration cover what they say: many shots of a configuration, correlated legs, hidden coordinates.

Each has the errors of independent legs (Fisher information) or independent shots as the control that fails. A fraction of n
repeats has the standard deviation sqrt(0.95 * 0.05 / n), 0.013 of 300: 0.90 is four of them below 0.95.
"""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import expit, logit

from ops_aimmd import TrainingSet, calibration
from ops_aimmd.analysis.measures import calibration_of_blocks
from ops_aimmd.committor.correlated_shots import blocks

REPEATS = [pytest.param(300, id="quick"), pytest.param(2000, id="full", marks=pytest.mark.slow)]


def covers(values, errors, truth):
    return np.mean(np.abs(np.subtract(values, truth)) < 1.96 * np.asarray(errors), axis=0)


def fisher_errors(predicted, counts, intercept, slope):
    """Errors of intercept and slope for independent legs."""
    design = np.stack([np.ones(len(predicted)), logit(predicted)], axis=1)
    p = expit(design @ [intercept, slope])
    return np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (counts.sum(axis=1) * p * (1 - p))[:, None]))))


class Repeats:
    """Calibrations of many data sets, and of one so large that it stands for the truth."""

    def __init__(self, draw, n, n_large, rng, **options):
        p, counts = draw(n_large, rng)
        self.truth = calibration(p, counts, **options)
        self.found, self.fisher = [], []
        for _ in range(n):
            p, counts = draw(None, rng)
            self.found.append(calibration(p, counts, **options))
            self.fisher.append(fisher_errors(p, counts, self.found[-1].intercept, self.found[-1].slope))

    def values(self, name):
        return np.array([getattr(one, name) for one in self.found])

    def coverage(self, name):
        return covers(self.values(name), self.values(f"{name}_error"), getattr(self.truth, name))

    def squared_deviations(self):
        """Mean squares of intercept and slope in units of the errors of independent legs, which should be 1."""
        deviations = [self.values(name) - getattr(self.truth, name) for name in ("intercept", "slope")]
        return np.mean(np.square(np.transpose(deviations) / self.fisher), axis=0)


def configurations(sigma):
    """50 shots from each of 50 configurations; their log-odds are off by a random error."""

    def draw(n, rng):
        q = rng.normal(scale=1.5, size=n or 50)
        reached = rng.binomial(50, expit(q + sigma * rng.standard_normal(len(q))))
        return expit(q), np.stack([50 - reached, reached], axis=1)

    return draw


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("sigma", [0.0, *(pytest.param(sigma, marks=pytest.mark.slow) for sigma in (0.3, 0.5)), 0.8])
def test_many_shots_of_a_configuration(sigma, repeats):
    found = Repeats(configurations(sigma), repeats, 200_000, np.random.default_rng(1), legs_are_shots=True)
    for name in ("slope", "intercept", "loss_per_leg"):
        assert 0.90 <= found.coverage(name) <= 0.98, name
    if sigma:  # without an error the square is at the edge of what it can be
        assert 0.90 <= found.coverage("rmse") <= 0.98
    wide = 1 + 4 * np.sqrt(2 / repeats)
    assert (found.squared_deviations() > wide).all() == bool(sigma), "the control"


def two_way_shots(correlation):
    """Two legs that reach B with probability p each; in a fraction of the shots they agree, or part when they can."""

    def draw(n, rng):
        p = expit(rng.normal(scale=1.5, size=n or 200))
        u, v = rng.random((2, len(p)))
        v = np.where(rng.random(len(p)) < abs(correlation), u if correlation > 0 else 1 - u, v)
        reached = (u < p).astype(int) + (v < p)
        return p, np.stack([2 - reached, reached], axis=1)

    return draw


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.5])
def test_two_way_shots_with_correlated_legs(correlation, repeats):
    found = Repeats(two_way_shots(correlation), repeats, 400_000, np.random.default_rng(2))
    for name in ("slope", "intercept", "loss_per_leg", "leg_correlation"):
        assert 0.90 <= found.coverage(name) <= 0.98, name
    assert np.isnan(found.truth.rmse)
    tolerance = 4 * np.sqrt(2 / repeats)
    deviations = found.squared_deviations() - 1
    if correlation == 0:
        assert (abs(deviations) < tolerance).all()
    else:  # the control
        assert (deviations > tolerance).all() if correlation > 0 else deviations.min() < -tolerance


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
GRID = np.linspace(-12, 12, 2001)
AVERAGE = (expit(GRID[:, None] + NODES) * WEIGHTS).sum(axis=1) / WEIGHTS.sum()
"""Committor of a descriptor, averaged over a hidden normal coordinate: the best that a model can know."""


def autoregressive(n_chains, n, correlation, rng):
    noise = rng.standard_normal((n_chains, n)) * np.where(np.arange(n), np.sqrt(1 - correlation**2), 1.0)
    return lfilter([1.0], [1.0, -correlation], noise, axis=1)


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("n_chains", [1, 4])
def test_a_slow_hidden_coordinate(n_chains, repeats):
    """The model is right for its descriptor; blocks of a chain are clusters, in any order of the rows."""
    rng = np.random.default_rng(3)
    n = 1000 // n_chains
    steps, chains = (a.ravel() for a in np.indices((n, n_chains)))  # interleaved
    clusters = blocks(chains, steps, 50)
    of_blocks, of_shots = [], []
    for _ in range(repeats):
        x, hidden = (autoregressive(n_chains, n, 0.9, rng).T.ravel() for _ in range(2))
        reached = rng.binomial(2, expit(1.5 * x + hidden))
        p, counts = np.interp(1.5 * x, GRID, AVERAGE), np.stack([2 - reached, reached], axis=1)
        for results, options in ((of_blocks, {"clusters": clusters}), (of_shots, {})):
            found = calibration(p, counts, **options)
            results.append([found.slope, found.intercept, found.slope_error, found.intercept_error])
    of_blocks, of_shots = np.array(of_blocks), np.array(of_shots)
    truth = [1.0, 0.0]
    coverage = covers(of_blocks[:, :2], of_blocks[:, 2:], truth)
    assert ((coverage >= 0.90) & (coverage <= 0.98)).all()
    assert (covers(of_shots[:, :2], of_shots[:, 2:], truth) < 0.90 - 3 * np.sqrt(0.09 / repeats)).all(), "the control"


@pytest.mark.parametrize("repeats", REPEATS)
def test_blocks_of_a_run_are_as_long_as_its_correlation(repeats):
    """Errors of the report where a hidden coordinate is slow; the control: twenty blocks, whatever the correlation."""
    rng = np.random.default_rng(4)
    n = 1000
    steps, chains = np.arange(n), np.zeros(n, dtype=int)
    of_run, of_twenty = [], []
    for _ in range(repeats):
        x, hidden = autoregressive(2, n, 0.97, rng)
        reached = rng.binomial(2, expit(1.5 * x + hidden))
        p, counts = np.interp(1.5 * x, GRID, AVERAGE), np.stack([2 - reached, reached], axis=1)
        shots = TrainingSet(x[:, None], counts, steps=steps, chains=chains)
        found = calibration_of_blocks(shots, steps, np.stack([1 - p, p], axis=1), ["A", "B"])["B"]
        if np.isfinite(found.slope_error):  # else too few blocks to tell
            of_run.append([found.slope, found.intercept, found.slope_error, found.intercept_error])
        found = calibration(p, counts, clusters=blocks(chains, steps, n // 20))
        of_twenty.append([found.slope, found.intercept, found.slope_error, found.intercept_error])
    of_run, of_twenty = np.array(of_run), np.array(of_twenty)
    assert len(of_run) > 0.7 * repeats
    coverage = covers(of_run[:, :2], of_run[:, 2:], [1.0, 0.0])
    assert ((coverage >= 0.90) & (coverage <= 0.98)).all()
    assert covers(of_twenty[:, :2], of_twenty[:, 2:], [1.0, 0.0]).min() < 0.90, "the control"
