"""Boltzmann velocities: the right temperature on the constraints, and an engine that notices nothing."""

import copy

import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.engines import toy
from openpathsampling.experimental.storage import Storage as SimStore
from scipy import stats

from ops_aimmd.engines.constraints import FEW_CONSTRAINTS
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

KT = 300.0 * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


@pytest.fixture(scope="module")
def system():
    return alanine_dipeptide()


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(1)  # noqa: NPY002 - the modifiers of OPS draw from numpy's global generator


@pytest.fixture
def snapshot(system):
    return snapshot_of(system.engine, system.positions)


def snapshot_of(engine, positions):
    return ops_openmm.Snapshot.construct(
        coordinates=np.array(positions) * unit.nanometer,
        box_vectors=2.0 * np.eye(3) * unit.nanometer,
        velocities=np.zeros((len(positions), 3)) * unit.nanometer / unit.picosecond,
        engine=engine,
    )


def masses_of(system):
    return np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])


def constraint_velocities(system, snapshot):
    """Rates at which the constrained distances change, in nm/ps."""
    pairs = np.array([system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())])
    bonds = snapshot.xyz[pairs[:, 0]] - snapshot.xyz[pairs[:, 1]]
    bonds /= np.linalg.norm(bonds, axis=1, keepdims=True)
    v = snapshot.velocities._value
    return ((v[pairs[:, 0]] - v[pairs[:, 1]]) * bonds).sum(axis=1)


def kinetic_energies(modifier, snapshot, n):
    """Of n draws, in kT."""
    masses = masses_of(snapshot.engine.system)[:, None]
    velocities = np.array([modifier(snapshot).velocities._value for _ in range(n)])
    return 0.5 * (masses * velocities**2).sum(axis=(1, 2)) / KT


def test_kinetic_energy_of_a_constrained_molecule(system, snapshot):
    """n_dof/2 kT with n_dof = 3 N - constraints - 3, and the chi-squared distribution of n_dof."""
    n_dof = 3 * 22 - 12 - 3
    energies = kinetic_energies(BoltzmannVelocities(system.engine), snapshot, 2000)
    standard_error = np.sqrt(n_dof / 2 / len(energies))
    assert abs(energies.mean() - n_dof / 2) < 3 * standard_error
    assert stats.kstest(2 * energies, stats.chi2(n_dof).cdf).pvalue > 0.01

    beta = 1.0 / (300.0 * unit.kelvin * unit.BOLTZMANN_CONSTANT_kB)
    control = kinetic_energies(paths.RandomVelocities(beta, system.engine), snapshot, 100)
    assert abs(control.mean() - n_dof / 2) > 10 * np.sqrt(n_dof / 2 / len(control))


def test_velocities_lie_on_the_constraints_and_the_centre_of_mass_rests(system, snapshot):
    drawn = BoltzmannVelocities(system.engine)(snapshot)
    momentum = masses_of(system.engine.system) @ drawn.velocities._value
    assert np.abs(constraint_velocities(system.engine.system, drawn)).max() < 1e-12
    assert np.abs(momentum).max() < 1e-11

    beta = 1.0 / (300.0 * unit.kelvin * unit.BOLTZMANN_CONSTANT_kB)
    control = paths.RandomVelocities(beta, system.engine)(snapshot)
    assert np.abs(constraint_velocities(system.engine.system, control)).max() > 0.1


def rigid_waters(n):
    """Four-site waters: a virtual site without mass, a triangle of constraints, nothing that stops the drift."""
    system = openmm.System()
    positions = []
    for i in range(n):
        for mass in (16.0, 1.0, 1.0, 0.0):
            system.addParticle(mass)
        for a, b, length in ((0, 1, 0.1), (0, 2, 0.1), (1, 2, 0.16)):
            system.addConstraint(4 * i + a, 4 * i + b, length)
        system.setVirtualSite(4 * i + 3, openmm.ThreeParticleAverageSite(4 * i, 4 * i + 1, 4 * i + 2, 0.8, 0.1, 0.1))
        water = np.array([[0, 0, 0], [0.08, 0.06, 0], [-0.08, 0.06, 0], [0, 0.012, 0]])
        positions.append(water + [0.3 * i, 0, 0])
    return system, np.concatenate(positions)


def engine_of(system, integrator):
    topology = paths.engines.MDTrajTopology.__new__(paths.engines.MDTrajTopology)
    paths.engines.Topology.__init__(topology, system.getNumParticles(), 3)
    return ops_openmm.Engine(topology, system, integrator)


