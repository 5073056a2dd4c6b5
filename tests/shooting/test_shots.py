"""Shots as data: what travels, what comes back, and that a shot is a function of its specification alone."""

import math
import pickle
import random
import threading

import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines.delayedinterrupt import DelayedInterrupt
from openpathsampling.engines.dynamics_engine import EngineError
from shots_support import BOTH, Alanine, Walk, run_all, run_here, same, specs

from ops_aimmd.checkpoint.documents import decode, encode
from ops_aimmd.shooting.engine_description import describe
from ops_aimmd.shooting.executors.choose import InThisProcess
from ops_aimmd.shooting.legs import run_legs
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec, legs_from_result, specification
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.shooting.worker import run_shot
from ops_aimmd.systems import toy


@pytest.fixture(scope="module")
def alanine():
    return Alanine()


def spec_of(system, snapshot=None, directions=BOTH, max_frames=None, seed=3):
    return specification("1/2", "key", system.point if snapshot is None else snapshot, directions, max_frames, seed)


def run(system, snapshot=None, directions=BOTH, max_frames=None, seed=3):
    """One shot in this process: its result, and its legs as the mover gets them."""
    start = system.point if snapshot is None else snapshot
    with InThisProcess() as executor:
        key = executor.start(system.engine, system.states)
        (result,) = run_all(executor, [specification("1/2", key, start, directions, max_frames, seed)]).values()
    return result, legs_from_result(result, start, system.engine)


@pytest.mark.parametrize("make", [Walk, Alanine])
def test_documents_come_back_as_they_were(make):
    system = make()
    spec = spec_of(system, max_frames=20)
    assert ShotSpec.from_document(decode(*encode(spec.to_document()))).digest == spec.digest
    assert ShotSpec.from_document(pickle.loads(pickle.dumps(spec)).to_document()).digest == spec.digest
    result, _ = run(system, max_frames=20)
    again = ShotResult.from_document(decode(*encode(result.to_document())))
    assert same(again, result) and again.worker == result.worker


def test_digest_covers_everything():
    spec = spec_of(Walk())
    changed = {
        "shot_id": "1/3",
        "engine_key": "other",
        "coordinates": spec.coordinates + 1e-15 * 20,
        "velocities": spec.velocities + 1.0,
        "box_vectors": np.eye(3),
        "directions": ["backward"],
        "max_frames": 7,
        "seed": 4,
        "with_units": True,
        "values": {"charge": 1},
        "last_frame_only": True,
    }
    document = spec.to_document()
    assert changed.keys() == document.keys()
    digests = {ShotSpec.from_document({**document, name: value}).digest for name, value in changed.items()}
    assert len(digests | {spec.digest}) == len(changed) + 1


@pytest.mark.parametrize("reverse", [False, True])
def test_start_keeps_its_velocities(reverse):
    """A shooting point may be the reversed partner of a stored frame."""
    system = toy.two_gaussian_wells()
    point = system.initial_trajectory(seed=1)[5].copy_with_replacement(velocities=np.array([[30.0, -20.0]]))
    point = point.reversed if reverse else point
    spec = spec_of(system, snapshot=point)
    np.testing.assert_array_equal(spec.velocities, point.velocities)
    _, legs = run(system, snapshot=point, max_frames=4)
    assert legs["forward"].trajectory[0] is point
    assert legs["backward"].trajectory[0] is point.reversed
    step = system.engine.integ.dt * system.engine.n_steps_per_frame
    for leg in legs.values():  # noise is small beside such velocities
        moved = leg.trajectory[1].coordinates - leg.trajectory[0].coordinates
        np.testing.assert_allclose(moved, leg.trajectory[0].velocities * step, rtol=0.1)


def test_legs_are_those_of_the_mover():
    """With the same seeds as in the worker, the engine in this process makes the same frames."""
    from ops_aimmd.shooting.streams import FIRST_STREAM

    system = Walk()
    _, legs = run(system, seed=11)
    for number, direction in enumerate(BOTH):
        seed_step(11, FIRST_STREAM + number)
        (expected,) = run_legs(system.engine, system.point, [direction], system.states, math.inf).values()
        leg = legs[direction]
        assert (leg.outcome, leg.failure) == (expected.outcome, expected.failure)
        np.testing.assert_array_equal(leg.trajectory.coordinates, expected.trajectory.coordinates)


