"""The slope of the log-odds: found where shots tell it, left alone where they do not, and part of each fit."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from ops_aimmd import CommittorModel, TrainingSet, calibration, fit
from ops_aimmd.committor import optimisation
from ops_aimmd.committor.correlated_shots import position_in_chain
from ops_aimmd.committor.recalibration import AS_IT_IS, LOG_SLOPES, expected_slope


def outcomes(logits, slope, rng, legs=2):
    full = logits if logits.shape[1] > 1 else np.concatenate([0 * logits, logits], axis=1)
    return np.array([rng.multinomial(legs, p) for p in softmax(slope * full, axis=1)])


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("slope", [0.3, 0.6, 1.0])
def test_many_shots_tell_the_slope(slope, n_outputs):
    rng = np.random.default_rng(1)
    logits = 1.5 * rng.normal(size=(2000, n_outputs))
    found = expected_slope(logits, outcomes(logits, slope, rng))
    p = expit(slope * logits)
    of_log = 1 / np.sqrt((2 * p * (1 - p) * (slope * logits) ** 2).sum() / n_outputs)  # Fisher information of two states
    assert abs(np.log(found / slope)) < 4 * of_log + 0.01
    assert of_log < 0.1


def test_few_shots_leave_the_log_odds_as_they_are():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):
        logits = rng.normal(size=(10, 1))
        found.append(np.log(expected_slope(logits, outcomes(logits, 1.0, rng))))
    assert np.sqrt(np.mean(np.square(found))) < 0.25
    assert expected_slope(np.empty((0, 1)), np.empty((0, 2))) == pytest.approx(1.0, abs=0.05)
    assert 0.5 < AS_IT_IS < 1


def test_outcomes_that_can_be_separated_give_a_finite_slope():
    logits = np.random.default_rng(3).normal(size=(500, 1))
    counts = np.where(logits > 0, [[0, 2]], [[2, 0]])
    assert expected_slope(logits, counts) <= np.exp(LOG_SLOPES[-1])


def noisy(n, rng, d=30):
    x = rng.normal(size=(n, d))
    reached = rng.binomial(2, expit(x[:, 0]))
    return TrainingSet(x, np.stack([2 - reached, reached], axis=1))


def test_a_fit_that_is_too_sure_of_itself_is_put_right():
    """Slope of 3000 new shots, mean of eight fits to 150 shots under a weak prior. Control: without the slope."""
    slopes, losses = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shots, new = noisy(150, rng), noisy(3000, rng)
        model = CommittorModel.for_descriptors(30, seed=seed)
        fit(model, shots, seed, relevance=None, weight_decay=0.05, max_epochs=60)
        calibrated = calibration(model.committor(new.descriptors), new.counts)
        model.slope.fill_(1.0)
        without = calibration(model.committor(new.descriptors), new.counts)
        slopes.append([calibrated.slope, without.slope])
        losses.append(calibrated.loss_per_leg - without.loss_per_leg)
    (slope, control), (error, _) = np.mean(slopes, axis=0), np.std(slopes, axis=0, ddof=1) / np.sqrt(8)
    assert abs(slope - 1) < max(3 * error, 0.15)
    assert abs(control - 1) > max(3 * error, 0.15)
    assert np.mean(losses) < 0


def test_the_slope_is_kept_with_the_model():
    model = CommittorModel.for_descriptors(2, seed=1)
    x = np.random.default_rng(4).normal(size=(5, 2))
    before = model.reaction_coordinate(x)
    model.slope.fill_(0.5)
    np.testing.assert_allclose(model.reaction_coordinate(x), 0.5 * before, rtol=1e-6)
    np.testing.assert_allclose(model.member_logits(torch.tensor(x)).mean(dim=0)[:, 0].detach(), 0.5 * before, rtol=1e-5)
    again = CommittorModel.from_description(model.description(), model.arrays())
    assert again.slope == 0.5 and model.frozen_copy().slope == 0.5
    older = {name: array for name, array in model.arrays().items() if name != "slope"}  # as version 0.1.0 wrote it
    assert CommittorModel.from_description(model.description(), older).slope == 1.0


def test_late_shots_count_more_for_the_slope(monkeypatch):
    """A chain in which the outcomes depend less on the input later. Control: all shots count alike."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, 1))
    steepness = np.where(np.arange(600) < 360, 2.0, 0.4)
    reached = rng.binomial(2, expit(steepness * x[:, 0]))
    shots = TrainingSet(x, np.stack([2 - reached, reached], axis=1), steps=np.arange(600))
    slopes = []
    for power in (optimisation.RECENT, 0.0):
        monkeypatch.setattr(optimisation, "RECENT", power)
        model = CommittorModel.for_descriptors(1, seed=1)
        fit(model, shots, 1)
        slopes.append(float(np.diff(model.reaction_coordinate(np.array([[-0.5], [0.5]])))[0]))
    assert slopes[0] < 0.85 * slopes[1]


@pytest.mark.parametrize(
    "earlier, expected",
    [((), 0.5), (((0, 1.0),), 0.5**0.5), (((0, 0.5),), 0.5), (((200, 1.0), (300, 1.0)), None)],
    ids=["held out alone", "foreseen better", "foreseen alike", "foreseen from shot 200 on"],
)
def test_predictions_of_earlier_versions_count_half(earlier, expected):
    """Log-odds of members that are twice too steep; predictions before each shot that were right as they were given."""
    rng = np.random.default_rng(6)
    q = rng.normal(size=(4000, 1))
    counts = outcomes(q, 1.0, rng)
    p = expit(np.concatenate([-q, q], axis=1))
    model = CommittorModel.for_descriptors(1, seed=1)
    shots = TrainingSet(q, counts, steps=np.arange(4000), predicted_committor=p)
    data = optimisation.TrainingData.of(model, shots, (0.0, 0.0), 0, rng, earlier)
    slope = data.slope(torch.tensor(2 * q).expand(model.n_folds, -1, -1))
    if expected is None:
        assert 0.55 < slope < 0.5**0.5
    else:
        assert slope == pytest.approx(expected, rel=0.08)


def test_logits_of_earlier_versions():
    p = np.array([[0.5, 0.5], [0.2, 0.8], [0.2, 0.8], [1.0, 0.0], [np.nan, np.nan]])
    found = optimisation.foreseen_logits(p, ((1, 1.0), (2, 0.5)))[:, 0]
    np.testing.assert_allclose(found, [np.nan, np.log(4), 2 * np.log(4), -2 * optimisation.LARGEST_LOGIT, np.nan])
    three = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(softmax(0.5 * optimisation.foreseen_logits(three, [[0, 0.5]]), axis=1), three)


def test_each_training_knows_the_slopes_of_the_earlier_ones():
    model, reports = CommittorModel.for_descriptors(30, seed=1), [None]
    for n in (60, 70, 80):
        reports.append(fit(model, noisy(n, np.random.default_rng(7)), 1, previous=reports[-1], max_epochs=20))
    assert reports[-1].earlier_slopes == ((60, reports[1].slope), (70, reports[2].slope))
    assert fit(model, noisy(80, np.random.default_rng(7)), 1, max_epochs=20).earlier_slopes == ()


def test_position_in_chain():
    chains, steps = np.array([1, 0, 0, 1, 0, 0]), np.array([5, 9, 2, 3, 4, 7])
    assert position_in_chain(chains, steps).tolist() == [1, 1, 0.25, 0.5, 0.5, 0.75]