@pytest.mark.parametrize("n_waters", [5, 25])
def test_rigid_waters_keep_their_drift_and_their_virtual_sites_have_no_velocity(n_waters):
    system, positions = rigid_waters(n_waters)
    assert (system.getNumConstraints() <= FEW_CONSTRAINTS) == (n_waters == 5)  # full and sparse matrices
    engine = engine_of(system, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002))
    snapshot = snapshot_of(engine, positions)
    modifier = BoltzmannVelocities()
    drawn = modifier(snapshot)
    assert np.abs(constraint_velocities(system, drawn)).max() < 1e-12
    assert np.all(drawn.velocities._value[3::4] == 0.0)
    n_dof = n_waters * (9 - 3)
    energies = kinetic_energies(modifier, snapshot, 1000)
    assert abs(energies.mean() - n_dof / 2) < 3 * np.sqrt(n_dof / 2 / 1000)
    # control: with three degrees of freedom less, as if the drift were removed, the test would fail
    assert abs(energies.mean() - (n_dof - 3) / 2) > 3 * np.sqrt(n_dof / 2 / 1000)


@pytest.mark.filterwarnings("ignore:Matrix is exactly singular")
@pytest.mark.parametrize("n_waters", [5, 25])
def test_constraints_that_follow_from_others(n_waters):
    system, positions = rigid_waters(n_waters)
    system.addConstraint(0, 1, 0.1)  # once more
    engine = engine_of(system, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002))
    with pytest.raises(ValueError, match="follow from the others"):
        BoltzmannVelocities()(snapshot_of(engine, positions))


def test_projection_is_that_of_openmm(system, snapshot):
    """From the same unconstrained velocities, OpenMM's applyVelocityConstraints comes to the same ones."""
    free = copy.deepcopy(system.engine.system)
    for _ in range(free.getNumConstraints()):
        free.removeConstraint(0)
    drawn = {}
    for name, mechanics in (("free", free), ("constrained", system.engine.system)):
        np.random.seed(3)  # noqa: NPY002
        modifier = BoltzmannVelocities(temperature=300.0)
        engine = ops_openmm.Engine(system.engine.topology, mechanics, openmm.VerletIntegrator(0.002))
        drawn[name] = modifier(snapshot_of(engine, system.positions)).velocities._value
    context = openmm.Context(
        system.engine.system, openmm.VerletIntegrator(0.002), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(system.positions)
    context.setVelocities(drawn["free"])
    context.applyVelocityConstraints(1e-10)
    expected = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    assert np.abs(drawn["constrained"] - expected).max() < 1e-8
    assert np.abs(drawn["free"] - expected).max() > 0.1  # control


def toy_snapshot(masses, integrator):
    engine = toy.Engine(
        options={"integ": integrator},
        topology=toy.Topology(n_spatial=2, masses=masses, pes=toy.HarmonicOscillator([1, 1], [1, 1], [0, 0])),
    )
    return toy.Snapshot(coordinates=np.array([[0.3, 0.7]]), velocities=np.zeros((1, 2)), engine=engine)


def test_toy_velocities_are_normal_with_variance_kT_over_m_on_each_axis():
    snapshot = toy_snapshot([1.0, 4.0], toy.LangevinBAOABIntegrator(0.02, 0.5, 2.5))
    modifier = BoltzmannVelocities()
    velocities = np.array([modifier(snapshot).velocities[0] for _ in range(2000)])
    for component, mass in zip(velocities.T, (1.0, 4.0), strict=True):
        assert stats.kstest(component, stats.norm(0.0, np.sqrt(0.5 / mass)).cdf).pvalue > 0.01
    control = stats.kstest(velocities[:, 1], stats.norm(0.0, np.sqrt(0.5)).cdf)  # the mass left out
    assert control.pvalue < 1e-6
    assert abs(np.corrcoef(velocities.T)[0, 1]) < 3 / np.sqrt(2000)


def test_temperature_given_comes_before_that_of_the_integrator():
    snapshot = toy_snapshot([1.0], toy.LangevinBAOABIntegrator(0.02, 0.5, 2.5))
    modifier = BoltzmannVelocities(temperature=50.0)
    velocities = np.array([modifier(snapshot).velocities[0] for _ in range(500)])
    assert velocities.var() == pytest.approx(50.0, rel=3 * np.sqrt(2 / 1000))


def test_positions_stay_and_the_old_snapshot_too(system, snapshot):
    drawn = BoltzmannVelocities(system.engine)(snapshot)
    assert drawn is not snapshot and drawn != snapshot
    assert np.array_equal(drawn.xyz, snapshot.xyz)
    assert np.array_equal(drawn.box_vectors._value, snapshot.box_vectors._value)
    assert drawn.engine is system.engine
    assert np.all(snapshot.velocities._value == 0.0)
    assert BoltzmannVelocities().probability_ratio(snapshot, drawn) == 1.0


def test_the_global_seed_fixes_the_velocities(system, snapshot):
    modifier = BoltzmannVelocities(system.engine)
    drawn = []
    for seed in (5, 5, 6):
        np.random.seed(seed)  # noqa: NPY002
        drawn.append(modifier(snapshot).velocities._value)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])


def frames_after(system, modifier):
    """Dynamics in which the modifier is called half-way, from the same state and random numbers each time."""
    engine = ops_openmm.Engine.from_dict(system.engine.to_dict())
    engine.integrator.setRandomNumberSeed(7)
    engine.initialize("Reference")
    engine.current_snapshot = snapshot_of(engine, system.positions)
    first = engine.generate_n_frames(2)
    modifier(first[0])
    return np.array([frame.xyz for frame in [*first, *engine.generate_n_frames(3)]])


