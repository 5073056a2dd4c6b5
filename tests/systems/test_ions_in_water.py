"""Ion pairs in water: force field, box, states, descriptors and starting frames are what the description says."""

import mdtraj
import numpy as np
import openmm
import openpathsampling as paths
import pytest
from child_processes import run_code
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.experimental.storage import Storage as SimStore

from ops_aimmd.engines.frames import positions_of
from ops_aimmd.systems.ions_in_water import (
    CUTOFF,
    lithium_chloride,
    sodium_chloride,
    solvated_pair,
)
from ops_aimmd.systems.water_box import VOLUME_PER_WATER, to_normal_density


@pytest.fixture(scope="module")
def system():
    return lithium_chloride(platform="CPU")


@pytest.fixture(scope="module")
def start(system):
    return system.start(seed=2, n_frames=10)


def nonbonded(system):
    return next(f for f in system.engine.system.getForces() if isinstance(f, openmm.NonbondedForce))


def with_distance(system, distance, image=(0, 0, 0)):
    """The ions at a distance, the chloride in another periodic image."""
    positions = system.positions.copy()
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    positions[1] = positions[0] + distance * direction + np.array(image) @ system.box
    return snapshot(system, positions)


def snapshot(system, positions):
    return ops_openmm.Snapshot.construct(
        coordinates=positions * unit.nanometer,
        box_vectors=system.box * unit.nanometer,
        velocities=np.zeros_like(positions) * unit.nanometer / unit.picosecond,
        engine=system.engine,
    )


def test_force_field(system):
    """Joung and Cheatham 2008 for TIP3P: R_min/2 in Angstrom and epsilon in kcal/mol; TIP3P charges."""
    force = nonbonded(system)
    for atom, charge, half_rmin, epsilon in ((0, 1.0, 1.025, 0.0279896), (1, -1.0, 2.513, 0.0355910)):
        found = [part._value for part in force.getParticleParameters(atom)]
        assert found == pytest.approx([charge, 0.1 * 2 * half_rmin / 2 ** (1 / 6), 4.184 * epsilon], rel=1e-6)
    assert [force.getParticleParameters(atom)[0]._value for atom in (2, 3, 4)] == pytest.approx([-0.834, 0.417, 0.417])
    assert force.getNonbondedMethod() == openmm.NonbondedForce.PME
    assert force.getCutoffDistance()._value == CUTOFF


def test_sodium_chloride():
    system = sodium_chloride(platform="CPU")
    sodium = [part._value for part in nonbonded(system).getParticleParameters(0)]
    assert sodium == pytest.approx([1.0, 0.1 * 2 * 1.369 / 2 ** (1 / 6), 4.184 * 0.0874393], rel=1e-6)
    bound, unbound = system.states
    assert bound(with_distance(system, 0.29)) and not bound(with_distance(system, 0.31))
    assert unbound(with_distance(system, 0.51)) and not unbound(with_distance(system, 0.49))
    assert system.descriptors.names[1] == "Na O G2 r=0.25"


