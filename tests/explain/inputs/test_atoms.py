"""Relevance of atoms: derivatives against finite differences, PDB files, weights, pictures."""

import matplotlib
import mdtraj
import numpy as np
import pandas as pd
import pytest
import torch

import ops_aimmd
from ops_aimmd.descriptors import InternalCoordinates, JoinedDescriptors, SymmetryFunctions
from ops_aimmd.explain.inputs.atoms import (
    atom_relevance,
    cartesian_gradient,
    mean_over_frames,
    transition_state_weights,
    write_relevance_pdb,
)
from ops_aimmd.explain.inputs.gradients import double_copy
from ops_aimmd.explain.inputs.relevance_plots import plot_atom_relevance

matplotlib.use("agg")

N_ATOMS = 9

BOX = np.diag([2.1, 2.2, 2.3])

DESCRIPTORS = JoinedDescriptors(
    [
        InternalCoordinates({"r": (0, 1)}, {"angle": (0, 1, 2)}, {"phi": (0, 1, 2, 3)}, periodic=True),
        SymmetryFunctions({"Li": 0}, {"O": [4, 5, 6, 7]}, shells=(0.3, 0.5), zetas=(1, 4)),
    ]
)
"""Atom 8 is in none of them."""


def frames(n, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 0, 1], [0, 2, 0], [0, 0, 2], [2, 2, 1], [0, 1, 2]])
    return 0.3 * grid + 0.03 * rng.normal(size=(n, N_ATOMS, 3))


