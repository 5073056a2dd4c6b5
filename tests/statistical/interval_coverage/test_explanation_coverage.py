"""Errors of constants of formulas and of input relevance cover what they say, for correlated shots and legs.

The control of each is the error of independent shots. Of 300 repeats, 0.90 is four standard deviations below 0.95, and 0.98
two above; of the 68 % intervals 0.60 and 0.76 are three away.
"""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.signal import lfilter
from scipy.special import expit

from ops_aimmd import CommittorModel, TrainingSet, input_relevance
from ops_aimmd.explain.formulas.constants import Shots, errors_of_constants, refit
from ops_aimmd.explain.formulas.expressions import Node, constant, constants

REPEATS = [pytest.param(300, id="quick"), pytest.param(2000, id="full", marks=pytest.mark.slow)]

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


def autoregressive(shape, memory, rng):
    noise = rng.standard_normal(shape) * np.where(np.arange(shape[-1]), np.sqrt(1 - memory**2), 1.0)
    return lfilter([1.0], [1.0, -memory], noise, axis=-1)


def two_legs(p, agreement, rng):
    """Legs that reached B; in a fraction of the shots the second repeats the first."""
    first, second = (rng.random((2, *p.shape)) < p).astype(int)
    return first + np.where(rng.random(p.shape) < agreement, first, second)


def best_line(slope, hidden):
    """Intercept and slope that are most probable where a hidden normal coordinate is averaged over, for a normal input."""
    p = (expit(slope * NODES[:, None] + hidden * NODES) * WEIGHTS).sum(axis=1) / WEIGHTS.sum()
    weights = WEIGHTS / WEIGHTS.sum()

    def loss(line):
        q = line[0] + line[1] * NODES
        return (weights * (np.logaddexp(0, q) - p * q)).sum()

    return minimize(loss, [0.0, slope], tol=1e-12).x


LINE = Node("add", (Node("mul", (constant(1.0), Node("input", (), 0))), constant(0.1)))


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize(
    "memory, hidden, agreement, fails",
    [
        pytest.param(0.0, 0.0, 0.0, False, marks=pytest.mark.slow),
        (0.9, 0.0, 0.0, False),
        (0.9, 1.0, 0.0, True),
        (0.0, 0.0, 0.8, True),
    ],
    ids=["independent", "slow input", "slow hidden coordinate", "legs that agree"],
)
def test_constants_of_formulas(memory, hidden, agreement, fails, repeats):
    """Four chains of 500 shots that take turns; the formula knows nothing of the hidden coordinate."""
    rng = np.random.default_rng(1)
    truth = best_line(1.5, hidden)[::-1]
    chains = np.repeat(np.arange(4), 500)
    scores, naive = [], []
    for _ in range(repeats):
        x, h = autoregressive((2, 4, 500), memory, rng)
        reached = two_legs(expit(1.5 * x + hidden * h), agreement, rng).ravel().astype(float)
        shots = Shots(x.reshape(1, -1), reached, np.full(2000, 2.0), chains)
        fitted = refit(LINE, shots)
        deviations = np.array(constants(fitted.node)) - truth
        scores.append(deviations / errors_of_constants(fitted, shots))
        naive.append(deviations / fitted.standard_errors())
    covered, covered_68 = (np.mean(np.abs(scores) < limit, axis=0) for limit in (1.96, 1.0))
    assert (covered >= 0.90).all() and (covered <= 0.98).all(), covered
    assert (covered_68 >= 0.60).all() and (covered_68 <= 0.76).all(), covered_68
    assert ((np.mean(np.abs(naive) < 1.96, axis=0) < 0.90).any()) == fails, "the control"


class Linear(CommittorModel):
    """Log-odds 1.2 x0, as if learned."""

    def __init__(self):
        import torch

        network = torch.nn.Linear(2, 1)
        super().__init__(network, 2)
        with torch.no_grad():
            network.weight[:] = torch.tensor([[1.2, 0.0]])
            network.bias[:] = 0.0


@pytest.mark.parametrize("repeats", [pytest.param(100, id="quick"), pytest.param(400, id="full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("memory", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_relevance_on_new_shots(memory, repeats):
    """Increase of the loss against that of 200 times as many shots; the control takes the shots for independent."""
    rng = np.random.default_rng(2)
    model = Linear()

    def judged(n_chains, n):
        x = autoregressive((2, n_chains, n), memory, rng).reshape(2, -1).T
        reached = two_legs(expit(1.5 * x[:, 0]), 0.0, rng)
        return TrainingSet(
            x,
            np.stack([2 - reached, reached], axis=1),
            chains=np.repeat(np.arange(n_chains), n),
            steps=np.tile(np.arange(n), n_chains),
        )

    def found(shots, **options):
        table = input_relevance(model, shots, held_out=shots, methods=["permutation"], groups={"x": [0]}, **options)
        return table.loc["x", ["loss_increase", "standard_error"]].to_numpy(float)

    truth = np.mean([found(judged(40, 1000), seed=k)[0] for k in range(5)])
    results, naive = [], []
    for seed in range(repeats):
        shots = judged(1, 1000)
        results.append(found(shots, seed=seed))
        rows = rng.permutation(1000)
        naive.append(found(TrainingSet(shots.descriptors[rows], shots.counts[rows]), seed=seed))
    covered, of_naive = (
        np.mean(np.abs(values - truth) < 1.96 * errors) for values, errors in map(np.transpose, (results, naive))
    )
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats) <= covered <= 0.99
    if memory:
        assert of_naive < 0.85, "the control"