def test_box_and_engine(system):
    engine = system.engine
    assert engine.system.getNumParticles() == 2 + 3 * 270
    assert np.linalg.det(system.box) == pytest.approx(270 * VOLUME_PER_WATER)
    assert system.box[0, 0] >= 2 * CUTOFF
    assert engine.n_degrees_of_freedom() == 3 * 812 - 3 * 270 - 3
    kT = (unit.MOLAR_GAS_CONSTANT_R * 300.0 * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
    assert engine.integrator.getGlobalVariableByName("kT") == pytest.approx(kT, rel=1e-12)
    assert engine.snapshot_timestep == 20.0 * unit.femtosecond
    with pytest.raises(ValueError, match="take at least 264 waters"):
        lithium_chloride(n_waters=200, platform="CPU")


def test_shrinking_the_box_keeps_molecules():
    topology, positions = solvated_pair("Li", 264)
    shrunk, box = to_normal_density(topology, positions, 2.0)
    np.testing.assert_allclose(np.diag(box), 2.0)
    np.testing.assert_allclose(shrunk[1] - shrunk[0], positions[1] - positions[0], atol=1e-12)
    inside = [np.diff(p[2:].reshape(-1, 3, 3), axis=1) for p in (positions, shrunk)]
    np.testing.assert_allclose(inside[1], inside[0], atol=1e-12)
    assert np.ptp(shrunk[2::3]) < np.ptp(positions[2::3])


def test_states_are_intervals_of_the_nearest_distance(system):
    bound, unbound = system.states
    for image in ((0, 0, 0), (1, -2, 0)):
        assert bound(with_distance(system, 0.22, image)) and not bound(with_distance(system, 0.24, image))
        assert unbound(with_distance(system, 0.49, image)) and not unbound(with_distance(system, 0.47, image))
        assert system.distance(with_distance(system, 0.3, image)) == pytest.approx(0.3, abs=1e-12)


def test_start_is_a_bound_frame_of_the_engine(system, start):
    assert system.states[0](start)
    assert start.engine is system.engine
    # 300 K of 1623 degrees of freedom; ten frames from random velocities, so that only the bulk is checked
    masses = [system.engine.system.getParticleMass(i)._value for i in range(812)]
    kinetic = 0.5 * np.sum(np.array(masses)[:, None] * start.velocities._value**2)
    temperature = 2 * kinetic / (1623 * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin))
    assert 200.0 < temperature < 400.0


def test_descriptors(system, start):
    trajectory = paths.Trajectory([start, with_distance(system, 0.4)])
    values = system.descriptors(trajectory)
    names = system.descriptors.names
    assert values.shape == (2, 221) and len(set(names)) == 221 and np.isfinite(values).all()
    assert values[:, 0] == pytest.approx(system.distance(trajectory))
    topology = system.engine.topology.mdtraj
    oxygens = topology.select("name O")
    pairs = [[0, oxygen] for oxygen in oxygens]
    frames = mdtraj.Trajectory(positions_of(trajectory), topology)
    frames.unitcell_vectors = np.tile(system.box, (2, 1, 1)).astype(np.float32)
    distances = mdtraj.compute_distances(frames, pairs, periodic=True).astype(float)
    smooth = 0.5 * (np.cos(np.pi * distances) + 1) * (distances < 1.0)
    expected = (np.exp(-200.0 * (distances - 0.25) ** 2) * smooth).sum(axis=1)
    np.testing.assert_allclose(values[:, names.index("Li O G2 r=0.25")], expected, rtol=1e-4)


READ = """
import sys
import numpy as np
import openpathsampling as paths
import ops_aimmd.systems.descriptor_cv
from openpathsampling.experimental.storage import Storage as SimStore
for open_storage, name in ((paths.Storage, sys.argv[1]), (SimStore, sys.argv[2])):
    storage = open_storage(name, "r")
    path = storage.trajectories[0]
    cvs = {cv.name: cv for cv in storage.cvs}
    states = {state.name: state for state in storage.volumes}
    inside = [[states[state](frame) for frame in path] for state in ("LiCl bound", "LiCl unbound")]
    np.savez(name + ".npz", descriptors=cvs["LiCl descriptors"](path), inside=inside, names=cvs["LiCl descriptors"].names)
"""


def test_a_fresh_process_reads_states_and_descriptors(system, start, tmp_path):
    path = paths.Trajectory([start, with_distance(system, 0.4), with_distance(system, 0.6, (1, 0, 0))])
    netcdf, simstore = str(tmp_path / "test.nc"), str(tmp_path / "test.db")
    for storage in (paths.Storage(netcdf, "w", template=path[0]), SimStore(simstore, "w")):
        for part in (path, system.distance, system.descriptors, *system.states):
            storage.save(part)
        storage.close()
    read = run_code(READ, tmp_path, netcdf, simstore)
    assert read.returncode == 0, read.stderr
    expected = system.descriptors(path)
    for name in (netcdf, simstore):
        with np.load(name + ".npz") as read:
            assert read["names"].tolist() == system.descriptors.names
            # storage is in single precision: 1e-7 nm, which the power 64 of a cosine and the sums magnify
            np.testing.assert_allclose(read["descriptors"], expected, rtol=1e-3, atol=1e-4)
            assert np.array_equal(read["inside"], [[True, False, False], [False, False, True]])
