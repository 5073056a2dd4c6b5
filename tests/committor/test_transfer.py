"""A model of another system predicts the same for the same configurations, saves shots, and is left if it misleads."""

import numpy as np
import pytest
import torch

from ops_aimmd.committor import networks
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.committor.transferred_start import SLOPE, TransferredStart, fit_transferred, match_columns
from ops_aimmd.systems import toy

NETWORKS = {
    "default": lambda: networks.default_network(3, seed=1),
    "linear": lambda: networks.FeedForward(3, hidden=(), seed=1),
    "skip": lambda: networks.FeedForward(3, hidden=(4,), linear_skip=True, n_members=2, seed=1),
    "self-normalizing": lambda: networks.SelfNormalizing(3, seed=1),
    "residual": lambda: networks.Residual(3, n_members=2, seed=1),
}


def model_of(network, x):
    """Untrained, scaled for some data."""
    model = CommittorModel(network, 3)
    with torch.no_grad():
        model.shift.copy_(torch.tensor(x.mean(axis=0)))
        model.scale.copy_(torch.tensor([0.5, 1.0, 0.2]) / torch.tensor(x.std(axis=0)))
    return model


def descriptors(n=50, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3)) * [1.0, 0.1, 5.0] + [3.0, 0.3, -7.0]


def some_shots(x):
    return TrainingSet(x, np.ones((len(x), 2)))


# ---- columns --------------------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name():
    matched = match_columns(["r", "Li O", "Li H", "Cl O"], ["Na H", "r", "phi"], {"Li": "Na"})
    assert matched.columns == (2, 0, -1)
    assert matched.new == ("phi",)
    assert matched.dropped == ("Na O", "Cl O")
    assert "2 of 3" in str(matched) and "'phi'" in str(matched) and "'Cl O'" in str(matched)


def test_names_can_be_exchanged_and_only_whole_words_are_renamed():
    assert match_columns(["x 1", "y 1"], ["x 1", "y 1"], {"x": "y", "y": "x"}).columns == (1, 0)
    assert match_columns(["phi", "phi2"], ["psi", "phi2"], {"phi": "psi"}).columns == (0, 1)


@pytest.mark.parametrize(
    "source, target, rename, message",
    [
        (["Li O"], ["Na O"], None, "no descriptor in common.*'Li O'.*'Na O'.*rename="),
        (["r"], ["r"], {"Li": "Na"}, "no descriptor of the source, 'r', has the word 'Li'"),
        (["Li O", "Na O"], ["Na O"], {"Li": "Na"}, "several are called 'Na O'"),
        (["r"], ["r", "r"], None, "of the target .* several"),
    ],
)
def test_names_that_do_not_fit(source, target, rename, message):
    with pytest.raises(ValueError, match=message):
        match_columns(source, target, rename)


@pytest.mark.parametrize("kind", NETWORKS)
def test_columns_in_another_order_give_the_same_predictions(kind):
    x = descriptors()
    model = model_of(NETWORKS[kind](), x)
    start = TransferredStart.of(model, some_shots(x), [2, 0, 1])
    expected = model.reaction_coordinate(x)
    np.testing.assert_allclose(start.model.reaction_coordinate(x[:, [2, 0, 1]]), expected, atol=1e-5)
    unmoved = TransferredStart.of(model, some_shots(x), [0, 1, 2])
    assert not np.allclose(unmoved.model.reaction_coordinate(x[:, [2, 0, 1]]), expected, atol=1e-3)


@pytest.mark.parametrize("kind", NETWORKS)
def test_columns_without_counterpart(kind):
    x = descriptors()
    model = model_of(NETWORKS[kind](), x)
    start = TransferredStart.of(model, some_shots(x), [2, -1, 0])
    start = start.adapted(x[:, [2, 1, 0]])  # gives the new column a scale
    at_mean = x.copy()
    at_mean[:, 1] = x[:, 1].mean()
    got = start.model.reaction_coordinate(x[:, [2, 1, 0]])
    np.testing.assert_allclose(got, model.reaction_coordinate(at_mean), atol=1e-5)
    trained = start.model.copy().requires_grad_(True)
    trained(torch.tensor(x[:, [2, 1, 0]], dtype=torch.float32)).sum().backward()
    (layer, *_) = (m for m in trained.network.modules() if isinstance(m, networks.StackedLinear) and m.weight.shape[1] == 3)
    assert (layer.weight[:, 1] == 0).all()
    assert (layer.weight.grad[:, 1] != 0).any()  # no influence yet, but it can learn one


# ---- scaling --------------------------------------------------------------------------------------------------------


