"""Barostats and thermostats beside the integrator."""

import warnings

import mdtraj
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines.topology import MDTrajTopology

from ops_aimmd import CommittorLearner, CommittorShootingScheme
from ops_aimmd.distributed import worker
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.sampling.tempered_engines import check_rising, engine_at, temperature_of
from ops_aimmd.sampling.thermal_forces import THERMAL_FORCES, thermal_forces


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


def custom_force(parameter):
    force = openmm.CustomExternalForce(f"{parameter}*x^2")
    force.addGlobalParameter(parameter, 2.5)
    return force


def engine(force=None):
    """Two particles at 300 K."""
    system = openmm.System()
    for _ in range(2):
        system.addParticle(10.0)
    if force is not None:
        system.addForce(force)
    topology = mdtraj.Topology()
    residue = topology.add_residue("C2", topology.add_chain())
    for name in ("C1", "C2"):
        topology.add_atom(name, mdtraj.element.carbon, residue)
    integrator = baoab_integrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    return paths.engines.openmm.Engine(MDTrajTopology(topology), system, integrator, options={"n_frames_max": 100})


def scheme(of_engine, **options):
    x = paths.FunctionCV("x", lambda snapshot: snapshot.xyz[0, 0])
    states = [paths.CVDefinedVolume(x, *limits).named(name) for name, *limits in (("A", -9, -1), ("B", 1, 9))]
    learner = CommittorLearner(x, states, seed=1)
    return CommittorShootingScheme(paths.TPSNetwork(*states), learner, of_engine, **options)


KNOWN = sorted(THERMAL_FORCES - {"RPMDMonteCarloBarostat"})


@pytest.mark.parametrize("name", KNOWN)
def test_replicas_at_other_temperatures_are_refused(name):
    made = engine(thermal_force(name))
    with pytest.raises(ValueError, match=f"has {name}: the replicas would keep the temperature"):
        check_rising(made, [400.0])
    check_rising(made, [])  # configurations at the temperature of the paths need no other engine
    with pytest.raises(ValueError, match=name):
        scheme(made, exchange_temperatures=[400.0]).move_decision_tree()
    assert scheme(made, exchange_temperatures=[]).move_decision_tree()


def test_without_such_a_force_replicas_get_their_temperature():
    made = engine(custom_force("stiffness"))
    made.initialize("Reference")
    check_rising(made, [400.0])
    assert temperature_of(engine_at(made, 400.0)) == pytest.approx(400.0)
    assert scheme(made, exchange_temperatures=[400.0]).move_decision_tree()


@pytest.mark.parametrize("parameter", ["kT", "kBT", "temperature"])
def test_custom_forces_with_a_temperature_by_name(parameter):
    with pytest.raises(ValueError, match=f"CustomExternalForce with the parameter '{parameter}'"):
        check_rising(engine(custom_force(parameter)), [400.0])


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("temperature, differs", [(300.0, False), (310.0, True)])
def test_a_warning_where_temperatures_differ(name, temperature, differs):
    made = scheme(engine(thermal_force(name, temperature)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.move_decision_tree()
    said = [str(warning.message) for warning in caught if "is at 310 K, its integrator at 300 K" in str(warning.message)]
    assert len(said) == differs


def test_there_is_one_list_of_these_forces():
    """Workers seed the generators of the same forces."""
    assert worker.thermal_forces is thermal_forces
    made = engine(thermal_force("MonteCarloBarostat"))
    assert [type(force).__name__ for force in thermal_forces(made.system)] == ["MonteCarloBarostat"]
    assert thermal_forces(engine().system) == []
