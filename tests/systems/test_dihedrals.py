"""Dihedral angles have IUPAC's sign, agree with mdtraj, and refuse to answer where they are undefined."""

import time

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.systems.dihedrals import DihedralAngleCV, PeriodicDistanceCV

QUADRUPLES = [[0, 1, 2, 3], [4, 2, 1, 0], [3, 5, 0, 4]]


@pytest.fixture
def positions():
    return np.random.default_rng(1).normal(size=(200, 6, 3)).astype(np.float32)


def as_snapshots(positions):
    return [ops_openmm.Snapshot.construct(coordinates=frame * unit.nanometer) for frame in positions]


@pytest.fixture
def snapshots(positions):
    return as_snapshots(positions[:20])


def frame_at(degrees):
    """Four atoms; the last one turned by an angle about the z axis, clockwise when seen from the first bond."""
    angle = np.radians(degrees)
    # looking down the central bond from atom 2 (top) to atom 3 (bottom), clockwise is +x -> -y
    return np.array([[[1, 0, 1.5], [0, 0, 1], [0, 0, 0], [np.cos(angle), -np.sin(angle), -0.5]]])


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 179.0, -1.0, -90.0, -150.0])
def test_sign_is_that_of_iupac(degrees):
    (snapshot,) = as_snapshots(frame_at(degrees))
    assert DihedralAngleCV("angle", [[0, 1, 2, 3]])(snapshot) == pytest.approx([degrees], abs=1e-6)


def deviation(a, b):
    """Largest distance on the unit circle between angles in degrees: 180 and -180 are one angle."""
    return np.abs(np.exp(1j * np.radians(a)) - np.exp(1j * np.radians(b))).max()


def test_agrees_with_mdtraj(snapshots, positions):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = topology.add_residue("X", chain)
    for _ in range(6):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    frames = mdtraj.Trajectory(positions[:20], topology)
    expected = np.degrees(mdtraj.compute_dihedrals(frames, QUADRUPLES, periodic=False, opt=False))
    # mdtraj works in single precision: rounding errors of 6e-8, enlarged where three atoms lie almost on a line
    assert deviation(DihedralAngleCV("angles", QUADRUPLES)(paths.Trajectory(snapshots)), expected) < 1e-5
    mirrored = as_snapshots(positions[:20] * np.array([1, 1, -1], dtype=np.float32))
    assert deviation(DihedralAngleCV("mirrored", QUADRUPLES)(paths.Trajectory(mirrored)), expected) > 0.1


def test_one_frame_alone_gives_the_value_it_has_among_many(snapshots):
    single = np.array([DihedralAngleCV("single", QUADRUPLES)(snapshot) for snapshot in snapshots])
    together = DihedralAngleCV("together", QUADRUPLES)(paths.Trajectory(snapshots))
    assert single.shape == together.shape == (20, 3)
    assert deviation(single, together) < 1e-12


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame.__setitem__(3, np.nan),
        lambda frame: frame.__setitem__(3, np.inf),
        lambda frame: frame.__setitem__(1, frame[2]),
        lambda frame: frame.__setitem__(3, 2.5 * frame[2] - 1.5 * frame[1]),
    ],
    ids=["NaN", "infinite", "coinciding atoms", "three atoms on a line"],
)
def test_undefined_angles_raise(positions, damage):
    frames = np.round(positions[:20].astype(float) * 16) / 16  # exact in single precision, also after the damage
    angles = DihedralAngleCV("damaged", QUADRUPLES)
    angles(paths.Trajectory(as_snapshots(frames)))  # control: the undamaged frames are fine
    damage(frames[17])
    damaged = as_snapshots(frames)
    with pytest.raises(ValueError, match="17"):
        angles(paths.Trajectory(damaged))
    with pytest.raises(ValueError, match="atoms"):
        angles(damaged[17])


def test_a_reversed_snapshot_shares_the_value(snapshots, monkeypatch):
    cv = DihedralAngleCV("shared", QUADRUPLES)
    known, unknown = snapshots[:2]
    value = cv(known)
    monkeypatch.setattr(InternalCoordinates, "of_frame", lambda *arguments: pytest.fail("evaluated"))
    assert np.array_equal(cv(known.reversed), value)
    with pytest.raises(pytest.fail.Exception):  # control: a snapshot never seen is evaluated
        cv(unknown)


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