def test_inputs_are_scaled_for_the_new_system():
    x = descriptors()
    model = model_of(NETWORKS["default"](), x)
    other_range = 2.5 * x - 4.0
    start = TransferredStart.of(model, some_shots(x), range(3))
    np.testing.assert_allclose(
        start.adapted(other_range).model.reaction_coordinate(other_range), model.reaction_coordinate(x), atol=1e-4
    )
    assert not np.allclose(start.model.reaction_coordinate(other_range), model.reaction_coordinate(x), atol=1e-2)
    kept = start.adapted(other_range, weight=0.0)
    np.testing.assert_allclose(kept.model.reaction_coordinate(x), model.reaction_coordinate(x), atol=1e-5)
    twice = start.adapted(other_range).adapted(x)
    np.testing.assert_allclose(twice.model.reaction_coordinate(x), model.reaction_coordinate(x), atol=1e-4)


def test_a_column_that_does_not_vary():
    x = descriptors()
    x[:, 1] = 0.3
    model = CommittorModel.for_descriptors(3, seed=0)
    fit(model, some_shots(x), seed=0)
    start = TransferredStart.of(model, some_shots(x), range(3))
    constant_no_more = descriptors(seed=1)
    adapted = start.adapted(constant_no_more)
    changed = constant_no_more.copy()
    changed[:, 1] += 10.0
    assert np.isfinite(adapted.model.reaction_coordinate(changed)).all()
    np.testing.assert_array_equal(
        adapted.model.reaction_coordinate(changed), adapted.model.reaction_coordinate(constant_no_more)
    )
    assert np.isfinite(start.adapted(x).model.reaction_coordinate(x)).all()


# ---- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_without_shots_the_log_odds_are_flattened(kind):
    x = descriptors()
    start = TransferredStart.of(model_of(NETWORKS[kind](), x), some_shots(x), range(3))
    flat = start.recalibrated(TrainingSet.empty(3, 2))
    np.testing.assert_allclose(
        flat.model.reaction_coordinate(x), SLOPE * start.model.reaction_coordinate(x), rtol=1e-3, atol=1e-5
    )


