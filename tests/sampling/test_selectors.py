"""The selector: its weights, what it never picks, one model version per step, and its place in the movers of OPS."""

import numpy as np
import openpathsampling as paths
import pytest
from sampling_support import Chain, publish, seed_everything, simulation
from scipy import stats

from ops_aimmd import CommittorLearner, CommittorSelector, TrainingHook
from ops_aimmd.committor import CommittorDensity

LOGITS = np.array([0.0, -3.0, -1.0, 0.2, 1.5, 4.0, 0.0])


@pytest.fixture(scope="module")
def chain():
    return Chain()


def density(logits_of_frames):
    q = np.asarray(logits_of_frames, dtype=float)
    log_p = np.column_stack([-np.logaddexp(0, q), -np.logaddexp(0, -q)])
    return CommittorDensity.from_frames(log_p, np.ones(len(q)), uniform_weight=1.0)


def check_selector(selector, path, states):
    """What every selector owes to OPS: probabilities that add up to one, none for end frames and frames in states."""
    probabilities = np.array([selector.probability(snapshot, path) for snapshot in path])
    in_state = np.array([any(state(snapshot) for state in states) for snapshot in path])
    assert np.isclose(probabilities.sum(), 1.0, rtol=1e-12)
    assert np.all(probabilities[in_state] == 0) and probabilities[0] == probabilities[-1] == 0
    weights = np.array([selector.f(snapshot, path) for snapshot in path])
    assert np.allclose(weights / selector.sum_bias(path), probabilities)
    assert np.allclose(selector._biases(path), weights)
    return probabilities


WEIGHTS = {
    "lorentzian": lambda q, scale: scale**2 / (scale**2 + q**2),
    "gaussian": lambda q, scale: np.exp(-(q**2) / (2 * scale**2)),
    "p(1-p)": lambda q, scale: 4 * (p := 1 / (1 + np.exp(-q / scale))) * (1 - p),
    "uniform": lambda q, scale: np.ones_like(q),
}


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_are_those_of_the_docstring(chain, weight, scale):
    selector = CommittorSelector(chain.learner(LOGITS), weight, scale)
    path = chain.path([0, 1, 2, 3, 4, 5, 4, 5, 6])
    probabilities = check_selector(selector, path, chain.states)
    expected = WEIGHTS[weight](LOGITS[[1, 2, 3, 4, 5, 4, 5]], scale)
    assert np.allclose(probabilities[1:-1], expected / expected.sum(), rtol=1e-12)


def test_weights_are_divided_by_the_density(chain):
    learner = chain.learner()
    learner.committor(chain.initial())
    rho = density([-3, -3, -3, 0.2, 4.0])
    publish(learner, LOGITS, rho)
    path = chain.initial()
    frame_density = np.exp(rho.log_density(LOGITS[1:6], (0, 1)))
    assert len(set(frame_density)) > 2
    adapted = check_selector(CommittorSelector(learner), path, chain.states)[1:-1]
    plain = check_selector(CommittorSelector(learner, density_adaptation=False), path, chain.states)[1:-1]
    assert np.allclose(adapted, (plain / frame_density) / (plain / frame_density).sum())
    assert not np.allclose(adapted, plain)


def test_user_weight_function(chain):
    selector = CommittorSelector(chain.learner(LOGITS), lambda q: np.exp(0.3 * q))
    probabilities = check_selector(selector, chain.initial(), chain.states)[1:-1]
    assert np.allclose(probabilities, np.exp(0.3 * LOGITS[1:6]) / np.exp(0.3 * LOGITS[1:6]).sum())


@pytest.mark.parametrize(
    "weight, message",
    [
        (lambda q: q, "positive"),
        (lambda q: np.full_like(q, np.nan), "positive"),
        (lambda q: np.ones(3), r"shape \(3,\)"),
        (lambda q: 1.0, "shape"),
    ],
)
def test_wrong_weight_functions_are_refused(chain, weight, message):
    with pytest.raises(ValueError, match=message):
        CommittorSelector(chain.learner(LOGITS), weight).pick(chain.initial())


@pytest.mark.parametrize(
    "arguments", [("lorenzian",), (["gaussian"],), ("lorentzian", 0.0), ("gaussian", -1.0), ("p(1-p)", np.nan)]
)
def test_unknown_weights_and_scales_are_refused(chain, arguments):
    with pytest.raises(ValueError, match="weight must be|scale must be"):
        CommittorSelector(chain.learner(LOGITS), *arguments)


