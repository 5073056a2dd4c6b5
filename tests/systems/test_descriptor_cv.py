"""Descriptors as OPS collective variables: shapes, caching, boxes, and speed."""

import time

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd import CommittorLearner
from ops_aimmd.descriptors.descriptor_set import JoinedDescriptors
from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.descriptors.topology import backbone_dihedrals
from ops_aimmd.engines.frames import boxes_of, positions_of
from ops_aimmd.sampling.collective_variables import column_names, describe, is_storable
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.descriptor_cv import DescriptorCV


@pytest.fixture(scope="module")
def system():
    return alanine_dipeptide()


@pytest.fixture(scope="module")
def path(system):
    return system.initial_trajectory(seed=4)


def test_shapes(system, path):
    dihedrals = DescriptorCV("dihedrals", backbone_dihedrals(system.engine.topology.mdtraj))
    distance = DescriptorCV("distance", InternalCoordinates({"r": (4, 14)}))
    assert dihedrals(path).shape == (len(path), 4) and dihedrals(path[3]).shape == (4,)
    assert distance(path).shape == (len(path),) and np.shape(distance(path[3])) == ()
    np.testing.assert_allclose(dihedrals(path), dihedrals.descriptors(positions_of(path)))
    single = DescriptorCV("one by one", dihedrals.descriptors)
    np.testing.assert_allclose([single(frame) for frame in path], dihedrals(path), atol=1e-14)
    assert dihedrals.names == ["phi ALA 2 sin", "phi ALA 2 cos", "psi ALA 2 sin", "psi ALA 2 cos"]


def test_a_box_is_used_where_descriptors_are_periodic(system, path):
    box = np.diag([0.9, 0.9, 0.9])
    frames = [
        ops_openmm.Snapshot.construct(
            coordinates=frame.coordinates,
            velocities=frame.velocities,
            box_vectors=box * unit.nanometer,
            engine=system.engine,
        )
        for frame in path[:5]
    ]
    np.testing.assert_array_equal(boxes_of(frames), np.tile(box, (5, 1, 1)))
    periodic = DescriptorCV("periodic", InternalCoordinates({"r": (1, 18)}, periodic=True))
    plain = DescriptorCV("plain", InternalCoordinates({"r": (1, 18)}))
    vectors = positions_of(frames)[:, 1] - positions_of(frames)[:, 18]
    nearest = np.linalg.norm(vectors - 0.9 * np.round(vectors / 0.9), axis=1)
    np.testing.assert_allclose(periodic(paths.Trajectory(frames)), nearest)
    np.testing.assert_allclose(plain(paths.Trajectory(frames)), np.linalg.norm(vectors, axis=1))
    assert np.abs(nearest - np.linalg.norm(vectors, axis=1)).min() > 0.01

    # OpenMM gives a box to every system; other engines do not
    bare = [
        ops_openmm.Snapshot.construct(coordinates=frame.coordinates, velocities=frame.velocities, engine=system.engine)
        for frame in path[:5]
    ]
    assert boxes_of(bare) is None
    for frames in (bare[0], paths.Trajectory(bare)):
        with pytest.raises(ValueError, match="have none"):
            DescriptorCV("no box", InternalCoordinates({"r": (1, 18)}, periodic=True))(frames)


def test_only_descriptors():
    with pytest.raises(TypeError, match="takes a name and descriptors of this package"):
        DescriptorCV("x", lambda trajectory: trajectory)


def seconds_of(values, snapshot, n):
    """Processor time of one call, the best of several rounds."""
    rounds = []
    for _ in range(7):
        begin = time.process_time()
        for _ in range(n):
            values([snapshot])
        rounds.append((time.process_time() - begin) / n)
    return min(rounds)


@pytest.mark.parametrize(
    "descriptors, function, options",
    [
        (InternalCoordinates({"r": (6, 8)}), mdtraj.compute_distances, {"atom_pairs": [[6, 8]]}),
        (InternalCoordinates(dihedrals={"phi": (4, 6, 8, 14)}), mdtraj.compute_dihedrals, {"indices": [[4, 6, 8, 14]]}),
    ],
    ids=["distance", "dihedral angle"],
)
def test_a_state_is_ten_times_faster_than_with_mdtraj(system, path, descriptors, function, options):
    """What OPS calls for the single frame that a stopping condition asks about; measured, 25 to 35 times."""
    ours = DescriptorCV("ours", descriptors)
    theirs = paths.MDTrajFunctionCV("MDTraj", function, system.engine.topology, **options)
    value = theirs(path[0]) if len(descriptors.names) == 1 else np.sin(theirs(path[0]))
    assert np.ravel(ours(path[0]))[0] == pytest.approx(value, abs=1e-5)
    assert seconds_of(ours._values, path[3], 100) < seconds_of(theirs._eval, path[3], 20) / 10


def test_descriptors_serve_a_learner(system, path):
    """Bare descriptors, their collective variables, and lists of both give a learner the same columns."""
    phi_psi = backbone_dihedrals(system.engine.topology.mdtraj)
    distance = InternalCoordinates({"r": (4, 14)})
    expected = np.concatenate([phi_psi(positions_of(path)), distance(positions_of(path))], axis=1)
    for descriptors in (
        JoinedDescriptors([phi_psi, distance]),
        DescriptorCV("all", JoinedDescriptors([phi_psi, distance])),
        [phi_psi, DescriptorCV("only r", distance)],
    ):
        learner = CommittorLearner(descriptors, states=system.states, seed=1)
        np.testing.assert_allclose(learner.evaluate_descriptors(path), expected, atol=1e-14)
        assert learner.committor(path).shape == (len(path),)
        assert column_names(descriptors) == [*phi_psi.names, "r"]
    assert column_names(system.phi_psi) is None
    assert is_storable(DescriptorCV("r", distance)) and not is_storable(distance)
    assert describe(phi_psi) == "4 descriptors InternalCoordinates"