def test_three_states_without_shots():
    x = descriptors()
    network = networks.FeedForward(3, n_outputs=3, seed=1)
    model = CommittorModel(network, 3, 3)
    start = TransferredStart.of(model, TrainingSet(x, np.ones((len(x), 3))), range(3))
    flat = start.recalibrated(TrainingSet.empty(3, 3))
    with torch.no_grad():
        before, after = (m(torch.tensor(x, dtype=torch.float32)).numpy() for m in (start.model, flat.model))
    np.testing.assert_allclose(after, SLOPE * before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("slope, shift", [(0.4, 0.3), (1.5, -0.3)])
def test_shots_tell_slope_and_shift(slope, shift):
    x = descriptors(4000)
    start = TransferredStart.of(model_of(NETWORKS["default"](), x), some_shots(x), range(3))
    with torch.no_grad():
        start.model.network.output.weight *= 80.0  # an untrained one says nothing
    known = start.model.reaction_coordinate(x)
    assert known.std() > 1
    rng = np.random.default_rng(3)
    hits = rng.binomial(2, 1 / (1 + np.exp(-(slope * known + shift))))
    got = start.recalibrated(TrainingSet(x, np.stack([2 - hits, hits], axis=1))).model.reaction_coordinate(x)
    found = np.polyfit(known, got, 1)
    p = 1 / (1 + np.exp(-(slope * known + shift)))
    ones = np.stack([known, np.ones_like(known)])
    errors = np.sqrt(np.diag(np.linalg.inv((2 * p * (1 - p) * ones) @ ones.T)))  # of a logistic regression
    assert np.all(abs(found - [slope, shift]) < 4 * errors)
    assert np.all(abs(np.array([1.0, 0.0]) - [slope, shift]) > 4 * errors)  # control: as it is, it would not fit
    assert abs(np.polyval(found, known) - got).max() < 1e-3  # nothing but a slope and a shift


def test_nothing_to_transfer():
    with pytest.raises(ValueError, match="no shot"):
        TransferredStart.of(CommittorModel.for_descriptors(3, seed=0), TrainingSet.empty(3, 2), range(3))
    own = CommittorModel(torch.nn.Linear(3, 1), 3)
    with pytest.raises(ValueError, match="only networks of this package.*Linear.*model="):
        TransferredStart.of(own, some_shots(descriptors()), range(3))


# ---- is it worth it? ------------------------------------------------------------------------------------------------


def shots(temperature, n, seed, n_irrelevant=20):
    """Outcomes drawn from the exact committor of Wolfe-Quapp, among irrelevant descriptors."""
    rng = np.random.default_rng(seed)
    system = toy.wolfe_quapp(temperature=temperature)
    x = rng.uniform(*np.array(system.exact.box).T, (50 * n, 2))
    p = system.committor(x)
    wanted = (p > 0.03) & (p < 0.97)
    x, p = x[wanted][:n], p[wanted][:n]
    hits = rng.binomial(2, p)
    return TrainingSet(np.concatenate([x, rng.normal(size=(n, n_irrelevant))], axis=1), np.stack([2 - hits, hits], axis=1))


def exchanged(training_set):
    return TrainingSet(training_set.descriptors, training_set.counts[:, ::-1])


def start_from(training_set):
    model = CommittorModel.for_descriptors(training_set.n_descriptors, seed=0)
    fit(model, training_set, seed=0, auxiliary_weights=(0.0, 0.0))
    return TransferredStart.of(model, training_set, range(training_set.n_descriptors))


@pytest.fixture(scope="module")
def hot():
    return shots(2.0, 400, seed=1)


@pytest.fixture(scope="module")
def cold():
    """Shots of the new system, and some to test with."""
    return shots(1.0, 150, seed=2), shots(1.0, 500, seed=3)


@pytest.fixture(scope="module")
def useful(hot):
    """The start from a source that was hot. Nothing changes it."""
    return start_from(hot)


@pytest.fixture(scope="module")
def misleading(hot):
    """The start from a source with the states exchanged."""
    return start_from(exchanged(hot))


def loss(model, test):
    return -(test.counts * model.log_committor(test.descriptors)).sum() / test.counts.sum()


def part(training_set, seed, n):
    rows = np.random.default_rng(seed).choice(len(training_set), n, replace=False)
    return TrainingSet(training_set.descriptors[rows], training_set.counts[rows])


def differences(start, cold, n_shots, n_seeds):
    """Test loss with the transferred start less that without, over some draws of shots; and the starts that were chosen."""
    pool, test = cold
    found = []
    for seed in range(n_seeds):
        few = part(pool, seed, n_shots)
        model, report = fit_transferred(start, start.model, few, seed=seed)
        alone = CommittorModel.for_descriptors(few.n_descriptors, seed=seed)
        fit(alone, few, seed=seed)
        found.append((loss(model, test) - loss(alone, test), report.start))
    difference, starts = zip(*found, strict=True)
    return np.mean(difference), np.std(difference, ddof=1) / np.sqrt(n_seeds), list(starts)


def test_a_useful_source_saves_shots(useful, cold):
    difference, error, starts = differences(useful, cold, n_shots=20, n_seeds=6)
    assert starts.count("transferred") >= 5
    assert difference < -4 * error
    many = CommittorModel.for_descriptors(22, seed=0)
    fit(many, part(cold[0], 0, 60), seed=0)  # four times the shots do not make up for it
    model, _ = fit_transferred(useful, useful.model, part(cold[0], 0, 15), seed=0)
    assert loss(model, cold[1]) < loss(many, cold[1])


def test_a_source_that_misleads_is_left(misleading, cold):
    start = misleading
    assert loss(start.model, cold[1]) > np.log(2) + 0.2  # it does mislead
    difference, error, starts = differences(start, cold, n_shots=15, n_seeds=6)
    assert set(starts) == {"transferred"}  # too few shots to decide, but flattened until it hardly says anything
    assert difference < 2.6 * error + 0.01  # 95 % of Student's t with 5 degrees of freedom
    difference, error, starts = differences(start, cold, n_shots=90, n_seeds=6)
    assert "anew" in starts
    assert difference < 2.6 * error + 0.01
    for seed in range(4):
        _, report = fit_transferred(start, start.model, part(cold[0], seed, 150), seed=seed)
        assert report.start == "anew"


def test_the_report_tells_which_start_won(useful, misleading, cold):
    few = part(cold[0], 0, 90)
    _, taken = fit_transferred(useful, useful.model, few, seed=0)
    assert taken.start == "transferred" and taken.held_out_loss <= taken.loss_of_other_start
    assert "transferred start" in str(taken)
    _, left = fit_transferred(misleading, misleading.model, few, seed=0)
    assert left.start == "anew" and left.held_out_loss < left.loss_of_other_start
    assert left.held_out_loss == taken.loss_of_other_start


def test_the_starts_are_compared_again_when_the_shots_have_grown(useful, cold):
    start = useful
    model, first = fit_transferred(start, start.model, part(cold[0], 0, 20), seed=0)
    assert first.decided_at == 20
    before = model.arrays()
    further, second = fit_transferred(start, model, part(cold[0], 0, 29), seed=0, previous=first)
    assert (second.start, second.decided_at, second.loss_of_other_start) == (first.start, 20, None)
    np.testing.assert_array_equal(further.shift, model.shift)  # trained further from where it was ...
    assert all((before[name] == array).all() for name, array in model.arrays().items())  # ... as a copy
    _, third = fit_transferred(start, further, part(cold[0], 0, 30), seed=0, previous=second)
    assert third.decided_at == 30 and third.loss_of_other_start is not None
