"""The exchange of shooting points in a scheme: what it records, what is learned, what survives a round trip."""

import numpy as np
import openmmtools
import openpathsampling as paths
import pytest
from openmm import unit
from sampling_support import QUICK_WITH_FRAMES, Chain, simulation

import ops_aimmd
from ops_aimmd.analysis.series import step_table
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling.configuration_replicas import LOST, ConfigurationEnsemble, ConfigurationMover
from ops_aimmd.sampling.movers import submovers
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.shooting.legs import legs_made_by, run_leg, run_legs
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

LOGITS = [0.0, -2.0, -1.0, 0.0, 1.0, 2.0, 0.0]


@pytest.fixture(scope="module")
def run():
    """Sixty steps of ordinary and exchanging moves by lot, with a frozen learner."""
    chain = Chain()
    learner = chain.learner(LOGITS, seed=1)
    learner.freeze()
    scheme = chain.scheme(learner, exchange_temperatures=())
    sampler, steps = simulation(scheme, chain.initial(), ops_aimmd.TrainingHook(learner))
    sampler.run(60)
    return chain, learner, steps


def parts_of(step, kind):
    return [part for part in step.change if isinstance(part.mover, kind)]


def exchanges(steps):
    """The part of each exchanging step that is the exchange."""
    return [part for step in steps for part in parts_of(step, ShootingPointExchangeMover)]


def shot_of(step):
    return next(part for part in step.change if hasattr(part.details, "shooting_snapshot"))


# ---- in a scheme ----------------------------------------------------------------------------------------------------


def test_half_of_the_moves_exchange_shooting_points(run):
    _, _, steps = run
    assert 15 < len(exchanges(steps)) < 45  # 30 +- 4


def test_path_and_configuration_are_samples(run):
    """The path is replica 0, as scripts expect, and all others are single frames outside of the states."""
    chain, _, steps = run
    for step in steps:
        path, configuration = step.active[0], step.active[1]
        assert len(step.active) == 2 and path.ensemble(path.trajectory)
        assert isinstance(configuration.ensemble, ConfigurationEnsemble)
        assert configuration.ensemble(configuration.trajectory) and len(configuration.trajectory) == 1


def test_every_outcome_is_learned(run):
    chain, learner, steps = run
    assert len(learner.training_set) == 60
    assert (learner.training_set.counts.sum(axis=1) == 2).all()
    sites = [shot_of(step).details.shooting_snapshot.coordinates[0, 0] for step in steps]
    np.testing.assert_array_equal(learner.training_set.descriptors[:, 0], sites)


def test_details(run):
    _, learner, steps = run
    predicted = learner.model.committor(np.arange(7.0)[:, None])
    for part in exchanges(steps):
        details = part.details
        site = round(details.shooting_snapshot.coordinates[0, 0])
        assert details.predicted_committor[1] == pytest.approx(predicted[site])
        if details.weight_sum_new is not None:
            weights = 4 * predicted**3.5 * (1 - predicted) ** 3.5 / (predicted**3.5 + (1 - predicted) ** 3.5) ** 2
            assert details.selection_probability_new * details.weight_sum_new == pytest.approx(weights[site], rel=1e-5)


def test_an_accepted_exchange_swaps_a_frame_for_a_path_without_one_of_the_old(run):
    _, _, steps = run
    accepted = [part for part in exchanges(steps) if part.accepted]
    rejected = [part for part in exchanges(steps) if not part.accepted]
    assert accepted and rejected
    for part in accepted:
        (old, before), (new, after) = part.input_samples, part.trials
        assert not {frame.__uuid__ for frame in old.trajectory} & {frame.__uuid__ for frame in new.trajectory}
        assert after.trajectory[0] is old.trajectory[part.details.exchanged_index]
        assert before.trajectory[0].coordinates.tolist() in [frame.coordinates.tolist() for frame in new.trajectory]
    assert all(part.results == [] for part in rejected)


def test_step_table(run):
    chain, _, steps = run
    table = step_table(list(steps), chain.states)
    assert len(table) == 60
    assert (table.reached == 2).all()
    for step, frames in zip(steps, table.frames, strict=True):
        of_legs = sum(shot_of(step).details.leg_lengths) - 2
        moves = parts_of(step, ConfigurationMover)
        assert frames == of_legs + sum(move.details.configuration_frames for move in moves)


