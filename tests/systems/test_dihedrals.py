"""Dihedral angles have IUPAC's sign, agree with mdtraj, and refuse to answer where they are undefined."""

import time

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.systems import dihedrals
from ops_aimmd.systems.dihedrals import DihedralAngleCV, PeriodicDistanceCV, SineCosineCV, dihedral_angles

QUADRUPLES = [[0, 1, 2, 3], [4, 2, 1, 0], [3, 5, 0, 4]]


@pytest.fixture
def positions():
    return np.random.default_rng(1).normal(size=(200, 6, 3)).astype(np.float32)


@pytest.fixture
def snapshots(positions):
    return [ops_openmm.Snapshot.construct(coordinates=frame * unit.nanometer) for frame in positions[:20]]


def frame_at(degrees):
    """Four atoms; the last one turned by an angle about the z axis, clockwise when seen from the first bond."""
    angle = np.radians(degrees)
    # looking down the central bond from atom 2 (top) to atom 3 (bottom), clockwise is +x -> -y
    return np.array([[[1, 0, 1.5], [0, 0, 1], [0, 0, 0], [np.cos(angle), -np.sin(angle), -0.5]]])


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 179.0, -1.0, -90.0, -150.0])
def test_sign_is_that_of_iupac(degrees):
    assert np.degrees(dihedral_angles(frame_at(degrees), [[0, 1, 2, 3]])) == pytest.approx(degrees, abs=1e-12)


def deviation(a, b):
    """Largest distance on the unit circle: 180 and -180 degrees are one angle."""
    return np.abs(np.exp(1j * np.asarray(a)) - np.exp(1j * np.asarray(b))).max()


def test_agrees_with_mdtraj(positions):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = topology.add_residue("X", chain)
    for _ in range(6):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology), QUADRUPLES, periodic=False, opt=False)
    # mdtraj works in single precision: rounding errors of 6e-8, enlarged where three atoms lie almost on a line
    assert np.median(np.abs(np.exp(1j * expected) - np.exp(1j * dihedral_angles(positions, QUADRUPLES)))) < 1e-7
    assert deviation(dihedral_angles(positions, QUADRUPLES), expected) < 1e-5
    mirrored = positions * np.array([1, 1, -1])
    assert deviation(dihedral_angles(mirrored, QUADRUPLES), expected) > 0.1


def test_one_frame_alone_gives_the_value_it_has_among_many(positions, snapshots):
    single = np.array([DihedralAngleCV("single", QUADRUPLES)(snapshot) for snapshot in snapshots])
    together = DihedralAngleCV("together", QUADRUPLES)(paths.Trajectory(snapshots))
    assert single.shape == together.shape == (20, 3)
    assert deviation(np.radians(single), np.radians(together)) < 1e-12
    assert deviation(np.radians(single), dihedral_angles(positions[:20], QUADRUPLES)) < 1e-12


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame.__setitem__(3, np.nan),
        lambda frame: frame.__setitem__(3, np.inf),
        lambda frame: frame.__setitem__(1, frame[2]),
        lambda frame: frame.__setitem__(3, 2.3 * frame[2] - 1.3 * frame[1]),
    ],
    ids=["NaN", "infinite", "coinciding atoms", "three atoms on a line"],
)
def test_undefined_angles_raise_and_name_frame_and_atoms(positions, damage):
    frames = positions.astype(float)
    dihedral_angles(frames, QUADRUPLES)  # control: the undamaged frames are fine
    damage(frames[17])
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3\] is undefined in frames \[17\]"):
        dihedral_angles(frames, QUADRUPLES)
    snapshot = ops_openmm.Snapshot.construct(coordinates=frames[17] * unit.nanometer)
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3\] is undefined"):
        DihedralAngleCV("damaged", QUADRUPLES)(snapshot)


def test_wrong_shapes_raise(positions):
    with pytest.raises(ValueError, match="n_frames, n_atoms, 3"):
        dihedral_angles(positions[0], QUADRUPLES)
    with pytest.raises(ValueError, match="n_dihedrals, 4"):
        dihedral_angles(positions, [0, 1, 2, 3])


def test_a_reversed_snapshot_shares_the_value(snapshots, monkeypatch):
    cv = DihedralAngleCV("shared", QUADRUPLES)
    known, unknown = snapshots[:2]
    value = cv(known)
    monkeypatch.setattr(dihedrals, "positions_of", lambda snapshots: pytest.fail("evaluated"))
    assert np.array_equal(cv(known.reversed), value)
    with pytest.raises(pytest.fail.Exception):  # control: a snapshot never seen is evaluated
        cv(unknown)


def test_sines_and_cosines_stand_side_by_side(snapshots):
    angles = DihedralAngleCV("angles", QUADRUPLES)
    values = SineCosineCV("descriptors", angles)(paths.Trajectory(snapshots))
    radians = np.radians(angles(paths.Trajectory(snapshots)))
    assert values.shape == (20, 6)
    np.testing.assert_allclose(values[:, 0::2], np.sin(radians))
    np.testing.assert_allclose(values[:, 1::2], np.cos(radians))
    assert SineCosineCV("one", angles)(snapshots[3]).shape == (6,)


def test_periodic_distance_is_that_to_the_nearest_image(snapshots):
    angles = DihedralAngleCV("pair", QUADRUPLES[:2])
    centre = [175.0, -170.0]
    distance = PeriodicDistanceCV("distance", angles, centre)(paths.Trajectory(snapshots))
    shifts = 360.0 * np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    offsets = angles(paths.Trajectory(snapshots)) - np.array(centre)
    expected = np.linalg.norm(offsets[:, None] + shifts, axis=-1).min(axis=1)
    np.testing.assert_allclose(distance, expected)
    single = PeriodicDistanceCV("single", angles, centre)
    assert [single(snapshot) for snapshot in snapshots] == pytest.approx(expected)
    assert not np.allclose(np.linalg.norm(offsets, axis=1), expected)  # control: without images


def best_time(call, snapshots):
    """Shortest time for a snapshot that is not in the cache."""

    def once(snapshot):
        start = time.perf_counter()
        call(snapshot)
        return time.perf_counter() - start

    return min(once(snapshot) for snapshot in snapshots)


def test_a_frame_costs_less_than_a_tenth_of_a_millisecond(snapshots):
    angles = DihedralAngleCV("speed", QUADRUPLES[:2])
    state = paths.CVDefinedVolume(PeriodicDistanceCV("distance", angles, [0.0, 0.0]), 0.0, 30.0)
    assert best_time(state, snapshots) < 1e-4