def test_frames_in_a_state_in_the_middle_of_a_path_are_never_picked():
    chain = Chain(with_middle_state=True)
    learner = CommittorLearner(lambda path: np.array([[s.coordinates[0, 0]] for s in path]), chain.states, seed=1)
    path = chain.path([0, 1, 2, 3, 2, 3, 4, 5, 6])
    selector = CommittorSelector(learner)
    probabilities = check_selector(selector, path, chain.states)
    assert np.flatnonzero(probabilities).tolist() == [1, 2, 4, 6, 7]
    picked = {selector.pick(path) for _ in range(300)}
    assert picked == {1, 2, 4, 6, 7}


def test_pick_frequencies(chain):
    seed_everything(1)
    selector = CommittorSelector(chain.learner(LOGITS))
    path = chain.path([0, 1, 2, 3, 4, 3, 2, 5, 6])
    probabilities = check_selector(selector, path, chain.states)
    counts = np.bincount([selector.pick(path) for _ in range(20000)], minlength=len(path))
    inside = probabilities > 0
    assert counts[~inside].sum() == 0
    assert stats.chisquare(counts[inside], probabilities[inside] * counts.sum()).pvalue > 1e-3
    uniform = np.full(inside.sum(), counts.sum() / inside.sum())  # control
    assert stats.chisquare(counts[inside], uniform).pvalue < 1e-9


def test_weights_over_hundreds_of_orders_of_magnitude_add_up(chain):
    selector = CommittorSelector(chain.learner([0, -40.0, -30.0, 0.0, 30.0, 40.0, 0]), "gaussian")
    probabilities = check_selector(selector, chain.initial(), chain.states)
    assert probabilities[3] == 1.0
    assert selector.pick(chain.initial()) == 3
    far = chain.path([0, 1, 1, 2, 1, 0])  # without a frame near the transition state: every weight underflows
    assert np.isclose(selector.path_weights(far).log_probability(3), 0.0)
    assert selector.pick(far) == 3


# ---- evaluated once -------------------------------------------------------------------------------------------------


def count_model_calls(learner, monkeypatch):
    calls = []
    original = type(learner.model).log_committor

    def counting(self, x):
        calls.append(len(x))
        return original(self, x)

    monkeypatch.setattr(type(learner.model), "log_committor", counting)
    return calls


@pytest.mark.parametrize("shooting", ["two-way", "one-way", "stock"])
def test_a_step_weighs_only_the_new_path(chain, shooting, monkeypatch):
    """With an unchanged model a step costs at most one evaluation: that of the trial."""
    learner = chain.learner(LOGITS)
    learner.freeze()
    if shooting == "stock":
        scheme = paths.OneWayShootingMoveScheme(chain.network(), CommittorSelector(learner), engine=chain.engine)
    else:
        scheme = chain.scheme(learner, shooting=shooting)
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    learner.version.model.log_committor(np.zeros((1, 1)))
    calls = count_model_calls(learner, monkeypatch)
    sampler.run(1)  # weighs the initial path, too
    for_prediction = [1] if shooting == "stock" else []  # OPS's moves do not record it
    for _ in range(30):
        calls.clear()
        sampler.run(1)
        trial = steps[-1].change.canonical.trials[0].trajectory
        assert calls in ([len(trial) - 2, *for_prediction], for_prediction)


def test_a_new_version_weighs_the_old_path_again(chain):
    learner = chain.learner(LOGITS)
    selector = CommittorSelector(learner)
    path = chain.initial()
    first = selector.path_weights(path)
    assert selector.path_weights(path) is first
    publish(learner, -LOGITS + 2.0)
    second = selector.path_weights(path)
    assert second.version is learner.version
    assert not np.allclose(first.log_weights[1:-1], second.log_weights[1:-1])


