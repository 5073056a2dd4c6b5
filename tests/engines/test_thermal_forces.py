"""Barostats and thermostats beside the integrator."""

import warnings

import mdtraj
import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines.topology import MDTrajTopology

from ops_aimmd import CommittorLearner, CommittorShootingScheme
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import boxes_of
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.engines.running import generate
from ops_aimmd.engines.thermal_forces import THERMAL_FORCES, temperatures_of_forces
from ops_aimmd.sampling.configuration_replicas import ConfigurationMover, check_rising
from ops_aimmd.sampling.movers import submovers
from ops_aimmd.shooting.streams import seed_generators

R = 8.31446261815324e-3
"""Gas constant in kJ/mol/K."""


def thermal_force(name, temperature=300.0):
    pressure, xyz = 1.0, openmm.Vec3(1, 1, 1)
    membrane = openmm.MonteCarloMembraneBarostat
    arguments = {
        "AndersenThermostat": (temperature, 1.0),
        "MonteCarloBarostat": (pressure, temperature),
        "MonteCarloAnisotropicBarostat": (xyz, temperature),
        "MonteCarloFlexibleBarostat": (pressure, temperature),
        "MonteCarloMembraneBarostat": (pressure, 0.0, temperature, membrane.XYIsotropic, membrane.ZFree),
    }
    return getattr(openmm, name)(*arguments[name])


def custom_force(parameter, value=2.5):
    force = openmm.CustomExternalForce(f"{parameter}*x^2")
    force.addGlobalParameter(parameter, value)
    force.addParticle(0)
    return force


def engine(force=None, integrator=None, n_atoms=2, n_steps_per_frame=10):
    """Free particles at 300 K."""
    system = openmm.System()
    for _ in range(n_atoms):
        system.addParticle(10.0)
    system.addForce(openmm.CustomVolumeForce("0*v"))  # periodic, as barostats need it
    if force is not None:
        system.addForce(force)
    topology = mdtraj.Topology()
    residue = topology.add_residue("C", topology.add_chain())
    for number in range(n_atoms):
        topology.add_atom(f"C{number}", mdtraj.element.carbon, residue)
    if integrator is None:
        integrator = baoab_integrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    options = {"n_frames_max": 1000, "n_steps_per_frame": n_steps_per_frame}
    return paths.engines.openmm.Engine(MDTrajTopology(topology), system, integrator, options=options)


def frame_of(made, positions, box=None):
    """A frame at rest."""
    parts = {
        "coordinates": np.array(positions, dtype=float),
        "velocities": np.zeros((len(positions), 3)),
        "box_vectors": box,
    }
    return adapter_of(made).frame_of(parts, with_units=True)


def scheme(of_engine, **options):
    """A model that knows nothing: all configurations outside of the states, which are far, have one weight."""
    x = paths.FunctionCV("x", lambda snapshot: snapshot.xyz[0, 0] * 0.0)
    states = [paths.CVDefinedVolume(x, *limits).named(name) for name, *limits in (("A", -9, -1), ("B", 1, 9))]
    learner = CommittorLearner(x, states, seed=1)
    learner.freeze()
    return CommittorShootingScheme(paths.TPSNetwork(*states), learner, of_engine, **options)


def configuration_mover(made, frame):
    made.learner.committor(paths.Trajectory([frame]))  # now it has a model
    return next(m for m in submovers(made.move_decision_tree()) if isinstance(m, ConfigurationMover))


KNOWN = sorted(THERMAL_FORCES - {"RPMDMonteCarloBarostat"})


def hotter(made, temperature=400.0):
    made.initialize("Reference")
    return adapter_of(made).at_temperature(temperature)


