"""A few outlying descriptors, or a large offset, change nothing; nothing else changes either."""

import json
import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit

from ops_aimmd.committor import input_scaling, training
from ops_aimmd.committor.input_scaling import FAR, WIDTHS, InputScaling, OutlyingDescriptorsWarning, is_far
from ops_aimmd.committor.martingale import batches_of_legs
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import AuxiliaryFrames, LegFrames, ShootingResult, TrainingSet
from ops_aimmd.committor.transferred_start import TransferredStart, start_for
from ops_aimmd.explain.formulas.expressions import from_json
from ops_aimmd.explain.formulas.formula_model import BoundedExpression, formula_model, torchscript
from ops_aimmd.explain.inputs.relevance import input_relevance

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(400, 1))


def with_outliers(x, n, value):
    x = np.array(x, dtype=float)
    x[7 : 7 + n, 0] = value
    return x


@pytest.mark.parametrize(
    "x",
    [
        NORMAL,
        RNG.standard_t(3, size=(400, 1)).clip(-10, 10),
        RNG.random((400, 1)),
        (RNG.random((400, 1)) < 0.02).astype(float),
        (RNG.random((400, 1)) < 0.5).astype(float),
        np.where(RNG.random((400, 1)) < 0.95, 0.0, RNG.random((400, 1))),
        NORMAL + 100 * (RNG.random((400, 1)) < 0.2),
        NORMAL[:2],
    ],
    ids=["normal", "Student-t", "uniform", "2 % ones", "half ones", "95 % zeros", "far peaks", "two rows"],
)
def test_without_outliers_it_is_mean_and_standard_deviation(x):
    scaling = InputScaling.of(x)
    np.testing.assert_allclose([scaling.mean, scaling.std], [x.mean(axis=0), x.std(axis=0)], rtol=1e-12, atol=1e-15)
    assert (scaling.lower < x).all() and (x < scaling.upper).all()


@pytest.mark.parametrize("value", [1e3, -1e6, 1e30, -1e300])
@pytest.mark.parametrize("n", [1, 8])
def test_outliers_hardly_count(n, value):
    clean, x = InputScaling.of(NORMAL), with_outliers(NORMAL, n, value)
    scaling = InputScaling.of(x)
    assert abs(scaling.mean - clean.mean) < 0.3 and 1 <= scaling.std < 2
    assert (scaling.lower < NORMAL).all() and (NORMAL < scaling.upper).all()
    assert scaling.upper - scaling.lower < 2.2 * WIDTHS
    assert n == 1 or not abs(x.mean(axis=0) - clean.mean) < 0.3  # the control: moments


def test_columns_of_any_size_and_constants():
    clean = InputScaling.of(NORMAL)
    for spread, offset in [(1e-300, 0.0), (1e300, 0.0), (1.0, 1e12), (1.0, -1e8)]:
        scaling = InputScaling.of(spread * NORMAL + offset)
        np.testing.assert_allclose(scaling.std / spread, clean.std, rtol=1e-4)
        np.testing.assert_allclose((scaling.mean - offset) / spread, clean.mean, atol=1e-3)
    for constant in (0.0, 0.1, -1e300):
        scaling = InputScaling.of(np.full((400, 1), constant))
        assert scaling.std == 0 and scaling.lower < scaling.mean < scaling.upper
    rare = InputScaling.of(with_outliers(np.zeros((400, 1)), 2, 3.0))  # never dropped
    assert rare.std > 0 and rare.upper > 3


def test_shots_are_no_outliers_among_many_frames_close_to_the_states():
    x = np.concatenate([NORMAL, 1e-3 * RNG.normal(size=(20_000, 1))])
    scaling = InputScaling.of(x, n_shots=400)
    assert scaling.lower < NORMAL.min() and NORMAL.max() < scaling.upper
    assert NORMAL.max() > InputScaling.of(x).upper  # the control


