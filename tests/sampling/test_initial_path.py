"""The first path is a piece of the engine's own dynamics from one state to the other."""

import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.sampling.initial_path import initial_path
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def start_in_A(system):
    """A frame in the middle of the first state, at rest."""
    centre = system.disks[0].center
    return paths.engines.toy.Snapshot(coordinates=np.array([centre]), velocities=np.zeros((1, 2)), engine=system.engine)


@pytest.fixture(scope="module", params=["overdamped", "langevin"])
def system(request):
    return toy.wolfe_quapp(dynamics=request.param)


def towards_B(system):
    """Progress from A to B: minus the second coordinate, which is no good reaction coordinate of this potential."""
    return lambda snapshot: -float(snapshot.xyz[0, 1])


@pytest.fixture(scope="module")
def path(system):
    return initial_path(start_in_A(system), towards_B(system), system.states, seed=3)


def test_it_is_a_transition_path(system, path):
    (ensemble,) = system.network().sampling_ensembles
    assert ensemble(path)
    for broken in (path[:-1], path[1:], path.reversed):  # control
        assert not ensemble(broken)
    assert len(path) <= system.engine.options["n_frames_max"]
    assert all(frame.engine is system.engine for frame in path)


def test_frames_follow_one_another(path):
    """No gap where the two legs meet, and none anywhere: each step is as long as those of the dynamics."""
    steps = np.linalg.norm(np.diff([frame.xyz[0] for frame in path], axis=0), axis=1)
    assert steps.max() < 6 * np.median(steps)
    assert len({frame.__uuid__ for frame in path}) == len(path)


def test_velocities_point_along_the_path():
    """Langevin dynamics: displacements between frames correlate with the velocities, on both legs."""
    system = toy.wolfe_quapp(dynamics="langevin")
    path = initial_path(start_in_A(system), towards_B(system), system.states, seed=5)
    moved = np.diff([frame.xyz[0] for frame in path], axis=0)
    v = np.array([frame.velocities[0] for frame in path])
    predicted = v[1:] + v[:-1]
    half = len(moved) // 2
    chance = 1 / np.sqrt(moved[:half].size)  # standard deviation of the correlation of unrelated numbers
    for part in (slice(0, half), slice(half, None)):
        assert np.corrcoef(moved[part].ravel(), predicted[part].ravel())[0, 1] > 5 * chance


def test_the_seed_fixes_the_path(system, path):
    again = initial_path(start_in_A(system), towards_B(system), system.states, seed=3)
    assert np.array_equal([frame.xyz for frame in again], [frame.xyz for frame in path])
    other = initial_path(start_in_A(system), towards_B(system), system.states, seed=4)
    assert len(other) != len(path) or not np.allclose([f.xyz for f in other], [f.xyz for f in path])


def test_from_between_the_states(system):
    """A start on the way, even on the far side of the barrier, is no obstacle: both legs are shot from it."""
    trajectory = system.initial_trajectory(seed=1)
    found = initial_path(trajectory[len(trajectory) // 2], towards_B(system), system.states, seed=1)
    assert system.network().sampling_ensembles[0](found)


def test_a_molecule():
    """Alanine dipeptide, towards C7ax; constraints hold on every frame, the shooting point included."""
    system = alanine_dipeptide()
    start = ops_openmm.Snapshot.construct(
        coordinates=system.positions * unit.nanometer,
        velocities=np.zeros_like(system.positions) * unit.nanometer / unit.picosecond,
        engine=system.engine,
    )
    path = initial_path(start, lambda snapshot: -system.states[1].collectivevariable(snapshot), system.states, seed=2)
    assert system.network().sampling_ensembles[0](path)
    for i in range(system.engine.system.getNumConstraints()):
        a, b, length = system.engine.system.getConstraintParameters(i)
        bonds = np.array([frame.xyz[a] - frame.xyz[b] for frame in path])
        v = np.array([frame.velocities._value[a] - frame.velocities._value[b] for frame in path])
        np.testing.assert_allclose(np.linalg.norm(bonds, axis=1), length._value, rtol=1e-5)
        assert np.abs((bonds * v).sum(axis=1)).max() < 1e-4 * length._value


def test_errors_say_how_far_it_came(system):
    with pytest.raises(ValueError, match="got 1 states"):
        initial_path(start_in_A(system), towards_B(system), system.states[:1], seed=1)
    with pytest.raises(RuntimeError, match=r"5 shots gave no path .* climb came from"):
        initial_path(start_in_A(system), towards_B(system), system.states, seed=1, n_shots=5)
    backwards = lambda snapshot: float(snapshot.xyz[0, 1])  # noqa: E731
    with pytest.raises(RuntimeError, match="larger in the last state"):
        initial_path(start_in_A(system), backwards, system.states, seed=1, n_shots=30)