@pytest.mark.parametrize("name", KNOWN)
def test_the_force_follows_to_another_temperature(name):
    """In the system and in the context; the engine itself stays as it is."""
    made = engine(thermal_force(name))
    hot = hotter(made)
    parameter = getattr(openmm, name).Temperature()
    assert hot.engine.simulation.context.getParameter(parameter) == pytest.approx(400.0)
    assert dict(temperatures_of_forces(hot.engine.system)) == {name: 400.0}
    assert made.simulation.context.getParameter(parameter) == 300.0
    assert dict(temperatures_of_forces(made.system)) == {name: 300.0}
    assert hot.temperature == pytest.approx(400.0) and hot.temperature_conflicts == []
    assert scheme(made, exchange_temperatures=[400.0]).move_decision_tree()


def test_the_temperature_of_an_andersen_thermostat_without_another():
    made = engine(thermal_force("AndersenThermostat"), openmm.VerletIntegrator(0.002))
    assert adapter_of(made).temperature == 300.0
    assert hotter(made).temperature == 400.0
    with pytest.raises(ValueError, match="VerletIntegrator has no temperature"):
        hotter(engine(integrator=openmm.VerletIntegrator(0.002)))


@pytest.mark.parametrize("parameter, per_kelvin", [("kBT", R), ("k_BT", R / 4.184), ("temperature", 1.0)])
def test_custom_forces_with_the_temperature_of_the_engine(parameter, per_kelvin):
    """kT as value of the parameter, U = kT x^2: U / kT is the same at all temperatures."""
    made = engine(custom_force(parameter, 300.0 * per_kelvin))
    hot, cold = hotter(made), adapter_of(made)
    assert hot.engine.simulation.context.getParameter(parameter) == pytest.approx(400.0 * per_kelvin)
    assert hot.energy_depends_on_temperature and not hotter(engine(custom_force("stiffness"))).energy_depends_on_temperature
    frame = frame_of(made, [[0.7, 0, 0], [0, 0, 0]])
    assert cold.ensemble_energy(frame) == pytest.approx(300.0 * per_kelvin * 0.49)
    expected = cold.inverse_temperature * cold.ensemble_energy(frame)
    assert hot.inverse_temperature * hot.ensemble_energy(frame) == pytest.approx(expected)


def test_energies_in_exchanges_are_those_of_each_replica():
    made = engine(custom_force("kBT", 300.0 * R))
    made.initialize("Reference")
    frames = [frame_of(made, [[x, 0, 0], [0, 0, 0]]) for x in (0.1, 0.9)]
    mover = configuration_mover(scheme(made, exchange_temperatures=[400.0]), frames[0])
    found = [mover._configuration(k, frame, mover.learner.version) for k, frame in enumerate(frames)]
    densities = mover._log_densities(found)
    np.testing.assert_allclose(densities[0] - densities[0, 0], densities[1] - densities[1, 0], atol=1e-6)
    np.testing.assert_allclose(densities[0, 1] - densities[0, 0], -(0.81 - 0.01))


@pytest.mark.parametrize(
    "force, match",
    [
        (custom_force("kT"), "CustomExternalForce with the parameter 'kT'"),
        (custom_force("temperature", 310.0), "CustomExternalForce with the parameter 'temperature'"),
        (openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 2, 2), 300.0), "pressures that differ from axis to axis"),
        (openmm.RPMDMonteCarloBarostat(1.0), "RPMDMonteCarloBarostat"),
    ],
)
def test_what_is_not_known_at_other_temperatures_is_refused(force, match):
    made = engine(force)
    with pytest.raises(ValueError, match=match):
        check_rising(made, [400.0])
    with pytest.raises(ValueError, match=match):
        adapter_of(made).at_temperature(400.0)
    check_rising(made, [])  # configurations at the temperature of the paths need no other engine
    with pytest.raises(ValueError, match=match):
        scheme(made, exchange_temperatures=[400.0]).move_decision_tree()
    assert scheme(made, exchange_temperatures=[]).move_decision_tree()


def test_axes_that_are_not_scaled_have_no_pressure():
    check_rising(engine(openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 2, 2), 300.0, False, True, True)), [400.0])


