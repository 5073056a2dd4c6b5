"""Alanine dipeptide in solvent: force field, density, states and the first path are what the description says."""

import dataclasses

import mdtraj
import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.experimental.storage import Storage as SimStore

import ops_aimmd
from ops_aimmd.engines.frames import positions_of
from ops_aimmd.systems.alanine_in_solvent import alanine_in_solvent


@pytest.fixture(scope="module")
def implicit():
    return alanine_in_solvent()


@pytest.fixture(scope="module")
def path(implicit):
    start = implicit.start(seed=1, n_frames=200)
    return ops_aimmd.initial_path(start, implicit.progress, implicit.states, seed=1)


def test_implicit_solvent_is_there(implicit):
    kinds = [type(force).__name__ for force in implicit.engine.system.getForces()]
    assert any("GB" in kind for kind in kinds), kinds
    assert implicit.engine.platform == "Reference" and len(implicit.positions) == 22
    assert implicit.engine.integrator.getStepSize() == 2.0 * unit.femtosecond


def test_water_has_its_density():
    system = alanine_in_solvent("water", platform="CPU")
    assert any(
        isinstance(force, openmm.NonbondedForce) and force.getNonbondedMethod() == 4
        for force in system.engine.system.getForces()
    )
    n_waters = (len(system.positions) - 22) / 3
    # 144.17 and 18.015 g/mol in the volume of the box; water of this model has 0.98 g/cm^3
    density = (144.17 + 18.015 * n_waters) / 602.214 / np.linalg.det(system.box)
    assert density == pytest.approx(0.99, abs=0.02)
    assert np.diag(system.box).min() > 1.8  # two cut-offs


def test_states_are_those_of_the_literature(implicit, path):
    angles = np.asarray(implicit.phi_psi(path))
    frames = mdtraj.Trajectory(positions_of(path).astype(np.float32), implicit.engine.topology.mdtraj)
    theirs = np.degrees(
        np.hstack([mdtraj.compute_phi(frames, periodic=False)[1], mdtraj.compute_psi(frames, periodic=False)[1]])
    )
    assert np.abs((angles - theirs + 180) % 360 - 180).max() < 0.01
    left = (angles[:, 0] > -180) & (angles[:, 0] < 0)
    psi = angles[:, 1] % 360
    c7eq, alpha_r = left & (psi > 120) & (psi < 200), left & ((psi > 310) | (psi < 30))
    assert [implicit.states[0](frame) for frame in path] == c7eq.tolist()
    assert [implicit.states[1](frame) for frame in path] == alpha_r.tolist()
    assert c7eq[0] and alpha_r[-1] and not (c7eq | alpha_r)[1:-1].any()


def test_progress_grows_towards_alpha_r(implicit, path):
    assert implicit.progress(path[-1]) > -40 > implicit.progress(path[0])


def test_storable(implicit, path, tmp_path):
    """Volumes that are intersections, and the collective variables beneath them, come back."""
    for name, kind in (("x.nc", paths.Storage), ("x.db", SimStore)):
        storage = kind(str(tmp_path / name), "w", path[0]) if kind is paths.Storage else kind(str(tmp_path / name), "w")
        for part in (path, *implicit.states, implicit.descriptors):
            storage.save(part)
        storage.close()
        storage = kind(str(tmp_path / name), "r")
        states = {state.name: state for state in storage.volumes if state.is_named}
        again = storage.trajectories[0]
        assert states["C7eq"](again[0]) and states["alpha_R"](again[-1]) and not states["C7eq"](again[-1])
        storage.close()


def test_a_state_that_is_left_at_once_gives_no_start(implicit):
    nowhere = dataclasses.replace(implicit, states=[paths.EmptyVolume().named("nowhere"), implicit.states[1]])
    with pytest.raises(RuntimeError, match="second half of 4 frames was in 'nowhere'"):
        nowhere.start(seed=1, n_frames=4)
    assert implicit.states[0](implicit.start(seed=1, n_frames=4))  # control


def test_unknown_solvent():
    with pytest.raises(ValueError, match="'methanol', expected 'implicit' or 'water'"):
        alanine_in_solvent("methanol")