@pytest.mark.parametrize("make", [Walk, Alanine])
def test_the_last_frame_alone(make):
    """The same shot, but the frames in between stay with the worker."""
    system = make()
    with InThisProcess() as executor:
        key = executor.start(system.engine, system.states)
        wanted = [specification(name, key, system.point, BOTH, 60, 3, name == "last") for name in ("all", "last")]
        results = run_all(executor, wanted)
    for whole, last in zip(results["all"].legs, results["last"].legs, strict=True):
        assert (last.outcome, last.status) == (whole.outcome, whole.status)
        assert len(whole.coordinates) > len(last.coordinates) == 1
        np.testing.assert_array_equal(last.coordinates, whole.coordinates[-1:])
        np.testing.assert_array_equal(last.velocities, whole.velocities[-1:])


def test_a_leg_does_not_depend_on_the_other_one():
    system = Walk()
    both, _ = run(system)
    for number, direction in enumerate(BOTH):
        alone, _ = run(system, directions=[direction])
        np.testing.assert_array_equal(alone.legs[0].coordinates, both.legs[number].coordinates)
    assert both.legs[0].coordinates.shape != both.legs[1].coordinates.shape


def test_frames_in_full_precision_with_units(alanine):
    result, legs = run(alanine, max_frames=5)
    backward = legs["backward"].trajectory
    assert len(backward) == 5 and legs["backward"].failure == "max_length"
    assert backward[3].coordinates.unit == unit.nanometer
    assert backward[3].velocities.unit == unit.nanometer / unit.picosecond
    np.testing.assert_array_equal(backward[3].xyz, result.legs[0].coordinates[2])
    assert backward[3].engine is alanine.engine
    assert (
        len({snapshot.__uuid__ for leg in legs.values() for snapshot in leg.trajectory}) == 10
    )  # the point, and its reversed


def test_generators_go_on_where_they_were(alanine):
    for system in (Walk(), alanine):
        seed_step(5, 6)
        expected = np.random.random(), random.random(), paths.default_rng().random()  # noqa: NPY002
        seed_step(5, 6)
        run(system, max_frames=3)
        assert (np.random.random(), random.random(), paths.default_rng().random()) == expected  # noqa: NPY002


def test_too_long_is_a_result():
    result, legs = run(Walk(), max_frames=6)
    assert [(leg.status, leg.outcome, len(leg.coordinates)) for leg in result.legs] == [("max_length", -1, 5)] * 2
    assert legs["forward"].failure == "max_length" and len(legs["forward"].trajectory) == 6
    system = Walk()
    system.engine.options["n_frames_max"] = 4  # the engine's own limit
    result, _ = run(system, max_frames=math.inf)
    assert [len(leg.coordinates) for leg in result.legs] == [3, 3]


def test_breaking_down_is_a_result(alanine):
    """And the shot after it is as if nothing had happened."""
    before, _ = run(alanine, max_frames=5)
    result, legs = run(
        alanine, snapshot=alanine.snapshot(1e12 * np.random.default_rng(2).normal(size=(22, 3))), max_frames=50
    )
    assert [leg.status for leg in result.legs] == ["nan", "nan"]
    assert legs["forward"].failure == "nan" and legs["forward"].outcome == -1
    assert same(run(alanine, max_frames=5)[0], before)
    system = toy.two_gaussian_wells()
    wild = system.initial_trajectory(seed=1)[5].copy_with_replacement(velocities=np.full((1, 2), 1e300))
    assert [leg.status for leg in run(system, snapshot=wild)[0].legs] == ["nan", "nan"]


def test_start_inside_a_state():
    system = Walk()
    system.point = system.engine.trajectory([0])[0]
    result, legs = run(system)
    assert [(leg.status, leg.outcome, len(leg.coordinates)) for leg in result.legs] == [("ok", 0, 0)] * 2
    assert len(legs["forward"].trajectory) == 1


def test_refused(alanine):
    class Odd(paths.BaseSnapshot):
        pass

    external = paths.engines.features.base.attach_features(
        [paths.engines.features.coordinates, paths.engines.features.velocities, paths.engines.features.engine]
    )(Odd)
    point = external(coordinates=["a file"], velocities=None, engine=None)
    point.__features__.variables.append("file")
    point.file = object()
    with pytest.raises(TypeError, match="coordinates, velocities, box vectors and plain values"):
        specification("1", "key", point, BOTH, None, 1)
    with pytest.raises(ValueError, match="directions"):
        spec_of(alanine, directions=("forward", "sideways"))
    with pytest.raises(ValueError, match="seed"):
        spec_of(alanine, seed=-1)


