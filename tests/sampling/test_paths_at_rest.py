"""Moves that keep the velocities of a path, and paths from files that hold none."""

import mdtraj
import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines.openmm.tools import trajectory_from_mdtraj
from openpathsampling.engines.topology import Topology
from sampling_support import Chain, simulation, site_of

from ops_aimmd import CommittorLearner, CommittorSelector, CommittorShootingScheme, ParallelPathSampling, TrainingHook
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import is_at_rest
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.toy import two_gaussian_wells

REFUSED = {"match": "has no velocities"}


def stopped(path):
    """The path without its velocities."""
    return paths.Trajectory([f.copy_with_replacement(velocities=np.zeros_like(f.velocities)) for f in path])


@pytest.fixture(scope="module")
def wells():
    return two_gaussian_wells()


@pytest.fixture(scope="module")
def moving(wells):
    return wells.initial_trajectory(seed=1)


def scheme(system, shooting="one-way", **options):
    learner = CommittorLearner(system.descriptors, system.states, seed=1)
    return CommittorShootingScheme(paths.TPSNetwork(*system.states), learner, system.engine, shooting, **options)


# ---- whether dynamics has inertia -----------------------------------------------------------------------------------


def test_engines_with_inertia():
    assert adapter_of(two_gaussian_wells(dynamics="langevin").engine).has_inertia
    assert not adapter_of(two_gaussian_wells(dynamics="overdamped").engine).has_inertia
    assert not adapter_of(Chain().engine).has_inertia


def overdamped_custom():
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addComputePerDof("x", "x + 0.01*dt*f/m + sqrt(dt)*gaussian")
    integrator.addComputePerDof("v", "0")
    return integrator


@pytest.mark.parametrize(
    "integrator, expected",
    [
        (openmm.LangevinMiddleIntegrator(300, 1, 0.002), True),
        (openmm.VerletIntegrator(0.002), True),
        (baoab_integrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond), True),
        (openmm.BrownianIntegrator(300, 1, 0.002), False),
        (overdamped_custom(), False),
    ],
    ids=["Langevin", "Verlet", "BAOAB", "Brownian", "overdamped custom"],
)
def test_integrators_of_openmm_with_inertia(integrator, expected):
    system = openmm.System()
    system.addParticle(1.0)
    topology = Topology(1, 3)
    assert adapter_of(paths.engines.openmm.Engine(topology, system, integrator, options={})).has_inertia is expected


def test_frames_at_rest(moving):
    assert all(map(is_at_rest, stopped(moving))) and not any(map(is_at_rest, moving))


# ---- paths at rest --------------------------------------------------------------------------------------------------


def test_one_way_shooting_from_a_path_at_rest_is_refused(wells, moving):
    one_way = scheme(wells)
    assert one_way.initial_conditions_from_trajectories(moving)
    with pytest.raises(ValueError, **REFUSED):
        one_way.initial_conditions_from_trajectories(stopped(moving))


def test_two_way_shooting_draws_velocities(wells, moving):
    two_way = scheme(wells, "two-way")
    sampler, _ = simulation(two_way, stopped(moving), TrainingHook(two_way.learner))
    sampler.run(1)
    kept = scheme(wells, "two-way", modifier=paths.NoModification())
    with pytest.raises(ValueError, **REFUSED):
        kept.initial_conditions_from_trajectories(stopped(moving))


@pytest.mark.parametrize("given", ["path", "samples"])
def test_many_chains(wells, moving, given):
    one_way = scheme(wells)
    path = stopped(moving)
    if given == "samples":
        path = super(CommittorShootingScheme, one_way).initial_conditions_from_trajectories(path)
    with pytest.raises(ValueError, **REFUSED):
        ParallelPathSampling(None, one_way, [moving, path])
    assert ParallelPathSampling(None, one_way, [moving, moving])


def test_moves_of_ops_are_checked_by_the_hook(wells, moving):
    """A scheme of OPS with our selector: the hook looks at the path when the run begins."""
    learner = CommittorLearner(wells.descriptors, wells.states, seed=1)
    network = paths.TPSNetwork(*wells.states)
    of_ops = paths.OneWayShootingMoveScheme(network, selector=CommittorSelector(learner), engine=wells.engine)
    sampler, _ = simulation(of_ops, stopped(moving), TrainingHook(learner))
    with pytest.raises(ValueError, **REFUSED):
        sampler.run(1)
    sampler, _ = simulation(of_ops, moving, TrainingHook(learner))
    sampler.run(1)


def test_a_path_with_a_few_frames_at_rest_is_caught_when_one_is_picked(wells, moving):
    """As it was after some steps from a path at rest: the new legs move, the rest of the path does not."""
    one_way = scheme(wells)
    mixed = paths.Trajectory([*stopped(moving)[:-1], moving[-1]])
    sampler, _ = simulation(one_way, mixed, TrainingHook(one_way.learner))
    with pytest.raises(ValueError, match=r"frame \d+ of the current path"):
        sampler.run(1)


def test_systems_without_velocities_are_not_refused():
    chain = Chain()
    one_way = chain.scheme(chain.learner(seed=1), shooting="one-way")
    sampler, _ = simulation(one_way, chain.initial(), TrainingHook(one_way.learner))
    sampler.run(2)
    assert site_of(chain.initial()[0]) == 0
    overdamped = two_gaussian_wells(dynamics="overdamped")
    path = stopped(overdamped.initial_trajectory(seed=1))
    one_way = scheme(overdamped)
    sampler, _ = simulation(one_way, path, TrainingHook(one_way.learner))
    sampler.run(1)


def test_frames_from_a_file_of_coordinates(tmp_path):
    """The path of a DCD file, in a system of OpenMM."""
    alanine = alanine_dipeptide(platform="Reference")
    topology = alanine.engine.topology
    positions = np.repeat(alanine.positions[None], 5, axis=0)
    mdtraj.Trajectory(positions, topology.mdtraj).save_dcd(str(tmp_path / "first.dcd"))
    path = trajectory_from_mdtraj(mdtraj.load(str(tmp_path / "first.dcd"), top=topology.mdtraj))
    assert all(map(is_at_rest, path))
    in_middle = paths.CVDefinedVolume(paths.FunctionCV("number", path.index), 0.5, 3.5)
    first = paths.CVDefinedVolume(in_middle.collectivevariable, -0.5, 0.5).named("A")
    last = paths.CVDefinedVolume(in_middle.collectivevariable, 3.5, 4.5).named("B")
    network = paths.TPSNetwork(first, last)
    for shooting in ("one-way", "two-way"):
        learner = CommittorLearner(alanine.descriptors, [first, last], seed=1)
        made = CommittorShootingScheme(network, learner, alanine.engine, shooting)
        if shooting == "one-way":
            with pytest.raises(ValueError, match="has no velocities.*DCD, XTC and PDB"):
                made.initial_conditions_from_trajectories(path)
        else:
            assert made.initial_conditions_from_trajectories(path)
