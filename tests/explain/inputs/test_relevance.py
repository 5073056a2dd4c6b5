"""Relevance of inputs: exact values, honest zeros and errors, folds, groups, gradients."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ops_aimmd
from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.networks import Ensemble
from ops_aimmd.explain.inputs.relevance import input_relevance
from ops_aimmd.explain.inputs.relevance_plots import plot_relevance
from ops_aimmd.explain.inputs.replacement import ConditionalPermutation

matplotlib.use("agg")


class Formula(nn.Module):
    """A network that is a formula of its inputs."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, x):
        return self.formula(x)


def model_of(formula, d, n_states=2):
    return ops_aimmd.CommittorModel(Formula(formula), d, n_states)


def linear(weights):
    """Log-odds w.x"""
    return model_of(lambda x: x @ torch.tensor(weights, dtype=x.dtype)[:, None], len(weights))


def shots(x, q, rng, legs=2):
    """Two-state shots from points with log-odds q."""
    reached = rng.binomial(legs, 1 / (1 + np.exp(-q)))
    return ops_aimmd.TrainingSet(x, np.column_stack([legs - reached, reached]))


def judge(model, held_out, **options):
    options = {"methods": ["permutation"], **options}
    return input_relevance(model, held_out, held_out=held_out, **options)


def test_permutation_agrees_with_the_mean_over_all_pairs():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 2))
    held_out = shots(x, x[:, 0], rng)
    table = judge(linear([1.3, 0.0]), held_out, n_repeats=200)
    b = held_out.counts[:, 1]

    def loss(q):
        return (2 - b) * np.logaddexp(0, q) + b * np.logaddexp(0, -q)

    exact = np.mean([loss(1.3 * value) for value in x[:, 0]]) - loss(1.3 * x[:, 0]).mean()
    row = table.loc["input 0"]
    assert table.index[0] == "input 0"
    assert exact > 10 * row.repeats_error
    assert abs(row.loss_increase - exact) < 4 * row.repeats_error
    assert abs(table.attrs["held_out_loss"] - loss(1.3 * x[:, 0]).mean()) < 1e-6
    # an input that the model does not look at has no relevance and no error
    assert table.loc["input 1", ["loss_increase", "standard_error"]].tolist() == [0, 0]


def test_a_spurious_input_is_zero_within_its_standard_error():
    """z = increase / error over 200 sets of new shots: mean 0 +- 0.07, standard deviation 1 +- 0.05."""
    rng = np.random.default_rng(5)
    model = linear([1.5, 0.6])  # the second weight is noise of the training
    null, relevant = [], []
    for _ in range(200):
        x = rng.normal(size=(120, 2))
        table = judge(model, shots(x, 1.5 * x[:, 0], rng), n_repeats=4)
        null.append(table.loss_increase["input 1"] / table.standard_error["input 1"])
        relevant.append((table.loss_increase["input 0"], table.standard_error["input 0"]))
    assert abs(np.mean(null)) < 0.25
    assert 0.8 < np.std(null) < 1.25
    # the error of a relevant input is the scatter that its value really has; it needs the donors and the shots. The median:
    # in one of 50 sets the shots are taken for correlated ones, which have larger errors
    values, errors = np.transpose(relevant)
    assert 0.85 < np.median(errors) / values.std() < 1.2
    assert values.mean() > 5 * values.std()


def memory_of_chance(training_set):
    """Linear members; their weights are the scores of the shots that they are trained on, without fold k."""
    fold = Folds.dealt(training_set.chains, 5).of(training_set.chains, training_set.steps)
    scores = training_set.descriptors * (training_set.counts[:, 1:] - 1) / 40

    def member(k):
        weights = torch.tensor(scores[fold != k].sum(axis=0)[:, None])
        return Formula(lambda x: x @ weights.to(x.dtype))

    return ops_aimmd.CommittorModel(Ensemble([member(k) for k in range(5)]), training_set.n_descriptors)


def test_training_shots_find_relevance_in_noise_and_held_out_shots_do_not():
    """Increase over error in 25 sets of pure noise: the mean is zero to 0.2 on held-out shots."""
    rng = np.random.default_rng(2)
    honest, memorised = [], []
    for _ in range(25):
        x = rng.normal(size=(100, 30))
        training_set = shots(x, 0 * x[:, 0], rng)
        model, options = memory_of_chance(training_set), {"groups": {"noise": list(range(30))}, "n_repeats": 3}
        for found, table in (
            (honest, input_relevance(model, training_set, methods=["permutation"], **options)),
            (memorised, judge(model, training_set, **options)),
        ):
            found.append(table.loss_increase["noise"] / table.standard_error["noise"])
    assert abs(np.mean(honest)) < 0.7
    assert 0.6 < np.std(honest) < 1.4
    assert np.min(memorised) > 2 and np.mean(memorised) > 3.5