def openmm_integrators():
    from openmmtools.integrators import VVVRIntegrator

    parts = 300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond
    return {"this package": None, "openmmtools": VVVRIntegrator(*parts), "OpenMM": openmm.LangevinMiddleIntegrator(*parts)}


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("name", openmm_integrators())
def test_a_shot_does_not_depend_on_those_before(name, platform):
    """Neither in this process nor in a worker, whose engine is another one."""
    system = Alanine(platform, openmm_integrators()[name])
    (first,) = run_here(system, 1, max_frames=12).values()
    description = describe(system.engine, system.states)
    shots = specs(system, description.key, 3, max_frames=12)
    there = [run_shot(description, spec) for spec in (shots[2], shots[0], shots[1], shots[0])]
    here = run_here(system, 3, max_frames=12)
    assert same(first, here["shot/0"]) and same(first, there[1]) and same(first, there[3])
    assert same(here["shot/2"], there[0])
    assert not np.array_equal(there[0].legs[0].coordinates, first.legs[0].coordinates)  # another seed, another leg


def test_a_barostat_does_not_remember():
    """Its steps adapt, and its generator is seeded only while a context is made."""
    from openmmtools.testsystems import LennardJonesFluid

    fluid = LennardJonesFluid(nparticles=100)
    fluid.system.addForce(openmm.MonteCarloBarostat(100.0 * unit.bar, 100.0 * unit.kelvin, 2))
    system = Alanine()  # for the class of the topology
    import mdtraj

    topology = paths.engines.topology.MDTrajTopology(mdtraj.Topology.from_openmm(fluid.topology))
    integrator = openmm.LangevinMiddleIntegrator(100 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    system.engine = paths.engines.openmm.Engine(topology, fluid.system, integrator, options={"n_steps_per_frame": 10})
    system.engine.initialize("Reference")
    system.states = [paths.EmptyVolume(), paths.EmptyVolume()]
    system.point = paths.engines.openmm.Snapshot.construct(
        coordinates=fluid.positions.in_units_of(unit.nanometer),
        velocities=np.zeros((100, 3)) * unit.nanometer / unit.picosecond,
        box_vectors=unit.Quantity(
            np.diag([fluid.system.getDefaultPeriodicBoxVectors()[i][i]._value for i in range(3)]), unit.nanometer
        ),
        engine=system.engine,
    )
    first, again = run_here(system, 2, max_frames=6), run_here(system, 2, max_frames=6)
    boxes = first["shot/0"].legs[0].box_vectors
    assert boxes.shape == (5, 3, 3) and len(np.unique(boxes[:, 0, 0])) > 1  # the barostat did something
    assert all(same(first[name], again[name]) for name in first)
    assert not np.array_equal(first["shot/1"].legs[0].box_vectors, boxes)


# the traps of engines in other threads and processes


def in_thread(function):
    """What a function returns or raises in a thread."""
    caught = []

    def call():
        try:
            caught.append(function())
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return caught[0]


def test_engines_run_in_threads():
    """OPS installs a handler of Ctrl-C at each frame, which only a main thread may."""
    system = Walk()
    description = describe(system.engine, system.states)
    (spec,) = specs(system, description.key, 1)
    outcome = in_thread(lambda: run_shot(description, spec))
    assert isinstance(outcome, ShotResult)
    system.engine.interrupter = DelayedInterrupt  # as engines of OPS have it
    control = in_thread(lambda: system.engine.generate(system.point, [lambda trajectory, trusted: len(trajectory) < 5]))
    assert isinstance(control, ValueError) and "main thread" in str(control)


def test_new_seeds_need_a_new_context(alanine):
    """`reinitialize(preserveState=True)` brings the old generator back: it may not be what makes shots reproducible."""
    system = Alanine("CPU")
    context = system.engine.simulation.context

    def positions(preserve, seed):
        context.getIntegrator().setRandomNumberSeed(seed)
        context.reinitialize(preserveState=preserve)
        context.setPositions(system.system.positions)
        context.setVelocities(np.zeros((22, 3)))
        context.getIntegrator().step(2)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    assert np.array_equal(positions(False, 5), positions(False, 5))
    assert not np.array_equal(positions(True, 5), positions(True, 5))
    results = run_here(system, 1, max_frames=5), run_here(system, 1, max_frames=5)
    assert same(results[0]["shot/0"], results[1]["shot/0"])


def test_errors_of_engines_stay_where_they_are():
    """They need not unpickle (dask changes how); a worker that raises one would be taken for a broken one."""
    system = Walk(site=raising_site)
    description = describe(system.engine, system.states)
    (spec,) = specs(system, description.key, 1)
    with pytest.raises(RuntimeError, match="EngineError: not from the engine") as caught:
        run_shot(description, spec)
    assert "raising_site" in str(pickle.loads(pickle.dumps(caught.value)))
    with InThisProcess() as executor:
        executor.start(system.engine, system.states)
        (failure,) = run_all(executor, [spec]).values()
    assert isinstance(failure, ShotFailure) and failure.kind == "error" and "raising_site" in failure.error


def raising_site(snapshot):
    raise EngineError("not from the engine", None)
