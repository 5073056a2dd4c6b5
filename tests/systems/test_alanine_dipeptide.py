"""Alanine dipeptide comes with the states, descriptors and first path that its description promises."""

import dataclasses

import mdtraj
import numpy as np
import openmm
import openpathsampling as paths
import pytest
from child_processes import run_code
from openmm import unit
from openmmtools.testsystems import AlanineDipeptideVacuum
from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.experimental.storage import Storage as SimStore

from ops_aimmd.engines.frames import positions_of
from ops_aimmd.systems.alanine_dipeptide import DIHEDRALS, alanine_dipeptide, alanine_testsystem


@pytest.fixture(scope="module")
def system():
    return alanine_dipeptide()


@pytest.fixture(scope="module")
def path(system):
    return system.initial_trajectory(seed=4)


def snapshot_of(system, positions):
    zero = np.zeros((22, 3)) * unit.nanometer / unit.picosecond
    return ops_openmm.Snapshot.construct(coordinates=positions * unit.nanometer, velocities=zero, engine=system.engine)


def test_engine_is_as_described(system):
    engine = system.engine
    assert engine.platform == "Reference"
    assert engine.n_degrees_of_freedom() == 3 * 22 - 12 - 3
    thermal_energy = unit.MOLAR_GAS_CONSTANT_R * 300.0 * unit.kelvin
    assert np.isclose(
        engine.integrator.getGlobalVariableByName("kT"), thermal_energy.value_in_unit(unit.kilojoule_per_mole), rtol=1e-12
    )
    assert engine.snapshot_timestep == 20.0 * unit.femtosecond
    assert engine.options["n_frames_max"] == 2000


def test_the_molecule_is_that_of_openmmtools():
    ours, theirs = alanine_testsystem(), AlanineDipeptideVacuum()
    assert openmm.XmlSerializer.serialize(ours.system) == openmm.XmlSerializer.serialize(theirs.system)
    assert np.array_equal(ours.positions, theirs.positions)
    assert [str(atom) for atom in ours.topology.atoms()] == [str(atom) for atom in theirs.topology.atoms()]


def test_dihedrals_are_made_of_bonded_atoms(system):
    bonds = {frozenset((a.index, b.index)) for a, b in system.engine.topology.mdtraj.bonds}
    for name, atoms in DIHEDRALS.items():
        assert all(frozenset(pair) in bonds for pair in zip(atoms, atoms[1:], strict=False)), name


def test_phi_psi_are_those_of_mdtraj(system, path):
    trajectory = path.to_mdtraj(system.engine.topology.mdtraj)
    ours = np.radians(system.phi_psi(path))
    for column, compute in enumerate((mdtraj.compute_phi, mdtraj.compute_psi)):
        theirs = compute(trajectory, periodic=False)[1][:, 0]
        # mdtraj works in single precision: some roundings of 6e-8
        assert np.abs(np.exp(1j * ours[:, column]) - np.exp(1j * theirs)).max() < 1e-6
        assert np.abs(np.exp(1j * ours[:, 1 - column]) - np.exp(1j * theirs)).max() > 0.1  # control


def test_descriptors_carry_their_names(system, path):
    values = system.descriptors(path)
    names = system.descriptors.names
    assert values.shape == (len(path), len(names)) == (len(path), 2 * len(DIHEDRALS))
    frames = mdtraj.Trajectory(positions_of(path).astype(np.float32), system.engine.topology.mdtraj)
    expected = mdtraj.compute_dihedrals(frames, list(DIHEDRALS.values()), periodic=False)  # in single precision
    for column, angle in enumerate(DIHEDRALS):
        np.testing.assert_allclose(values[:, names.index(f"{angle} sin")], np.sin(expected[:, column]), atol=1e-5)
        np.testing.assert_allclose(values[:, names.index(f"{angle} cos")], np.cos(expected[:, column]), atol=1e-5)
    # no descriptor follows from the others by a linear relation
    assert np.linalg.matrix_rank(values - values.mean(axis=0), tol=1e-3) == values.shape[1]