def bounded(dtype=torch.float64, d=3, seed=0):
    model = CommittorModel.for_descriptors(d, seed=seed, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    model.set_scaling(np.arange(d) + 1e10, np.full(d, 0.5), np.full(d, -20.0) + 1e10, np.full(d, 20.0) + 1e10)
    return model


def test_the_bound_is_the_identity_then_increases_smoothly_to_the_last_number():
    model = CommittorModel.for_descriptors(1, dtype=torch.float64)
    model.set_scaling([0.5], [2.0], [-9.0], [11.0])

    def inputs(x):
        return model.inputs(torch.as_tensor(x, dtype=torch.float64)[:, None])[:, 0]

    inside = np.linspace(-9, 11, 100)
    np.testing.assert_array_equal(inputs(inside).numpy(), (inside - 0.5) * 2.0)
    size = np.concatenate([np.linspace(1, 100, 1000), np.geomspace(101, 1e300, 1000)])
    assert (np.diff(inputs(np.concatenate([-size[::-1], size])).numpy()) > 0).all()
    assert np.isfinite(inputs([1.7e308, -1.7e308]).numpy()).all()
    for end in (-9.0, 11.0):
        x = torch.tensor([end - 1e-6, end, end + 1e-6], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(inputs(x).sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        np.testing.assert_allclose(slope.detach(), 2.0, rtol=1e-9)
        np.testing.assert_allclose(curvature, 0.0, atol=1e-6)
    assert torch.autograd.gradgradcheck(
        inputs, torch.tensor([-40.0, -9.5, 3.0, 30.0], dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_without_a_bound_answer_as_version_0_1_0_did(dtype):
    """Its arrays hold shift and scale in the precision of the network, and no bound."""
    model, x = CommittorModel.for_descriptors(3, seed=1, dtype=dtype), RNG.normal(size=(50, 3))
    arrays = model.arrays()
    assert {"lower", "upper"}.isdisjoint(arrays)
    precision = np.float32 if dtype == torch.float32 else np.float64
    arrays["shift"], arrays["scale"] = np.array([0.1, 0.2, 1e-3], precision), np.array([3.3, 0.7, 1.1], precision)
    again = CommittorModel.from_description(model.description(), arrays)
    shift, scale = torch.tensor(arrays["shift"]), torch.tensor(arrays["scale"])
    with torch.no_grad():
        expected = again.network((torch.tensor(x, dtype=dtype) - shift) * scale)
    assert torch.equal(again(torch.tensor(x)), expected) and np.array_equal(
        again.reaction_coordinate(x), expected[:, 0].numpy()
    )
    assert again.lower is None and fit_of(x, again, start_anew=False).lower is None


def fit_of(x, model=None, p=None, **options):
    model = CommittorModel.for_descriptors(x.shape[1], seed=0) if model is None else model
    p = expit(2 * x[:, 0]) if p is None else p
    fit(model, TrainingSet(x, 2 * np.stack([1 - p, p], axis=1)), seed=0, **options)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bound_goes_with_the_model(dtype):
    model = bounded(dtype)
    x = 1e10 + RNG.normal(size=(20, 3)) * [1, 10, 1e6]
    description, arrays = json.loads(json.dumps(model.description())), model.arrays()
    again = CommittorModel.from_description(description, arrays)
    assert again.dtype == dtype and again.shift.dtype == torch.float64
    for copy in (again, model.copy(), model.frozen_copy(), model.copy().to(torch.float64).to(dtype)):
        assert np.array_equal(copy.reaction_coordinate(x), model.reaction_coordinate(x))
    del arrays["upper"]
    with pytest.raises(ValueError, match="upper"):
        CommittorModel.from_description(description, arrays)


def test_the_bound_is_the_same_in_formulas_and_exports():
    fallback = bounded()
    edge = np.zeros(3)
    model = formula_model([BoundedExpression(from_json(["input", 0], 3), edge, edge, (0.0, 0.0))], fallback)
    x = 1e10 + RNG.normal(size=(20, 3)) * [1, 10, 1e6]
    again = CommittorModel.from_description(json.loads(json.dumps(model.description())), model.arrays())
    for q in (
        model.reaction_coordinate(x),
        again.reaction_coordinate(x),
        torchscript(model)(torch.tensor(x)).detach()[:, 0],
    ):
        np.testing.assert_allclose(q, fallback.reaction_coordinate(x), rtol=1e-12)


X = RNG.normal(size=(400, 3))
NEW = RNG.normal(size=(2000, 3))


def rmse(model, new=NEW):
    return float(np.sqrt(np.mean((model.committor(new) - expit(2 * NEW[:, 0])) ** 2)))


@pytest.fixture(scope="module")
def clean():
    return fit_of(X, relevance=None)


@pytest.mark.parametrize(("n", "value"), [(1, 1e3), (1, 1e30), (8, 1e4)])
def test_outliers_do_not_destroy_the_committor(clean, n, value, monkeypatch):
    p, x = expit(2 * X[:, 0]), with_outliers(X, n, value)
    with pytest.warns(OutlyingDescriptorsWarning, match=r"column 0 .*shots \[7") as caught:
        model = fit_of(x, p=p, relevance=None)
    assert caught[0].filename == __file__ and ("14" in str(caught[0].message)) == (n == 8)
    assert rmse(model) < 1.2 * rmse(clean)

    # the control: mean and standard deviation
    def moments(x, n_shots):
        return InputScaling(x.mean(axis=0), x.std(axis=0), np.full(3, -1e9), np.full(3, 1e9))

    monkeypatch.setattr(training.InputScaling, "of", moments)
    assert rmse(fit_of(x, p=p, relevance=None)) > (1.5 if value > 1e3 else 1.2) * rmse(clean)


def test_offsets_do_not_destroy_the_committor(clean):
    assert rmse(fit_of(X + 1e12, p=expit(2 * X[:, 0]), relevance=None), NEW + 1e12) < 1.2 * rmse(clean)
    model = clean.copy()  # the control: a shift in the precision of the network
    x = torch.tensor(NEW + 1e12)
    q = model.network((x.float() - (model.shift + 1e12).float()) * model.scale.float())
    assert np.sqrt(np.mean((expit(q.detach().numpy()[:, 0]) - expit(2 * NEW[:, 0])) ** 2)) > 0.2


def test_heavy_tails_are_no_reason_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutlyingDescriptorsWarning)
        for x in (np.random.default_rng(1).standard_t(3, size=(400, 3)), X + 1e8, (X > 2).astype(float)):
            InputScaling.of(x).warn(x, 400)
        flipped = np.cos(np.random.default_rng(2).normal(np.pi, 0.2, size=(2000, 1)))
        flipped[1500:1504] = 1.0  # a bond that turns over in one leg: far in widths, but not in standard deviations
        scaling = InputScaling.of(flipped)
        scaling.warn(flipped, 400)
        assert is_far(flipped, scaling.lower, scaling.upper).sum() == 4  # the control: widths alone
        x = with_outliers(X, 2, 2 * FAR)
        x[:, 1] = 0.0
        x[3, 1] = 1e9  # the only value of its kind sets the scale
        with pytest.raises(OutlyingDescriptorsWarning, match=r"column 0 .*shots \[7, 8\], 3 frames of legs"):
            InputScaling.of(np.concatenate([x, x[7:10], x[7:8]])).warn(np.concatenate([x, x[7:10], x[7:8]]), 400)


def test_velocities_and_their_unit_with_an_outlier():
    """A value that is wrong in one frame makes two displacements absurd."""
    n = 300
    x = np.cumsum(RNG.normal(size=(n, 2)), axis=0)
    is_end = np.arange(n) == n - 1

    def legs(x, displacements):
        frames = AuxiliaryFrames(x, np.zeros(n, int), is_end, displacements, np.zeros(n, int))
        (batch,) = batches_of_legs(frames, 2, 1000, np.random.default_rng(0), torch.tensor)
        return batch

    moved = np.diff(x, axis=0, prepend=0.0)
    unit = legs(x, moved).typical_memory
    np.testing.assert_allclose(unit, 1.0, rtol=0.1)
    for value in (1e4, 1e200):
        wrong, jumps = x.copy(), moved.copy()
        wrong[50], jumps[50] = value, value
        np.testing.assert_allclose(legs(wrong, jumps).typical_memory, unit, rtol=0.5)


def test_frames_of_legs_with_outliers_are_learned_from():
    def shots(value):
        rng = np.random.default_rng(2)
        training_set = TrainingSet.empty(2, 2)
        for k in range(60):
            start = rng.normal(size=2)
            frames = start + np.outer(np.arange(1, 6), [0.3 * np.sign(start[0]), 0.0])
            moved = np.tile([0.1 * np.sign(start[0]), 0.0], (5, 1))
            if k == 11:
                frames[2], moved[2] = value, value
            outcome = int(start[0] > 0)
            legs = LegFrames(frames, np.full(5, outcome), np.arange(5) == 4, moved)
            training_set.append(ShootingResult(start, 2 * np.eye(2)[outcome], leg_frames=legs))
        return training_set

    answers, new = [], np.random.default_rng(3).normal(size=(200, 2))
    for value in (0.3, 1e30):
        model = CommittorModel.for_descriptors(2, seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutlyingDescriptorsWarning)
            assert np.isfinite(
                fit(model, shots(value), seed=0, auxiliary_weights=(0.15, 10.0), relevance=None).velocity_memory
            )
        answers.append(model.committor(new))
    assert np.sqrt(np.mean((answers[0] - answers[1]) ** 2)) < 0.1


def test_transfer_with_outliers_in_both_systems(clean):
    def shots(x):
        p = expit(2 * X[:, 0])
        return TrainingSet(x, 2 * np.stack([1 - p, p], axis=1))

    source = clean.copy()
    start = TransferredStart.of(source, shots(with_outliers(X, 1, 1e30)), [0, 1, 2])
    np.testing.assert_array_equal(start.model.reaction_coordinate(NEW), source.reaction_coordinate(NEW))
    model = start_for(start, shots(with_outliers(3 * X + 100, 1, 1e30))).model
    assert rmse(model, 3 * NEW + 100) < 3 * rmse(clean) + 0.05
    assert model.lower is not None and np.isfinite(model.committor(np.full((1, 3), 1e300))).all()


def test_relevance_with_outliers(clean):
    x = with_outliers(X, 2, 1e30)
    x[3, 2] = -1e300
    hits = np.random.default_rng(4).binomial(2, expit(2 * X[:, 0]))
    held_out = TrainingSet(x, np.stack([2 - hits, hits], axis=1))
    table = input_relevance(clean, held_out, held_out=held_out, methods=["permutation", "conditional", "noise", "gradient"])
    assert np.isfinite(table.drop(columns="inputs").to_numpy(dtype=float)).all()
    for method in ("loss_increase", "conditional_increase", "noise_increase", "gradient"):
        assert table[method].idxmax() == "input 0"


def test_large_arrays_are_scaled_by_parts_of_their_columns(monkeypatch):
    x = np.random.default_rng(3).standard_t(2, size=(200, 7)) * np.arange(7)
    whole = InputScaling.of(x, 50)
    monkeypatch.setattr(input_scaling, "NUMBERS_AT_ONCE", 300)
    parts = InputScaling.of(x, 50)
    for name in ("mean", "std", "lower", "upper"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
