"""Engines and states that travel: what arrives is what was sent, and its key tells whether it is the same."""

import os
import pickle
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines import toy as ops_toy
from openpathsampling.engines.delayedinterrupt import EmptyContext
from shots_support import Alanine, Walk, run_here, site_of

from ops_aimmd.shooting.engine_description import EngineDescription, describe, engine_key, prepared_engine
from ops_aimmd.systems import toy
from ops_aimmd.systems.dihedrals import DihedralAngleCV, PeriodicDistanceCV


@pytest.fixture(scope="module")
def alanine():
    return Alanine()


def travelled(engine, *states):
    description = describe(engine, states)
    return prepared_engine(pickle.loads(pickle.dumps(description)))


def collective_variables(alanine):
    """Collective variables of each kind."""
    topology = alanine.engine.topology
    atoms = [4, 6, 8, 14]

    def from_here(snapshot, first):
        return np.linalg.norm(snapshot.xyz[first] - snapshot.xyz[atoms[-1]])

    return {
        "DescriptorCV": alanine.system.descriptors,
        "batched": DihedralAngleCV("two angles", [atoms, [6, 8, 14, 16]]),
        "nested": PeriodicDistanceCV("distance", alanine.system.phi_psi, [10.0, 20.0]),
        "function of this test": paths.FunctionCV("f", from_here, first=2),
        "lambda": paths.CoordinateFunctionCV("g", lambda snapshot: float(snapshot.xyz[3, 0])),
        "mdtraj": paths.MDTrajFunctionCV("phi", mdtraj.compute_dihedrals, topology, indices=[atoms]),
        "volume": paths.InVolumeCV("in A", alanine.states[0]),
    }


KINDS = ["DescriptorCV", "batched", "nested", "function of this test", "lambda", "mdtraj", "volume"]


@pytest.mark.parametrize("kind", KINDS)
def test_collective_variables_travel(alanine, kind):
    cv = collective_variables(alanine)[kind]
    prepared = travelled(alanine.engine, paths.CVDefinedVolume(cv, 0.0, 0.5).named("a state"))
    (state,) = prepared.states
    there = state.collectivevariable
    assert there is not cv and type(there) is type(cv) and there.name == cv.name
    assert state.name == "a state" and (state.lambda_min, state.lambda_max) == (0.0, 0.5)
    for seed in range(3):
        snapshot = alanine.snapshot(np.random.default_rng(seed).normal(size=(22, 3)))
        np.testing.assert_array_equal(there(snapshot), cv(snapshot))


def test_toy_engine_and_combined_states_travel():
    system = toy.two_gaussian_wells(n_bath=2)
    A, B = system.states
    prepared = travelled(system.engine, A | B, A & ~B)
    assert prepared.engine is not system.engine and prepared.engine.__uuid__ == system.engine.__uuid__
    assert prepared.engine.options["n_frames_max"] == system.engine.options["n_frames_max"]
    union, rest = prepared.states
    assert union.volume1 is rest.volume1  # A is one object there as it is here
    assert union.volume1.__uuid__ == A.__uuid__ and union.volume1.name == A.name
    for snapshot in system.initial_trajectory(seed=1):
        assert union(snapshot) == (A | B)(snapshot) and rest(snapshot) == (A & ~B)(snapshot)
    assert prepared.engine.interrupter is EmptyContext


def test_built_once_in_a_process():
    system = toy.two_gaussian_wells()
    first, second = describe(system.engine, system.states), describe(system.engine, system.states)
    assert prepared_engine(first) is prepared_engine(second)
    assert prepared_engine(describe(system.engine, system.states[:1])) is not prepared_engine(first)


def test_platform_and_properties_travel():
    alanine = Alanine("CPU")
    alanine.engine.openmm_properties["Threads"] = "1"
    prepared = travelled(alanine.engine, *alanine.states)
    assert prepared.engine.platform == "CPU" and prepared.engine.openmm_properties == {"Threads": "1"}
    with pytest.raises(TypeError):  # control: why it is described at all
        pickle.dumps(alanine.engine)


def test_what_cannot_travel_is_named(alanine):
    lock = threading.Lock()
    cv = paths.FunctionCV("guarded", lambda snapshot: lock.locked())
    volume = paths.CVDefinedVolume(cv, 0.5, 1.5)
    with pytest.raises(TypeError, match="FunctionCV 'guarded' cannot travel.*executor=None"):
        describe(alanine.engine, [alanine.states[0], volume])


class HalfAnEngine(ops_toy.Engine):
    """Its from_dict makes another class, as that of OPS's OpenMM engine does for each subclass."""

    @classmethod
    def from_dict(cls, dct):
        return ops_toy.Engine(**dct)


