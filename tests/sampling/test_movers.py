"""The shooting move: legs that run to a state, what its details hold, failures of the engine, the length limit."""

import numpy as np
import openpathsampling as paths
import pytest
from sampling_support import BreakingEngine, Chain, breaking_chain, seed_everything, simulation

from ops_aimmd import CommittorSelector, TrainingHook
from ops_aimmd.sampling import OneWayShooting, ShootingMover
from ops_aimmd.shooting.legs import run_leg
from ops_aimmd.shooting.states import state_index
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.markov_chain import site_indices

DETAILS = {
    "model_version": int,
    "frozen": bool,
    "shooting_index": int,
    "predicted_committor": list,
    "leg_outcomes": list,
    "leg_lengths": list,
    "selection_probability_old": float,
    "selection_probability_new": (float, type(None)),
    "weight_sum_old": float,
    "weight_sum_new": (float, type(None)),
    "seed": int,
}


def assert_contract(details):
    """Every name of the contract with a plain python type: the stores turn numpy scalars into nothing."""
    for name, kind in DETAILS.items():
        value = getattr(details, name)
        assert isinstance(value, kind) and type(value).__module__ == "builtins", (name, type(value))
    assert [type(n) for n in details.leg_outcomes + details.leg_lengths] == [int] * 4
    assert [type(p) for p in details.predicted_committor] == [float, float]
    assert np.isclose(sum(details.predicted_committor), 1.0)


def run_chain(n_steps, chain=None, seed=1, **options):
    chain = Chain() if chain is None else chain
    learner = chain.learner(seed=seed)
    sampler, steps = simulation(chain.scheme(learner, **options), chain.initial(), TrainingHook(learner))
    sampler.run(n_steps)
    return chain, learner, steps


# ---- legs -----------------------------------------------------------------------------------------------------------


def test_both_legs_end_in_a_state_with_a_one_directional_network():
    chain, learner, steps = run_chain(60)
    for details, step in zip(steps.details, steps, strict=True):
        trial = step.change.canonical.trials[0].trajectory
        assert sorted(details.leg_outcomes) == sorted(
            [state_index(trial[0], chain.states), state_index(trial[-1], chain.states)]
        )
        assert min(details.leg_outcomes) >= 0
        assert sum(details.leg_lengths) == len(trial) + 1
    outcomes = {tuple(details.leg_outcomes) for details in steps.details}
    assert outcomes == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert learner.training_set.counts.sum() == 120


def test_control_stock_two_way_loses_legs():
    chain = Chain()
    mover = paths.TwoWayShootingMover(
        chain.network().sampling_ensembles[0],
        paths.UniformSelector(),
        paths.NoModification(as_copy=True),
        chain.engine,
    )
    seed_everything(1)
    ends = []
    for _ in range(60):
        change = mover.move(paths.SampleSet([paths.Sample(0, chain.initial(), mover.ensemble)]))
        trial = change.canonical.trials[0].trajectory
        ends.append([state_index(trial[i], chain.states) for i in (0, -1)])
    assert sum(-1 in pair for pair in ends) > 10


def test_counts_at_a_point_of_known_committor_are_unbiased():
    """Site 3 of the symmetric chain has p_B = 1/2; 4 standard errors."""
    conductances_symmetric = Chain()
    ensemble = conductances_symmetric.network().sampling_ensembles[0]
    mover = ShootingMover(
        ensemble,
        MiddleSelector(),
        conductances_symmetric.states,
        paths.NoModification(as_copy=True),
        conductances_symmetric.engine,
    )
    seed_everything(2)
    outcomes = []
    for _ in range(400):
        change = mover.move(paths.SampleSet([paths.Sample(0, conductances_symmetric.initial(), ensemble)]))
        outcomes.extend(change.canonical.details.leg_outcomes)
    assert abs(np.mean(outcomes) - 0.5) < 4 * 0.5 / np.sqrt(800)


class MiddleSelector(paths.ShootingPointSelector):
    def f(self, snapshot, trajectory):
        return float(round(snapshot.coordinates[0, 0]) == 3)


def test_a_path_from_b_to_a_is_accepted_reversed():
    chain, _, steps = run_chain(80)
    reversed_ones = [
        step
        for step, d in zip(steps, steps.details, strict=True)
        if d.leg_outcomes == [1, 0] and step.change.canonical.accepted
    ]
    assert len(reversed_ones) > 3
    for step in reversed_ones:
        path = step.active[0].trajectory
        assert state_index(path[0], chain.states) == 0 and state_index(path[-1], chain.states) == 1
        assert path.contains_symmetric(step.change.canonical.details.modified_shooting_snapshot)


def test_one_way_moves_keep_the_other_part_of_the_path():
    chain, learner, steps = run_chain(60, shooting="one-way")
    directions = set()
    for step, details in zip(steps, steps.details, strict=True):
        old, trial, index = details.initial_trajectory, step.change.canonical.trials[0].trajectory, details.shooting_index
        backward, forward = details.leg_lengths
        directions.add(backward == 0)
        if backward == 0:
            assert details.leg_outcomes[0] == -1
            assert [s.__uuid__ for s in trial[: index + 1]] == [s.__uuid__ for s in old[: index + 1]]
            assert len(trial) == index + forward
        else:
            assert forward == 0 and details.leg_outcomes[1] == -1
            assert [s.__uuid__ for s in trial[backward - 1 :]] == [s.__uuid__ for s in old[index:]]
    assert directions == {True, False}
    assert np.all(learner.training_set.counts.sum(axis=1) == 1)


