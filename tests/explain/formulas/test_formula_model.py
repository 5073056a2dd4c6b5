"""A formula as a model: the same numbers as sympy, a domain, and all that a learner asks of a model."""

import numpy as np
import pytest
import sympy
import torch

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas import expressions as ex
from ops_aimmd.explain.formulas.expressions import constant, number, x
from ops_aimmd.explain.formulas.formula import Formula
from ops_aimmd.explain.formulas.formula_model import MARGIN
from ops_aimmd.explain.formulas.state_fronts import StateFormulas

NAMES = ("a", "b", "c", "d")

NODES = {
    "ratio": constant(3.123456789) * x(0) / (x(1) + constant(0.35)) + constant(-1.7),
    "log": constant(2.1) * ex.log(x(2)) - ex.sqrt(x(0) * x(1) + constant(0.3)),
    "bump": constant(4.0) * ex.exp(constant(-2.0) * ex.square(x(1) - constant(1.3))),
    "pole": number(1) / (x(0) - constant(0.05)),
    "constant": constant(0.4),
}


def points(n=200, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 2.0, (n, 4))


def formula(name):
    x0 = points()
    q = ex.evaluate(NODES[name], x0.T)
    errors = np.full(len(ex.constants(NODES[name])), 0.1)
    span = (float(q.min()), float(q.max()))
    return Formula(NODES[name], NAMES, errors, x0.min(axis=0), x0.max(axis=0), span, 100.0, 0.5, 0.5, 0.01, 120.0)


@pytest.mark.parametrize("name", NODES)
def test_the_model_is_the_sympy_expression_to_twelve_digits(name):
    model, inside = formula(name).to_model(), points()
    function = sympy.lambdify(sympy.symbols(NAMES), formula(name).sympy, "numpy")
    expected = np.broadcast_to(function(*inside.T), len(inside))
    assert np.allclose(model.reaction_coordinate(inside), expected, rtol=1e-12, atol=0)
    assert np.allclose(formula(name).reaction_coordinate(inside), expected, rtol=1e-12, atol=0)
    assert not np.allclose(model.reaction_coordinate(inside), expected * (1 + 1e-10), rtol=1e-12, atol=0)  # the control


@pytest.mark.parametrize("name", ["ratio", "log", "bump", "pole"])
def test_gradients_with_respect_to_descriptors(name):
    model = formula(name).to_model(CommittorModel.for_descriptors(4, seed=0))
    inside = torch.tensor(0.5 * points(20) + 0.5, requires_grad=True)  # not at the edge, where the network takes over
    assert torch.autograd.gradcheck(lambda t: model.reaction_coordinate(t), (inside,), rtol=1e-6)


def test_outside_of_its_domain_the_network_answers():
    network = CommittorModel.for_descriptors(4, seed=0)
    model = formula("ratio").to_model(network)
    outside, unused = points(), points()
    outside[:, 0] += 5.0
    unused[:, 3] += 5.0  # the formula does not depend on this one, so it has no say
    assert np.allclose(model.committor(outside), network.committor(outside), atol=1e-6)
    assert np.allclose(model.committor(unused), formula("ratio").committor(unused), rtol=1e-12)
    assert not np.allclose(model.committor(points()), network.committor(points()), atol=1e-6)


@pytest.mark.parametrize("name", ["pole", "log"])
def test_no_configuration_gives_a_nan_or_an_unbounded_log_odds(name):
    wild = torch.tensor(
        np.concatenate([points() * 100, -points(), np.zeros((1, 4)), np.full((1, 4), 0.05)]), requires_grad=True
    )
    first, last = formula(name).log_odds_range
    for fallback in (None, CommittorModel.for_descriptors(4, seed=0)):
        q = formula(name).to_model(fallback).reaction_coordinate(wild)
        gradient = torch.autograd.grad(q.sum(), wild)[0]
        assert torch.isfinite(q).all() and torch.isfinite(gradient).all()
        if fallback is None:
            assert q.min() >= first - MARGIN and q.max() <= last + MARGIN
    with pytest.raises(ValueError, match="undefined"):
        formula(name).reaction_coordinate(wild.detach().numpy())  # the control


def test_it_is_a_model_for_learners():
    model = formula("ratio").to_model(CommittorModel.for_descriptors(4, seed=0))
    assert isinstance(model, CommittorModel) and (model.n_descriptors, model.n_states) == (4, 2)
    version = ModelVersion(1, model.frozen_copy())
    log_p = version.model.log_committor(points())
    assert np.allclose(np.exp(log_p).sum(axis=1), 1) and log_p.shape == (200, 2)
    assert np.allclose(np.exp(log_p[:, 1]), model.committor(points()))
    assert np.all(model.uncertainty(points()) == 0)
    assert not any(p.requires_grad for p in model.parameters())
    assert model.committor(points().astype(np.float32)).dtype == np.float64


def test_the_fallback_is_the_network_of_that_moment():
    network = CommittorModel.for_descriptors(4, seed=0)
    model, outside = formula("ratio").to_model(network), points() + 10
    before = model.committor(outside)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert np.array_equal(model.committor(outside), before)
    assert not np.allclose(network.committor(outside), before)


@pytest.mark.parametrize("start_anew", [True, False])
def test_training_reaches_the_fallback_alone(start_anew):
    """As in a learner that is not frozen; a formula without a fallback has nothing to train."""
    counts = np.random.default_rng(0).multinomial(2, [0.4, 0.6], 200)
    shots = TrainingSet(np.concatenate([points(100), points(100) + 10]), counts)
    model = formula("ratio").to_model(CommittorModel.for_descriptors(4, seed=0)).requires_grad_(True)
    before = model.committor(points()), model.committor(points() + 10)
    fit(model, shots, seed=0, start_anew=start_anew)
    assert np.array_equal(model.committor(points()), before[0])
    assert not np.allclose(model.committor(points() + 10), before[1], atol=1e-3)
    with pytest.raises(ValueError, match="no parameter"):
        fit(formula("ratio").to_model().requires_grad_(True), shots, seed=0, start_anew=start_anew)


def test_torchscript_gives_the_same_numbers(tmp_path):
    network = CommittorModel.for_descriptors(4, seed=0)
    model = formula("log").to_model(network)
    formula("log").to_torchscript(network).save(str(tmp_path / "formula.pt"))
    loaded = torch.jit.load(str(tmp_path / "formula.pt"))
    mixed = torch.tensor(np.concatenate([points(50), points(50) + 5.0]))
    assert torch.equal(loaded(mixed), model(mixed))


def test_three_states():
    model = StateFormulas((formula("ratio"), formula("log"))).to_model()
    p = model.committor(points())
    assert p.shape == (200, 3) and np.allclose(p.sum(axis=1), 1)
    assert np.allclose(np.log(p[:, 1] / p[:, 0]), formula("ratio").reaction_coordinate(points()))
    assert np.allclose(np.log(p[:, 2] / p[:, 0]), formula("log").reaction_coordinate(points()))


@pytest.mark.parametrize("fallback", [CommittorModel.for_descriptors(3), CommittorModel.for_descriptors(4, 3), "network"])
def test_a_fallback_of_something_else_is_refused(fallback):
    with pytest.raises(ValueError, match="fallback"):
        formula("ratio").to_model(fallback)
