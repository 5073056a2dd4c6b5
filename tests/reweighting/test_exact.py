"""Rates, populations and free energies from shots and free runs, against linear algebra; wrong ways must fail."""

from dataclasses import replace

import numpy as np
import pytest
from guided_walks import Simulation, two_channels
from reweighting_exact import (
    add_free_runs,
    binned_rates,
    coverage,
    exchange_as_shots,
    independent,
    limit_that_cuts,
    log_ratios,
    low_barrier,
    only,
    share_over,
    simulated,
    three_states,
    with_errors,
    without_errors,
    without_limit,
)

from ops_aimmd.reweighting import reweight, transition_path_check
from ops_aimmd.reweighting.ensembles import build, usable
from ops_aimmd.reweighting.equilibrium import _lorentzian
from ops_aimmd.reweighting.transition_probability import TransitionProbability, orientations

AGREES = 4.0
"""Standard errors: one in 15000 normal values is farther away, one in some 1000 with the errors of 40 blocks."""

RUNS = range(30)


@pytest.fixture(scope="module")
def walk():
    return two_channels(height=4.0, n=17, hop=0.02)


@pytest.fixture(scope="module")
def simulation(walk):
    return simulated(walk, len(RUNS), 250, seed=2)


@pytest.fixture(scope="module")
def estimate(excursions):
    return reweight(excursions, n_replicates=60)


@pytest.fixture(scope="module")
def excursions(simulation):
    """30 chains and their free runs together."""
    return simulation.excursions(*RUNS)


def deviations(x, walk, **settings):
    """ln k / k_exact, and its error, for the two rates."""
    return deviations_of(reweight(x, n_replicates=40, **settings), walk)


def deviations_of(found, walk):
    pairs = ~np.eye(len(found.rates), dtype=bool)
    return np.log(found.rates / walk.rates)[pairs], found.log_error()[pairs]


def test_the_walk_is_reversible_and_its_channels_differ(walk):
    """What is exact here: stationary, skew detailed balance; t is no function of p alone."""
    swapped = np.arange(len(walk.matrix)) ^ 1
    flux = walk.stationary[:, None] * walk.matrix
    assert np.allclose(walk.stationary @ walk.matrix, walk.stationary, rtol=0, atol=1e-14)
    assert np.allclose(flux, flux[np.ix_(swapped, swapped)].T, rtol=0, atol=1e-14)
    transitions, last = walk.exact
    assert transitions[0, 1] == pytest.approx(transitions[1, 0]) and last.sum() == pytest.approx(1)
    p = np.exp(walk.log_committor[:, 1])
    with np.errstate(invalid="ignore"):
        ratio = walk.transition_probability / (2 * p * (1 - p))
    at_half = [np.interp(0.5, p[walk.channel == c], ratio[walk.channel == c]) for c in (0, 1)]
    assert at_half[1] > 1.5 * at_half[0]


def test_rates_are_exact(estimate, walk):
    values, errors = deviations_of(estimate, walk)
    assert (np.abs(values) < AGREES * errors).all() and (errors < 0.06).all()


@pytest.mark.parametrize("kind, window", [("shot", np.inf), ("shot", 2.0), ("exchange", np.inf)])
def test_each_kind_and_every_window_is_exact(excursions, walk, kind, window):
    values, errors = deviations(only(excursions, kind), walk, window=window)
    assert (np.abs(values) < AGREES * errors).all() and (errors < 0.12).all()


def test_wrong_weights_fail(excursions, estimate, walk):
    """Shooting points taken for equilibrium, t = 2p(1-p), and exchange shots weighted as shots from the path."""
    _, errors = deviations_of(estimate, walk)
    bins = np.log(binned_rates(excursions) / walk.rates)[[0, 1], [1, 0]]
    assert (np.abs(bins) > AGREES * errors).any()
    for wrong in (
        reweight(only(excursions, "shot"), n_replicates=40, log_t=independent),
        reweight(exchange_as_shots(excursions), n_replicates=40),
    ):
        values, _ = deviations_of(wrong, walk)
        assert (np.abs(values) > AGREES * errors).any()


def test_excursions_have_no_direction(excursions, estimate, walk):
    """Movers turn accepted paths A -> B. Counting the directions separately then gives a factor of two."""
    shots = excursions.kind != "free"
    turned = replace(excursions, ends=np.where(shots[:, None], np.sort(excursions.ends), excursions.ends))
    found = reweight(turned)
    assert np.array_equal(found.rates, estimate.rates, equal_nan=True)
    assert found.kinetics.flux[0, 0, 1] == found.kinetics.flux[0, 1, 0]
    directed = found.weights[shots & (turned.ends == [0, 1]).all(axis=1)].sum() / found.populations[0]
    assert np.log(directed / walk.rates[0, 1]) > 0.5  # the control