# ---- details --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_details_hold_the_names_of_the_contract(shooting):
    _, _, steps = run_chain(20, shooting=shooting)
    for details in steps.details:
        assert_contract(details)
    accepted = [d for d, s in zip(steps.details, steps, strict=True) if s.change.canonical.accepted]
    assert all(d.selection_probability_new > 0 and d.weight_sum_new > 0 for d in accepted)


def test_acceptance_is_the_ratio_in_the_details():
    _, _, steps = run_chain(60)
    for step in steps:
        details = step.change.canonical.details
        if details.selection_probability_new is not None:
            ratio = details.selection_probability_new / details.selection_probability_old
            assert np.isclose(step.change.canonical.trials[0].bias, ratio)
            assert np.isclose(details.metropolis_acceptance, ratio)


def test_details_do_not_depend_on_the_selector_being_ours():
    chain = Chain()
    sampler, steps = simulation(chain.scheme(), chain.initial())
    sampler.run(10)
    for details in steps.details:
        assert details.model_version is None and details.predicted_committor is None and details.seed is None
        assert 0 < details.selection_probability_old < 1
        assert min(details.leg_outcomes) >= 0


# ---- length limit ---------------------------------------------------------------------------------------------------


def test_one_length_limit_for_the_whole_path():
    chain, learner, steps = run_chain(150, max_length=14)
    lengths = [len(step.active[0].trajectory) for step in steps]
    assert 10 < max(lengths) <= 14
    too_long = [d for d in steps.details if getattr(d, "stopping_reason", None) == "max_length"]
    assert all(d.rejection_reason == "max_length" for d in too_long)
    assert any(min(d.leg_outcomes) >= 0 for d in too_long)  # both legs fine, the whole too long
    assert any(min(d.leg_outcomes) < 0 for d in too_long)
    for d in too_long:
        assert_contract(d)
        assert sum(d.leg_lengths) - 1 > 14 or max(d.leg_lengths) == 14
    reached = sum(sum(o >= 0 for o in d.leg_outcomes) for d in steps.details)
    assert learner.training_set.counts.sum() == reached
    assert reached < 300


def test_a_longer_limit_than_that_of_the_engine_is_refused():
    chain = Chain(n_frames_max=100)
    with pytest.raises(ValueError, match="max_length=101 .*n_frames_max=100"):
        chain.scheme(chain.learner(), max_length=101).move_decision_tree()
    with pytest.raises(ValueError, match="max_length=101"):
        chain.scheme(chain.learner(), max_length=101, shooting="one-way").move_decision_tree()
    chain.scheme(chain.learner(), max_length=100).move_decision_tree()


def test_an_engine_without_limit():
    _, learner, steps = run_chain(10, Chain(n_frames_max=0))
    assert learner.training_set.counts.sum() == 20
    _, _, steps = run_chain(40, Chain(n_frames_max=0), max_length=14)
    assert max(len(step.active[0].trajectory) for step in steps) <= 14


# ---- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_a_nan_is_a_recorded_rejection(shooting):
    chain, learner, steps = run_chain(60, breaking_chain(0.05), shooting=shooting)
    failed = [step for step in steps if getattr(step.change.canonical.details, "stopping_reason", None) == "nan"]
    assert 10 < len(failed) == chain.engine.n_failures or shooting == "two-way"
    for step in failed:
        details = step.change.canonical.details
        assert_contract(details)
        assert details.rejection_reason == "nan" and not step.change.canonical.accepted
        assert min(details.leg_outcomes) == -1
        assert step.active[0].trajectory is details.initial_trajectory
    reached = sum(sum(o >= 0 for o in d.leg_outcomes) for d in steps.details)
    assert learner.training_set.counts.sum() == reached


def test_a_nan_in_the_first_frame_of_both_legs_leaves_no_shot():
    _, learner, steps = run_chain(3, breaking_chain(1.0))
    assert [d.leg_lengths for d in steps.details] == [[1, 1]] * 3
    assert [d.leg_outcomes for d in steps.details] == [[-1, -1]] * 3
    assert len(learner.training_set) == 0


def test_an_engine_that_would_repeat_failed_legs_is_refused():
    """Repeated until it does not fail, a leg has the distribution of legs that do not fail."""
    chain = breaking_chain(0.05, on_nan="retry")
    with pytest.raises(ValueError, match="on_nan is 'retry'"):
        chain.scheme(chain.learner()).move_decision_tree()


def test_another_error_of_the_engine_ends_the_run_and_loses_nothing(tmp_path):
    chain = breaking_chain(0.005, RuntimeError("no GPU left"))
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    with pytest.raises(RuntimeError, match="no GPU left"):
        sampler.run(1000)
    n_shots = len(learner.training_set)
    assert n_shots == len(steps) > 0
    assert chain.engine.n_failures == 1  # never repeated
    chain.engine.probability = 0.0
    sampler.run(5)
    assert len(learner.training_set) == n_shots + 5


