"""Shots in time, whatever the order of their rows: blocks, folds, and errors of sums of correlated values."""

import numpy as np
import pytest

from ops_aimmd import CommittorModel, TrainingSet, fit, fit_expressions, input_relevance
from ops_aimmd.committor.correlated_shots import blocks, clustered_error, folds, in_time


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
    block, fold = blocks(chains, steps, length), folds(chains, steps, 5, length)
    assert np.array_equal(blocks(chains[other], steps[other], length), block[other])
    assert np.array_equal(folds(chains[other], steps[other], 5, length), fold[other])
    for number in range(block.max() + 1):
        rows = np.flatnonzero(block == number)
        assert len(rows) <= length and len(set(chains[rows])) == 1 and len(set(fold[rows])) == 1
        assert (np.diff(rows) == 3).all()  # each follows the one before in its chain
    # the control: rows taken for time mix the chains
    mixed = np.arange(83) // max(length, 2)
    assert any(len(set(chains[mixed == number])) > 1 for number in range(mixed.max() + 1))


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
    # the control: without chains and steps, rows that take turns are taken for time, and 600 shots count as independent
    blind = fit_expressions(
        TrainingSet(x[by_step], counts[by_step]), time_limit=60, n_candidates=300, seed=1, engine="score"
    )
    assert blind.effective_shots > 450
    found = []
    for shots in (chain_after_chain, *others):
        model = CommittorModel.for_descriptors(4, seed=1)
        report = fit(model, shots, seed=1, auxiliary_weights=(0, 0), relevance=None, max_epochs=20)
        table = input_relevance(model, shots, methods=["permutation"], n_repeats=1, seed=1)
        found.append((report.held_out_loss, table.attrs["held_out_loss_error"]))
    assert np.ptp(found, axis=0) == pytest.approx(0, abs=1e-4)
