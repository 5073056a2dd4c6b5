"""CommittorModel: consistent predictions, kinds of input, errors, copies, files."""

import json
import time

import numpy as np
import pytest
import torch
from torch import nn

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.networks import FeedForward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def model_of(n_states=2, d=3, dtype=torch.float64, seed=1, **arguments):
    model = CommittorModel.for_descriptors(d, n_states, seed=seed, dtype=dtype, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        model.shift.fill_(0.5)
        model.scale.fill_(2.0)
    return model


def points(n=20, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_states", [2, 3])
def test_all_predictions_say_the_same(n_states, dtype, device):
    model, x = model_of(n_states, dtype=dtype, device=device), points()
    log_p = model.log_committor(x)
    p = np.exp(log_p)
    assert p.shape == (20, n_states) and log_p.dtype == np.float64
    assert np.allclose(p.sum(axis=1), 1, atol=1e-6)
    if n_states == 2:
        assert np.allclose(model.committor(x), p[:, 1], atol=1e-6)
        assert np.allclose(model.reaction_coordinate(x), np.log(p[:, 1] / p[:, 0]), atol=1e-4)
    else:
        assert np.allclose(model.committor(x), p, atol=1e-6)
        assert np.allclose(model.reaction_coordinate(x), log_p, atol=1e-6)
    assert np.allclose(model.transition_path_probability(x), 1 - (p**2).sum(axis=1), atol=1e-6)


@pytest.mark.parametrize("n_states", [2, 3])
def test_uncertainty_is_the_spread_of_the_members(n_states):
    model, x = model_of(n_states), points()
    spread = model.uncertainty(x)
    assert spread.shape == ((20,) if n_states == 2 else (20, 3)) and (spread > 0).all()
    single = CommittorModel(FeedForward(3, 1 if n_states == 2 else n_states, seed=0), 3, n_states)
    assert (single.uncertainty(x) == 0).all()


def test_an_array_gives_an_array_and_a_tensor_a_tensor_with_its_gradient():
    model = model_of()
    x = points()
    array = model.reaction_coordinate(x)
    tensor = torch.from_numpy(x).requires_grad_(True)
    q = model.reaction_coordinate(tensor)
    assert isinstance(array, np.ndarray) and array.dtype == np.float64
    assert isinstance(q, torch.Tensor) and np.allclose(q.detach().numpy(), array)
    (gradient,) = torch.autograd.grad(q.sum(), tensor)
    step = 1e-6
    for k in range(3):
        shift = step * np.eye(3)[k]
        numeric = (model.reaction_coordinate(x + shift) - model.reaction_coordinate(x - shift)) / (2 * step)
        assert np.allclose(gradient[:, k].numpy(), numeric, atol=1e-6)


def test_float32_arrays_lists_and_no_rows_are_welcome():
    model = model_of()
    assert np.allclose(model.committor(points().astype(np.float32)), model.committor(points()), atol=1e-5)
    assert model.committor(points().tolist()).shape == (20,)
    assert model.committor(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    "method", ["committor", "reaction_coordinate", "log_committor", "transition_path_probability", "uncertainty"]
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_bad_descriptors_are_named(method, kind):
    evaluate = getattr(model_of(), method)
    with pytest.raises(ValueError, match=r"\(n, 3\).*\(5, 4\)"):
        evaluate(kind(np.zeros((5, 4))))
    with pytest.raises(ValueError, match=r"\(n, 3\).*\(3,\)"):
        evaluate(kind(np.zeros(3)))
    x = points()
    x[4, 1] = np.nan
    x[7, 2] = np.inf
    with pytest.raises(ValueError, match=r"\[4, 7\]"):
        evaluate(kind(x))


def test_evaluation_mode_is_used_and_the_training_flags_are_left_alone():
    network = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 1))
    model = CommittorModel(network, 3)
    network[0].eval()
    flags = [m.training for m in model.modules()]
    assert np.array_equal(model.committor(points()), model.committor(points()))
    assert [m.training for m in model.modules()] == flags
    x = torch.from_numpy(points()).float()
    assert not torch.equal(model(x), model(x))  # the control: forward itself drops out


def test_copies_are_independent():
    model, x = model_of(), points()
    before = model.committor(x)
    frozen, copy = model.frozen_copy(), model.copy()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
        model.shift.add_(1.0)
    assert np.array_equal(frozen.committor(x), before) and np.array_equal(copy.committor(x), before)
    assert not np.array_equal(model.committor(x), before)
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in copy.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_description_and_arrays_rebuild_the_model(dtype):
    model, x = model_of(3, dtype=dtype), points()
    description, arrays = json.loads(json.dumps(model.description())), model.arrays()
    again = CommittorModel.from_description(description, arrays)
    assert np.array_equal(again.committor(x), model.committor(x)) and again.dtype == dtype
    arrays.pop("shift")
    with pytest.raises(ValueError, match="shift"):
        CommittorModel.from_description(description, arrays)


def test_a_custom_network_is_rebuilt_from_its_object_only():
    model = CommittorModel(nn.Linear(3, 1), 3)
    description, arrays = model.description(), model.arrays()
    with pytest.raises(ValueError, match="network"):
        CommittorModel.from_description(description, arrays)
    again = CommittorModel.from_description(description, arrays, network=nn.Linear(3, 1))
    assert np.array_equal(again.committor(points()), model.committor(points()))


def test_a_network_of_another_size_is_refused():
    with pytest.raises(ValueError, match="states"):
        CommittorModel(FeedForward(3), 3, n_states=1)
    with pytest.raises(ValueError, match="n_outputs"):
        CommittorModel(FeedForward(3, n_outputs=1), 3, n_states=3)
    with pytest.raises(ValueError, match="n_inputs"):
        CommittorModel(FeedForward(4), 3)


@pytest.mark.slow
def test_a_path_is_evaluated_in_a_fraction_of_a_millisecond():
    model, x = CommittorModel.for_descriptors(16, seed=0).frozen_copy(), points(100, 16)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        model.reaction_coordinate(x)
        times.append(time.perf_counter() - start)
    assert np.min(times) < 1e-3


@pytest.mark.parametrize(
    "network, n_states, got",
    [
        (nn.Linear(3, 2), 2, r"\(2, 2\) instead of \(2, 1\)"),
        (nn.Linear(3, 1), 3, r"\(2, 1\) instead of \(2, 3\)"),
        (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), 2, r"\(2,\) instead of \(2, 1\)"),
        (nn.Linear(4, 1), 2, "it raised"),
        (nn.LSTM(3, 1), 2, "a tuple instead of a tensor"),
    ],
)
def test_a_network_of_the_wrong_shape_is_refused(network, n_states, got):
    with pytest.raises(ValueError, match=got):
        CommittorModel(network, 3, n_states)
    CommittorModel(nn.Linear(3, 1), 3)
