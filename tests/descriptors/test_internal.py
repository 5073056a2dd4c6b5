"""Internal coordinates: against MDTraj and closed forms, invariances, gradients, and bad input."""

import json

import mdtraj
import numpy as np
import pytest
import torch
from descriptor_support import (
    ORTHORHOMBIC,
    TRICLINIC,
    check_gradients,
    check_invariance_under_images,
    check_invariance_under_motion,
)

from ops_aimmd.descriptors.descriptor_set import (
    JoinedDescriptors,
    StandardisedDescriptors,
    descriptors_from_dict,
    descriptors_to_dict,
)
from ops_aimmd.descriptors.internal import InternalCoordinates

DISTANCES = {"a": (0, 1), "b": (3, 7)}
ANGLES = {"c": (0, 1, 2), "d": (5, 2, 7)}
DIHEDRALS = {"e": (0, 1, 2, 3), "f": (4, 2, 6, 7)}
SINGLE_PRECISION = 1e-5
"""MDTraj keeps positions of up to 3 nm in single precision, 1e-7 nm; an angle loses that over a length of 0.1 nm."""


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def positions(rng):
    # single precision, so that MDTraj sees the same positions
    return rng.uniform(0, 3, size=(20, 8, 3)).astype(np.float32).astype(np.float64)


def chain_topology(n_atoms=8):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(n_atoms):
        topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("X", chain))
    return topology


def all_kinds(periodic):
    return InternalCoordinates(DISTANCES, ANGLES, DIHEDRALS, periodic=periodic)


@pytest.mark.parametrize("box", [None, ORTHORHOMBIC, TRICLINIC], ids=["none", "orthorhombic", "triclinic"])
def test_as_mdtraj(positions, box):
    trajectory = mdtraj.Trajectory(positions, chain_topology())
    if box is not None:
        trajectory.unitcell_vectors = np.tile(box, (len(positions), 1, 1))
    periodic = box is not None
    values = all_kinds(periodic)(positions, box)
    distances = mdtraj.compute_distances(trajectory, list(DISTANCES.values()), periodic=periodic)
    angles = mdtraj.compute_angles(trajectory, list(ANGLES.values()), periodic=periodic)
    dihedrals = mdtraj.compute_dihedrals(trajectory, list(DIHEDRALS.values()), periodic=periodic)
    np.testing.assert_allclose(values[:, :2], distances, atol=SINGLE_PRECISION)
    np.testing.assert_allclose(values[:, 2:4], angles, atol=10 * SINGLE_PRECISION)
    np.testing.assert_allclose(values[:, 4::2], np.sin(dihedrals), atol=10 * SINGLE_PRECISION)
    np.testing.assert_allclose(values[:, 5::2], np.cos(dihedrals), atol=10 * SINGLE_PRECISION)
    if periodic:  # control: the images matter
        whole = all_kinds(False)(positions)
        assert np.abs(whole - values).max() > 0.5


def test_closed_forms_in_double_precision():
    """An ideal chain: bond length 0.15, angle 1.9, dihedral angle from -3.1 to 3.1."""
    dihedrals = np.linspace(-3.1, 3.1, 7)
    length, angle = 0.15, 1.9
    positions = np.zeros((7, 4, 3))
    positions[:, 0] = [np.cos(angle) * length, np.sin(angle) * length, 0.0]
    positions[:, 2] = [length, 0.0, 0.0]
    out = length * np.sin(np.pi - angle)
    positions[:, 3, 0] = length + length * np.cos(np.pi - angle)
    positions[:, 3, 1], positions[:, 3, 2] = out * np.cos(dihedrals), out * np.sin(dihedrals)
    values = InternalCoordinates({"r": (2, 3)}, {"t": (0, 1, 2)}, {"p": (0, 1, 2, 3)})(positions)
    exact = np.stack([np.full(7, length), np.full(7, angle), np.sin(dihedrals), np.cos(dihedrals)], axis=1)
    np.testing.assert_allclose(values, exact, atol=1e-14)


