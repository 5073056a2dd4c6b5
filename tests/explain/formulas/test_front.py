"""Searches, fronts and what comes of bad input."""

import dataclasses
import importlib
import io
import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.special import expit

from ops_aimmd.committor.autocorrelation import independent_values
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.constants import Shots, refit
from ops_aimmd.explain.formulas.expressions import constant, evaluate
from ops_aimmd.explain.formulas.expressions import x as input_
from ops_aimmd.explain.formulas.fit_expressions import _steepest, fit_expressions
from ops_aimmd.explain.formulas.formula import upright
from ops_aimmd.explain.formulas.front import PICKS, Front, effective_shots, make_front
from ops_aimmd.explain.formulas.screening import screen
from ops_aimmd.explain.formulas.state_fronts import StateFronts


def sample(n=2000, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.2, 2, (n, d))
    q = 3 * x[:, 0] - 2 * x[:, 1] * x[:, 2] - 1
    reached = rng.binomial(2, expit(q))
    return x, np.stack([2 - reached, reached], axis=1), q


def search(points, counts, **options):
    return fit_expressions(
        TrainingSet(points, counts), **{"time_limit": 30, "n_candidates": 500, "seed": 1, "progress": False, **options}
    )


@pytest.fixture(scope="module")
def front():
    points, counts, _ = sample()
    return search(points, counts, names=["d1", "d2", "angle", "box", "e", "f"])


def test_the_truth_is_found(front):
    points, _, q = sample(seed=5)
    assert front.best.variables == ("d1", "d2", "angle")
    p, true = front.best.committor(points), expit(q)
    gap = np.mean(true * np.log(true / p) + (1 - true) * np.log((1 - true) / (1 - p)))
    assert gap < 10 * 3 / (2 * 4000)  # three constants cost 3/2 nats of the 4000 legs; a constant committor misses by 0.3
    assert np.allclose(front.best.reaction_coordinate(points), np.log(p / (1 - p)))


def test_a_front_falls_with_size_and_starts_with_the_constant(front):
    sizes, losses = [f.size for f in front], [f.loss for f in front]
    assert front[0].inputs == ()
    assert sizes == sorted(set(sizes))
    assert all(a > b for a, b in zip(losses[:-1], losses[1:], strict=True))
    table = front.to_pandas()
    assert len(table) == len(front) and table["picked"].sum() == 1
    assert table["cross_validated_loss"].iloc[0] == pytest.approx(front[0].loss_per_leg, abs=0.01)


def test_every_rule_picks_from_the_front(front):
    assert all(front.pick(by) in front.formulas for by in PICKS)
    assert front.pick("1-SE").size <= front.pick("cross_validation").size
    assert front.pick(size=front[2].size) is front[2]
    assert front.pick(size=0) is front[0]
    with pytest.raises(ValueError, match="by must be one of"):
        front.pick("luck")


def test_constants_have_errors_and_print_in_sympy_and_latex(front):
    best = front.best
    assert list(best.constants.columns) == ["value", "standard_error", "rounded"]
    assert (best.constants["standard_error"] > 0).all()
    assert {str(s) for s in best.sympy.free_symbols} == set(best.variables)
    assert "d_{1}" in best.latex() and "d1" in str(best)


@pytest.mark.parametrize("name", ["phi ALA 2 sin", "Li O G5 r=0.25 zeta=4 lambda=-1", "50% & $x_1$ \\frac{", "a_b", "psi"])
def test_any_name_can_be_drawn(front, name):
    best = front.best
    renamed = dataclasses.replace(best, names=(name, *best.names[1:]))
    assert 0 in renamed.inputs
    drawing = dataclasses.replace(front, formulas=(front[0], renamed)).plot(Figure().subplots())
    drawing.set_title(f"${renamed.latex()}$")
    drawing.figure.savefig(io.BytesIO(), format="png")  # matplotlib parses the formula here
    assert upright("phi ALA 2") == r"\mathrm{phi\ ALA\ 2}"


def test_json_gives_back_the_front(front, tmp_path):
    path = tmp_path / "front.json"
    text = front.to_json(path)
    for again in (Front.from_json(text), Front.from_json(path)):
        assert again.best.node == front.best.node
        assert np.allclose(again.best.constants, front.best.constants)
        assert again.to_json() == text
    for wrong in ("{}", json.dumps({"format": "ops_aimmd front 1", "formulas": 3}), text.replace('"add"', '"system"')):
        with pytest.raises(ValueError):
            Front.from_json(wrong)


def test_the_plot_has_the_network_only_where_one_was_given(front):
    pytest.importorskip("matplotlib").use("Agg")
    assert len(front.plot().get_legend().get_texts()) == 3


def test_a_seed_and_a_number_of_candidates_fix_the_result():
    points, counts, _ = sample(300)
    first, second, other = (search(points, counts, n_candidates=60, seed=seed) for seed in (3, 3, 4))
    assert [f.node for f in first] == [f.node for f in second]
    assert [f.node for f in first] != [f.node for f in other]


