"""The learner: descriptors of every kind, immutable versions, freezing, errors that tell what to do."""

import numpy as np
import openpathsampling as paths
import pytest
import torch
from sampling_support import Chain, Table, simulation, site_descriptors, table_model

from ops_aimmd import CommittorLearner, CommittorModel, TrainingHook, TrainingSet, load_learner
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.committor import DiminishingSchedule, ShootingResult
from ops_aimmd.sampling.step_learning import StepLearning


@pytest.fixture
def chain():
    return Chain()


def square(snapshot):
    return snapshot.coordinates[0, 0] ** 2


def pair_of_numbers(snapshot):
    return np.array([snapshot.coordinates[0, 0], 1.0])


# ---- descriptors ----------------------------------------------------------------------------------------------------


def test_descriptors_as_cv_list_or_function_are_the_same(chain):
    square_cv = paths.FunctionCV("square", square)
    vector_cv = paths.FunctionCV("vector", pair_of_numbers)
    path = chain.initial()
    site = np.arange(7.0)
    for descriptors, expected in [
        (chain.site, [site]),
        ([chain.site], [site]),
        ([chain.site, square_cv], [site, site**2]),
        ([square_cv, vector_cv], [site**2, site, np.ones(7)]),
        (vector_cv, [site, np.ones(7)]),
        (site_descriptors, [site]),
        (lambda p: site_descriptors(p)[:, 0], [site]),
        (lambda p: np.repeat(site_descriptors(p), 6, axis=1).reshape(-1, 2, 3), [site] * 6),
    ]:
        learner = CommittorLearner(descriptors, chain.states, seed=1)
        values = learner.evaluate_descriptors(path)
        assert values.dtype == np.float64 and np.array_equal(values, np.column_stack(expected))
        assert learner.committor(path).shape == learner.reaction_coordinate(path).shape == (7,)


def test_a_trajectory_of_one_frame(chain):
    learner = CommittorLearner([chain.site, paths.FunctionCV("vector", pair_of_numbers)], chain.states, seed=1)
    assert learner.committor(chain.path([3])).shape == (1,)


@pytest.mark.parametrize(
    "descriptors, message",
    [
        (lambda path: np.zeros((3, 2)), r"\(n_frames, n_descriptors\) = \(7, ...\).* got shape \(3, 2\)"),
        (lambda path: 1.0, "got shape"),
        (lambda path: [["a"]] * len(path), "did not return numbers"),
        (lambda path: [[1.0], [1.0, 2.0]], "did not return numbers"),
        (lambda path: None, "None among the values"),
    ],
)
def test_wrong_shapes_are_errors(chain, descriptors, message):
    with pytest.raises(ValueError, match=message):
        CommittorLearner(descriptors, chain.states).evaluate_descriptors(chain.initial())


@pytest.mark.parametrize("descriptors", [3.0, "phi", [], [1, 2]])
def test_no_descriptors_at_all(chain, descriptors):
    with pytest.raises(ValueError, match="descriptors must be"):
        CommittorLearner(descriptors, chain.states)


def test_another_number_of_descriptors_than_the_model(chain):
    model = CommittorModel.for_descriptors(5, seed=1)
    learner = CommittorLearner(chain.site, chain.states, model=model)
    with pytest.raises(ValueError, match="gives 1 descriptors per frame; the model was made for 5"):
        learner.committor(chain.initial())
    with pytest.raises(ValueError, match="the model was made for 5"):
        sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
        sampler.run(1)


def test_a_number_of_descriptors_that_changes(chain):
    learner = CommittorLearner(lambda path: np.ones((len(path), max(len(path), 3))), chain.states, seed=1)
    learner.committor(chain.path([1, 2, 3]))
    with pytest.raises(ValueError, match="gives 7 descriptors per frame; the model was made for 3"):
        learner.committor(chain.initial())


