"""Descriptors chosen by name are those of the atoms that the names mean."""

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from ops_aimmd.descriptors.topology import (
    backbone_dihedrals,
    bond_angles,
    bond_dihedrals,
    heavy_atom_distances,
    pair_distances,
    select,
)
from ops_aimmd.systems.alanine_dipeptide import DIHEDRALS, alanine_dipeptide
from ops_aimmd.systems.batched_cv import positions_of


@pytest.fixture(scope="module")
def system():
    return alanine_dipeptide()


@pytest.fixture(scope="module")
def topology(system):
    return system.engine.topology.mdtraj


@pytest.fixture(scope="module")
def positions(system):
    return positions_of(system.initial_trajectory(seed=4)[:20])


def angles_by_mdtraj(topology, positions, quadruples):
    """In radians, with the rounding of single precision."""
    return mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology), quadruples, periodic=False)


def test_backbone_dihedrals(topology, positions):
    descriptors = backbone_dihedrals(topology)
    assert descriptors.names == ["phi ALA 2 sin", "phi ALA 2 cos", "psi ALA 2 sin", "psi ALA 2 cos"]
    angles = angles_by_mdtraj(topology, positions, [DIHEDRALS["phi"], DIHEDRALS["psi"]])
    expected = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(positions), 4)
    np.testing.assert_allclose(descriptors(positions), expected, atol=1e-5)


def test_dihedrals_of_all_bonds(topology, positions):
    descriptors = bond_dihedrals(topology)
    # of the 21 bonds, 7 have neighbours on both sides: CH3-C (3 x 2 angles), C-N (2 x 2), N-CA (2 x 3), CA-CB (3 x 3),
    # CA-C (3 x 2), C-N (2 x 2), N-CH3 (2 x 3)
    assert len(descriptors.names) == 2 * (6 + 4 + 6 + 9 + 6 + 4 + 6)
    values = descriptors(positions)
    theta = angles_by_mdtraj(topology, positions, [DIHEDRALS["theta"]])[:, 0]
    column = descriptors.names.index("ACE 1 O - ACE 1 C - ALA 2 N - ALA 2 CA sin")
    np.testing.assert_allclose(values[:, column], np.sin(theta), atol=1e-5)


def test_angles_and_distances(topology, positions):
    angles = bond_angles(topology)
    # a centre with m bonds has m (m - 1) / 2: three CH3 and CA with 4 bonds, two C and two N with 3
    assert len(angles.names) == 4 * 6 + 4 * 3
    distances = heavy_atom_distances(topology)
    assert len(distances.names) == 10 * 9 // 2
    column = distances.names.index("ALA 2 N - ALA 2 CA")
    n, ca = select(topology, "resname ALA and (name N or name CA)")
    np.testing.assert_allclose(distances(positions)[:, column], np.linalg.norm(positions[:, n] - positions[:, ca], axis=1))


def test_openmm_topologies(topology):
    openmm_topology = topology.to_openmm()
    assert isinstance(openmm_topology, app.Topology)
    assert backbone_dihedrals(openmm_topology).to_dict() == backbone_dihedrals(topology).to_dict()
    with pytest.raises(TypeError, match="engine.topology.mdtraj"):
        select(openmm.System(), "all")


def test_pairs_between_selections(topology):
    between = pair_distances(topology, "resname ACE and element O", "resname NME and element N")
    assert between.names == ["ACE 1 O - NME 3 N"]
    # overlapping selections: no atom with itself, no pair twice
    both = pair_distances(topology, "name C", "name C or name N")
    pairs = [frozenset(pair) for pair in both.distances.values()]
    assert len(set(pairs)) == len(pairs) == 3 + 3 * 2  # three atoms C, two N


def test_selections_without_meaning(topology):
    with pytest.raises(ValueError, match=r"'resname FOO' is empty; .* 22 atoms in the residues \['ACE', 'ALA', 'NME'\]"):
        select(topology, "resname FOO")
    with pytest.raises(ValueError, match="cannot read the selection"):
        select(topology, "name ((")
    with pytest.raises(ValueError, match="there is no distance"):
        pair_distances(topology, "name CA")
    with pytest.raises(ValueError, match="no three bonded atoms"):
        bond_angles(topology, "name CA or name O")
    with pytest.raises(ValueError, match="no four bonded atoms"):
        bond_dihedrals(topology, "name CA or name O")
    with pytest.raises(ValueError, match="expected some of"):
        backbone_dihedrals(topology, ["tau"])
    with pytest.raises(ValueError, match="is it a protein"):
        backbone_dihedrals(mdtraj.Topology())