def test_a_network_is_compared_on_the_same_shots():
    points, counts, _ = sample(300)
    model = CommittorModel.for_descriptors(6, seed=0)
    front = search(points, counts, model=model, n_candidates=30)
    p = model.committor(points)
    expected = -(counts[:, 1] * np.log(p) + counts[:, 0] * np.log(1 - p)).sum() / counts.sum()
    assert front.network_loss_per_leg == pytest.approx(expected, rel=1e-5)


def test_only_the_given_inputs_are_used():
    points, counts, _ = sample(600)
    front = search(points, counts, inputs=[1, 3], n_candidates=60)
    assert {i for f in front for i in f.inputs} <= {1, 3}
    assert front.best.committor(points).shape == (600,)
    by_name = search(points, counts, inputs=["x1", "x3"], n_candidates=60)
    assert [f.node for f in by_name] == [f.node for f in front]


def test_no_input_that_varies():
    with pytest.raises(ValueError, match="no input varies"):
        search(np.ones((40, 2)), np.tile([1, 1], (40, 1)))


@pytest.mark.parametrize("inputs", ["d1", 0, [True, False], [0.5]])
def test_inputs_are_a_list_of_names_or_numbers(inputs):
    points, counts, _ = sample(50)
    with pytest.raises(ValueError, match="a list of names or numbers"):
        search(points, counts, inputs=inputs)


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_outcomes_give_the_constant(seed):
    points, counts, _ = sample(800, seed=seed)
    shuffled = np.random.default_rng(seed).permutation(counts)
    assert search(points, shuffled, n_candidates=200, seed=seed).best.inputs == ()
    assert search(points, counts, n_candidates=100, seed=seed).best.inputs != ()  # the control


def test_constant_columns_are_passed_over():
    points, counts, _ = sample(500)
    points[:, 3] = 7.0
    front = search(points, counts, n_candidates=60)
    assert all(3 not in f.inputs for f in front)


def test_more_inputs_than_shots_give_few_finite_constants():
    rng = np.random.default_rng(0)
    points, counts = rng.normal(size=(30, 60)), np.eye(2)[rng.integers(0, 2, 30)]
    front = search(points, counts, n_candidates=200)
    assert all(len(f.constants) <= 2 and np.isfinite(f.constants).all().all() for f in front)
    assert np.abs(front.best.to_model().reaction_coordinate(points)).max() < 20


def test_separable_outcomes_give_finite_constants():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (300, 3))
    counts = np.eye(2)[(points[:, 0] > 0).astype(int)] * 2
    front = search(points, counts, n_candidates=200)
    assert 0 in front.best.inputs
    assert all(np.isfinite(f.standard_errors).all() for f in front)
    assert np.abs(front.best.reaction_coordinate(points)).max() < 100


@pytest.mark.parametrize(
    "counts, message",
    [(np.tile([2, 0], (50, 1)), "reached 1 of 2 states"), (np.tile([1, 1, 0], (50, 1)), "no shot reached state 2")],
)
def test_states_that_were_never_reached_are_named(counts, message):
    with pytest.raises(ValueError, match=message):
        search(np.random.default_rng(0).normal(size=(50, 2)), counts)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"engine": "magic"}, "engine must be one of"),
        ({"inputs": [9]}, "there is no input 9"),
        ({"names": ["a"]}, "1 names for 6 inputs"),
        ({"time_limit": 0}, "time_limit"),
        ({"pick": "luck"}, "pick must be one of"),
        ({"model": CommittorModel.for_descriptors(2)}, "the model takes 2 descriptors"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, message):
    points, counts, _ = sample(50)
    with pytest.raises(ValueError, match=message):
        search(points, counts, **options)


def test_a_formula_says_where_it_is_undefined(front):
    points, _, _ = sample(20)
    points[3] = np.nan
    with pytest.raises(ValueError, match=r"undefined in rows \[3\]"):
        front.best.committor(points)
    with pytest.raises(ValueError, match=r"shape \(n, 6\)"):
        front.best.committor(points[:, :2])


def test_three_states_have_two_formulas():
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 2, (2000, 4))
    logits = np.stack([np.zeros(2000), 3 * points[:, 0] - 3, 3 * points[:, 1] - 3], axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(2, row) for row in p])
    fronts = search(points, counts, n_candidates=300)
    assert isinstance(fronts, StateFronts) and len(fronts) == 2
    best = fronts.best
    assert [formula.inputs for formula in best.formulas] == [(0,), (1,)]
    assert best.committor(points).shape == (2000, 3)
    assert np.abs(best.committor(points) - p).max() < 0.15
    assert np.allclose(StateFronts.from_json(fronts.to_json()).best.committor(points), best.committor(points))
    assert "ln p1/p0" in str(best) and r"\begin{aligned}" in best.latex()


