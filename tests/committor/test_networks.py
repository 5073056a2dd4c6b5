"""Networks: stacked members, descriptions, seeds."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.networks import (
    NETWORKS,
    Ensemble,
    FeedForward,
    Residual,
    SelfNormalizing,
    default_network,
    is_of_this_package,
    log_prior,
    member_logits,
    network_description,
    network_from_description,
)

STACKED = [
    lambda **k: FeedForward(3, hidden=(8, 8), **k),
    lambda **k: FeedForward(3, n_outputs=3, hidden=(), **k),
    lambda **k: FeedForward(3, hidden=(8,), linear_skip=True, activation="silu", **k),
    lambda **k: SelfNormalizing(3, n_outputs=4, hidden=(8, 8), **k),
    lambda **k: Residual(3, width=8, n_blocks=2, **k),
]


def points(n=6, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", STACKED)
def test_members_are_independent_and_their_mean_is_the_output(make):
    network, x = make(n_members=4, seed=1), points()
    members = network.member_logits(x)
    assert members.shape == (4, 6, network.n_outputs)
    assert torch.allclose(network(x), members.mean(dim=0))
    x = x.requires_grad_(True)
    network.member_logits(x)[2].sum().backward()
    for parameter in network.parameters():  # a member's output moves only with its own weights
        assert parameter.grad[[0, 1, 3]].abs().sum() == 0
    assert sum(parameter.grad[2].abs().sum() for parameter in network.parameters()) > 0


@pytest.mark.parametrize("make", STACKED)
def test_a_description_rebuilds_the_architecture(make):
    network = make(n_members=2, seed=1)
    description = json.loads(json.dumps(network.description()))
    again = network_from_description(description)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(points()), network(points()))
    assert again.description() == network.description()


@pytest.mark.parametrize("make", STACKED)
def test_the_seed_decides_the_weights_and_torchs_own_generator_is_left_alone(make):
    before = torch.get_rng_state()
    same, also_same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(same(points()), also_same(points()))
    assert not torch.equal(same(points()), other(points()))
    other.restart(1)
    assert torch.equal(same(points()), other(points()))


def test_self_normalizing_keeps_the_variance_of_activations():
    network = SelfNormalizing(64, hidden=(256,) * 6, seed=0)
    h = torch.randn(1, 2000, 64, generator=torch.Generator().manual_seed(1))
    for layer in network.layers:
        h = torch.selu(layer(h))
    assert 0.7 < h.std() < 1.3 and abs(h.mean()) < 0.15
    control = torch.randn(1, 2000, 64, generator=torch.Generator().manual_seed(1))
    for layer in network.layers:
        control = torch.tanh(layer(control))
    assert control.std() < 0.5


@pytest.mark.parametrize("d", [1, 22, 300])
@pytest.mark.parametrize("n_states", [2, 4])
def test_default_network_starts_near_ignorance(d, n_states):
    logits = default_network(d, n_states, seed=0)(points(200, d))
    assert logits.shape == (200, 1 if n_states == 2 else n_states)
    assert logits.abs().max() < 1


def test_any_modules_make_an_ensemble():
    members = [nn.Linear(3, 1) for _ in range(3)]
    network = Ensemble(members)
    assert torch.allclose(network(points()), sum(m(points()) for m in members) / 3)
    assert member_logits(network, points()).shape == (3, 6, 1)
    assert member_logits(members[0], points()).shape == (1, 6, 1)


def test_a_custom_network_must_be_given_again():
    description = network_description(nn.Linear(3, 1))
    assert description["kind"] == "custom"
    with pytest.raises(ValueError, match="Linear"):
        network_from_description(description)
    with pytest.raises(ValueError, match="unknown kind"):
        network_from_description({"kind": "os.system"})


def module_named(name, base=nn.Module):
    """A module of one's own, whose class may have the name of one of this package."""

    def initialise(self):
        base.__init__(self, *([3] if base is not nn.Module else []))
        self.layer = nn.Linear(3, 1)

    return type(name, (base,), {"__init__": initialise, "forward": lambda self, x: self.layer(x)})


@pytest.mark.parametrize("name", [*NETWORKS, "Ensemble"])
def test_a_class_of_ones_own_with_a_name_of_ours_is_custom(name):
    network = module_named(name)()
    assert network_description(network) == {"kind": "custom", "class": name}
    model = CommittorModel(network, 3)
    again = CommittorModel.from_description(model.description(), model.arrays(), network=module_named(name)())
    assert np.array_equal(again.committor(points().numpy()), model.committor(points().numpy()))


@pytest.mark.parametrize("name", ["Residual", "FeedForward", "Mine"])
@pytest.mark.parametrize("base", [FeedForward, SelfNormalizing, Residual])
def test_a_subclass_of_ours_is_custom(base, name):
    """It may compute anything; what `base` would build from its description is another network."""
    description = network_description(module_named(name, base)())
    assert description == {"kind": "custom", "class": name}
    with pytest.raises(ValueError, match=f"'{name}'"):
        network_from_description(description)


def test_a_network_of_this_package_is_known_by_its_class():
    for made in (FeedForward(3), SelfNormalizing(3), Residual(3)):
        assert is_of_this_package(made) and network_description(made)["kind"] == type(made).__name__
        assert type(network_from_description(network_description(made))) is type(made)


@pytest.mark.parametrize(
    "arguments", [{"n_inputs": 0}, {"n_members": 0}, {"activation": "step"}, {"n_outputs": 1.5}, {"hidden": (0,)}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        FeedForward(**{"n_inputs": 3, **arguments})


def test_prior_of_a_weight_has_the_width_of_its_natural_scale():
    # at weights drawn from the prior, -2 ln(prior) is chi-squared with as many degrees of freedom as weights
    network = FeedForward(50, hidden=(100, 100), n_members=3, seed=0)
    network.output.initial_gain = network.output.prior_gain
    network.restart(1)
    n = sum(p.numel() for name, p in network.named_parameters() if name.endswith("weight"))
    assert abs(-2 * log_prior(network).item() - n) < 5 * (2 * n) ** 0.5
    custom = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    expected = -0.5 * (4 * custom[0].weight.square().sum() + 5 * custom[2].weight.square().sum())
    assert torch.allclose(log_prior(custom), expected)
