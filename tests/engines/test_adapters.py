"""Every adapter passes the checker, and each check finds an adapter that is wrong."""

import dataclasses

import numpy as np
import openmm
import openpathsampling as paths
import pytest
from engine_checker import (
    CHECKS,
    Case,
    check_another_temperature,
    check_kinetic_energy,
    check_reversibility,
    check_round_trip,
    check_seeds,
    check_stop_in_the_middle,
)
from openmm import unit

from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.choose import ADAPTERS, adapter_of
from ops_aimmd.engines.frames import without_unit
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.engines.openmm_adapter import OpenMMAdapter
from ops_aimmd.engines.toy_adapter import ToyAdapter
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.toy import two_gaussian_wells

ENGINES = ("toy", "OpenMM")


def toy_case():
    system = two_gaussian_wells()
    engine = system.engine
    integrator = paths.engines.toy.LangevinBAOABIntegrator(engine.integ.dt, engine.integ.temperature, 1e-9)
    frictionless = paths.engines.toy.Engine({**engine.options, "integ": integrator}, engine.topology)
    frame = system.initial_trajectory(1)[3]
    return Case(
        adapter=adapter_of(engine),
        frictionless=adapter_of(frictionless),
        frame=frame,
        kinetic_energy=lambda snapshot: 0.5 * float((engine.mass * snapshot.velocities**2).sum()),
        n_dof=frame.velocities.size,
        stepper=engine.integ,
        hot=2.0 * engine.integ.temperature,
    )


def openmm_case(leaping=False):
    system = alanine_dipeptide(platform="Reference")
    engine = system.engine
    make = openmm.LangevinMiddleIntegrator if leaping else baoab_integrator
    frictionless = engine.from_new_options(integrator=make(300 * unit.kelvin, 0 / unit.picosecond, 2 * unit.femtosecond))
    frictionless.initialize("Reference")
    masses = np.array([without_unit(engine.system.getParticleMass(i)) for i in range(22)])[:, None]
    start = system.initial_trajectory(4)[3]  # found in a second
    return Case(
        adapter=adapter_of(engine),
        frictionless=adapter_of(frictionless),
        frame=start,
        kinetic_energy=lambda snapshot: 0.5 * float((masses * without_unit(snapshot.velocities) ** 2).sum()),
        n_dof=54,  # 22 atoms, 12 rigid bonds
        stepper=engine.simulation,
        hot=600.0,
    )


@pytest.fixture(scope="module")
def cases():
    return {"toy": toy_case(), "OpenMM": openmm_case()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_adapters_pass(cases, engine, check):
    check(cases[engine])


# ---- controls: each check fails for an adapter that is wrong in this respect alone ----------------------------------


def fails(check, case, adapter_class=None):
    """Whether a check finds a fault in a case, with another adapter of the same engine."""
    if adapter_class is not None:
        case = dataclasses.replace(case, adapter=adapter_class(case.adapter.engine))
    try:
        check(case)
    except AssertionError:
        return True
    return False


class TooHot:
    def fresh_velocities(self, snapshot, temperature=None):
        return super().fresh_velocities(snapshot, 1.2 * self.temperature)


class Unmoved:
    def at_temperature(self, temperature):
        copied = super().at_temperature(self.temperature)
        copied.__class__ = type("Boasting", (type(copied),), {"temperature": property(lambda self: temperature)})
        return copied


class Rounding:
    def arrays_of(self, frame):
        return {name: np.float32(value) for name, value in super().arrays_of(frame).items()}


@pytest.mark.parametrize("kind", [ToyAdapter, OpenMMAdapter])
@pytest.mark.parametrize(
    "check, wrong",
    [(check_kinetic_energy, TooHot), (check_another_temperature, Unmoved), (check_round_trip, Rounding)],
)
def test_a_wrong_adapter_is_found(cases, kind, check, wrong):
    case = cases["toy" if kind is ToyAdapter else "OpenMM"]
    assert fails(check, case, type("Wrong", (wrong, kind), {}))


def test_an_engine_without_a_seed_is_found(cases):
    assert fails(check_seeds, cases["OpenMM"], type("Wrong", (OpenMMAdapter,), {"seed": lambda self, seed: None}))
    case = cases["toy"]  # its random numbers are numpy's; here is an engine with numbers of its own, too

    class Own(paths.engines.toy.LangevinBAOABIntegrator):
        def step(self, sys):
            super().step(sys)
            sys.velocities = sys.velocities + 1e-3 * rng.normal(size=2)

    rng = np.random.default_rng(1)
    integrator = Own(case.stepper.dt, case.stepper.temperature, case.stepper.gamma)
    engine = paths.engines.toy.Engine({**case.adapter.engine.options, "integ": integrator}, case.adapter.engine.topology)
    assert fails(check_seeds, dataclasses.replace(case, adapter=adapter_of(engine)))


def test_an_engine_that_remembers_its_frame_is_found(cases):
    nothing = {"forget_current_frame": lambda self: None, "forget_history": lambda self, start, seed: None}
    wrong = type("Wrong", (OpenMMAdapter,), nothing)
    kept = ADAPTERS[paths.engines.openmm.Engine]
    ADAPTERS[paths.engines.openmm.Engine] = wrong
    try:
        assert fails(check_stop_in_the_middle, cases["OpenMM"], wrong)
    finally:
        ADAPTERS[paths.engines.openmm.Engine] = kept
    assert not fails(check_stop_in_the_middle, cases["OpenMM"])


def test_an_engine_that_leaps_without_saying_so_is_found():
    case = openmm_case(leaping=True)
    assert "LangevinMiddleIntegrator" in case.frictionless.irreversible_because
    assert not fails(check_reversibility, case)
    silent = type("Wrong", (OpenMMAdapter,), {"irreversible_because": None})(case.frictionless.engine)
    assert fails(check_reversibility, dataclasses.replace(case, frictionless=silent))


# ---- choice ---------------------------------------------------------------------------------------------------------


def test_adapters_are_chosen_by_class(cases):
    class Mine(paths.engines.toy.Engine):
        """An engine of a user's own, of a known kind."""

    engine = cases["toy"].adapter.engine
    assert type(adapter_of(engine)) is ToyAdapter
    assert type(adapter_of(Mine(engine.options, engine.topology))) is ToyAdapter
    assert type(adapter_of(cases["OpenMM"].adapter.engine)) is OpenMMAdapter
    assert type(adapter_of(object())) is EngineAdapter
    ADAPTERS[Mine] = wrong = type("Other", (EngineAdapter,), {})
    try:
        assert type(adapter_of(Mine(engine.options, engine.topology))) is wrong
    finally:
        del ADAPTERS[Mine]


def test_unknown_engines_say_so():
    adapter = adapter_of(paths.engines.NoEngine(None))
    assert adapter.time_per_frame is None and adapter.platform is None and not adapter.has_inertia
    for ask in (
        lambda: adapter.temperature,
        lambda: adapter.inverse_temperature,
        lambda: adapter.at_temperature(2.0),
        lambda: adapter.potential_energy(None),
        lambda: adapter.fresh_velocities(None),
    ):
        with pytest.raises(ValueError, match="NoEngine"):
            ask()