def test_a_step_under_way_goes_on_with_what_it_was_begun_with(chain):
    learner = chain.learner(LOGITS)
    selector, path = CommittorSelector(learner), chain.initial()
    learner.freeze()
    begun = learner.learned
    publish(learner, -LOGITS + 2.0)
    learner.unfreeze()
    newest = learner.version
    with learner.step_begun_with(begun):
        pick = selector.choose(path)
        assert pick.version is begun.version and learner.learned_for_step.frozen
        assert learner.version is newest and not learner.frozen  # the learner is not set back
    assert selector.choose(path).version is newest and newest is not begun.version
    assert not np.allclose(pick.weights.log_weights[1:-1], selector.path_weights(path).log_weights[1:-1])


def test_the_current_path_is_remembered_however_many_trials_fail(chain, monkeypatch):
    learner = chain.learner(LOGITS)
    selector = CommittorSelector(learner)
    path = chain.initial()
    selector.pick(path)
    calls = count_model_calls(learner, monkeypatch)
    for _ in range(200):
        selector.pick(path)
        selector.sum_bias(chain.initial())
    assert len(calls) == 200


def test_old_and_new_path_are_weighed_by_one_version(chain):
    learner = chain.learner(seed=1)
    scheme = chain.scheme(learner)
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    versions = []
    selector = learner_selector(scheme)
    original = selector._weigh

    def recording(version, frames):
        versions.append(version.number)
        return original(version, frames)

    selector._weigh = recording
    for _ in range(20):
        versions.clear()
        sampler.run(1)
        assert set(versions) <= {steps.details[-1].model_version}
    assert learner.version.number > 2  # control: versions did change


def learner_selector(scheme):
    return scheme.movers["shooting"][0].selector


# ---- ratio ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ratio_case(chain):
    selector = CommittorSelector(chain.learner(LOGITS))
    old = chain.path([0, 1, 2, 3, 4, 5, 6])
    new = chain.path([0, 1, 2, 1, 2]) + old[3:]
    expected = np.exp(selector.path_weights(new).log_probability(5) - selector.path_weights(old).log_probability(3))
    return selector, old, new, expected


def test_probability_ratio(ratio_case):
    selector, old, new, expected = ratio_case
    assert np.isclose(selector.probability_ratio(old[3], old, new), expected)
    assert np.isclose(selector.probability_ratio(old[3], old, new, new_snapshot=new[5]), expected)
    assert not np.isclose(expected, 1.0)


def test_probability_ratio_of_a_reversed_path(ratio_case):
    selector, old, new, expected = ratio_case
    assert np.isclose(selector.probability_ratio(old[3], old, new.reversed), expected)
    assert np.isclose(selector.probability_ratio(old[3], old, new.reversed, new_snapshot=new[5]), expected)


def test_probability_ratio_with_a_point_of_another_path_is_an_error(ratio_case, chain):
    selector, old, new, _ = ratio_case
    with pytest.raises(ValueError, match="no frame of the trajectory"):
        selector.probability_ratio(old[3], old, chain.initial())
    with pytest.raises(ValueError, match="no chance of being picked"):
        selector.probability_ratio(old[0], old, new, new_snapshot=new[5])


def test_a_trial_that_holds_the_point_only_as_its_end_has_no_weight(chain):
    """As the trials of OPS's two-way moves whose first leg went wrong at once."""
    selector = CommittorSelector(chain.learner(LOGITS))
    old = chain.path([0, 1, 2, 3, 4, 5, 6])
    assert selector.probability_ratio(old[1], old, chain.path([0]) + old[1:2]) == 0.0
    assert selector.probability_ratio(old[2], old, chain.path([0, 1]) + old[2:3]) == 0.0


def test_stock_two_way_moves_survive_legs_of_one_step(chain):
    selector = CommittorSelector(chain.learner([0, 0.0, -9.0, -9.0, -9.0, 0.0, 0]))  # only beside the states
    scheme = paths.MoveScheme(chain.network())
    scheme.append(
        paths.strategies.TwoWayShootingStrategy(
            modifier=paths.NoModification(as_copy=True), selector=selector, engine=chain.engine
        )
    )
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(selector.learner))
    selector.learner.freeze()
    sampler.run(40)
    assert min(len(step.change.canonical.trials[0].trajectory) for step in steps) == 2


