"""calibration: finds what is wrong with a committor, and nothing where nothing is."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ops_aimmd.committor.calibration import calibration


def shots(n=4000, n_legs=2, seed=0):
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(scale=1.5, size=n))
    reached = rng.binomial(n_legs, p)
    return p, np.column_stack([n_legs - reached, reached])


def test_a_true_committor_passes():
    # 100 independent repetitions: standard errors are those of the estimates, and 2 sigma alarms are rare
    results = [calibration(*shots(500, seed=seed)) for seed in range(100)]
    z_slope = np.array([(r.slope - 1) / r.slope_error for r in results])
    z_intercept = np.array([r.intercept / r.intercept_error for r in results])
    for z in (z_slope, z_intercept):
        assert abs(z.mean()) < 4 / 10 and 0.7 < z.std() < 1.3
    assert sum(r.below_floor for r in results) <= 3
    assert np.mean([r.rmse for r in results]) < 0.1


@pytest.mark.parametrize(("a", "b"), [(0.0, 2.0), (0.0, 0.5), (1.0, 1.0)])
def test_slope_and_intercept_are_recovered(a, b):
    p, counts = shots(20_000)
    result = calibration(expit((logit(p) - a) / b), counts)
    assert abs(result.slope - b) < 4 * result.slope_error
    assert abs(result.intercept - a) < 4 * result.intercept_error
    assert abs(result.slope - 1) > 4 * result.slope_error or abs(result.intercept) > 4 * result.intercept_error


@pytest.mark.parametrize("n_legs", [2, 10])
def test_rmse_is_free_of_shot_noise(n_legs):
    p, counts = shots(20_000, n_legs)
    wrong = np.clip(p + 0.1 * np.where(np.arange(len(p)) % 2, 1, -1), 0, 1)
    true = np.sqrt(np.mean((wrong - p) ** 2))
    result = calibration(wrong, counts)
    assert abs(result.rmse - true) < 4 * result.rmse_error
    raw = np.sqrt(np.mean((wrong - counts[:, 1] / n_legs) ** 2))
    assert raw > true + 4 * result.rmse_error  # the control


def test_the_error_of_the_rmse_is_its_scatter():
    rmse, error = [], []
    for seed in range(100):
        p, counts = shots(500, seed=seed)
        result = calibration(np.clip(p + 0.2, 0, 1), counts)
        rmse.append(result.rmse)
        error.append(result.rmse_error)
    assert np.std(rmse) == pytest.approx(np.mean(error), rel=0.35)


def test_loss_floor_and_alarm():
    p, counts = shots()
    result = calibration(p, counts)
    assert result.loss_floor == pytest.approx(2 * np.log(2) * np.mean(counts[:, 1] == 1))
    assert result.loss_per_leg > result.loss_floor and not result.below_floor
    memorised = np.clip(counts[:, 1] / 2, 0.02, 0.98)
    assert calibration(memorised, counts).below_floor


def test_one_leg_shots_have_slope_and_loss_but_no_rmse():
    p, counts = shots(n_legs=1)
    result = calibration(p, counts)
    assert np.isfinite([result.slope, result.loss_per_leg]).all()
    assert np.isnan([result.rmse, result.loss_floor]).all() and not result.below_floor


def test_the_table_counts_every_leg():
    p, counts = shots()
    table = calibration(p, counts, n_bins=5).table
    assert table["shots"].sum() == 4000 and table["legs"].sum() == 8000
    z = (table["observed"] - table["predicted"]) / table["observed_error"]
    assert (z**2).sum() < 20.5  # chi-squared with 5 degrees of freedom: 0.999


def test_both_columns_or_the_last_one():
    p, counts = shots(100)
    assert calibration(np.column_stack([1 - p, p]), counts).slope == calibration(p, counts).slope


def test_saturated_predictions_have_a_finite_loss():
    assert np.isfinite(calibration([0.0, 1.0, 1.0], [[2, 0], [0, 2], [1, 1]]).loss_per_leg)


@pytest.mark.parametrize("counts", [[[2, 0], [2, 0]], [[2, 0], [0, 2]]])
def test_undetermined_slopes_are_nan(counts):
    result = calibration([0.2, 0.8], counts)
    assert np.isnan([result.slope, result.intercept, result.slope_error]).all()


@pytest.mark.parametrize(
    ("predicted", "counts", "message"),
    [
        ([0.5], [[1, 1], [1, 1]], "shapes"),
        (np.full((2, 3), 1 / 3), np.ones((2, 3)), "two states"),
        ([], np.empty((0, 2)), "at least one"),
        ([0.5, 1.5], [[1, 1], [1, 1]], r"\[1\]"),
        ([0.5, np.nan], [[1, 1], [1, 1]], r"\[1\]"),
        ([0.5, 0.5], [[1, 1], [0, 0]], r"\[1\]"),
    ],
)
def test_bad_input_is_named(predicted, counts, message):
    with pytest.raises(ValueError, match=message):
        calibration(predicted, counts)