def model_for(descriptors, n_states=2):
    model = ops_aimmd.CommittorModel.for_descriptors(len(descriptors.names), n_states, seed=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("network.output"):
                parameter.mul_(20)  # an untrained model is nearly flat
    return model


def difference_quotient(value, positions, direction, step=1e-5):
    return (value(positions + step * direction) - value(positions - step * direction)) / (2 * step)


@pytest.mark.parametrize("state", [None, 1])
def test_gradient_agrees_with_finite_differences(state):
    """Central differences with a step of 1e-5 nm are good to 1e-8 of the scale of the third derivative."""
    model, positions = model_for(DESCRIPTORS), frames(3)
    double = double_copy(model)

    def value(x):
        descriptors = DESCRIPTORS(x, BOX)
        return double.reaction_coordinate(descriptors) if state is None else double.log_committor(descriptors)[:, state]

    gradient = cartesian_gradient(model, DESCRIPTORS, positions, BOX, state, frames_at_once=2)
    assert gradient.shape == positions.shape and gradient.dtype == np.float64
    rng = np.random.default_rng(1)
    for _ in range(5):
        direction = rng.normal(size=positions.shape)
        slope = (gradient * direction).sum(axis=(1, 2))
        scale = np.abs(gradient * direction).sum(axis=(1, 2))
        assert (np.abs(difference_quotient(value, positions, direction) - slope) < 1e-6 * scale).all()
    # the same differences of the model in single precision are far from it: the copy in double is needed
    single = difference_quotient(lambda x: model.reaction_coordinate(DESCRIPTORS(x, BOX)), positions, direction)
    if state is None:
        assert (np.abs(single - slope) > 1e-4 * scale).any()


def test_atoms_outside_of_all_descriptors_and_translations_change_nothing():
    gradient = cartesian_gradient(model_for(DESCRIPTORS), DESCRIPTORS, frames(2), BOX)
    assert np.all(gradient[:, 8] == 0)
    size = np.abs(gradient).sum(axis=1)
    assert (np.abs(gradient.sum(axis=1)) < 1e-10 * size).all()
    assert size.min() > 0.01


def test_relevance_is_the_length_of_the_gradient():
    model, positions = model_for(DESCRIPTORS), frames(5)
    gradient = cartesian_gradient(model, DESCRIPTORS, positions, BOX)
    relevance = atom_relevance(model, DESCRIPTORS, positions, np.tile(BOX, (5, 1, 1)), frames_at_once=2)
    assert relevance.shape == (5, N_ATOMS)
    np.testing.assert_allclose(relevance, np.linalg.norm(gradient, axis=2), rtol=1e-12)
    distance = InternalCoordinates({"r": (0, 1)})
    linear = ops_aimmd.CommittorModel(torch.nn.Linear(1, 1), 1)
    weight = abs(float(linear.network.weight.detach()))
    np.testing.assert_allclose(atom_relevance(linear, distance, positions)[:, :3], [[weight, weight, 0]] * 5, rtol=1e-12)


def test_three_states():
    """Squares summed over the logits less their mean; ln p_i is logit i less a term that is the same for all."""
    model, positions = model_for(DESCRIPTORS, n_states=3), frames(2)
    gradients = np.array([cartesian_gradient(model, DESCRIPTORS, positions, BOX, state) for state in range(3)])
    centred = gradients - gradients.mean(axis=0)
    relevance = atom_relevance(model, DESCRIPTORS, positions, BOX)
    np.testing.assert_allclose(relevance, np.sqrt((centred**2).sum(axis=(0, 3))), rtol=1e-9)
    with pytest.raises(ValueError, match="say which"):
        cartesian_gradient(model, DESCRIPTORS, positions, BOX)


def test_means_over_frames():
    relevance = np.array([[1.0, 0.0], [3.0, 4.0]])
    assert mean_over_frames(relevance).tolist() == [2, 2]
    assert mean_over_frames(relevance, [0, 2]).tolist() == [3, 4]
    weights = transition_state_weights([0.0, 0.4, 0.5, 1.0])
    assert np.isclose(weights.sum(), 1) and np.isclose(weights[1] / weights[2], np.exp(-0.5)) and weights[0] < 1e-5
    for wrong in ([1.0], [-1.0, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="weights must be"):
            mean_over_frames(relevance, wrong)
    with pytest.raises(ValueError, match="the closest has 0.200"):
        transition_state_weights([0.1, 0.2])
    with pytest.raises(ValueError, match="must lie in"):
        transition_state_weights([1.2])


def molecule():
    """Four atoms in a chain."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"{e}{i}", mdtraj.element.get_by_symbol(e), residue) for i, e in enumerate("HCOH")]
    for first, second in zip(atoms, atoms[1:], strict=False):
        topology.add_bond(first, second)
    return topology


def test_pdb_holds_the_relevance_as_b_factors(tmp_path):
    topology = molecule()
    rng = np.random.default_rng(0)
    positions, relevance = rng.uniform(size=(2, 4, 3)), rng.uniform(0, 37, size=(2, 4))
    file = tmp_path / "atoms.pdb"
    scale = write_relevance_pdb(file, topology, positions, relevance)
    assert scale == relevance.max()
    lines = file.read_text().splitlines()
    assert f"99.00 IS {scale:.6g} PER NM" in lines[0]
    found = [float(line[60:66]) for line in lines if line.startswith(("ATOM", "HETATM"))]
    np.testing.assert_allclose(np.reshape(found, (2, 4)) * scale / 99, relevance, atol=0.51e-2 * scale / 99)
    again = mdtraj.load(str(file))
    np.testing.assert_allclose(again.xyz, positions, atol=1e-4)
    write_relevance_pdb(file, topology, positions[0], relevance[0])
    assert mdtraj.load(str(file)).n_frames == 1


def test_pdb_of_a_topology_that_ops_has_stored(tmp_path):
    topology = molecule()
    for atom in topology.atoms:
        atom.formal_charge = pd.NA
    write_relevance_pdb(tmp_path / "atoms.pdb", topology, np.zeros((1, 4, 3)), np.ones(4))
    assert mdtraj.load(str(tmp_path / "atoms.pdb")).n_atoms == 4
    assert all(atom.formal_charge is pd.NA for atom in topology.atoms)  # the caller's topology is left alone


def test_wrong_pdb_input(tmp_path):
    topology, positions = molecule(), np.zeros((1, 4, 3))
    for relevance, message in ((np.ones(3), "4 atoms"), (np.zeros(4), "zero everywhere"), (-np.ones(4), "non-negative")):
        with pytest.raises(ValueError, match=message):
            write_relevance_pdb(tmp_path / "x.pdb", topology, positions, relevance)
    assert not (tmp_path / "x.pdb").exists()


def test_picture_has_a_bar_for_each_atom():
    figure = plot_atom_relevance([1.0, 4.0, 2.0, 0.0], molecule(), frames(1)[0, :4])
    bars = figure.axes[0]
    assert [patch.get_height() for patch in bars.patches] == [1, 4, 2, 0]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["MOL H0", "MOL C1", "MOL O2", "MOL H3"]
    assert len(figure.axes[1].lines) == 3
    matplotlib.pyplot.close(figure)
    with pytest.raises(ValueError, match="has 4 atoms"):
        plot_atom_relevance([1.0], molecule(), np.zeros((4, 3)))


def test_wrong_frames():
    model = model_for(DESCRIPTORS)
    with pytest.raises(ValueError, match="got a InternalCoordinates of 1 columns"):
        atom_relevance(model, InternalCoordinates({"r": (0, 1)}), frames(1), BOX)
    with pytest.raises(ValueError, match="got a function"):
        atom_relevance(model, lambda x: x, frames(1), BOX)
    with pytest.raises(ValueError, match="expected \\(n_frames"):
        atom_relevance(model, DESCRIPTORS, frames(1)[0], BOX)
    with pytest.raises(ValueError, match="periodic box"):
        atom_relevance(model, DESCRIPTORS, frames(1))
    broken = frames(2)
    broken[1, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        atom_relevance(model, DESCRIPTORS, broken, BOX)

    class Root(torch.nn.Module):
        def forward(self, x):
            return torch.sqrt((x - 0.3) * (x > 0.3))

    positions = frames(3)
    positions[1, 1] = positions[1, 0] + [0.25, 0, 0]
    positions[[0, 2], 1] = positions[[0, 2], 0] + [0.35, 0, 0]
    with pytest.raises(ValueError, match=r"derivatives are not finite in frames \[1\]"):
        atom_relevance(ops_aimmd.CommittorModel(Root(), 1), InternalCoordinates({"r": (0, 1)}), positions)