def test_each_state_holds_its_minimum(system, path):
    """Minimising from the ends of a path stays in the states, and finds the minima of the description."""
    context = openmm.Context(
        system.engine.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    for state, end, other, minimum in (
        (system.states[0], path[0], system.states[1], (-74, 75)),
        (system.states[1], path[-1], system.states[0], (62, -66)),
    ):
        context.setPositions(end.xyz)
        openmm.LocalEnergyMinimizer.minimize(context, 0.1)
        found = snapshot_of(system, context.getState(positions=True).getPositions(asNumpy=True)._value)
        assert state(found) and not other(found)
        assert system.phi_psi(found) == pytest.approx(minimum, abs=1.0)
    assert not any(state(snapshot_of(system, system.positions)) for state in system.states)  # control: C5


@pytest.mark.parametrize("all_to_all", [False, True])
def test_initial_trajectory_is_a_transition_path(system, path, all_to_all):
    network = system.network(all_to_all)
    ensembles = network.sampling_ensembles
    assert any(ensemble(path) for ensemble in ensembles)
    assert any(ensemble(path.reversed) for ensemble in ensembles) is all_to_all
    for broken in (path[:-1], path[1:], path + paths.Trajectory([path[-1]])):
        assert not any(ensemble(broken) for ensemble in ensembles)


def test_frames_belong_to_the_engine_and_follow_one_another(system, path):
    """Each frame is 20 fs of dynamics after the one before: heavy atoms move along their velocities."""
    assert all(frame.engine is system.engine for frame in path)
    x = positions_of(path)
    v = np.array([frame.velocities._value for frame in path])
    heavy = [4, 6, 8, 14, 16]
    moved = (x[1:] - x[:-1])[:, heavy]
    predicted = (v[1:] + v[:-1])[:, heavy]
    chance = 1 / np.sqrt(moved.size)  # standard deviation of the correlation of unrelated numbers
    assert np.corrcoef(moved.ravel(), predicted.ravel())[0, 1] > 5 * chance
    control = np.roll(predicted, len(predicted) // 2, axis=0)
    assert abs(np.corrcoef(moved.ravel(), control.ravel())[0, 1]) < 5 * chance


def test_the_seed_fixes_the_path(system, path):
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - must be left alone
    again, other = system.initial_trajectory(seed=4), system.initial_trajectory(seed=5)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert np.array_equal(positions_of(again), positions_of(path))
    assert len(other) != len(path) or not np.allclose(positions_of(other), positions_of(path))


def test_no_path_within_the_limits_is_an_error(system):
    with pytest.raises(RuntimeError, match="5 frames of dynamics at 300.0 K gave no path"):
        system.initial_trajectory(seed=1, temperature=300.0, n_frames=5)


def test_the_engine_takes_the_path_to_a_state(system, path):
    """A leg from the middle of the path at 300 K; frames are the engine's, and end in exactly one state."""
    stop = paths.AllOutXEnsemble(system.states[0] | system.states[1])
    leg = system.engine.generate(path[len(path) // 2], [stop.can_append])
    assert [state(leg[-1]) for state in system.states].count(True) == 1
    assert not any(state(frame) for frame in leg[:-1] for state in system.states)


def with_angles(system, angles):
    return dataclasses.replace(system, phi_psi=lambda trajectory: np.array(angles))


def test_channel_is_the_last_crossing_towards_c7ax(system):
    across_0 = [[-80, 75], [-10, 40], [10, 50], [-5, 60], [20, 70], [65, -60]]
    across_180 = [[-80, 75], [-170, -120], [175, -130], [65, -60]]
    assert with_angles(system, across_0).channel(None) == (0, 70.0)
    assert with_angles(system, across_0[::-1]).channel(None) == (0, 70.0)
    assert with_angles(system, across_180).channel(None) == (180, -130.0)
    with pytest.raises(ValueError, match="same side"):
        with_angles(system, across_180[:2]).channel(None)


READ = """
import sys
import numpy as np
import openpathsampling as paths
import ops_aimmd
from openpathsampling.experimental.storage import Storage as SimStore
for open_storage, name in ((paths.Storage, sys.argv[1]), (SimStore, sys.argv[2])):
    storage = open_storage(name, "r")
    path = storage.trajectories[0]
    cvs = {cv.name: cv for cv in storage.cvs}
    states = {state.name: state for state in storage.volumes}
    inside = [[states[state](frame) for frame in path] for state in ("C7eq", "C7ax")]
    np.savez(name + ".npz", descriptors=cvs["descriptors"](path), phi_psi=cvs["phi_psi"](path), inside=inside)
"""


def test_a_fresh_process_reads_states_and_descriptors(system, path, tmp_path):
    netcdf, simstore = str(tmp_path / "test.nc"), str(tmp_path / "test.db")
    for storage in (paths.Storage(netcdf, "w", template=path[0]), SimStore(simstore, "w")):
        for part in (path, system.phi_psi, system.descriptors, *system.states):
            storage.save(part)
        storage.close()
    read = run_code(READ, tmp_path, netcdf, simstore)
    assert read.returncode == 0, read.stderr
    for name in (netcdf, simstore):
        with np.load(name + ".npz") as read:
            # storage is in single precision: atoms move by 6e-8 nm, angles by that over a bond length, 0.1 nm
            np.testing.assert_allclose(read["descriptors"], system.descriptors(path), atol=1e-5)
            np.testing.assert_allclose(read["phi_psi"], system.phi_psi(path), atol=1e-3)
            assert np.array_equal(read["inside"], [[state(frame) for frame in path] for state in system.states])
            assert not np.allclose(read["descriptors"], system.descriptors(path.reversed), atol=1e-2)  # control