def test_lengths_of_pieces():
    """One to five frames, all as likely, and counted as they are made."""
    chain = Chain()
    learner = chain.learner(LOGITS, seed=1)
    replica = ConfigurationEnsemble(chain.states, 0)
    ensemble, modifier = chain.network().sampling_ensembles[0], paths.NoModification(as_copy=True)
    mover = ConfigurationMover(ensemble, [replica], learner, modifier, chain.engine, n_pieces=400, frames_per_piece=5)
    lengths = []

    def counting(engine, start, directions, states, limit):
        legs = run_legs(engine, start, directions, states, limit)
        lengths.extend(len(leg.trajectory) - 1 for leg in legs.values())
        return legs

    sample = paths.Sample(0, chain.initial(), ensemble)
    configuration = paths.Sample(1, paths.Trajectory([chain.initial()[2]]), replica)
    with legs_made_by(counting):
        _, details = mover(sample, configuration)
    assert details["configuration_frames"] == sum(lengths)
    assert np.abs(np.bincount(lengths, minlength=7) - [0, 80, 80, 80, 80, 80, 0]).max() < 4 * 8


def test_wrong_use(run):
    chain, learner, _ = run
    with pytest.raises(ValueError, match="give a learner"):
        chain.scheme(None, exchange_temperatures=())
    system = toy.wolfe_quapp()
    other = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1)
    for temperatures, match in (([0.5], "must rise from that of the paths, 1; got"), (["hot"], "must be numbers")):
        scheme = ops_aimmd.CommittorShootingScheme(
            system.network(), other, system.engine, exchange_temperatures=temperatures
        )
        with pytest.raises(ValueError, match=match):
            scheme.initial_conditions_from_trajectories(system.initial_trajectory(1))
    with pytest.raises(ValueError, match="not for MarkovChainEngine: leave out the temperatures"):
        chain.scheme(learner, exchange_temperatures=[2.0]).move_decision_tree()
    ensemble, replica = chain.network().sampling_ensembles[0], ConfigurationEnsemble(chain.states, 0)
    for options in ({"exponent": 0.0}, {"n_pieces": 0}, {"frames_per_piece": 1.5}, {"temperatures": [2.0]}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ConfigurationMover(ensemble, [replica], learner, paths.NoModification(), chain.engine, **options)


def test_networks_with_several_ensembles_are_refused(run):
    chain, learner, _ = run
    A, B = chain.states
    interfaces = [A | paths.CVDefinedVolume(chain.site, -0.5, edge) for edge in (0.5, 1.5)]
    network = paths.MISTISNetwork([(A, paths.InterfaceSet(interfaces), B)])
    with pytest.raises(ValueError, match="networks with one ensemble of paths, not"):
        chain.scheme(learner, network=network, exchange_temperatures=()).move_decision_tree()


def test_a_sample_set_without_configurations_is_a_clear_error(run):
    chain, learner, _ = run
    scheme = chain.scheme(learner, exchange_temperatures=())
    ensemble = scheme.network.sampling_ensembles[0]
    alone = paths.SampleSet([paths.Sample(0, chain.initial(), ensemble)])
    mover = next(m for m in submovers(scheme.move_decision_tree()) if isinstance(m, ConfigurationMover))
    with pytest.raises(ValueError, match="no sample of a configuration.*initial_conditions_from_trajectories"):
        mover.move(alone)
    assert len(scheme.initial_conditions_from_trajectories(alone)) == 2


def test_set_up_survives_a_round_trip(run):
    chain, learner, _ = run
    ensemble, modifier = chain.network().sampling_ensembles[0], paths.NoModification(as_copy=True)
    replica = ConfigurationEnsemble(chain.states, 0)
    mover = ShootingPointExchangeMover(ensemble, replica, learner, modifier, chain.engine, 300, exponent=2.0)
    again = ShootingPointExchangeMover.from_dict(mover.to_dict())
    assert (again.exponent, again.max_length, again.selector.scale, again.replica) == (2.0, 300, 0.5, replica)
    mover = ConfigurationMover(ensemble, [replica], learner, modifier, chain.engine, exponent=2.0, n_pieces=3)
    again = ConfigurationMover.from_dict(mover.to_dict())
    assert (again.exponent, again.n_pieces, again.replicas, again.temperatures) == (2.0, 3, [replica], [])


# ---- engines at other temperatures ----------------------------------------------------------------------------------


def test_engine_at_another_temperature():
    """The copy is hotter; the engine stays as it is."""
    engine = toy.wolfe_quapp().engine
    hot = adapter_of(engine).at_temperature(3.0)
    assert hot.temperature == 3.0
    assert adapter_of(engine).temperature == 1.0
    assert hot.inverse_temperature == pytest.approx(1 / 3)
    frame = toy.wolfe_quapp().initial_trajectory(1)[3]
    expected = toy.wolfe_quapp().potential.value(frame.coordinates[0][None])[0]
    assert hot.potential_energy(frame) == pytest.approx(expected)


def test_an_engine_that_has_run_at_another_temperature():
    """openmmtools' integrators compute what follows from their temperature once, and must be told to do it again."""
    system = alanine_dipeptide()
    integrator = openmmtools.integrators.BAOABIntegrator(
        temperature=300.0 * unit.kelvin, collision_rate=100.0 / unit.picosecond, timestep=1.0 * unit.femtosecond
    )
    engine = system.engine.from_new_options(integrator=integrator)
    engine.initialize("Reference")
    frame = system.initial_trajectory(4)[3]  # found in a second
    run_leg(engine, frame, (), 2)
    hot = adapter_of(engine).at_temperature(1200.0).engine
    temperatures = []
    for _ in range(100):
        frame = run_leg(hot, frame, (), 2).trajectory[-1]
        kinetic = hot.simulation.context.getState(energy=True).getKineticEnergy()
        temperatures.append(2.0 * kinetic / (54 * unit.MOLAR_GAS_CONSTANT_R) / unit.kelvin)  # 22 atoms, 12 rigid bonds
    assert np.mean(temperatures[30:]) == pytest.approx(1200.0, rel=0.15)  # +- 3 %


def exchange_run(system, initial, seed, temperatures):
    """The steps of a run that learns."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=seed, fit_options=QUICK_WITH_FRAMES)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine, exchange_temperatures=temperatures)
    sampler, steps = simulation(scheme, initial, ops_aimmd.TrainingHook(learner))
    sampler.run(8)
    assert len(exchanges(steps)) > 1
    return steps


@pytest.mark.parametrize(
    ("make_system", "hot"),
    [(toy.two_gaussian_wells, 0.2), pytest.param(alanine_dipeptide, 400.0, marks=pytest.mark.slow)],
)
def test_same_seed_same_run(make_system, hot):
    system = make_system()
    initial = system.initial_trajectory(4)
    first, again, other = (exchange_run(system, initial, seed, [hot]) for seed in (5, 5, 6))

    def points(steps):
        return [shot_of(step).details.shooting_snapshot.xyz for step in steps]

    np.testing.assert_array_equal(points(first), points(again))
    assert not np.array_equal(points(first), points(other))
    assert all(sample.trajectory[0].engine is system.engine for sample in first[-1].active)


def test_each_engine_has_a_seed_of_its_own():
    system = alanine_dipeptide()
    engines = [adapter_of(system.engine).at_temperature(temperature).engine for temperature in (300.0, 400.0)]
    frame = system.initial_trajectory(4)[3]  # found in a second

    def end(engine, seed):
        seed_step(seed, 0, engines)
        return run_leg(engine, frame, (), 2).trajectory[-1].xyz

    for engine in engines:
        first = end(engine, 1)
        np.testing.assert_array_equal(end(engine, 1), first)
        assert np.abs(end(engine, 2) - first).max() > 1e-3  # nm


# ---- while learning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_while_learning_a_configuration_that_is_lost_begins_anew(frozen):
    """A frozen learner leaves it in peace: what looks lost then is what the distribution says."""
    chain = Chain()
    learner = chain.learner([0.0, -9.0, -1.0, 0.0, 1.0, 2.0, 0.0])
    if frozen:
        learner.freeze()
    ensemble, replica = chain.network().sampling_ensembles[0], ConfigurationEnsemble(chain.states, 0)
    mover = ConfigurationMover(ensemble, [replica], learner, paths.NoModification(as_copy=True), chain.engine)
    path, lost = paths.Sample(0, chain.initial(), ensemble), paths.Sample(1, chain.path([1]), replica)
    learner.committor(path.trajectory)
    configuration = mover._configuration(0, lost.trajectory[0], learner.version)
    assert mover._log_weight(0, configuration) < LOST
    mover._move = lambda *arguments: (False, 1)
    (moved,) = mover.move(paths.SampleSet([path, lost])).results
    assert moved.trajectory[0].coordinates[0, 0] == (1.0 if frozen else 3.0)