def test_an_openmm_engine_that_failed_begins_the_next_leg_from_its_first_frame():
    """Where a frame fails half-way, OPS still believes the context to be at the frame before."""
    system = alanine_dipeptide()
    path = system.initial_trajectory(4)  # found in a second
    ensemble = system.network().sampling_ensembles[0]
    mover = ShootingMover(ensemble, paths.UniformSelector(), system.states, None, system.engine, "forward")
    step = system.engine.simulation.step

    def break_down(n_steps):
        context = system.engine.simulation.context
        context.setPositions(system.positions + 10.0)
        raise ValueError("Particle coordinate is NaN")

    point = path[len(path) // 2]
    system.engine.simulation.step = break_down
    leg = run_leg(mover.engine, point, mover.states, mover.length_limit)
    assert leg.failure == "nan" and len(leg.trajectory) == 1
    system.engine.simulation.step = step
    leg = run_leg(mover.engine, point, mover.states, mover.length_limit)
    moved = np.abs(leg.trajectory[1].xyz - point.xyz).max()
    assert moved < 1.0  # nm; the wrecked context is 10 nm away


# ---- set-up ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments():
    chain = Chain()
    ensemble = chain.network().sampling_ensembles[0]
    selector = CommittorSelector(chain.learner())
    with pytest.raises(ValueError, match="legs must be one of"):
        ShootingMover(ensemble, selector, chain.states, legs="sideways")
    with pytest.raises(ValueError, match="keeps the velocities"):
        ShootingMover(ensemble, selector, chain.states, paths.RandomVelocities(1.0), legs="forward")
    with pytest.raises(ValueError, match="needs an engine"):
        mover = ShootingMover(ensemble, selector, chain.states)
        mover.move(paths.SampleSet([paths.Sample(0, chain.initial(), ensemble)]))


def test_a_current_path_that_is_not_in_the_ensemble_is_an_error():
    chain = Chain()
    ensemble = chain.network().sampling_ensembles[0]
    mover = ShootingMover(ensemble, paths.UniformSelector(), chain.states, paths.NoModification(as_copy=True), chain.engine)
    with pytest.raises(ValueError, match="not in the ensemble"):
        for _ in range(50):
            mover.move(paths.SampleSet([paths.Sample(0, chain.path([0, 1, 2, 1, 0]), ensemble)]))


def test_one_way_shooting_goes_both_ways_equally():
    chain = Chain()
    mover = OneWayShooting(chain.network().sampling_ensembles[0], paths.UniformSelector(), chain.states, chain.engine)
    assert [submover.legs for submover in mover.movers] == ["forward", "backward"]
    assert np.allclose(mover.weights, mover.weights[0])


def test_overlapping_states_are_an_error_that_names_them():
    chain = Chain()
    chain.states[1] = paths.CVDefinedVolume(chain.site, -0.5, 6.5).named("everything")
    mover = ShootingMover(
        Chain().network().sampling_ensembles[0],
        paths.UniformSelector(),
        chain.states,
        paths.NoModification(as_copy=True),
        chain.engine,
    )
    with pytest.raises(ValueError, match=r"states overlap.*\(A, everything\)"):
        run_leg(mover.engine, chain.path([0])[0], mover.states, mover.length_limit)


def test_the_breaking_engine_is_the_chain_when_it_does_not_break():
    """Control of the tests above."""
    assert issubclass(BreakingEngine, type(Chain().engine))
    seed_everything(3)
    one = run_chain(5, breaking_chain(0.0))[2][-1].active[0].trajectory
    other = run_chain(5, Chain())[2][-1].active[0].trajectory
    assert np.array_equal(site_indices(one), site_indices(other))


# ---- frames that may be picked from a trial -------------------------------------------------------------------------


@pytest.mark.parametrize("larger", [False, True])
def test_selectable_frames_of_a_trial_are_those_outside_of_the_states_of_the_learner(larger):
    """Legs have looked at all frames already, but only for the states at which they end."""
    chain = Chain()
    learner = chain.learner(np.zeros(7))
    learner.freeze()
    if larger:
        learner.states = [chain.states[0] | chain.volume(1), chain.states[1]]
    selector = CommittorSelector(learner)
    ensemble, modifier = chain.network().sampling_ensembles[0], paths.NoModification(as_copy=True)
    mover = ShootingMover(ensemble, selector, chain.states, modifier, chain.engine)
    seed_everything(1)
    sample = paths.Sample(0, chain.initial(), ensemble)
    trials = []
    while len(trials) < 3:
        (trial,), _ = mover(sample)
        if ensemble(trial.trajectory):
            trials.append(trial.trajectory)
    for trial in trials:
        assert learner.paths.remembers(trial)
        sites, selectable = site_indices(trial), learner.path_frames(trial).selectable
        np.testing.assert_array_equal(selectable, (sites > (1 if larger else 0)) & (sites < 6))