def test_populations_and_times(estimate, walk):
    found = estimate
    error = found.log_error("populations")
    assert (np.abs(np.log(found.populations / walk.exact[1])) < AGREES * error).all()
    assert found.populations.sum() == pytest.approx(1)
    times = found.mean_first_passage_times
    assert times[[0, 1], [1, 0]] == pytest.approx(1 / found.rates[[0, 1], [1, 0]])
    assert times[[0, 1], [0, 1]].tolist() == [0, 0]


def test_free_energies(simulation, estimate, walk):
    """Free energies on the site, and on site and channel, with the frames within the states."""
    found = estimate
    frames = np.concatenate([row[5] for run in RUNS for row in simulation.rows[run]])
    inside, owner = simulation.internal(*RUNS)
    n = walk.n_sites // 2
    probability = walk.stationary.reshape(2, n, 2).sum(axis=2)
    edges = np.arange(n + 1) - 0.5, np.array([-0.5, 0.5, 1.5])
    one = found.free_energy(frames % n, edges[0], inside % n, owner)
    two = found.free_energy(
        np.stack([frames % n, frames // n], axis=1), edges, np.stack([inside % n, inside // n], axis=1), owner
    )
    assert two.values.shape == (n, 2) and one.probability.sum() == pytest.approx(1)
    for surface, exact in ((one, probability.sum(axis=0)), (two, probability.T)):
        difference = np.log(surface.probability / exact)
        assert (np.abs(difference) < AGREES * surface.error).all() and surface.error.max() < 0.25
        assert surface.values.min() == 0
    without = found.free_energy(frames % n, edges[0])
    assert without.probability[0] == 0 and np.isinf(without.values[0])  # the control: no frames within the states


def test_every_third_frame(simulation, excursions, walk):
    """Stored frames stand for those between them. The difference to all frames is far below the error."""
    thinned = simulation.excursions(*RUNS, stride=3)
    assert len(thinned.log_committor) < 0.5 * len(excursions.log_committor)
    assert thinned.frame_weights.sum() == pytest.approx(excursions.length.sum())
    values, errors = deviations(thinned, walk)
    assert (np.abs(values) < AGREES * errors).all() and (errors < 0.08).all()


def test_length_limit():
    """Shots over the limit are in no ensemble of shots: kept, long transitions are missing."""
    walk = low_barrier()
    limit, exact = limit_that_cuts(walk, 0.05)
    simulation = Simulation(walk, 40, seed=3, limit=limit)
    simulation.shots(250)
    add_free_runs(simulation, times=4)
    x = simulation.excursions(*range(40))
    with pytest.warns(UserWarning, match="limit"):
        found = reweight(x, n_replicates=40)
    assert found.left_out["over the length limit"] > 0
    values, errors = deviations_of(found, walk)
    assert (np.abs(values) < AGREES * errors).all()
    over = found.replicates[0] * x.is_transition()
    error = np.std(over[:, x.length > limit].sum(axis=1) / over.sum(axis=1))
    assert abs(share_over(x, limit) - exact) < AGREES * error
    assert share_over(x, limit, without_limit) < exact - AGREES * error  # the control


@pytest.mark.parametrize("fixed_time", [False, True])
def test_free_runs_end_at_an_entry(fixed_time):
    walk = low_barrier()
    simulation = Simulation(walk, 40, seed=4)
    simulation.shots(100, exchange_every=2)
    add_free_runs(simulation, n_walkers=10, fixed_time=fixed_time)
    values, errors = deviations(simulation.excursions(*range(40)), walk)
    assert (errors < 0.08).all()
    assert (np.abs(values) < AGREES * errors).all() != fixed_time


def test_three_states():
    walk = three_states()
    simulation = simulated(walk, 30, 150, seed=5)
    found = reweight(simulation.excursions(*range(30), channels=False), n_replicates=40)
    values, errors = deviations_of(found, walk)
    assert (np.abs(values) < AGREES * errors).all() and (errors < 0.15).all()
    flux, last = walk.exact
    jumps, tau = flux / flux.sum(axis=1, keepdims=True), last / flux.sum(axis=1)
    exact = np.linalg.solve(np.eye(2) - jumps[1:, 1:], tau[1:])
    assert np.abs(np.log(found.mean_first_passage_times[1:, 0] / exact)).max() < 0.3


@pytest.mark.parametrize("slope", [0.5, 2.0, 8.0])
def test_a_wrong_committor_is_exact_too(walk, slope):
    """Log-odds that are wrong by a factor cost precision. With 8, frames have log-odds up to +-30: nothing overflows."""
    simulation = simulated(walk, 30, 100, seed=6, slope=slope, exponent=1.0 / slope)
    x = simulation.excursions(*range(30))
    with np.errstate(over="raise", invalid="raise"):
        values, errors = deviations(x, walk, fewest=0)
    assert np.isfinite(values).all()
    if slope < 8:
        assert (np.abs(values) < AGREES * errors).all() and (errors < 0.2).all()
    else:
        assert np.abs(np.diff(x.log_committor, axis=1)).max() > 25


def test_folds_share_the_shots_whatever_the_numbers_of_the_chains(excursions):
    """A fit must not lose all shots because the numbers of all chains are multiples of the number of folds."""
    used, _ = usable(excursions)
    assert set(excursions.chain[excursions.kind == "shot"] % 5) == {0}
    (shots,) = build(excursions, used, _lorentzian, [(0, 1)]).shots
    assert shots.training.mean(axis=1)[:-1] == pytest.approx(0.8, abs=0.05) and shots.training[-1].all()


def test_refit_of_t_in_the_bootstrap(excursions):
    """The first-order change of ln S is that of a new fit, but for second order."""
    x = excursions
    used, _ = usable(x)
    pairs = [(0, 1), (1, 0)]
    ensembles = build(x, used, _lorentzian, pairs, n_folds=1)
    (shots,) = ensembles.shots
    repeats = np.random.default_rng(1).poisson(1.0, size=len(used)).astype(float)
    change = shots.change_of_log_s(repeats[None])[0]
    again = replace(shots.trials, weights=shots.trials.weights * repeats[shots.rows])
    coefficients = again.fit(np.ones(len(shots.rows), bool))
    step = shots.trials.newton_step(shots.coefficients[-1], repeats[None, shots.rows])[0]
    assert np.allclose(step, coefficients - shots.coefficients[-1], atol=0.1 * np.abs(step).max())
    assert np.allclose(change, shots.slopes @ step)
    other = build(x, used, _lorentzian, pairs, log_t=lambda p, f: _fitted(shots, coefficients, p, f))
    assert np.abs(other.log_s[:, 2] - ensembles.log_s[:, 2] - change).max() < 0.1 * np.abs(change).max()


def _fitted(shots, coefficients, log_committor, features):
    return TransitionProbability(orientations([(0, 1)], 2), coefficients)(log_committor, features)


def test_transition_paths_at_each_log_odds(excursions, estimate):
    assert transition_path_check(estimate).passed
    wrong = only(excursions, "shot")
    rng = np.random.default_rng(1)
    shots = wrong.kind == "shot"
    ends = wrong.ends.copy()
    lost = shots & wrong.is_transition() & (rng.random(len(shots)) < 0.5) & (wrong.point_log_committor[:, 1] > -0.7)
    ends[lost, 0] = ends[lost, 1]  # half of the transitions from beyond p = 1/2 are recorded as returns
    assert not transition_path_check(reweight(replace(wrong, ends=ends), n_replicates=40, log_t=independent)).passed


@pytest.mark.slow
def test_intervals_hold_in_200_runs():
    """Bias below 2 %, 68 and 95 % intervals at their rates; two batches of 100 runs take half the memory of 200."""
    walk = two_channels(5.0, 21, hop=0.05)
    batches = []
    for seed in (11, 12):
        simulation = simulated(walk, 100, 3000, seed)
        batches.append(log_ratios(simulation, with_errors()))
    values, errors = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert (values.std(axis=0, ddof=1) < 0.08).all()
    assert (np.abs(values.mean(axis=0)) < 0.02).all()
    inner, outer = coverage(values, errors)
    assert ((0.6 <= inner) & (inner <= 0.76)).all() and ((0.9 <= outer) & (outer <= 0.98)).all()
    for estimate in (binned_rates, without_errors(lambda x: only(x, "shot"), log_t=independent)):
        wrong, _ = log_ratios(simulation, estimate, n_runs=50)
        assert (wrong.mean(axis=0) > 0.02 + AGREES * wrong.std(axis=0) / np.sqrt(50)).all()
