"""A seed fixes the whole run; seeding OpenMM changes nothing but its random numbers."""

import random

import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from sampling_support import QUICK_WITH_FRAMES, Chain, simulation

from ops_aimmd import CommittorLearner, CommittorShootingScheme, TrainingHook, load_learner
from ops_aimmd.shooting.streams import StepSeeds, frames_key, seed_step
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def run(system, initial, seed, n_steps, shooting="two-way"):
    """Paths and outcomes of a run; the generators are in any state before."""
    learner = CommittorLearner(system.descriptors, system.states, seed=seed, fit_options=QUICK_WITH_FRAMES)
    scheme = CommittorShootingScheme(system.network(), learner, engine=system.engine, shooting=shooting)
    sampler, steps = simulation(scheme, initial, TrainingHook(learner))
    sampler.run(n_steps)
    trials = [np.array(system.descriptors(step.change.canonical.trials[0].trajectory)) for step in steps]
    return trials, learner


def equal(one, other):
    trials, learner = one
    other_trials, other_learner = other
    x = learner.training_set.descriptors
    return (
        len(trials) == len(other_trials)
        and all(np.array_equal(a, b) for a, b in zip(trials, other_trials, strict=True))
        and np.array_equal(x, other_learner.training_set.descriptors)
        and learner.version.number == other_learner.version.number
        and np.array_equal(learner.model.committor(x), other_learner.model.committor(x))
    )


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_same_seed_same_run_on_a_toy(shooting):
    system = toy.two_gaussian_wells(dynamics="langevin")
    initial = system.initial_trajectory(1)
    first = run(system, initial, 5, 4, shooting)
    np.random.random()  # noqa: NPY002 - a disturbance between the runs
    random.random()
    assert equal(first, run(system, initial, 5, 4, shooting))
    assert not equal(first, run(system, initial, 6, 4, shooting))


def test_same_seed_same_run_with_openmm():
    system = alanine_dipeptide()
    initial = system.initial_trajectory(4)  # found in a second
    first = run(system, initial, 5, 3)
    system.engine.simulation.step(3)
    system.engine._changed()
    assert equal(first, run(system, initial, 5, 3))
    assert not equal(first, run(system, initial, 6, 3))


def numbers_of(steps):
    """What identifies the random numbers of each step."""
    return [step.change.canonical.details.seed for step in steps]


def noise(chain, learner, sites, n_steps=8):
    """Random numbers of a run from a path."""
    sampler, steps = simulation(chain.scheme(learner), chain.path(sites), TrainingHook(learner))
    sampler.run(n_steps)
    return numbers_of(steps)


def test_another_first_path_has_another_noise(monkeypatch):
    chain = Chain()
    one, other = list(range(7)), [0, 1, 2, 1, 2, 3, 4, 5, 6]
    first = noise(chain, chain.learner(seed=3), one)
    assert first == noise(chain, chain.learner(seed=3), one)  # the same script is the same run
    assert not set(first) & set(noise(chain, chain.learner(seed=3), other))
    assert not set(first) & set(noise(chain, chain.learner(seed=4), one))
    # the control: with the random numbers of version 0.1.0, which belong to seed and step alone, the noise is shared
    monkeypatch.setattr("ops_aimmd.sampling.step_learning.simulation_key", lambda samples, n_before: None)
    assert noise(chain, chain.learner(seed=3), one) == noise(chain, chain.learner(seed=3), other)


def test_each_simulation_of_one_learner_has_its_own_noise():
    chain = Chain()
    learner = chain.learner(seed=3)
    first, second = noise(chain, learner, range(7)), noise(chain, learner, range(7))
    assert not set(first) & set(second)
    assert learner.simulations.n_begun == 2
    sampler, steps = simulation(chain.scheme(learner), chain.path(range(7)), TrainingHook(learner))
    sampler.run(3)
    sampler.run(3)  # goes on with the same simulation
    assert learner.simulations.n_begun == 3
    assert len(set(numbers_of(steps))) == 6


def test_a_learner_from_a_checkpoint_goes_on_counting(tmp_path):
    chain = Chain()
    learner = CommittorLearner([chain.site], chain.states, seed=3)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, tmp_path / "run.aimmd"))
    sampler.run(5)
    again = load_learner(tmp_path / "run.aimmd", [chain.site], chain.states)
    assert again.simulations.n_begun == 1
    assert not set(numbers_of(steps)) & set(noise(chain, again, range(7), 5))