def test_a_type_error_of_the_user_is_not_swallowed_by_ops(chain):
    """OPS would repeat the call without the new snapshot, and the acceptance would be wrong without a word."""
    broken = []

    def descriptors(path):
        if broken:
            raise TypeError("unhashable something")
        return np.array([[snapshot.coordinates[0, 0]] for snapshot in path])

    learner = CommittorLearner(descriptors, chain.states, seed=1)
    selector = CommittorSelector(learner)
    scheme = paths.OneWayShootingMoveScheme(chain.network(), selector, engine=chain.engine)
    sampler, _ = simulation(scheme, chain.initial())
    sampler.run(1)
    broken.append(True)
    with pytest.raises(RuntimeError, match="unhashable something"):
        sampler.run(20)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_nan_descriptors_are_an_error_that_names_the_frames(chain):
    def descriptors(path):
        values = np.ones((len(path), 3))
        values[[snapshot.coordinates[0, 0] in (2, 4) for snapshot in path], 1] = np.nan
        return values

    selector = CommittorSelector(CommittorLearner(descriptors, chain.states, seed=1))
    with pytest.raises(ValueError, match=r"frames \[2, 4\] \(columns \[1\]\)"):
        selector.pick(chain.initial())


def test_nan_descriptors_inside_the_states_do_not_matter(chain):
    def descriptors(path):
        values = np.array([[snapshot.coordinates[0, 0]] for snapshot in path])
        values[(values == 0) | (values == 6)] = np.nan
        return values

    learner = CommittorLearner(descriptors, chain.states, seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(10)
    assert len(learner.training_set) == 10
    assert np.isfinite(learner.training_set.auxiliary.descriptors).all()


def test_a_model_that_has_diverged_is_an_error(chain):
    learner = chain.learner([0, 0, np.nan, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"no valid selection weight for frames \[2\]"):
        CommittorSelector(learner).pick(chain.initial())


def test_a_path_without_interior_frame_is_an_error(chain):
    selector = CommittorSelector(chain.learner(LOGITS))
    with pytest.raises(ValueError, match="nothing to shoot from"):
        selector.pick(chain.path([0, 6]))
    with pytest.raises(ValueError, match="nothing to shoot from"):
        selector.pick(chain.path([0, 0, 6, 6]))


# ---- three states ---------------------------------------------------------------------------------------------------


def three_state_logits(probabilities):
    return np.log(np.asarray(probabilities) + 1e-12)


THREE = three_state_logits(
    [
        [1, 0, 0],  # site 0, state A
        [0.5, 0.5, 0],
        [0.5, 0, 0.5],
        [0, 0, 1],  # site 3, state C
        [1 / 3, 1 / 3, 1 / 3],
        [0.98, 0.01, 0.01],
        [0, 1, 0],  # site 6, state B
    ]
)


def test_a_pairwise_transition_state_is_a_good_shooting_point():
    """p = (1/2, 1/2, 0) weighs as much as p = 1/2 of two states: 1, the largest weight there is."""
    chain = Chain(with_middle_state=True)
    selector = CommittorSelector(chain.learner(THREE))
    path = chain.initial()
    weights = np.array([selector.f(snapshot, path) for snapshot in path])
    assert np.allclose(weights[[1, 2]], 1.0, atol=1e-3)
    two = CommittorSelector(Chain().learner(np.zeros(7)))
    assert np.isclose(two.f(path[1], path), 1.0)
    assert np.isclose(weights[4], 3 * (2 / 3) ** 2)  # three pairs, (p_i + p_j)^2 each
    assert weights[5] < 0.1  # control: committed
    assert weights[3] == 0.0  # in state C


def test_only_pairs_that_the_network_joins_count():
    chain = Chain(with_middle_state=True)
    A, B, C = chain.states
    learner = chain.learner(THREE)
    network = paths.TPSNetwork([A, C], [B])  # A->B and C->B, never A->C
    selector = learner_selector_of(chain, network, learner)
    assert selector.pairs == [[0, 1], [1, 2]]
    path = chain.initial()
    weights = [selector.f(snapshot, path) for snapshot in path]
    assert np.isclose(weights[1], 1.0, atol=1e-3)  # A-B
    assert weights[2] < 0.01  # A-C, of no use here
    assert learner_selector_of(chain, paths.TPSNetwork.from_states_all_to_all(chain.states), learner).pairs is None


def learner_selector_of(chain, network, learner):
    scheme = chain.scheme(learner, network)
    scheme.move_decision_tree()
    return scheme.movers["shooting"][0].selector