def test_a_worker_builds_what_was_described():
    system = toy.two_gaussian_wells()
    engine = HalfAnEngine(dict(system.engine.options), system.engine.topology)
    with pytest.raises(TypeError, match="HalfAnEngine.from_dict makes a ToyEngine"):
        travelled(engine, *system.states)


def test_missing_module_is_named(monkeypatch):
    module = type(sys)("only_here")
    exec("def site(snapshot):\n    return 0.0\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    system = Walk(site=module.site)
    description = describe(system.engine, system.states)
    monkeypatch.delitem(sys.modules, "only_here")
    with pytest.raises(RuntimeError, match="cannot import 'only_here'.*PYTHONPATH"):
        prepared_engine(description)


CENTRE = 1.0


def around(snapshot):
    return snapshot.coordinates[0, 0] - CENTRE


def test_key_tells_what_the_dynamics_depend_on(monkeypatch, alanine):
    def key(limit=5000, upper=0.5, function=site_of, temperature=None, **options):
        system = Walk(site=function, **options)
        system.engine.options["n_frames_max"] = limit
        return engine_key(system.engine, [paths.CVDefinedVolume(system.states[0].collectivevariable, -0.5, upper)])

    script = {"np": np, "CENTRE": 1.0, "__name__": "__main__"}
    keys = [key(), key(limit=5001), key(upper=0.6), key(cv_time_reversible=True), key(function=around)]
    for text in ("snapshot.xyz[0, 0]", "snapshot.xyz[0, 0] - 1.0", "snapshot.xyz[0, 0] - CENTRE"):
        exec(f"def f(snapshot): return {text}", script)
        keys.append(key(function=script["f"]))
    script["CENTRE"] = 2.0
    keys.append(key(function=script["f"]))
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]  # another engine and other states, set up alike
    keys = [
        engine_key(system.engine, system.states)
        for system in (toy.two_gaussian_wells(), toy.two_gaussian_wells(temperature=0.2), toy.two_gaussian_wells(n_bath=1))
    ]
    assert len(set(keys)) == 3


def test_key_of_openmm_engines(alanine):
    key = engine_key(alanine.engine, alanine.states)
    assert engine_key(Alanine().engine, alanine.states) == key
    assert engine_key(Alanine("CPU").engine, alanine.states) != key
    warm = Alanine()
    warm.engine.simulation.integrator.setGlobalVariableByName("kT", 3.0)
    assert engine_key(warm.engine, alanine.states) != key
    prepared = prepared_engine(describe(alanine.engine, alanine.states))
    assert engine_key(prepared.engine, prepared.states) == key


def test_key_outlasts_shots():
    """Seeds, and what an integrator computes, are in the XML of OpenMM."""
    from openmmtools.integrators import VVVRIntegrator

    integrator = VVVRIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    for system in (Alanine(), Alanine(integrator=integrator)):
        key, before = engine_key(system.engine, system.states), system.engine.to_dict()["integrator_xml"]
        run_here(system, 1, max_frames=3)
        assert engine_key(system.engine, system.states) == key
        assert system.engine.to_dict()["integrator_xml"] != before  # control


KEY_SCRIPT = """
import numpy as np
import openpathsampling as paths
from ops_aimmd.shooting.engine_description import engine_key
from ops_aimmd.systems import toy

CENTRE = {"x": 0.1, "y": {3, 1, 2}}

def f(snapshot, weights):
    return np.dot(weights, snapshot.xyz[0]) - CENTRE["x"]

system = toy.two_gaussian_wells(n_bath=1)
cv = paths.FunctionCV("f", f, weights=np.array([1.0, 2.0, 3.0]))
key = engine_key(system.engine, [*system.states, paths.CVDefinedVolume(cv, 0, 1)])
print(key)
"""


def test_key_is_the_same_in_every_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KEY_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == runpy.run_path(str(script), run_name="__main__")["key"]


def test_key_after_a_file(tmp_path):
    """A run that is resumed finds its shots by the key of an engine and states that OPS has read from a file."""
    system = toy.two_gaussian_wells()
    states = [*system.states, paths.CVDefinedVolume(paths.FunctionCV("x", first_coordinate), 0.0, 1.0)]
    key = engine_key(system.engine, states)
    storage = paths.Storage(str(tmp_path / "file.nc"), "w", system.initial_trajectory(seed=1)[0])
    storage.save(system.engine)
    for state in states:
        storage.save(state)
    storage.close()
    storage = paths.Storage(str(tmp_path / "file.nc"), "r")
    again = [storage.volumes[state.__uuid__] for state in states]
    engine = storage.engines[system.engine.__uuid__]
    assert engine is not system.engine
    assert engine_key(engine, again) == key
    prepared = prepared_engine(EngineDescription("another key", describe(engine, again).payload))
    assert prepared.engine.__uuid__ == system.engine.__uuid__
    storage.close()


def first_coordinate(snapshot):
    return snapshot.xyz[0, 0]
