"""Descriptors chosen by name are those of the atoms that the names mean."""

from collections import Counter

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from ops_aimmd.descriptors import JoinedDescriptors
from ops_aimmd.descriptors.topology import (
    backbone_dihedrals,
    bond_angles,
    bond_dihedrals,
    heavy_atom_distances,
    labels,
    pair_distances,
    select,
)
from ops_aimmd.engines.frames import positions_of
from ops_aimmd.systems.alanine_dipeptide import DIHEDRALS, alanine_dipeptide


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


def unique_and_whole(descriptors, n_columns):
    assert len(descriptors.names) == len(set(descriptors.names)) == n_columns
    tuples = [frozenset(atoms) for kind in ("distances", "angles") for atoms in (getattr(descriptors, kind) or {}).values()]
    assert len(set(tuples)) == len(tuples)
    return descriptors


def test_names_where_labels_differ_are_residue_and_atom(topology):
    """The names that checkpoints and transfer know."""
    assert labels(topology) == [f"{atom.residue.name} {atom.residue.resSeq} {atom.name}" for atom in topology.atoms]
    assert backbone_dihedrals(topology, ["phi", "phi"]).names == ["phi ALA 2 sin", "phi ALA 2 cos"]


def test_two_chains_that_are_numbered_alike(topology, positions):
    dimer = topology.join(topology, keep_resSeq=True)
    unique_and_whole(heavy_atom_distances(dimer), 20 * 19 // 2)
    unique_and_whole(bond_angles(dimer), 2 * 36)
    unique_and_whole(bond_dihedrals(dimer), 2 * 82)
    backbone = unique_and_whole(backbone_dihedrals(dimer), 8)
    assert backbone.names[0] == "phi ALA 2 chainid 0 sin"
    values = dict(zip(backbone.names, backbone(np.concatenate([positions, positions[::-1]], axis=1)).T, strict=True))
    for name, column in zip(backbone_dihedrals(topology).names, backbone_dihedrals(topology)(positions).T, strict=True):
        angle, function = name.rsplit(" ", 1)
        np.testing.assert_allclose(values[f"{angle} chainid 0 {function}"], column)
        np.testing.assert_allclose(values[f"{angle} chainid 1 {function}"], column[::-1])
    # parts that choose different copies can be joined
    parts = [pair_distances(dimer, f"chainid {chain} and (name CA or name CB)") for chain in (0, 1)]
    assert JoinedDescriptors(parts).names == [
        "ALA 2 CA chainid 0 - ALA 2 CB chainid 0",
        "ALA 2 CA chainid 1 - ALA 2 CB chainid 1",
    ]


def molecule(names, residues=("LIG",), chains=1, number=1):
    """Copies of a chain of carbon and oxygen atoms, all with the same residue number."""
    topology = mdtraj.Topology()
    for _ in range(chains):
        chain = topology.add_chain()
        for residue in residues:
            residue = topology.add_residue(residue, chain, resSeq=number)
            atoms = [topology.add_atom(name, mdtraj.element.get_by_symbol(name[0]), residue) for name in names]
            for bond in zip(atoms, atoms[1:], strict=False):
                topology.add_bond(*bond)
    return topology


@pytest.mark.parametrize(
    ("topology", "n_atoms", "words"),
    [
        (molecule(["C1", "C2", "O"]), 3, {}),  # the control: nothing repeated
        (molecule(["C", "C", "C", "O"]), 4, {"index": 3}),  # a ligand from a file without names
        (molecule(["C1", "O"], chains=3), 6, {"chainid": 6}),
        (molecule(["C1", "O"], residues=["LIG", "LIG"]), 4, {"resid": 4}),  # residues 52 and 52A, or wrapped at 9999
        (molecule(["C1", "O"], residues=["LIG", "XYZ"]), 4, {}),
        (molecule(["C", "C", "O"], chains=2), 6, {"index": 4, "chainid": 2}),  # O differs in the chain
    ],
)
def test_labels_are_unique(topology, n_atoms, words):
    found = labels(topology)
    assert len(set(found)) == n_atoms
    assert Counter(label.split()[3] for label in found if len(label.split()) > 3) == words
    unique_and_whole(pair_distances(topology, "all"), n_atoms * (n_atoms - 1) // 2)


def test_insertion_codes_and_wrapped_numbers(tmp_path):
    """Files in which residues of one name share a number."""
    atom = "ATOM  {:5d}  CA  GLY A{:>4d}{}   {:8.3f}   0.000   0.000  1.00  0.00           C"
    numbers = [(52, " "), (52, "A"), (53, " "), (9999, " "), (0, " "), (1, " "), (0, "B")]
    lines = [atom.format(i + 1, number, code, 4.0 * i) for i, (number, code) in enumerate(numbers)]
    file = tmp_path / "inserted.pdb"
    file.write_text("\n".join([*lines, "END", ""]))
    unique_and_whole(pair_distances(mdtraj.load(str(file)).topology, "name CA"), 7 * 6 // 2)
    unique_and_whole(pair_distances(app.PDBFile(str(file)).topology, "name CA"), 7 * 6 // 2)


def test_virtual_sites_are_no_heavy_atoms():
    """A four-site water has a massless atom M."""
    topology = app.Topology()
    chain = topology.addChain()
    for number in "12":
        water = topology.addResidue("HOH", chain, number)
        for name, element in [("O", app.element.oxygen), ("H1", app.element.hydrogen), ("M", None)]:
            topology.addAtom(name, element, water)
    for either in (topology, mdtraj.Topology.from_openmm(topology)):
        assert heavy_atom_distances(either, "water").names == ["HOH 1 O - HOH 2 O"]
        assert len(pair_distances(either, "water and not element H").names) == 6  # the control