def test_several_thermostats_are_refused():
    integrator = openmm.NoseHooverIntegrator(0.002)
    for atom in range(2):
        integrator.addSubsystemThermostat([atom], [], 300.0 + atom, 1.0, 300.0, 1.0)
    with pytest.raises(ValueError, match="NoseHooverIntegrator with several thermostats"):
        check_rising(engine(integrator=integrator), [400.0])
    check_rising(engine(integrator=openmm.NoseHooverIntegrator(300.0, 1.0, 0.002)), [400.0])


def test_several_barostats_are_refused():
    made = engine(thermal_force("MonteCarloBarostat"))
    made.system.addForce(thermal_force("MonteCarloBarostat"))
    with pytest.raises(ValueError, match="several barostats"):
        check_rising(made, [400.0])


def test_without_such_a_force_replicas_get_their_temperature():
    made = engine(custom_force("stiffness"))
    assert hotter(made).temperature == pytest.approx(400.0)
    assert scheme(made, exchange_temperatures=[400.0]).move_decision_tree()


def test_parameters_of_the_running_context_are_kept():
    made = engine(custom_force("stiffness"))
    made.initialize("Reference")
    made.simulation.context.setParameter("stiffness", 7.0)
    assert hotter(made).engine.simulation.context.getParameter("stiffness") == 7.0


BAR = 0.0602214076
"""1 bar nm^3 in kJ/mol, from Avogadro's number."""


@pytest.mark.parametrize(
    "force, work",
    [
        (None, 0.0),
        (openmm.MonteCarloBarostat(60.0, 300.0), 60 * 24),
        (openmm.MonteCarloFlexibleBarostat(60.0, 300.0), 60 * 24),
        (openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(5, 60, 60), 300.0, False, True, True), 60 * 24),
        (openmm.MonteCarloMembraneBarostat(60.0, 11.0, 300.0, 0, 0), 60 * 24 - 11 * 2 * 3),
    ],
)
def test_energy_at_constant_pressure(force, work):
    """U + PV - (surface tension) A for the box of each frame, 2 x 3 x 4 nm."""
    made = engine(force)
    hot = hotter(made)
    for scale in (1.0, 2.0):
        frame = frame_of(made, np.zeros((2, 3)), np.diag([2.0, 3.0, 4.0 * scale]))
        surface = 11 * 6 if work == 60 * 24 - 66 else 0
        assert hot.ensemble_energy(frame) == pytest.approx(((work + surface) * scale - surface) * BAR)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("temperature, differs", [(300.0, False), (310.0, True)])
