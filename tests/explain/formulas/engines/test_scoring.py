"""What terms promise is what they bring: the score test against fits of all constants."""

import numpy as np
from scipy.special import expit

from ops_aimmd.explain.formulas.constants import Shots, refit
from ops_aimmd.explain.formulas.engines import scoring
from ops_aimmd.explain.formulas.engines.scoring import ScoreTest
from ops_aimmd.explain.formulas.expressions import OutsideDomain, constant, log, skeleton, x

SHARE, RATIO = x(0) / (x(0) + x(1)), x(2) / x(3)


def ratios(seed, n=3000):
    """Shots with log-odds that depend on a share, and on a ratio with a heavy tail."""
    rng = np.random.default_rng(seed)
    columns = rng.uniform(0.1, 2.0, (8, n))
    q = 12 * columns[0] / (columns[0] + columns[1]) - 1.5 * columns[2] / columns[3] - 4.2
    return Shots(columns, rng.binomial(2, expit(q)).astype(float), np.full(n, 2.0), np.zeros(n, int))


def linear(*terms):
    node = constant(0.0)
    for term in terms:
        node = constant(1.0) * term + node
    return node


def promised_and_brought(shots, node, n_terms=12):
    """Gains of the terms that promise most, and what fits of all constants gain."""
    base = refit(node, shots)
    test = ScoreTest(shots)
    gains, starts, _ = test(base.node, (), False)
    promised, brought = [], []
    for term in np.argsort(-gains)[:n_terms]:
        child = base.node + constant(starts[term]) * test.library.terms[term]
        try:
            brought.append(base.loss - refit(child, shots).loss)
        except OutsideDomain:
            continue
        promised.append(gains[term])
    return np.array(promised), np.array(brought)


def test_terms_bring_what_they_promise():
    """Within what another quarter of the shots would say, and a little more, as all constants are fitted."""
    for seed in range(6):
        promised, brought = promised_and_brought(ratios(seed), linear(SHARE))
        assert (promised < 1.4 * brought).all()
        assert np.median(promised / brought) > 0.6


def test_control_the_second_order_alone_promises_too_much(monkeypatch):
    monkeypatch.setattr(scoring, "FOLLOWED", 0)
    gains = [promised_and_brought(ratios(seed), linear(SHARE)) for seed in range(6)]
    assert max((promised / brought).max() for promised, brought in gains) > 1.8


def places(seeds, node, truth):
    """How many terms promise more than the true one."""
    result = []
    for seed in seeds:
        shots = ratios(seed)
        test = ScoreTest(shots)
        gains, _, _ = test(refit(node, shots).node, (), False)
        result.append((gains > gains[[skeleton(term) for term in test.library.terms].index(skeleton(truth))]).sum())
    return result


def test_the_truth_comes_first(monkeypatch):
    """Few of 400 terms promise more than the truth, also where half of it has another form already."""
    seeds = range(10)
    assert max(places(seeds, linear(RATIO), SHARE)) == 0
    assert np.median(places(seeds, linear(SHARE), RATIO)) <= 1
    assert max(places(seeds, linear(log(x(0))), SHARE)) < 15
    monkeypatch.setattr(scoring, "FOLLOWED", 0)
    assert max(places(seeds, linear(log(x(0))), SHARE)) > 30


def test_an_expression_without_constants():
    gains, starts, _ = ScoreTest(ratios(1))(log(x(0)), (), False)
    assert np.isfinite(gains).all() and np.isfinite(starts).all() and gains.max() > 10
