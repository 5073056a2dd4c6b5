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
    assert np.mean([calibration(*shots(500, seed=seed), legs_are_shots=True).rmse for seed in range(100)]) < 0.1


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
    result = calibration(wrong, counts, legs_are_shots=True)
    assert abs(result.rmse - true) < 4 * result.rmse_error
    raw = np.sqrt(np.mean((wrong - counts[:, 1] / n_legs) ** 2))
    assert raw > true + 4 * result.rmse_error  # the control


def test_the_error_of_the_rmse_is_its_scatter():
    rmse, error = [], []
    for seed in range(100):
        p, counts = shots(500, seed=seed)
        result = calibration(np.clip(p + 0.2, 0, 1), counts, legs_are_shots=True)
        rmse.append(result.rmse)
        error.append(result.rmse_error)
    assert np.std(rmse) == pytest.approx(np.mean(error), rel=0.35)


def test_one_shot_of_each_configuration_has_no_rmse():
    """A model without error and anticorrelated legs give what a model with an error and independent legs do."""
    p, counts = shots()
    wrong = np.clip(p + 0.2 * np.where(np.arange(len(p)) % 2, 1, -1), 0, 1)
    result = calibration(wrong, counts)
    assert np.isnan([result.rmse, result.rmse_error]).all() and "RMSE unknown" in str(result)
    assert result.leg_correlation > 4 * result.leg_correlation_error
    assert "RMSE 0." in str(calibration(wrong, counts, legs_are_shots=True))


@pytest.mark.parametrize("error", [0.0, 0.15])
def test_rmse_of_two_way_shots_is_of_different_shots(error):
    """Several two-way shots of each configuration, with legs that part: products of legs of one shot are left out."""
    rng = np.random.default_rng(3)
    p = np.repeat(expit(rng.normal(scale=1.5, size=3000)), 3)
    counts = antithetic(p, rng)
    wrong = np.clip(p + error * np.repeat(np.where(np.arange(3000) % 2, 1, -1), 3), 0, 1)
    configurations = np.repeat(np.arange(3000), 3)
    found = calibration(wrong, counts, configurations=configurations)
    true = np.sqrt(np.mean((wrong - p) ** 2))
    assert abs(found.rmse**2 - true**2) < 3 * 2 * found.rmse_error * max(found.rmse, found.rmse_error)
    mixed = rng.permutation(len(p))  # the order of rows does not matter
    again = calibration(wrong[mixed], counts[mixed], configurations=configurations[mixed])
    assert again.rmse == pytest.approx(found.rmse) and again.slope_error == pytest.approx(found.slope_error)
    # the control: legs that are taken for shots give a negative square, for a model without error and for a wrong one
    assert abs(calibration(wrong, counts, legs_are_shots=True).rmse - true) > 3 * found.rmse_error or error == 0


def test_correlation_of_the_legs_of_a_shot():
    rng = np.random.default_rng(4)
    p, counts = shots()
    independent = calibration(p, counts)
    assert abs(independent.leg_correlation) < 4 * independent.leg_correlation_error
    part = calibration(p, antithetic(p, rng))
    expected = -(np.minimum(p, 1 - p) ** 2).sum() / (p * (1 - p)).sum()  # P(both B) is max(0, 2p - 1)
    assert abs(part.leg_correlation - expected) < 4 * part.leg_correlation_error < 0.1
    same = np.where(rng.random(len(p)) < p, 2, 0)
    together = calibration(p, np.column_stack([2 - same, same]))
    assert abs(together.leg_correlation - 1) < 4 * together.leg_correlation_error < 0.2


def antithetic(p, rng):
    """Counts of two legs driven by u and 1 - u: each reaches B with probability p, and they part as often as they can."""
    u = rng.random(len(p))
    reached = (u < p).astype(int) + (1 - u < p)
    return np.column_stack([2 - reached, reached])


def test_loss_floor_and_alarm():
    p, counts = shots()
    result = calibration(p, counts)
    assert result.loss_floor == pytest.approx(2 * np.log(2) * np.mean(counts[:, 1] == 1))
    assert result.loss_per_leg > result.loss_floor and not result.below_floor
    memorised = np.clip(counts[:, 1] / 2, 0.02, 0.98)
    assert calibration(memorised, counts, unseen=p).below_floor
    assert calibration(memorised, counts, unseen=np.where(np.arange(len(p)) < 2000, np.nan, p)).below_floor
    assert not calibration(memorised, counts).below_floor  # legs that part would look the same


def test_no_alarm_where_the_legs_part():
    """The floor of independent legs lies above the loss of the true model, that of the covariance below it."""
    p, _ = shots()
    counts = antithetic(p, np.random.default_rng(5))
    result = calibration(p, counts, unseen=p)
    independent = 2 * np.log(2) * np.mean(counts[:, 1] == 1)
    assert result.loss_per_leg < independent - 10 * result.loss_per_leg_error  # the control: it would be an alarm
    assert result.loss_floor < result.loss_per_leg and not result.below_floor
    assert calibration(np.clip(counts[:, 1] / 2, 0.02, 0.98), counts, unseen=p).below_floor


def test_one_leg_shots_have_slope_and_loss_but_no_rmse():
    p, counts = shots(n_legs=1)
    result = calibration(p, counts)
    assert np.isfinite([result.slope, result.loss_per_leg]).all()
    assert np.isnan([result.rmse, result.leg_correlation, result.loss_floor]).all() and not result.below_floor


def test_the_table_counts_every_leg():
    p, counts = shots()
    table = calibration(p, counts, n_bins=5).table
    assert table["shots"].sum() == 4000 and table["legs"].sum() == 8000
    z = (table["observed"] - table["predicted"]) / table["observed_error"]
    assert (z**2).sum() < 20.5  # chi-squared with 5 degrees of freedom: 0.999


def test_errors_of_the_table_contain_the_correlation_of_legs():
    """Two legs with one outcome are one: the variance doubles, and is that of many repeats."""
    rng = np.random.default_rng(6)
    p, _ = shots(500)
    found = []
    for _ in range(200):
        same = np.where(rng.random(len(p)) < p, 2, 0)
        found.append(calibration(p, np.column_stack([2 - same, same]), n_bins=5).table)
    z = np.array([(table["observed"] - table["predicted"]) / table["observed_error"] for table in found])
    assert np.mean(z**2) == pytest.approx(1, abs=4 * np.sqrt(2 / 1000))
    binomial = np.array([np.sqrt(t["predicted"] * (1 - t["predicted"]) / t["legs"]) for t in found])
    assert np.mean(((np.array([t["observed"] - t["predicted"] for t in found])) / binomial) ** 2) > 1.7  # the control


def test_few_configurations_leave_the_errors_unknown():
    result = calibration([0.3, 0.7], [[30, 20], [20, 30]], legs_are_shots=True)
    assert np.isfinite(result.slope) and np.isnan([result.slope_error, result.intercept_error]).all()


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


def test_bad_options_are_named():
    p, counts = shots(10)
    with pytest.raises(ValueError, match=r"configurations .*\(9,\)"):
        calibration(p, counts, configurations=np.arange(9))
    with pytest.raises(ValueError, match=r"clusters .*\(9,\)"):
        calibration(p, counts, clusters=np.arange(9))
    with pytest.raises(ValueError, match=r"unseen .*\(9,\)"):
        calibration(p, counts, unseen=p[:9])
    with pytest.raises(ValueError, match=r"unseen .*\[0, 1"):
        calibration(p, counts, unseen=p + 1)
