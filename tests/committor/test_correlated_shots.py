"""Shots in time, whatever the order of their rows: blocks, folds, and errors of sums of correlated values."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ops_aimmd import CommittorModel, TrainingSet, fit, fit_expressions, input_relevance
from ops_aimmd.committor.autocorrelation import independent_values
from ops_aimmd.committor.correlated_shots import (
    Folds,
    block_length,
    blocks,
    clustered_error,
    error_of_sum,
    in_time,
)


def interleaved(n, n_chains, rng):
    """Chains and steps of shots of chains that take turns, and the same shots in another order of rows."""
    chains, steps = np.arange(n) % n_chains, np.arange(1, n + 1)
    return chains, steps, rng.permutation(n)


def test_neighbours_in_time_are_of_one_chain():
    rng = np.random.default_rng(1)
    chains, steps, other = interleaved(60, 4, rng)
    order = in_time(chains[other], steps[other])
    assert chains[other][order].tolist() == sorted(chains)
    for chain in range(4):
        found = steps[other][order][chains[other][order] == chain]
        assert (np.diff(found) > 0).all()
    assert in_time([0, 0, 0], [-1, -1, -1]).tolist() == [0, 1, 2]  # unknown: the order of the rows


@pytest.mark.parametrize("length", [1, 3, 7])
def test_blocks_and_folds_do_not_depend_on_the_order_of_rows(length):
    chains, steps, other = interleaved(83, 3, np.random.default_rng(2))
    folds = Folds(5, length, gap=2)
    block, fold, gaps = blocks(chains, steps, length), folds.of(chains, steps), folds.gaps(chains, steps)
    assert np.array_equal(blocks(chains[other], steps[other], length), block[other])
    assert np.array_equal(folds.of(chains[other], steps[other]), fold[other])
    assert np.array_equal(folds.gaps(chains[other], steps[other]), gaps[:, other])
    for number in range(block.max() + 1):
        rows = np.flatnonzero(block == number)
        assert len(rows) <= length and len(set(chains[rows])) == 1 and len(set(fold[rows])) == 1
        assert (np.diff(rows) == 3).all()  # each follows the one before in its chain
    # the control: rows taken for time mix the chains
    mixed = np.arange(83) // max(length, 2)
    assert any(len(set(chains[mixed == number])) > 1 for number in range(mixed.max() + 1))


@pytest.mark.parametrize("gap", [0, 1, 5])
def test_gaps_are_the_neighbours_of_a_fold(gap):
    """One by one, for two chains: within `gap` shots of a shot of the fold, in the same chain, and not in the fold."""
    chains, steps, _ = interleaved(90, 2, np.random.default_rng(5))
    folds = Folds(5, 9, gap)
    fold, gaps = folds.of(chains, steps), folds.gaps(chains, steps)
    for k in range(5):
        for row in range(90):
            mine = (chains == chains[row]) & (abs(steps - steps[row]) <= 2 * gap)
            assert gaps[k, row] == (fold[row] != k and k in fold[mine])
    assert gaps.any() == (gap > 0)


def test_folds_are_whole_chains_where_there_are_enough():
    chains = np.random.default_rng(6).integers(0, 7, size=200)
    fold = Folds.dealt(chains, 5, correlated=8).of(chains, np.arange(200))
    assert np.array_equal(fold, chains % 5)
    few = Folds.dealt(chains % 2, 5, correlated=100)
    assert 20 <= few.length <= 25 and few.gap == few.length
    assert np.ptp(np.bincount(few.of(chains % 2, np.arange(200)))) <= few.length


@pytest.mark.parametrize("correlated, length, gap", [(1, 5, 0), (2, 8, 4), (4, 16, 8), (8, 20, 16), (64, 20, 20)])
def test_blocks_of_folds_are_as_long_as_the_correlation_asks_for(correlated, length, gap):
    assert Folds.dealt(np.zeros(100), 5, correlated) == Folds(5, length, gap)


def slow_values(n_chains, n, memory, rng):
    """Values of chains that take turns, with their chains and steps."""
    noise = rng.standard_normal((n_chains, n)) * np.where(np.arange(n), np.sqrt(1 - memory**2), 1.0)
    values = lfilter([1.0], [1.0, -memory], noise, axis=1).T.ravel()
    return values, np.tile(np.arange(n_chains), n), np.arange(n * n_chains)


def test_independent_values_are_seldom_taken_for_correlated():
    rng = np.random.default_rng(7)
    found = [block_length(*slow_values(2, 150, 0.0, rng)) for _ in range(300)]
    assert np.mean(np.array(found) > 1) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)
    assert all(independent_values(*slow_values(2, 150, 0.0, rng)) > 100 for _ in range(20))
    trend = block_length(np.arange(100.0), np.zeros(100), np.arange(100))
    assert trend >= 25  # no part of it tells of the rest


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n_chains", [1, 4])
def test_errors_of_sums_cover_what_they_say(n_chains, memory):
    """Mean of 1200 values, 300 repeats: 0.90 is four standard deviations below 0.95. Control: as if independent."""
    rng = np.random.default_rng(8)
    scores, naive = [], []
    for _ in range(300):
        x, chains, steps = slow_values(n_chains, 1200 // n_chains, memory, rng)
        (error,) = error_of_sum(x - x.mean(), chains, steps)
        scores.append(x.sum() / error)
        naive.append(x.sum() / (x.std() * np.sqrt(len(x))))
    assert 0.90 <= np.mean(np.abs(scores) < 1.96) <= 0.98
    assert 0.60 <= np.mean(np.abs(scores) < 1) <= 0.76
    if memory:
        assert np.mean(np.abs(naive) < 1.96) < 0.85


def test_clustered_errors_see_correlation_and_naive_ones_do_not():
    """A mean of 60 clusters of ten equal values has the error of 60 values."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), 10)
    scores, naive = [], []
    for _ in range(300):
        x = np.repeat(rng.normal(size=60), 10)
        deviations = x - x.mean()
        scores.append(x.sum() / clustered_error(deviations, clusters)[0])
        naive.append(x.sum() / clustered_error(deviations, np.arange(600))[0])
    # the standard deviation of 300 scores is known to 4 %
    assert abs(np.std(scores) - 1) < 0.16
    assert np.std(naive) > 2.5