def test_descriptors_of_a_path_are_evaluated_once(chain):
    calls = []

    def descriptors(path):
        calls.append(len(path))
        return site_descriptors(path)

    learner = CommittorLearner(descriptors, chain.states, seed=1)
    path = chain.initial()
    assert learner.path_frames(path) is learner.path_frames(path)
    assert calls == [7, 1, 2]  # the first path alone: some of its frames are tried alone
    calls.clear()
    other = chain.initial()
    assert learner.path_frames(other) is learner.path_frames(other)
    assert calls == [7]


def test_nan_in_the_frames_asked_for(chain):
    learner = CommittorLearner(lambda path: np.where(site_descriptors(path) == 3, np.nan, 1.0), chain.states, seed=1)
    with pytest.raises(ValueError, match=r"NaN or infinite in frames \[3\]"):
        learner.committor(chain.initial())


# ---- states ---------------------------------------------------------------------------------------------------------


def test_states_must_be_at_least_two_different_volumes(chain):
    A, B = chain.states
    for states in ([A], A, [A, "B"], None):
        with pytest.raises(ValueError, match="at least two OPS volumes"):
            CommittorLearner(chain.site, states)
    with pytest.raises(ValueError, match="states 0 and 2 are the same"):
        CommittorLearner(chain.site, [A, B, A])


def test_a_model_of_another_number_of_states(chain):
    with pytest.raises(ValueError, match="CommittorModel of 2 states.* CommittorModel of 3"):
        CommittorLearner(chain.site, chain.states, model=table_model(np.zeros((7, 3))))


def test_three_states_have_three_committors():
    chain = Chain(with_middle_state=True)
    learner = chain.learner(seed=1)
    committor = learner.committor(chain.initial())
    assert committor.shape == (7, 3) and np.allclose(committor.sum(axis=1), 1.0)
    assert np.allclose(np.exp(learner.reaction_coordinate(chain.initial())), committor)


# ---- learning -------------------------------------------------------------------------------------------------------


def shots(learner, n, rng):
    learner.committor(Chain().initial())
    for _ in range(n):
        site = rng.integers(1, 6)
        counts = rng.multinomial(2, [1 - site / 6, site / 6])
        learner.add(ShootingResult(np.array([float(site)]), counts))


def test_before_the_first_path_there_is_nothing(chain):
    learner = chain.learner()
    assert not learner.has_seen_paths and learner.last_report is None
    StepLearning(learner).train(None)  # nothing is due
    for ask in ("version", "model", "training_set", "transition_path_frames"):
        with pytest.raises(RuntimeError, match="has seen no path yet"):
            getattr(learner, ask)
    with pytest.raises(RuntimeError, match="no shooting results"):
        learner.fit()
    learner.committor(chain.initial())
    with pytest.raises(RuntimeError, match="no shooting results"):
        learner.fit()


def test_training_publishes_a_new_version_and_leaves_the_old_one_alone(chain):
    learner = chain.learner(seed=1)
    shots(learner, 30, np.random.default_rng(1))
    old = learner.version
    before = old.model.committor(np.arange(7.0)[:, None])
    report = learner.fit()
    assert learner.version.number == old.number + 1 and learner.last_report is report
    assert np.array_equal(old.model.committor(np.arange(7.0)[:, None]), before)
    assert not np.allclose(learner.model.committor(np.arange(7.0)[:, None]), before)
    assert not any(p.requires_grad for p in learner.model.parameters())


def test_a_model_without_parameters_gets_a_density_and_no_training(chain, tmp_path):
    """As a formula has none: the run goes on, and its checkpoint can be read."""

    class Formula(torch.nn.Module):
        def forward(self, x):
            return x - 3.0

    learner = CommittorLearner(site_descriptors, chain.states, model=CommittorModel(Formula(), 1, 2), seed=1)
    hook = TrainingHook(learner, checkpoint=tmp_path / "run.aimmd")
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), hook)
    sampler.run(40)
    assert learner.version.number > 1 and learner.version.density is not None and learner.last_report is None
    loaded = load_learner(tmp_path / "run.aimmd", descriptors=site_descriptors, states=chain.states, network=Formula())
    assert loaded.version.number == learner.version.number and loaded.reports == ()
    sites = np.arange(7.0)[:, None]
    assert np.array_equal(loaded.model.committor(sites), learner.model.committor(sites))