def test_each_shot_is_judged_by_the_member_that_has_not_seen_it():
    """Members that answer only in the fold that they were not trained on: any other judge would know nothing."""
    n = 60
    chains = np.repeat([0, 1], n // 2)
    fold = Folds.dealt(chains, 5).of(chains, np.full(n, -1))
    x = np.column_stack([np.random.default_rng(0).normal(size=n), fold])
    counts = np.column_stack([np.zeros(n), np.ones(n)])

    def member(k):
        return Formula(lambda x: 4.0 * (x[:, 1:] == k))

    training_set = ops_aimmd.TrainingSet(x, counts, chains=chains)
    model = ops_aimmd.CommittorModel(Ensemble([member(k) for k in range(5)]), 2)
    right = input_relevance(model, training_set, methods=["permutation"])
    assert np.isclose(right.attrs["held_out_loss"], np.log1p(np.exp(-4)))
    assert right.attrs["n_shots"] == n
    shifted = ops_aimmd.CommittorModel(Ensemble([member(k + 1) for k in range(5)]), 2)
    assert np.isclose(input_relevance(shifted, training_set, methods=["permutation"]).attrs["held_out_loss"], np.log(2))


def test_a_single_network_is_judged_in_the_fold_that_was_left_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    table = input_relevance(linear([1.0, 0.0]), shots(x, x[:, 0], rng), methods=["permutation"])
    assert table.attrs["n_shots"] == 20
    assert np.isnan(table.ensemble_error).all()


def test_sine_and_cosine_move_together():
    """The model looks at sin^2 + cos^2, which only a permutation of one without the other changes."""
    rng = np.random.default_rng(1)
    phi = rng.uniform(-np.pi, np.pi, size=300)
    x = np.column_stack([np.sin(phi), np.cos(phi)])
    held_out = shots(x, np.full(300, 2.0), rng)
    model = model_of(lambda x: 2 * x.square().sum(dim=1, keepdim=True) ** 2, 2)
    names = ["phi sin", "phi cos"]
    together = judge(model, held_out, names=names)
    assert together.index.tolist() == ["phi"] and together.inputs["phi"] == "phi sin, phi cos"
    assert abs(together.loss_increase["phi"]) < 1e-6
    alone = judge(model, held_out, names=names, groups="inputs")
    assert (alone.loss_increase > 5 * alone.standard_error).all()


def test_an_input_that_others_replace_has_little_conditional_relevance():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(600, 3))
    x[:, 1] = x[:, 0] + 0.1 * rng.normal(size=600)
    held_out = shots(x, 2 * x[:, 0] + x[:, 2], rng)
    table = judge(linear([2.0, 0.0, 1.0]), held_out, methods=["permutation", "conditional"])
    assert table.conditional_increase["input 0"] < 0.1 * table.loss_increase["input 0"]
    # one that is independent of all others keeps its relevance
    assert abs(table.conditional_increase["input 2"] / table.loss_increase["input 2"] - 1) < 0.15
    assert table.correlated["input 0"] == table.correlated["input 1"] != table.correlated["input 2"]


def test_residuals_are_those_of_a_ridge_regression_on_the_other_inputs():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)) + 3
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    others, group = [0, 2, 4], [1, 3]
    penalty = 5 / 50
    gram = z[:, others].T @ z[:, others] / 50 + penalty * np.eye(3)
    direct = z[:, group] - z[:, others] @ np.linalg.solve(gram, z[:, others].T @ z[:, group] / 50)
    found = ConditionalPermutation(x, rng).residuals(group) / x.std(axis=0)[group]
    np.testing.assert_allclose(found, direct, atol=1e-10)