def test_a_network_of_three_states_is_compared_and_helps_to_choose_inputs():
    """In the pairs (0, i); of the inputs beyond 40 it names those that its own log-odds depend on."""
    rng = np.random.default_rng(0)
    points, counts = rng.normal(size=(200, 50)), rng.multinomial(2, [0.3, 0.3, 0.4], 200)
    layer = torch.nn.Linear(50, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 47], layer.weight[2, 48] = 2.0, 2.0
    model = CommittorModel(layer, 50, n_states=3)
    fronts = search(points, counts, model=model, n_candidates=2)
    log_p = model.log_committor(points)
    for i, front in enumerate(fronts, start=1):
        pair = log_p[:, [0, i]] - np.logaddexp(log_p[:, 0], log_p[:, i])[:, None]
        expected = -(counts[:, [0, i]] * pair).sum() / counts[:, [0, i]].sum()
        assert front.network_loss_per_leg == pytest.approx(expected, rel=1e-5)
    assert [_steepest(model, points, state, n=1) for state in (1, 2)] == [[47], [48]]


def test_the_screen_keeps_a_product_among_many_inputs():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(120, 4000))
    reached = rng.binomial(2, expit(1.5 * columns[7] * columns[99] + columns[50])).astype(float)
    kept = screen(Shots(columns, reached, np.full(4000, 2.0), np.zeros(4000, int)))
    assert {7, 50, 99} <= set(kept) and len(kept) == 30


def test_what_no_input_tells_counts_as_fewer_shots():
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.integers(0, 2, 100) * 1.0, 10)
    legs, chains = np.ones(1000), np.zeros(1000, int)
    columns = rng.normal(size=(1, 1000))
    assert effective_shots(Shots(columns, blocks, legs, chains)) < 250
    assert effective_shots(Shots(columns, rng.permutation(blocks), legs, chains)) > 800


def slow_shots(n=1500, seed=3):
    """A product of two slow inputs decides; a third one does not matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    for i in range(1, n):
        x[i] = 0.97 * x[i - 1] + np.sqrt(1 - 0.97**2) * x[i]
    reached = rng.binomial(2, expit(0.8 * x[:, 0] + 2 * x[:, 0] * x[:, 1])).astype(float)
    return Shots(np.ascontiguousarray(x.T), reached, np.full(n, 2.0), np.zeros(n, int))


def test_a_search_cut_short_does_not_make_shots_fewer():
    """The residuals of neighbours are alike under a poor form, and not under a good one; the shots are the same."""
    shots = slow_shots()
    poor = constant(1.0) * input_(0) + constant(0.0)
    good = constant(1.0) * input_(0) + constant(1.0) * input_(0) * input_(1) + constant(0.0)
    under_poor, under_good = (
        independent_values(binomial_derivatives(q, shots.reached, shots.legs)[1], shots.chains, shots.time)
        for q in (evaluate(refit(form, shots).node, shots.columns) for form in (poor, good))
    )
    assert under_poor < 0.2 * under_good  # the control: residuals of the best form found
    fronts = [
        make_front(forms, shots, [0, 1, 2], ("a", "b", "c"), shots.columns.T, "description_length", 100, 5.0)
        for forms in ([poor], [poor, good])
    ]
    assert fronts[0].effective_shots == fronts[1].effective_shots > 0.8 * under_good
    assert [front.best.variables for front in fronts] == [("a",), ("a", "b")]


def test_errors_of_constants_know_that_shots_are_repeated():
    """Each shot eight times in a row is worth one; the control takes the rows for independent."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(250, 1))
    reached = rng.binomial(2, expit(1.5 * x[:, 0]))
    counts = np.stack([2 - reached, reached], axis=1)

    def constants_of(repeats):
        shots = TrainingSet(np.repeat(x, repeats, axis=0), np.repeat(counts, repeats, axis=0))
        front = fit_expressions(shots, time_limit=60, n_candidates=100, seed=1, engine="score")
        (formula,) = (f for f in front if f.size == front.best.size)
        columns = np.ascontiguousarray(shots.descriptors.T)
        naive = refit(formula.node, Shots(columns, shots.counts[:, 1], shots.counts.sum(axis=1), shots.chains))
        return np.mean(formula.standard_errors / naive.standard_errors())

    assert constants_of(1) == pytest.approx(1, abs=0.3)
    assert constants_of(8) > 2


def test_an_engine_without_a_search_is_no_other_engine(monkeypatch):
    module = importlib.import_module("ops_aimmd.explain.formulas.fit_expressions")
    monkeypatch.setattr(module, "ENGINES", (*module.ENGINES, "mine"))
    shots = TrainingSet(np.random.default_rng(0).normal(size=(60, 2)), np.ones((60, 2), dtype=int))
    with pytest.raises(NotImplementedError, match="mine"):
        fit_expressions(shots, engine="mine", time_limit=1, progress=False)
