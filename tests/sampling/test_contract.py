"""The lines of the public contract run as they are written."""

import numpy as np
import openpathsampling as paths
import pytest

import ops_aimmd
from ops_aimmd.committor.transferred_start import SLOPE
from ops_aimmd.systems import toy


@pytest.fixture(scope="module")
def system():
    return toy.wolfe_quapp(n_steps_per_frame=50)  # netCDF files of OPS take milliseconds for each frame


@pytest.mark.parametrize("with_storage", [True, False])
def test_drop_in_script(system, tmp_path, with_storage):
    engine, descriptors = system.engine, system.descriptors
    state_A, state_B = system.states
    network, initial_trajectory = system.network(), system.initial_trajectory(1)
    storage = paths.Storage(str(tmp_path / "run.nc"), "w") if with_storage else None
    checkpoint = str(tmp_path / "run.aimmd")

    learner = ops_aimmd.CommittorLearner(descriptors, states=[state_A, state_B], seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(network, learner, engine=engine)
    sampler = paths.PathSampling(
        storage=storage,
        move_scheme=scheme,
        sample_set=scheme.initial_conditions_from_trajectories(initial_trajectory),
    )
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=checkpoint))
    sampler.run(8)

    trajectory = initial_trajectory
    assert learner.committor(trajectory).shape == (len(trajectory),)
    assert learner.reaction_coordinate(trajectory).shape == (len(trajectory),)
    assert isinstance(learner.model, ops_aimmd.CommittorModel)
    assert len(learner.training_set) == 8
    assert learner.training_set.counts.sum() == 16
    learner.freeze()
    version = learner.version
    sampler.run(4)
    assert learner.version is version
    learner.unfreeze()
    learner.fit()
    assert learner.version.number == version.number + 1

    again = ops_aimmd.load_learner(checkpoint)
    assert np.array_equal(again.training_set.descriptors, learner.training_set.descriptors)
    x = learner.training_set.descriptors
    assert np.array_equal(again.model.committor(x), version.model.committor(x))
    again = ops_aimmd.load_learner(checkpoint, descriptors=descriptors, states=[state_A, state_B])
    assert again.committor(trajectory).shape == (len(trajectory),)
    another = ops_aimmd.CommittorLearner(descriptors, states=[state_A, state_B], seed=2)
    ops_aimmd.transfer(checkpoint, another)
    flattened = SLOPE * version.model.reaction_coordinate(x)  # what is known of another system
    assert np.allclose(another.model.reaction_coordinate(x), flattened, atol=1e-4)
    if with_storage:
        assert len(storage.steps) == 13
        storage.close()
        sampler = ops_aimmd.resume(str(tmp_path / "run.nc"), checkpoint=checkpoint)
        sampler.run(2)
        assert sampler.step == 14
        assert len(sampler.storage.steps) == 15
        training_set = ops_aimmd.TrainingSet.from_storage(sampler.storage, descriptors, states=[state_A, state_B])
        assert training_set.steps.tolist() == list(range(1, 15))
        assert np.array_equal(training_set.counts, sampler.move_scheme.learner.training_set.counts)
        sampler.storage.close()


def test_many_chains(system, tmp_path):
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=list(system.states), seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    initial_conditions = [scheme.initial_conditions_from_trajectories(system.initial_trajectory(i)) for i in (1, 2)]
    storage = None
    sampler = ops_aimmd.ParallelPathSampling(
        storage, scheme, initial_conditions, executor=None, checkpoint=str(tmp_path / "run.aimmd")
    )
    sampler.run(4)
    assert np.bincount(learner.training_set.chains).tolist() == [4, 4]
    assert len(ops_aimmd.load_learner(tmp_path / "run.aimmd").training_set) == 8


def test_inside_someones_own_scheme(system):
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=list(system.states), seed=1)
    network = system.network(all_to_all=True)
    selector = ops_aimmd.CommittorSelector(learner)
    modifier = paths.RandomVelocities(beta=1.0 / system.temperature, engine=system.engine)
    two_way = paths.strategies.TwoWayShootingStrategy(modifier=modifier, selector=selector, engine=system.engine)
    own = paths.MoveScheme(network)
    own.append([two_way, paths.strategies.OrganizeByMoveGroupStrategy()])
    one_way = paths.OneWayShootingMoveScheme(network, selector=selector, engine=system.engine)
    for scheme in (own, one_way):
        sampler = paths.PathSampling(
            storage=None,
            move_scheme=scheme,
            sample_set=scheme.initial_conditions_from_trajectories(system.initial_trajectory(1)),
        )
        sampler.attach_hook(ops_aimmd.TrainingHook(learner))
        n_shots = len(learner.training_set) if learner.has_seen_paths else 0
        sampler.run(10)
        assert len(learner.training_set) == n_shots + 10
    assert learner.version.number > 0


def test_without_ops():
    rng = np.random.default_rng(0)
    d = 3
    descriptors = rng.normal(size=(300, d))
    counts = rng.multinomial(2, [0.5, 0.5], size=300)
    x = descriptors[:7]

    training_set = ops_aimmd.TrainingSet(descriptors, counts)
    model = ops_aimmd.CommittorModel.for_descriptors(d, n_states=2, seed=1)
    report = ops_aimmd.fit(model, training_set, seed=1)
    assert model.committor(x).shape == (7,)
    log_odds = np.log(model.committor(x) / (1 - model.committor(x)))
    assert np.allclose(model.reaction_coordinate(x), log_odds, atol=1e-5)  # the network computes in single precision
    assert report.n_shots == 300

    table = ops_aimmd.input_relevance(model, training_set, groups=None, n_repeats=10, seed=1)
    assert len(table) == d and {"loss_increase", "standard_error"} <= set(table.columns)
    front = ops_aimmd.fit_expressions(training_set, model=None, inputs=None, time_limit=1, seed=1)
    assert front.best.sympy.is_number and front.best.latex()  # coins know nothing
    assert front.best.committor(x).shape == (7,)
    assert len(front.to_pandas()) == len(front)