def test_the_engine_notices_nothing(system):
    undisturbed = frames_after(system, lambda snapshot: None)
    assert np.array_equal(frames_after(system, BoltzmannVelocities(temperature=300.0)), undisturbed)

    def intruder(snapshot):  # control
        snapshot.engine.current_snapshot = snapshot

    assert not np.array_equal(frames_after(system, intruder), undisturbed)


def test_a_reloaded_engine_need_not_be_initialised(system, snapshot):
    reloaded = ops_openmm.Engine.from_dict(system.engine.to_dict())
    expected = [BoltzmannVelocities(engine)(snapshot).velocities._value for engine in (system.engine, reloaded)]
    np.random.seed(1)  # noqa: NPY002
    again = [BoltzmannVelocities(engine)(snapshot).velocities._value for engine in (reloaded, system.engine)]
    np.testing.assert_allclose(expected, again)
    assert reloaded._simulation is None


def test_temperature_survives_xml_round_trips_of_custom_integrators(system, snapshot):
    integrators = pytest.importorskip("openmmtools.integrators")
    integrator = integrators.LangevinIntegrator(temperature=400.0 * unit.kelvin)
    bare = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(integrator))
    assert not hasattr(bare, "getTemperature")
    np.random.seed(2)  # noqa: NPY002
    expected = BoltzmannVelocities(system.engine, temperature=400.0 * unit.kelvin)(snapshot).velocities._value
    for found in (integrator, bare):
        engine = ops_openmm.Engine(system.engine.topology, system.engine.system, found)
        np.random.seed(2)  # noqa: NPY002
        np.testing.assert_allclose(BoltzmannVelocities(engine)(snapshot).velocities._value, expected)


def test_clear_errors(system, snapshot):
    verlet = ops_openmm.Engine(system.engine.topology, system.engine.system, openmm.VerletIntegrator(0.002))
    with pytest.raises(ValueError, match="VerletIntegrator has no temperature; pass .*in kelvin"):
        BoltzmannVelocities(verlet)(snapshot)
    custom = ops_openmm.Engine(system.engine.topology, system.engine.system, openmm.CustomIntegrator(0.002))
    with pytest.raises(ValueError, match="CustomIntegrator has no temperature"):
        BoltzmannVelocities(custom)(snapshot)
    with pytest.raises(ValueError, match="LeapfrogVerletIntegrator has no temperature; pass .*kT"):
        BoltzmannVelocities()(toy_snapshot([1.0], toy.LeapfrogVerletIntegrator(0.02)))
    with pytest.raises(ValueError, match="-1.0, expected a positive"):
        BoltzmannVelocities(system.engine, temperature=-1.0)(snapshot)
    with pytest.raises(ValueError, match="OpenMM and toy engines"):
        BoltzmannVelocities()(snapshot_of(None, system.positions))
    with pytest.raises(ValueError, match="do not belong together"):
        BoltzmannVelocities(system.engine)(snapshot_of(system.engine, system.positions[:4]))
    broken = system.positions.copy()
    broken[1] = np.nan
    with pytest.raises(ValueError, match=r"positions of atoms \[1\] are not finite"):
        BoltzmannVelocities(system.engine)(snapshot_of(system.engine, broken))
    broken[1] = broken[0]
    with pytest.raises(ValueError, match="constrained atoms coincide"):
        BoltzmannVelocities(system.engine)(snapshot_of(system.engine, broken))


def check_reloaded(modifier, system):
    assert isinstance(modifier, BoltzmannVelocities)
    assert modifier.temperature == 310.0
    assert modifier.engine.system.getNumConstraints() == 12
    drawn = modifier(snapshot_of(modifier.engine, system.positions))
    assert np.abs(constraint_velocities(system.engine.system, drawn)).max() < 1e-12


def test_netcdf_keeps_the_modifier_in_its_mover(system, snapshot, tmp_path):
    ensemble = system.network().sampling_ensembles[0]
    mover = paths.TwoWayShootingMover(
        ensemble, paths.UniformSelector(), BoltzmannVelocities(system.engine, 310.0), system.engine
    )
    storage = paths.Storage(str(tmp_path / "test.nc"), "w", template=snapshot)
    storage.save(mover)
    storage.close()
    storage = paths.Storage(str(tmp_path / "test.nc"), "r")
    (reloaded,) = (part for part in storage.pathmovers if isinstance(part, paths.TwoWayShootingMover))
    check_reloaded(reloaded.movers[0].modifier, system)
    storage.close()


def test_simstore_keeps_the_modifier(system, tmp_path):
    storage = SimStore(str(tmp_path / "test.db"), "w")
    storage.save(BoltzmannVelocities(system.engine, 310.0))
    storage.close()
    storage = SimStore(str(tmp_path / "test.db"), "r")
    (modifier,) = (part for part in storage.simulation_objects if isinstance(part, BoltzmannVelocities))
    check_reloaded(modifier, system)
    storage.close()