def test_velocities_and_all_digits_of_coordinates_belong_to_the_key():
    system = toy.wolfe_quapp(dynamics="langevin")
    frame = system.initial_trajectory(1)[3]
    keys = {
        frames_key(
            [frame.copy_with_replacement(coordinates=frame.coordinates * (1 + dx), velocities=frame.velocities + dv)]
        )
        for dx in (0, 1e-15, 0.1)
        for dv in (0, 1e-12)
    }
    assert len(keys) == 6
    assert frames_key([frame]) == frames_key([frame]) != frames_key([frame], 1)


def test_shots_of_chains_have_random_numbers_of_their_own():
    seeds = StepSeeds(3, 2**63 + 5)
    entropies = [seeds.of_step(step) for step in (1, 2)]
    entropies += [seeds.of_chain(chain, step) for chain in (1, 2) for step in (1, 2)]
    entropies += [seeds.of_shot(chain, step, shot) for chain in (0, 1) for step in (1, 2) for shot in (0, 1)]
    states = {tuple(np.random.SeedSequence(entropy).generate_state(4)) for entropy in entropies}
    assert len(states) == len(entropies)
    padded = [np.random.SeedSequence(entropy).generate_state(4).tolist() for entropy in ((3, 1, 2), (3, 1, 2, 0))]
    assert padded[0] == padded[1]  # the control: why the number of a shot does not begin at zero


def test_without_a_seed_the_generators_are_left_alone():
    chain = Chain()
    learner = chain.learner(seed=None)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), hook := TrainingHook(learner))
    sampler.run(1)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    hook.before_step(sampler, 2, (0, 1), None)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert learner.simulations.step_seed is None


def draws():
    numpy_draw = np.random.random()  # noqa: NPY002
    return numpy_draw, random.random(), paths.default_rng().random()


def test_a_step_has_its_own_random_numbers():
    seed_step(1, 10)
    first = draws()
    seed_step(1, 11)
    second = draws()
    seed_step(2, 10)
    third = draws()
    assert len({*first, *second, *third}) == 9
    assert seed_step(1, 10) != seed_step(1, 11)
    seed_step(1, 10)
    assert draws() == first


# ---- OpenMM ---------------------------------------------------------------------------------------------------------


def positions_after_steps(engine, start, n_steps=5):
    context = engine.simulation.context
    context.setPositions(start)
    context.setVelocities(np.zeros_like(start))
    return lambda: (
        engine.simulation.step(n_steps),
        context.getState(positions=True).getPositions(asNumpy=True)._value.copy(),
    )[1]


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_openmm_is_seeded_on_every_platform(platform):
    system = alanine_dipeptide(platform=platform)
    results = []
    for seed in (3, 3, 4):
        move = positions_after_steps(system.engine, system.positions)
        seed_step(seed, 1, [system.engine])
        results.append(move())
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    move = positions_after_steps(system.engine, system.positions)  # control: without seeding
    assert not np.array_equal(move(), results[2])


def test_on_the_reference_platform_the_quick_way_gives_the_numbers_of_a_new_context():
    system = alanine_dipeptide()
    engine = system.engine
    move = positions_after_steps(engine, system.positions)
    seed_step(3, 1, [engine])
    quick = move()
    engine.simulation.context.reinitialize()  # the integrator keeps the seed
    assert np.array_equal(positions_after_steps(engine, system.positions)(), quick)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_seeding_changes_nothing_else(platform):
    """Positions, velocities, box, parameters and time of the context, and the frame that the engine remembers."""
    system = alanine_dipeptide(platform=platform)
    force = openmm.CustomExternalForce("0 * strength * x")
    force.addGlobalParameter("strength", 1.0)
    force.addParticle(0, [])
    system.engine.system.addForce(force)
    engine = type(system.engine).from_dict(system.engine.to_dict())
    engine.initialize(platform)
    context = engine.simulation.context
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    context.setParameter("strength", 2.5)
    context.setPeriodicBoxVectors([3, 0, 0], [0, 4, 0], [0, 0, 5])
    engine.simulation.step(7)
    engine._changed()
    frame = engine.current_snapshot

    def content():
        state = context.getState(positions=True, velocities=True, parameters=True)
        return [
            state.getPositions(asNumpy=True)._value.tolist(),
            state.getVelocities(asNumpy=True)._value.tolist(),
            state.getPeriodicBoxVectors(asNumpy=True)._value.tolist(),
            dict(state.getParameters()),
            state.getTime()._value,
            engine.simulation.currentStep,
        ]

    before = content()
    seed_step(9, 1, [engine])
    assert content() == before
    assert engine.current_snapshot is frame
    assert np.array_equal(frame.coordinates._value, content()[0])


def test_a_deterministic_integrator_needs_no_seed():
    system = alanine_dipeptide()
    dct = system.engine.to_dict()
    dct["integrator_xml"] = openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001))
    engine = type(system.engine).from_dict(dct)
    engine.initialize("Reference")
    seed_step(1, 1, [engine])
