"""Constants under the likelihood of the shots."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from ops_aimmd.committor.likelihood import binomial_derivatives, negative_log_likelihood
from ops_aimmd.explain.formulas import expressions as ex
from ops_aimmd.explain.formulas.archive import description_length
from ops_aimmd.explain.formulas.constants import PRIOR_LOG_ODDS, ROWS_PER_BLOCK, Shots, derivatives, minimise, refit
from ops_aimmd.explain.formulas.expressions import OutsideDomain, Tape, constant, x

FORM = (
    constant(1) * x(0)
    + constant(-1) * (x(1) * x(2))
    + (constant(1) * ex.log(x(3)) + (constant(0) + ex.exp(constant(-1) * x(1))))
)


def q_true(columns, c=(2.3, -1.7, 0.9, 0.5, -1.5)):
    return c[0] * columns[0] + c[1] * columns[1] * columns[2] + c[2] * np.log(columns[3]) + c[3] + np.exp(c[4] * columns[1])


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.uniform(0.1, 2, (4, n))
    reached = rng.binomial(2, expit(q_true(columns))).astype(float)
    return Shots(columns, reached, np.full(n, 2.0), np.zeros(n, int))


def test_numpy_and_torch_agree_on_the_likelihood():
    q = np.concatenate([np.linspace(-8, 8, 41), [-800.0, 800.0]])
    reached, legs = np.random.default_rng(0).uniform(0, 3, (2, len(q)))
    legs = legs + reached
    t = torch.tensor(q, requires_grad=True)
    loss = negative_log_likelihood(t[:, None], torch.tensor(np.stack([legs - reached, reached], axis=1)))
    first = torch.autograd.grad(loss.sum(), t, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), t)[0]
    for mine, theirs in zip(binomial_derivatives(q, reached, legs), (loss, first, second), strict=True):
        assert np.allclose(mine, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [500, 3 * ROWS_PER_BLOCK + 7])
def test_the_optimum_is_that_of_torch(n):
    shots = sample(n)
    fitted = refit(FORM, shots, 1e-12)
    columns, counts = (
        torch.tensor(shots.columns),
        torch.tensor(np.stack([shots.legs - shots.reached, shots.reached], axis=1)),
    )
    c = torch.tensor([1.0, -1.0, 1.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [c], max_iter=1000, max_eval=5000, tolerance_grad=1e-10, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        q = c[0] * columns[0] + c[1] * columns[1] * columns[2] + c[2] * columns[3].log() + c[3] + (c[4] * columns[1]).exp()
        loss = negative_log_likelihood(q[:, None], counts).sum() + q.square().mean() / (2 * PRIOR_LOG_ODDS**2)
        loss.backward()
        return loss

    for _ in range(3):
        optimiser.step(closure)
    assert abs(fitted.loss - closure().item()) < 1e-8
    assert np.allclose(ex.constants(fitted.node), c.detach().numpy()[[0, 1, 2, 3, 4]], rtol=1e-4)


@pytest.mark.parametrize("n", [500, 3 * ROWS_PER_BLOCK + 7])
def test_the_loss_is_that_of_the_constants_also_after_a_last_step_unseen(n):
    shots = sample(n)
    fitted = refit(FORM, shots)
    tape = Tape(fitted.node)
    loss, gradient, _ = derivatives(tape, shots, tape.constants)
    assert fitted.loss == pytest.approx(loss, abs=1e-9)
    assert 0.5 * gradient @ np.linalg.solve(fitted.information, gradient) < 1e-10  # what another step would promise
    assert derivatives(tape, shots, tape.constants, limit=loss - 1)[0] == np.inf  # no better than a limit: not computed


def test_a_fit_is_given_up_only_where_a_limit_is_out_of_reach():
    shots = sample(500)
    optimum = refit(FORM, shots).loss
    assert minimise(FORM, shots, 1e-10, 100, limit=optimum + 1).loss == pytest.approx(optimum, abs=1e-8)
    given_up = minimise(FORM, shots, 1e-10, 100, limit=optimum - 50).loss
    assert given_up > optimum + 1e-3  # the control: it did not go on to the end


@pytest.mark.parametrize("form, n_variables", [(x(0) * x(0), 1), (x(0) * x(1), 2), (FORM, 4)])
def test_to_name_a_variable_costs_the_logarithm_of_how_many_there_are(form, n_variables):
    fitted = refit(form, sample(50))
    few, many = (description_length(fitted, 50, n_inputs) for n_inputs in (20, 200))
    assert many - few == pytest.approx(n_variables * np.log(10))


def test_standard_errors_are_those_of_repeated_experiments():
    """The spread of the fitted constants over 200 data sets; the standard deviation has a relative error of 5 %."""
    form = constant(1) * x(0) + constant(0)
    rng = np.random.default_rng(0)
    columns = rng.uniform(0.1, 2, (1, 500))
    values, errors = [], []
    for _ in range(200):
        reached = rng.binomial(2, expit(1.5 * columns[0] - 1)).astype(float)
        fitted = refit(form, Shots(columns, reached, np.full(500, 2.0), np.zeros(500, int)))
        values.append(ex.constants(fitted.node))
        errors.append(fitted.standard_errors())
    ratio = np.std(values, axis=0) / np.mean(errors, axis=0)
    assert np.all(np.abs(ratio - 1) < 0.2)


def test_constants_that_the_shots_do_not_determine_have_infinite_errors():
    redundant = constant(1.0) * (constant(2.0) * x(0))
    assert np.isinf(refit(redundant, sample(300)).standard_errors()).all()
    assert np.isfinite(refit(FORM, sample(300)).standard_errors()).all()


def test_separable_outcomes_give_finite_constants():
    columns = np.linspace(-1, 1, 200)[None]
    shots = Shots(columns, (columns[0] > 0.0) * 2.0, np.full(200, 2.0), np.zeros(200, int))
    form = constant(1) * x(0) + constant(0)
    fitted = refit(form, shots)
    slope = ex.constants(fitted.node)[0]
    assert 5 < np.abs(slope * columns).max() < 5 * PRIOR_LOG_ODDS
    again = refit(fitted.node, shots)
    assert ex.constants(again.node)[0] == pytest.approx(slope, rel=1e-3)  # converged, not stopped on its way to infinity


def test_a_step_never_crosses_a_pole():
    shots = sample(2000)
    form = x(0) / (x(1) + constant(0.5))
    fitted = refit(form, shots)
    assert ex.constants(fitted.node)[0] > -shots.columns[1].min()
    with pytest.raises(OutsideDomain):
        refit(x(0) / (x(1) + constant(-0.5)), shots)