def shots_of_four_chains(rng, n=600):
    """log-odds of one input and of a slow hidden coordinate; three slow inputs that do not matter."""

    def slow(memory):
        x = np.empty(n // 4)
        x[0] = rng.normal()
        for i in range(1, len(x)):
            x[i] = memory * x[i - 1] + np.sqrt(1 - memory**2) * rng.normal()
        return x

    parts = [np.column_stack([slow(0.5), slow(0.97), slow(0.97), slow(0.97)]) for _ in range(4)]
    hidden = np.concatenate([slow(0.97) for _ in range(4)])
    x = np.concatenate(parts)
    reached = rng.binomial(2, 1 / (1 + np.exp(-1.5 * x[:, 0] - 1.5 * hidden)))
    chains, steps = (
        np.repeat(np.arange(4), n // 4),
        np.tile(np.arange(1, n // 4 + 1), 4) * 4 + np.repeat(np.arange(4), n // 4),
    )
    return x, np.column_stack([2 - reached, reached]), chains, steps


def test_any_order_of_rows_gives_the_same_formula_training_and_relevance():
    rng = np.random.default_rng(4)
    x, counts, chains, steps = shots_of_four_chains(rng)
    chain_after_chain = TrainingSet(x, counts, chains=chains, steps=steps)
    by_step, shuffled = np.argsort(steps), rng.permutation(len(x))
    others = [TrainingSet(x[rows], counts[rows], chains=chains[rows], steps=steps[rows]) for rows in (by_step, shuffled)]
    fronts = [
        fit_expressions(shots, time_limit=60, n_candidates=300, seed=1, engine="score")
        for shots in (chain_after_chain, *others)
    ]
    for front in fronts[1:]:
        assert front.effective_shots == pytest.approx(fronts[0].effective_shots)
        assert [str(f) for f in front] == [str(f) for f in fronts[0]]
    assert fronts[0].effective_shots < 300
    # the control: without chains and steps, shuffled rows are taken for time, and 600 shots count as independent
    blind = fit_expressions(
        TrainingSet(x[shuffled], counts[shuffled]), time_limit=60, n_candidates=300, seed=1, engine="score"
    )
    assert blind.effective_shots > 450
    found = []
    for shots in (chain_after_chain, *others):
        model = CommittorModel.for_descriptors(4, seed=1)
        report = fit(model, shots, seed=1, auxiliary_weights=(0, 0), relevance=None, max_epochs=20)
        table = input_relevance(model, shots, methods=["permutation"], n_repeats=1, seed=1)
        found.append((report.held_out_loss, table.attrs["held_out_loss_error"]))
    assert np.ptp(found, axis=0) == pytest.approx(0, abs=1e-4)