def test_the_users_model_is_not_trained_in_place(chain):
    model = CommittorModel.for_descriptors(1, seed=3)
    before = model.committor(np.arange(7.0)[:, None])
    learner = CommittorLearner(site_descriptors, chain.states, model=model)
    shots(learner, 30, np.random.default_rng(1))
    learner.fit()
    assert np.array_equal(model.committor(np.arange(7.0)[:, None]), before)


def test_shots_from_elsewhere_are_learned_from_and_kept(chain, tmp_path):
    given = TrainingSet([[1.0], [2.0], [4.0]], [[2, 0], [1, 1], [0, 2]], steps=[3, 4, 5])
    learner = CommittorLearner(site_descriptors, chain.states, training_set=given, seed=1)
    assert np.array_equal(learner.training_set.counts, given.counts)
    assert learner.training_set.steps.tolist() == [-1] * 3
    untrained = learner.model
    learner.fit()
    x = np.array([[0.5], [5.5]])
    assert np.ptp(learner.model.committor(x)) > np.ptp(untrained.committor(x))
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, tmp_path / "run.aimmd"))
    sampler.run(4)
    with Checkpoint.open(tmp_path / "run.aimmd") as file:
        assert file.shots().steps.tolist() == [-1, -1, -1, 1, 2, 3, 4]
    for wrong in (TrainingSet([[1.0]], [[1, 1, 0]]), given.counts):
        with pytest.raises(ValueError, match="TrainingSet of 2 states"):
            CommittorLearner(site_descriptors, chain.states, training_set=wrong)


def test_a_frozen_learner_records_and_does_not_train(chain):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(7)
    version = learner.version
    learner.freeze()
    sampler.run(10)
    assert learner.version is version and len(learner.training_set) == 17
    with pytest.raises(RuntimeError, match="unfreeze"):
        learner.fit()
    learner.unfreeze()
    sampler.run(4)
    assert learner.version.number > version.number
    assert [details.frozen for details in steps.details] == [False] * 7 + [True] * 10 + [False] * 4


def test_training_diminishes(chain):
    """Every third shot up to 30, then after a growth by 10 %."""
    learner = chain.learner(seed=1, fit_options={"max_epochs": 1, "auxiliary_weights": (0.0, 0.0)})
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(60)
    at = [report.n_shots for report in learner.reports]
    assert at[:10] == list(range(3, 31, 3))
    gaps = np.diff([n for n in at if n >= 30])
    assert gaps[0] == 3 and np.all(np.diff(gaps) >= 0) and gaps[-1] >= 5


def test_schedule(chain):
    learner = chain.learner(seed=1, schedule=DiminishingSchedule(every=5, until=10, growth=1.0))
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(45)
    assert [report.n_shots for report in learner.reports] == [5, 10, 20, 40]


def test_a_learner_of_a_file_without_descriptors_says_so(chain):
    learner = CommittorLearner(None, chain.states, model=CommittorModel.for_descriptors(1, seed=1))
    with pytest.raises(RuntimeError, match="loaded without descriptors"):
        learner.committor(chain.initial())
    assert learner.model.committor(np.zeros((2, 1))).shape == (2,)


def test_a_network_of_ones_own_with_a_name_of_ours_goes_to_the_checkpoint_and_back(chain, tmp_path):
    residual = type("Residual", (Table,), {})
    model = CommittorModel(residual(np.linspace(-2, 2, 7)[:, None]), n_descriptors=1)
    learner = CommittorLearner(site_descriptors, chain.states, model=model)
    checkpoint = tmp_path / "run.aimmd"
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint))
    sampler.run(2)
    with pytest.raises(ValueError, match="network"):
        load_learner(checkpoint)
    again = load_learner(checkpoint, site_descriptors, chain.states, network=residual(np.zeros((7, 1))))
    assert np.array_equal(again.committor(chain.initial()), learner.committor(chain.initial()))
