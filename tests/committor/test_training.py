"""fit: learns, does not memorise, lets held-out shots decide, and keeps its promises about state and seeds."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from ops_aimmd.committor import optimisation, training
from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.likelihood import negative_log_likelihood
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.networks import FeedForward, member_logits
from ops_aimmd.committor.optimisation import TrainingData, held_out_losses
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet


def committor(x):
    return expit(2 * x[:, 0] - 1)


def shots(n, d=2, seed=0, n_legs=2, true=committor):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    reached = rng.binomial(n_legs, true(x))
    return TrainingSet(x, np.column_stack([n_legs - reached, reached]))


def rmse(model, d=2, true=committor):
    x = np.random.default_rng(99).normal(size=(2000, d))
    return np.sqrt(np.mean((model.committor(x) - true(x)) ** 2))


def model_for(d=2, **arguments):
    return CommittorModel.for_descriptors(d, **{"seed": 1, **arguments})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_learns_a_known_committor(dtype):
    model = model_for(dtype=dtype)
    report = fit(model, shots(500), seed=1)
    # a logistic model with its three parameters would reach sqrt(3 <p(1-p)> <p(1-p)> / (1000 <p(1-p)>)) = 0.02
    assert rmse(model) < 0.05 and rmse(model_for()) > 0.25
    entropy = np.mean([-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in committor(shots(500).descriptors)])
    assert abs(report.held_out_loss_per_leg - entropy) < 3 * report.held_out_loss_per_leg_error
    assert report.held_out_loss == pytest.approx(2 * report.held_out_loss_per_leg)


def test_does_not_memorise_noise(monkeypatch):
    coin = lambda x: np.full(len(x), 0.5)  # noqa: E731
    model = model_for(20)
    report = fit(model, shots(200, d=20, true=coin), seed=1)
    assert report.held_out_loss_per_leg > np.log(2) - 2 * report.held_out_loss_per_leg_error
    assert report.held_out_loss_per_leg < np.log(2) + 0.15
    assert rmse(model, 20, coin) < 0.2
    control = model_for(20)  # neither stopped early nor held by the prior nor calibrated
    monkeypatch.setattr(TrainingData, "worth", lambda *_: 0.0)
    fit(control, shots(200, d=20, true=coin), seed=1, weight_decay=1e-6, relevance=None)
    assert rmse(control, 20, coin) > rmse(model, 20, coin)


def test_irrelevant_descriptors_are_found_and_cost_little():
    data = shots(400, d=20)
    scaled, equal = model_for(20), model_for(20)
    report = fit(scaled, data, seed=1)
    fit(equal, data, seed=1, relevance=None)
    assert report.relevance[0] > 5 * max(report.relevance[1:])
    assert np.isclose(np.mean(np.square(report.relevance)), 1)
    assert rmse(scaled, 20) < 0.75 * rmse(equal, 20)


def test_many_states():
    def true(x):
        logits = np.column_stack([np.zeros(len(x)), 2 * x[:, 0], 2 * x[:, 1]])
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    counts = np.array([rng.multinomial(2, p) for p in true(x)])
    model = model_for(n_states=3)
    report = fit(model, TrainingSet(x, counts), seed=1)
    assert rmse(model, true=true) < 0.06 and rmse(model_for(n_states=3), true=true) > 0.2
    assert report.held_out_loss_per_leg < np.log(3) - 5 * report.held_out_loss_per_leg_error


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_few_one_sided_shots_give_a_weak_prediction(n):
    model = model_for()
    report = fit(model, TrainingSet(np.random.default_rng(0).normal(size=(n, 2)), [[0, 2]] * n), seed=1)
    p = model.committor(np.random.default_rng(1).normal(size=(100, 2)))
    assert (p > 0.5).all() and (p < 0.999).all()
    assert np.isnan(report.held_out_loss) == (n == 1)


def test_separable_outcomes_give_finite_log_odds():
    x = np.random.default_rng(0).normal(size=(200, 2))
    model = model_for()
    fit(model, TrainingSet(x, np.where(x[:, :1] > 0, [[0, 2]], [[2, 0]])), seed=1)
    q = model.reaction_coordinate(x)
    assert np.abs(q).max() < 20 and np.mean((q > 0) == (x[:, 0] > 0)) > 0.95


def test_weights_count():
    training_set = TrainingSet(np.zeros((400, 1)), [[0, 1], [1, 0]] * 200, weights=[3.0, 1.0] * 200)
    model = model_for(1)
    fit(model, training_set, seed=1)
    assert model.committor(np.zeros((1, 1)))[0] == pytest.approx(0.75, abs=0.03)


def test_a_descriptor_that_does_not_vary_is_ignored():
    data = shots(100)
    constant = TrainingSet(np.column_stack([data.descriptors, np.full(100, 1e3)]), data.counts)
    model = model_for(3)
    report = fit(model, constant, seed=1)
    assert report.relevance[2] == 0
    x = np.zeros((2, 3))
    x[1, 2] = 1e6
    assert np.ptp(model.committor(x)) == 0


def test_held_out_losses_are_those_of_members_that_have_not_seen_the_shot():
    data = shots(20, d=3)
    model = CommittorModel(FeedForward(3, hidden=(4,), n_members=4, seed=1), 3)
    fold = Folds.dealt(data.chains, 4).of(data.chains, data.steps)
    x = torch.tensor(data.descriptors, dtype=model.dtype)
    with torch.no_grad():
        nll = negative_log_likelihood(model.member_logits(x), torch.tensor(data.counts)).numpy()
    np.testing.assert_allclose(held_out_losses(model, data), nll[fold, np.arange(20)], rtol=1e-6)
    assert np.ptp(nll, axis=0).min() > 1e-6  # control: members differ
    single = CommittorModel(FeedForward(3, hidden=(4,), seed=1), 3)
    assert np.array_equal(
        np.isnan(held_out_losses(single, data)), Folds.dealt(data.chains, 5).of(data.chains, data.steps) != 0
    )
    assert np.isnan(held_out_losses(model, TrainingSet(data.descriptors[:1], data.counts[:1]))).all()


def test_folds_are_balanced_and_stay_when_the_set_grows():
    chains, steps = np.random.default_rng(0).integers(0, 3, size=200), np.arange(200)
    folds = Folds(5, length=2)
    fold = folds.of(chains, steps)
    assert np.array_equal(folds.of(chains[:77], steps[:77]), fold[:77])
    assert np.ptp(np.bincount(fold)) <= 3 * 2
    first = np.flatnonzero(chains == 0)
    assert fold[first[0]] == fold[first[1]] != fold[first[2]]


def test_a_member_does_not_see_its_fold(monkeypatch):
    monkeypatch.setattr(TrainingData, "worth", lambda *_: 0.0)  # when to stop is common to all members
    data = shots(60)
    fold = Folds.dealt(data.chains, 5).of(data.chains, data.steps)
    changed = TrainingSet(data.descriptors, np.where((fold == 2)[:, None], data.counts[:, ::-1], data.counts))
    x = torch.tensor(data.descriptors).float()
    members = []
    for training_set in (data, changed):
        model = model_for()
        fit(model, training_set, seed=1, relevance=None, max_epochs=10)
        members.append(member_logits(model.network, model.inputs(x)).detach())  # the slope is common to all members
    differs = [not torch.equal(a, b) for a, b in zip(*members, strict=True)]
    assert differs == [True, True, False, True, True]


def test_the_published_network_knows_all_shots_and_judges_do_not(monkeypatch):
    monkeypatch.setattr(TrainingData, "worth", lambda *_: 0.0)
    data = shots(120)
    fold = Folds.dealt(data.chains, 5).of(data.chains, data.steps)
    changed = TrainingSet(data.descriptors, np.where((fold == 2)[:, None], data.counts[:, ::-1], data.counts))
    x = torch.tensor(data.descriptors).float()
    published, judges, errors = [], [], []
    for training_set in (data, changed):
        model = model_for()
        report = fit(model, training_set, seed=1, relevance=None, max_epochs=10)
        fit(model, training_set, seed=2, relevance=None, max_epochs=3, previous=replace(report, decided_at=120))
        published.append(member_logits(model.network, model.inputs(x)).detach())
        judges.append(member_logits(model.judges, model.inputs(x)).detach())
        errors.append(held_out_losses(model, training_set))
        stored = CommittorModel.from_description(model.description(), model.arrays())
        np.testing.assert_array_equal(held_out_losses(stored, training_set), errors[-1])
        assert stored.of_judges.judges is None and not torch.equal(stored(x), stored.of_judges(x))
    same = [torch.equal(a, b) for a, b in zip(*judges, strict=True)]
    assert same == [False, False, True, False, False]  # also when training goes on
    assert not any(torch.equal(a, b) for a, b in zip(*published, strict=True))


@pytest.mark.parametrize(("n", "most"), [(99, 1000), (101, 100)])
def test_few_legs_and_very_many_shots_have_no_judges(n, most, monkeypatch):
    monkeypatch.setattr(training, "SHOTS_PER_EPOCH", most)
    model = model_for()
    fit(model, shots(n), seed=1, max_epochs=10)
    assert model.judges is None and model.of_judges is model
    monkeypatch.setattr(training, "SHOTS_PER_EPOCH", 1000)
    fit(model, shots(101), seed=1, max_epochs=10)
    assert model.judges is not None and model.of_judges is not model


def with_legs(n, flip=False, seed=0, frames=5):
    """Shots of 1-D overdamped motion on [-1, 1] without force: the committor is (x + 1) / 2, also of frames of legs."""
    rng = np.random.default_rng(seed)
    training_set = TrainingSet.empty(1, 2)
    for start in rng.uniform(-1, 1, size=n):
        outcomes = rng.random(2) < (start + 1) / 2
        x, labels, is_end = [], [], []
        for outcome in outcomes:
            x += [*np.linspace(start, 2.0 * outcome - 1, frames + 2)[1:]]
            labels += [int(outcome) ^ flip] * (frames + 1)
            is_end += [False] * frames + [True]
        legs = LegFrames(np.array(x)[:, None], np.array(labels), np.array(is_end))
        counts = np.bincount(outcomes.astype(int), minlength=2)
        training_set.append(ShootingResult(np.array([start]), counts, leg_frames=legs))
    return training_set


def test_auxiliary_data_that_hurt_are_switched_off():
    assert fit(model_for(1), with_legs(200), seed=1).auxiliary_weights[0] > 0
    model = model_for(1)
    assert fit(model, with_legs(400, flip=True), seed=1).auxiliary_weights == (0.0, 0.0)
    x = np.linspace(-0.9, 0.9, 50)[:, None]
    assert np.sqrt(np.mean((model.committor(x) - (x[:, 0] + 1) / 2) ** 2)) < 0.15
    forced = model_for(1)
    fit(forced, with_legs(200, flip=True), seed=1, auxiliary_weights=(5.0, 0.0))
    assert np.sqrt(np.mean((forced.committor(x) - (x[:, 0] + 1) / 2) ** 2)) > 0.15


def test_auxiliary_data_are_never_part_of_a_reported_loss():
    data = with_legs(50)
    report = fit(model_for(1), data, seed=1)
    assert report.n_shots == 50 and report.n_legs == 100
    assert report.train_loss == pytest.approx(2 * report.train_loss_per_leg)


def test_decisions_are_kept_until_the_number_of_shots_has_grown_threefold():
    data, model = shots(300, d=5), model_for(5)
    subset = lambda n: TrainingSet(data.descriptors[:n], data.counts[:n])  # noqa: E731
    first = fit(model, subset(100), seed=1)
    further = fit(model, subset(299), seed=1, previous=first)
    assert further.decided_at == 100 and further.relevance == first.relevance
    assert fit(model, subset(300), seed=1, previous=further).decided_at == 300
    assert fit(model, subset(10), seed=1).decided_at == 0


def test_training_further_is_as_good_as_training_anew():
    data, anew, further = shots(400), model_for(), model_for()
    fit(anew, data, seed=1)
    report = None
    for n in (100, 110, 130, 160, 199):
        report = fit(further, TrainingSet(data.descriptors[:n], data.counts[:n]), seed=1, previous=report)
    assert report.decided_at == 100 and rmse(further) < 0.08
    fit(further, data, seed=1, previous=report)
    assert rmse(further) == pytest.approx(rmse(anew), abs=1e-6)


def test_the_seed_fixes_everything_and_torchs_own_state_is_left_alone():
    rng_state, threads, dtype = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    models = [model_for(2) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit(model, with_legs_2d(), seed=seed)
    x = np.random.default_rng(0).normal(size=(10, 2))
    assert np.array_equal(models[0].committor(x), models[1].committor(x))
    assert not np.array_equal(models[0].committor(x), models[2].committor(x))
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


def with_legs_2d():
    data = with_legs(40)
    wide = TrainingSet.empty(2, 2)
    for result in data:
        frames = result.leg_frames
        legs = LegFrames(np.repeat(frames.descriptors, 2, axis=1), frames.outcomes, frames.is_end)
        wide.append(ShootingResult(np.repeat(result.descriptors, 2), result.counts, leg_frames=legs))
    return wide


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)), lambda: FeedForward(2, seed=0)]
)
def test_a_network_that_is_no_ensemble_holds_out_one_fold(make):
    torch.manual_seed(0)
    model = CommittorModel(make(), 2)
    report = fit(model, shots(400), seed=1)
    assert rmse(model) < 0.08
    fifth = 1 / np.sqrt(400 / 5)
    assert 0.3 * fifth < report.held_out_loss_error < fifth
    assert not model.training or model.network.training


def test_an_error_leaves_the_model_unchanged():
    model = model_for()
    before = model.arrays()
    with pytest.raises(FloatingPointError):
        fit(model, shots(50), seed=1, learning_rate=float("inf"))
    with pytest.raises(ValueError, match="empty"):
        fit(model, TrainingSet.empty(2, 2))
    with pytest.raises(ValueError, match="3 descriptors"):
        fit(model, shots(5, d=3))
    with pytest.raises(ValueError, match="weight"):
        fit(model, TrainingSet([[0.0, 0.0]], [[1, 1]], weights=[0.0]))
    with pytest.raises(ValueError, match="frozen"):
        fit(model.frozen_copy(), shots(5))
    assert all(np.array_equal(before[name], array) for name, array in model.arrays().items())


@pytest.mark.parametrize(
    "training_set, epochs",
    [(shots(10), 11), (shots(50), 15), (shots(100), 20), (TrainingSet([[0.0, 1.0], [1.0, 0.0]], [[60, 40], [40, 60]]), 20)],
    ids=["20 legs", "100 legs", "200 legs", "200 legs of two configurations"],
)
def test_few_legs_are_learned_from_in_fewer_epochs(monkeypatch, training_set, epochs):
    asked = []
    optimise = training.optimise
    monkeypatch.setattr(training, "optimise", lambda *a: asked.append(a[2]) or optimise(*a))
    fit(model_for(), training_set, seed=1, auxiliary_weights=(0, 0), relevance=None, max_epochs=20)
    assert set(asked) == {epochs}


def test_large_sets_are_learned_from_in_turns(monkeypatch):
    """Four parts of the shots: only the last part says how the committor depends on the descriptors."""
    whole = shots(400)
    says = np.arange(400)[:, None] % 4 == 3
    part = TrainingSet(whole.descriptors * says, np.where(says, whole.counts, 1))
    monkeypatch.setattr(optimisation, "SHOTS_PER_EPOCH", 100)
    errors = []
    for training_set in (whole, part, TrainingSet(part.descriptors, np.ones((400, 2)))):
        model = model_for()
        report = fit(model, training_set, seed=1)
        assert report.n_legs == 800
        errors.append(rmse(model))
    assert errors[0] < 0.1 and errors[1] < 0.15 < 2 * errors[1] < errors[2], errors


def test_the_report_is_plain_data_and_readable():
    report = fit(model_for(), shots(40), seed=1)
    assert FitReport(**json.loads(json.dumps(asdict(report)))).n_shots == 40
    assert "40 shots (80 legs)" in str(report) and "held out" in str(report)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda():
    model = model_for(device="cuda")
    fit(model, shots(500), seed=1)
    assert model.device.type == "cuda" and rmse(model) < 0.05


def test_the_schedule_diminishes():
    schedule = DiminishingSchedule(every=3, until=30, growth=0.1)
    trained, last = [], 0
    for n in range(1, 1501):
        if schedule.due(n, last):
            trained.append(n)
            last = n
    assert trained[:10] == list(range(3, 31, 3))
    assert all(b - a >= 0.1 * a for a, b in zip(trained[9:-1], trained[10:], strict=True))
    assert len(trained) < 60
    with pytest.raises(ValueError, match="growth"):
        DiminishingSchedule(growth=0)


def test_a_model_trained_elsewhere_is_not_started_anew():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 2))
    counts = rng.multinomial(2, np.column_stack([expit(-3 * x[:, 0]), expit(3 * x[:, 0])]))
    model = CommittorModel.for_descriptors(2, seed=1)
    fit(model, TrainingSet(x, counts), seed=1)
    before = model.reaction_coordinate(x)
    few = TrainingSet(x[:3], counts[:3])
    kept, lost = model.copy(), model.copy()
    fit(kept, few, seed=1, start_anew=False)
    fit(lost, few, seed=1)
    assert np.array_equal(kept.arrays()["scale"], model.arrays()["scale"])
    correlation = [np.corrcoef(before, m.reaction_coordinate(x))[0, 1] for m in (kept, lost)]
    assert correlation[0] > 0.9 > correlation[1], correlation


def test_our_adam_is_that_of_torch():
    start = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)
    ours, theirs = start.clone().requires_grad_(True), start.clone().requires_grad_(True)
    unused = torch.zeros(2, requires_grad=True)
    adam = optimisation.Adam([ours, unused])
    reference = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99))
    for _ in range(50):
        loss = ((ours - 1) ** 4).sum()
        adam.step(torch.autograd.grad(loss, [ours, unused], allow_unused=True), 0.03)
        reference.zero_grad()
        ((theirs - 1) ** 4).sum().backward()
        reference.step()
    assert not torch.equal(ours, start)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)