def test_a_warning_where_temperatures_differ(name, temperature, differs):
    made = scheme(engine(thermal_force(name, temperature)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.move_decision_tree()
    said = [str(warning.message) for warning in caught if "is at 310 K, its integrator at 300 K" in str(warning.message)]
    assert len(said) == differs


# ---- the ensemble of volumes ----------------------------------------------------------------------------------------

TEMPERATURES = (300.0, 600.0, 1200.0)
STIFFNESS, VOLUME, N_ATOMS, PRESSURE = 1.5, 10.0, 8, 60.0
N_MOVES = 2000


def exact_volume(temperature):
    """Mean and variance of the volume (nm^3) of free particles with the energy U(V) at constant pressure, by quadrature."""
    volume = np.linspace(1e-3, 80.0, 80001)
    energy = 0.5 * STIFFNESS * (volume - VOLUME) ** 2 + PRESSURE * BAR * volume
    log_weight = N_ATOMS * np.log(volume) - energy / (R * temperature)
    weight = np.exp(log_weight - log_weight.max())
    mean = np.average(volume, weights=weight)
    return mean, np.average((volume - mean) ** 2, weights=weight)


def gas():
    """Engine and first frame of the system with these volumes."""
    made = engine(openmm.CustomVolumeForce(f"0.5*{STIFFNESS}*(v-{VOLUME})^2"), n_atoms=N_ATOMS, n_steps_per_frame=20)
    made.system.addForce(openmm.MonteCarloBarostat(PRESSURE, TEMPERATURES[0], 1))
    edge = VOLUME ** (1 / 3) * np.eye(3)
    made.system.setDefaultPeriodicBoxVectors(*edge)
    made.initialize("Reference")
    return made, frame_of(made, np.random.default_rng(1).random((N_ATOMS, 3)), edge)


def uncorrected(monkeypatch):
    """The barostat keeps its temperature, and exchanges go by U, as they once did."""
    monkeypatch.setattr("ops_aimmd.engines.openmm_adapter.set_temperature", lambda system, old, new: None)
    monkeypatch.setattr("ops_aimmd.engines.openmm_adapter.work_of_barostat", lambda context: 0.0)


def volumes(n_moves):
    """Volumes of each replica of configurations (n_moves, 3)."""
    made, frame = gas()
    mover = configuration_mover(scheme(made, exchange_temperatures=list(TEMPERATURES[1:])), frame)
    mover.n_pieces, mover.frames_per_piece = 1, 2
    path = paths.Sample(0, paths.Trajectory([frame]), mover.ensemble)
    samples = [path, *(paths.Sample(k, paths.Trajectory([frame]), e) for k, e in enumerate(mover.replicas, 1))]
    seed_generators((1,), mover.engines)
    for k, made in enumerate(mover.engines):
        adapter_of(made).forget_history(frame, [k])  # seeds the barostat
    found = []
    for _ in range(n_moves):
        samples[1:] = mover(*samples)[0]
        boxes = boxes_of([sample.trajectory[0] for sample in samples[1:]])
        found.append(np.linalg.det(boxes))
    return np.array(found)[n_moves // 20 :]


def test_exact_volumes():
    """The figures of the set-up in which the fault was found."""
    np.testing.assert_allclose([exact_volume(T)[0] for T in TEMPERATURES], [9.082, 10.255, 12.132], atol=1e-3)
    assert exact_volume(300.0)[1] == pytest.approx(1.422, abs=1e-3)


def block_score(sample, exact):
    """(measured - exact) / standard error of a mean, and the standard error, by 20 blocks."""
    blocks = np.array([block.mean() for block in np.array_split(sample, 20)])
    error = blocks.std(ddof=1) / np.sqrt(20)
    return (sample.mean() - exact) / error, error


def scores(found):
    """Scores of mean and variance at each temperature (3, 2), and the standard errors."""
    values = []
    for column, temperature in zip(found.T, TEMPERATURES, strict=True):
        mean, variance = exact_volume(temperature)
        values.append([block_score(column, mean), block_score((column - mean) ** 2, variance)])
    return np.moveaxis(values, 2, 0)


@pytest.mark.slow
def test_volumes_at_all_temperatures(monkeypatch):
    """Standard errors of at most 0.04 nm^3 at 300 K, as those with which the fault was found."""
    z, errors = scores(volumes(N_MOVES))
    assert errors[0, 0] < 0.04
    assert np.abs(z).max() < 3.0, z
    uncorrected(monkeypatch)
    z, _ = scores(volumes(N_MOVES))
    assert abs(z[0, 0]) > 4 and (np.abs(z[1:, 0]) > 10).all(), z


def test_volumes_at_the_highest_temperature(monkeypatch):
    """One replica without exchanges, in little time."""

    def score():
        made, frame = gas()
        hot = adapter_of(made).at_temperature(TEMPERATURES[-1])
        seed_generators((1,), [hot.engine])
        hot.forget_history(frame, [1])  # seeds the barostat
        leg = generate(hot.engine, frame, lambda trajectory, trusted=None: len(trajectory) < 500)
        return block_score(np.linalg.det(boxes_of(leg[50:])), exact_volume(TEMPERATURES[-1])[0])

    z, error = score()
    assert error < 0.3 and abs(z) < 4.0  # Student's t with 19 degrees of freedom: 0.08 %
    uncorrected(monkeypatch)
    z, _ = score()
    assert z < -6