def test_small_angles_keep_their_digits():
    """The arc cosine would give 0 or 2e-8 for an angle of 1e-9."""
    positions = np.array([[[1.0, 1e-9, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    assert InternalCoordinates(angles={"a": (0, 1, 2)})(positions)[0, 0] == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("box", [ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_invariances(positions, box, rng):
    check_invariance_under_images(all_kinds(True), positions, box, rng)
    check_invariance_under_motion(all_kinds(True), positions, box, rng)
    check_invariance_under_motion(all_kinds(False), positions, None, rng)
    with pytest.raises(AssertionError):  # control: a mirror image has other dihedral angles
        np.testing.assert_allclose(all_kinds(False)(-positions), all_kinds(False)(positions), atol=1e-3)


@pytest.mark.parametrize("box", [None, ORTHORHOMBIC, TRICLINIC], ids=["none", "orthorhombic", "triclinic"])
def test_gradients(positions, box, rng):
    check_gradients(all_kinds(box is not None), positions[:4], box, rng)


def test_single_frames_are_the_same(positions):
    for box in (ORTHORHOMBIC, TRICLINIC):
        for descriptors in (all_kinds(True), all_kinds(False)):
            together = descriptors(positions, box)
            for frame, row in zip(positions, together, strict=True):
                np.testing.assert_allclose(descriptors.of_frame(frame, box), row, atol=1e-13)
    many = InternalCoordinates({f"{i} {j}": (i, j) for i in range(8) for j in range(i)})
    np.testing.assert_allclose(many.of_frame(positions[2], None), many(positions)[2], atol=1e-14)


def test_joined(positions):
    first, second = InternalCoordinates(DISTANCES, periodic=True), InternalCoordinates(dihedrals=DIHEDRALS)
    both = JoinedDescriptors([first, second])
    assert both.names == ["a", "b", "e sin", "e cos", "f sin", "f cos"]
    assert both.periodic and both.atoms.tolist() == [0, 1, 2, 3, 4, 6, 7]
    values = both(positions, TRICLINIC)
    np.testing.assert_array_equal(values[:, :2], first(positions, TRICLINIC))
    np.testing.assert_array_equal(values[:, 2:], second(positions))
    np.testing.assert_allclose(both.of_frame(positions[3], TRICLINIC), values[3], atol=1e-14)
    again = descriptors_from_dict(json.loads(json.dumps(descriptors_to_dict(both))))
    np.testing.assert_array_equal(again(positions, TRICLINIC), values)
    with pytest.raises(ValueError, match=r"several columns have the names \['a', 'b'\]"):
        JoinedDescriptors([first, first])
    with pytest.raises(ValueError, match="nothing to join"):
        JoinedDescriptors([])
    with pytest.raises(ValueError, match="no descriptors 'os.system'"):
        descriptors_from_dict({"class": "os.system"})


def test_standardised(positions):
    plain = JoinedDescriptors([InternalCoordinates(DISTANCES), InternalCoordinates(dihedrals=DIHEDRALS)])
    scaled = StandardisedDescriptors.from_frames(plain, positions)
    values = scaled(positions)
    assert scaled.names == plain.names and scaled.atoms.tolist() == plain.atoms.tolist()
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-13)
    np.testing.assert_allclose(values.std(axis=0), 1.0, atol=1e-13)
    again = descriptors_from_dict(json.loads(json.dumps(descriptors_to_dict(scaled))))
    np.testing.assert_array_equal(again(positions[:3]), values[:3])
    still = StandardisedDescriptors.from_frames(plain, positions[[0, 0]])  # constant columns
    np.testing.assert_array_equal(still(positions[:1]), 0.0)
    with pytest.raises(ValueError, match=r"expected \(6,\)"):
        StandardisedDescriptors(plain, [0.0], [1.0])
    with pytest.raises(ValueError, match=r"columns \['b'\] have no"):
        StandardisedDescriptors(plain, [0.0] * 6, [1.0, 0.0, 1.0, 1.0, 1.0, 1.0])


def test_tensors_stay_tensors(positions):
    single = all_kinds(False)(torch.tensor(positions, dtype=torch.float32))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, all_kinds(False)(positions), atol=1e-4)


def test_selections_without_meaning():
    with pytest.raises(ValueError, match="selection is empty"):
        InternalCoordinates()
    with pytest.raises(ValueError, match=r"'x' has the atoms \[1, 1\]"):
        InternalCoordinates({"x": (1, 1)})
    with pytest.raises(ValueError, match="expected 3 different ones"):
        InternalCoordinates(angles={"x": (1, 2)})
    with pytest.raises(ValueError, match="counted from 0"):
        InternalCoordinates(dihedrals={"x": (1, 2, 3, -1)})


def test_bad_frames(positions):
    with pytest.raises(ValueError, match="have none"):
        all_kinds(True)(positions)
    with pytest.raises(ValueError, match="have none"):
        InternalCoordinates(DISTANCES, periodic=True).of_frame(positions[0], None)
    with pytest.raises(ValueError, match=r"atoms \[6, 7\].* only 6 atoms"):
        all_kinds(False)(positions[:, :6])
    with pytest.raises(ValueError, match="only 6 atoms"):
        all_kinds(False).of_frame(positions[0, :6], None)
    broken = positions.copy()
    broken[7, 5, 1] = np.inf
    with pytest.raises(ValueError, match=r"frames \[7\]: atoms \[5\]"):
        all_kinds(False)(broken)
    with pytest.raises(ValueError, match=r"atoms \[5\]"):
        all_kinds(False).of_frame(broken[7], None)
    on_a_line = positions.copy()
    on_a_line[4, :4] = np.arange(4)[:, None]
    with pytest.raises(ValueError, match=r"atoms \[0, 1, 2, 3\] is undefined in frames \[4\]"):
        all_kinds(False)(on_a_line)
    coinciding = positions.copy()
    coinciding[4, 0] = coinciding[4, 1]
    with pytest.raises(ValueError, match=r"angle of atoms \[0, 1, 2\] is undefined in frames \[4\]"):
        all_kinds(False)(coinciding)
    for frames in (on_a_line, coinciding):
        with pytest.raises(ValueError, match="is undefined"):
            all_kinds(False).of_frame(frames[4], None)
