"""The log-likelihood of shooting results."""

import numpy as np
import torch
from scipy.stats import multinomial

from ops_aimmd.committor.likelihood import log_committor, negative_log_likelihood


def test_two_states_is_the_binomial_log_likelihood():
    q = torch.linspace(-5, 5, 11, dtype=torch.float64)[:, None]
    counts = torch.tensor([[2.0, 3.0]], dtype=torch.float64).expand(11, 2)
    p = 1 / (1 + np.exp(-q[:, 0].numpy()))
    constant = multinomial.logpmf([2, 3], 5, [0.5, 0.5]) - 5 * np.log(0.5)
    expected = -np.array([multinomial.logpmf([2, 3], 5, [1 - x, x]) for x in p]) + constant
    assert np.allclose(negative_log_likelihood(q, counts).numpy(), expected, rtol=1e-12)


def test_a_positive_log_odds_means_the_last_state():
    p = log_committor(torch.tensor([[2.0]])).exp()[0]
    assert p[1] > 0.8 > 0.2 > p[0]


def test_two_columns_agree_with_one():
    q = torch.randn(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    two = torch.cat([torch.zeros_like(q), q], dim=1) + 7.0
    counts = torch.randint(0, 3, (20, 2), generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(negative_log_likelihood(q, counts), negative_log_likelihood(two, counts))


def test_finite_loss_and_gradient_where_the_naive_form_overflows():
    q = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    loss = negative_log_likelihood(q, torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    loss.sum().backward()
    assert torch.allclose(loss, torch.tensor([1000.0, 1000.0]))
    assert torch.isfinite(q.grad).all()
    assert not torch.isfinite(torch.log1p(torch.exp(q[:1]))).all()  # the control


def test_leading_dimensions_of_an_ensemble_are_kept():
    logits = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(7, 3)
    loss = negative_log_likelihood(logits, counts)
    assert loss.shape == (5, 7)
    assert torch.allclose(loss[2], negative_log_likelihood(logits[2], counts))
