"""The first path is a piece of the engine's own dynamics from one state to the other."""

from functools import partial

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm
from plain_integrators import plain
from sampling_support import Chain, site_of

from ops_aimmd.runs.climb import Climb
from ops_aimmd.runs.initial_paths import check_beginning, initial_path, initial_paths
from ops_aimmd.shooting.legs import Leg
from ops_aimmd.shooting.states import state_index
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def start_in_A(system):
    """A frame in the middle of the first state, at rest."""
    centre = system.disks[0].center
    return paths.engines.toy.Snapshot(coordinates=np.array([centre]), velocities=np.zeros((1, 2)), engine=system.engine)


@pytest.fixture(scope="module", params=["overdamped", "langevin"])
def system(request):
    return plain(toy.wolfe_quapp(dynamics=request.param))


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
    system = plain(toy.wolfe_quapp(dynamics="langevin"))
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


def test_it_is_the_first_of_many(system, path):
    (first,) = initial_paths(1, start_in_A(system), towards_B(system), system.states, seed=3, show_progress=False)
    assert np.array_equal([frame.xyz for frame in first], [frame.xyz for frame in path])
    assert np.array_equal([frame.velocities for frame in first], [frame.velocities for frame in path])


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


class Legs:
    """Legs on a line of seven sites, with the states at its ends."""

    def __init__(self):
        self.chain = Chain()

    def climb(self, site, limit=50):
        return Climb(self.chain.path([site])[0], site_of, self.chain.states, limit)

    def leg(self, sites, failure=None):
        return Leg(self.chain.path(sites), {0: 0, 6: 1}.get(sites[-1], -1), failure)


def test_a_climb_goes_up_sideways_and_one_step_down():
    legs, sites = Legs(), []
    climb = legs.climb(1)
    for backward, forward in (
        ([1, 2, 1, 0], [1, 0]),  # both in the first state: from the highest frame on
        ([2, 3, 4, 2, 0], [2, 1, 0]),
        ([4, 3, 2, 1, 0], [4, 3, 1, 0]),  # no higher, but above the last step but one: sideways
        ([3, 2, 1, 0], [3, 2, 1, 0]),  # not above it: nothing
        ([3, 5, 6], [3, 4, 5, 6]),  # both in the last: down
        ([2, 3, 4, 5, 6], [2, 1, 0]),
    ):
        climb.take(legs.leg(backward), legs.leg(forward))
        sites.append(site_of(climb.highest))
    assert sites == [2, 4, 3, 3, 2, 2] and climb.n_shots == 6
    assert [site_of(frame) for frame in climb.path] == [0, 1, 2, 3, 4, 5, 6]
    assert "6 shots gave no path" in climb.report and "came from 1 to 2 in 1 steps" in climb.report


def test_a_climb_does_not_follow_what_broke_down_and_takes_no_path_that_is_too_long():
    legs = Legs()
    climb = legs.climb(1, limit=7)
    climb.take(legs.leg([1, 2, 3, 4, 5], failure="nan"), legs.leg([1, 2, 1, 0]))
    assert site_of(climb.highest) == 2
    climb.take(legs.leg([2, 3, 4, 4, 5], failure="max_length"), legs.leg([2, 1, 0]))  # control: this one it follows
    assert site_of(climb.highest) == 5
    climb.take(legs.leg([5, 6]), legs.leg([5, 4, 4, 3, 2, 1, 0]))
    assert climb.path is None
    climb.take(legs.leg([5, 6]), legs.leg([5, 4, 3, 2, 1, 0]))
    assert len(climb.path) == 7


def test_errors_say_how_far_it_came(system):
    with pytest.raises(ValueError, match="got 1 states"):
        initial_path(start_in_A(system), towards_B(system), system.states[:1], seed=1)
    with pytest.raises(RuntimeError, match=r"5 shots gave no path .* climb came from"):
        initial_path(start_in_A(system), towards_B(system), system.states, seed=1, n_shots=5)
    backwards = lambda snapshot: float(snapshot.xyz[0, 1])  # noqa: E731
    with pytest.raises(RuntimeError, match="larger in the last state"):
        initial_path(start_in_A(system), backwards, system.states, seed=1, n_shots=30)


def from_pdb(tmp_path, positions, system):
    """A snapshot as OPS reads it from a PDB file, with a FileEngine, which is a TopologyEngine."""
    file = tmp_path / "start.pdb"
    mdtraj.Trajectory(positions, system.engine.topology.mdtraj).save_pdb(str(file))
    return ops_openmm.tools.snapshot_from_pdb(str(file))


@pytest.mark.parametrize("where", ["in a state", "between the states"])
def test_a_snapshot_of_an_engine_that_cannot_run(tmp_path, where):
    system = alanine_dipeptide()
    positions = system.initial_trajectory(3)[0 if where == "in a state" else 1].xyz
    snapshot = from_pdb(tmp_path, positions, system)
    assert state_index(snapshot, system.states) == (0 if where == "in a state" else -1)
    progress = system.states[1].collectivevariable
    for find in (initial_path, partial(initial_paths, 2)):
        with pytest.raises(ValueError, match="FileEngine, cannot run.*engine="):
            find(snapshot, lambda snapshot: -progress(snapshot), system.states)
        with pytest.raises(ValueError, match="given engine, FileEngine"):
            find(snapshot, lambda snapshot: -progress(snapshot), system.states, engine=snapshot.engine)
    engine = check_beginning(snapshot, [progress], system.states, system.engine)  # control
    assert engine is system.engine


def test_a_snapshot_without_engine(system):
    snapshot = paths.engines.toy.Snapshot(np.array([system.disks[0].center]), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="NoneType, cannot run.*engine="):
        initial_path(snapshot, towards_B(system), system.states)
    found = initial_path(snapshot, towards_B(system), system.states, seed=3, engine=system.engine)  # control
    assert system.network().sampling_ensembles[0](found)
