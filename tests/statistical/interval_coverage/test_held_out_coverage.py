"""Held-out shots are judged by members that do not know their neighbours: a slow coordinate that no descriptor holds.

One chain of 200 shots. Hidden coordinate and descriptors are AR(0.97), so that the chain is worth three independent shots,
and three of the four descriptors do not matter. The control deals blocks of two shots, as version 0.1.0 did, without gaps.
"""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.special import expit

from ops_aimmd import CommittorModel, TrainingSet, fit, input_relevance
from ops_aimmd.committor import optimisation
from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.likelihood import negative_log_likelihood

N_SHOTS, MEMORY = 200, 0.97


def chain(rng, slope=1.5, hidden=1.25, memory=MEMORY):
    noise = rng.standard_normal((5, N_SHOTS)) * np.where(np.arange(N_SHOTS), np.sqrt(1 - memory**2), 1.0)
    *x, h = lfilter([1.0], [1.0, -memory], noise, axis=1)
    reached = rng.binomial(2, expit(slope * x[0] + hidden * h))
    return TrainingSet(np.transpose(x), np.stack([2 - reached, reached], axis=1), steps=np.arange(1, N_SHOTS + 1))


def new_chain_loss(model, rng, **options):
    """Loss per leg of single members on eight chains that they have not seen."""
    losses = []
    for _ in range(8):
        shots = chain(rng, **options)
        with torch.no_grad():
            logits = model.member_logits(torch.tensor(shots.descriptors)).double()
        losses.append(negative_log_likelihood(logits, torch.tensor(shots.counts)).mean().item() / 2)
    return np.mean(losses)


def trained(seed, **options):
    """Held-out loss, loss on new chains, and relevance of the inputs in standard errors."""
    rng = np.random.default_rng(seed)
    shots, model = chain(rng, **options), CommittorModel.for_descriptors(4, seed=seed)
    report = fit(model, shots, seed)
    table = input_relevance(model, shots, methods=["permutation"], n_repeats=5).loc[[f"input {k}" for k in range(4)]]
    z = table.loss_increase / table.standard_error.where(table.loss_increase != 0, 1.0)
    return report.held_out_loss_per_leg, new_chain_loss(model, rng, **options), z.to_numpy()


def in_blocks_of_two(monkeypatch):
    monkeypatch.setattr(Folds, "dealt", classmethod(lambda cls, chains, n_folds, correlated=1: cls(n_folds, 2)))
    monkeypatch.setattr(optimisation, "independent_values", lambda values, *_: float(len(values)))


@pytest.mark.slow
def test_a_slow_hidden_coordinate_does_not_leak(monkeypatch):
    """112 chains: no leak beyond 2 standard errors of at most 0.025, and at most 8 % of 336 irrelevant inputs count."""
    n = 112
    held_out, new, z = (np.array(values) for values in zip(*map(trained, range(n)), strict=True))
    in_blocks_of_two(monkeypatch)
    of_two, new_of_two, _ = (np.array(values) for values in zip(*map(trained, range(n)), strict=True))
    leak, old = held_out - new, of_two - new_of_two
    error = leak.std(ddof=1) / np.sqrt(n)
    print(f"leak {leak.mean():+.3f} +- {error:.3f} nats per leg, with blocks of two {old.mean():+.3f}")
    print(f"irrelevant inputs beyond 1.96 standard errors: {np.mean(z[:, 1:] > 1.96):.3f} of {z[:, 1:].size}")
    assert error <= 0.025 and abs(leak.mean()) <= 2 * error
    assert old.mean() < -0.15, "the control"
    assert np.mean(z[:, 1:] > 1.96) <= 0.08


@pytest.mark.slow
def test_power_on_independent_shots(monkeypatch):
    """Relevance of the input that matters, in standard errors: at least 90 % of that with blocks of two shots."""
    options = {"hidden": 0.0, "slope": 1.0, "memory": 0.0}
    found = np.mean([trained(seed, **options)[2][0] for seed in range(30)])
    in_blocks_of_two(monkeypatch)
    before = np.mean([trained(seed, **options)[2][0] for seed in range(30)])
    print(f"{found:.2f} standard errors, {before:.2f} with blocks of two")
    assert found > 0.9 * before > 3