def test_three_states():
    """The loss does not change when a constant is added to all logits; relevance concerns the differences."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 3))
    logits = np.column_stack([x[:, 0], -x[:, 0], 0 * x[:, 0]])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    held_out = ops_aimmd.TrainingSet(x, np.array([rng.multinomial(2, row) for row in p]))

    def formula(x):
        return torch.stack([x[:, 0] + 9 * x[:, 2], -x[:, 0] + 9 * x[:, 2], 9 * x[:, 2]], dim=1)

    model = model_of(formula, 3, n_states=3)
    table = judge(model, held_out, methods=["permutation", "conditional", "noise", "gradient"])
    assert table.index[0] == "input 0"
    assert table.loss_increase["input 0"] > 5 * table.standard_error["input 0"]
    others = table.loc[["input 1", "input 2"], ["loss_increase", "conditional_increase", "noise_increase", "gradient"]]
    assert (others.abs() < 1e-5).all(axis=None)
    # |d(1, -1, 0)| = sqrt(2)
    assert np.isclose(table.gradient["input 0"], np.sqrt(2) * x[:, 0].std(), rtol=1e-5)


def test_gradient_of_a_linear_model_is_weight_times_spread():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(100, 3)) * [1.0, 5.0, 0.2]
    held_out = shots(x, x[:, 0], rng)
    table = judge(linear([1.0, -2.0, 3.0]), held_out, groups={"pair": [0, 2]}, methods=["gradient"])
    assert np.isclose(table.gradient["input 1"], 2 * x[:, 1].std(), rtol=1e-5)
    assert np.isclose(table.gradient["pair"], np.hypot(x[:, 0].std(), 3 * x[:, 2].std()), rtol=1e-5)
    assert table.index.tolist() == ["input 1", "pair"]


def test_error_under_noise_is_the_scatter_of_new_shots_and_new_noise():
    """Ratio of mean error and standard deviation over 80 sets of shots: 1 +- 0.08."""
    rng = np.random.default_rng(11)
    rows = []
    for seed in range(80):
        x = rng.uniform(-2, 2, size=(100, 1))
        x[:2, 0] = -2, 2  # the same range in every set
        rows.append(judge(linear([1.0]), shots(x, x[:, 0], rng), methods=["noise"], n_repeats=2, seed=seed).iloc[0])
    values, errors = (np.array([row[name] for row in rows], dtype=float) for name in ("noise_increase", "noise_error"))
    assert 0.75 < errors.mean() / values.std() < 1.3


def test_noise_covers_the_range_of_the_input():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(400, 2))
    x[0, 1] = 50.0  # one far value spreads the noise, but hardly the permutation
    held_out = shots(x, 0.2 * x[:, 1], rng)
    table = judge(linear([0.0, 0.2]), held_out, methods=["permutation", "noise"])
    assert table.noise_increase["input 1"] > 10 * table.loss_increase["input 1"]


def test_a_constant_input_has_no_relevance():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=50), np.full(50, 3.0)])
    table = judge(linear([1.0, 1.0]), shots(x, x[:, 0], rng), methods=["permutation", "conditional", "noise", "gradient"])
    row = table.loc["input 1"].drop(["inputs", "correlated"]).astype(float)
    assert row.fillna(0).abs().max() < 1e-12
    assert np.isfinite(table.loss_increase).all() and np.isfinite(table.conditional_increase).all()


def test_the_seed_fixes_the_table_and_the_model_is_not_changed():
    rng = np.random.default_rng(0)
    training_set = shots(x := rng.normal(size=(40, 3)), x[:, 0], rng)
    model = ops_aimmd.CommittorModel.for_descriptors(3, seed=1)
    before = model.arrays()
    state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - must be left alone
    first, again, other = (input_relevance(model, training_set, seed=seed, n_repeats=2) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first.loss_increase, other.loss_increase[first.index], rtol=1e-9, atol=0)
    assert all(np.array_equal(before[name], array) for name, array in model.arrays().items())
    assert np.array_equal(state[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(state[1], torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a"]}, "1 names for 2 inputs"),
        ({"held_out": ops_aimmd.TrainingSet.empty(2, 2)}, "of 0 shots 0 were held out"),
        ({"held_out": ops_aimmd.TrainingSet(np.zeros((5, 3)), np.ones((5, 2)))}, "3 descriptors"),
        ({"held_out": np.zeros((5, 2))}, "ndarray"),
        ({"methods": ["shap"]}, "methods must be"),
        ({"methods": []}, "methods must be"),
        ({"n_repeats": 0}, "positive integer"),
        ({"groups": {"g": ["c"]}}, "there is no input 'c'"),
        ({"correlation": 0.0}, "threshold"),
    ],
)
def test_wrong_arguments(options, message):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    with pytest.raises(ValueError, match=message):
        input_relevance(linear([1.0, 1.0]), shots(x, x[:, 0], rng), **options)


def test_no_shot_held_out():
    """A model cannot be trained on no shot: a single one is not held out."""
    rng = np.random.default_rng(0)
    training_set = shots(np.zeros((1, 2)), np.zeros(1), rng)
    with pytest.raises(ValueError, match="collect more shots"):
        input_relevance(ops_aimmd.CommittorModel.for_descriptors(2, seed=1), training_set)


def test_correlated_groups_are_drawn_side_by_side():
    table = pd.DataFrame(
        {
            "loss_increase": [0.5, 0.3, 0.1, 0.0],
            "standard_error": [0.01, 0.01, 0.01, 0.01],
            "correlated": [0, 1, 0, 2],
        },
        index=["a", "b", "c", "d"],
    )
    axes = plot_relevance(table)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "b", "d"]
    assert [text.get_text() for text in axes.texts] == ["correlated"]
    matplotlib.pyplot.close(axes.figure)
    with pytest.raises(ValueError, match="permutation"):
        plot_relevance(table.drop(columns="loss_increase"))
