"""Warnings for scripts of OPS that mean something else than they say."""

import warnings

import openpathsampling as paths
import pytest
from sampling_support import Chain, simulation, site_descriptors

from ops_aimmd import CommittorLearner, CommittorSelector, TrainingHook
from ops_aimmd.sampling.movers import submovers
from ops_aimmd.sampling.step_learning import warn_of_unguided_shooting


@pytest.fixture(scope="module")
def chain():
    return Chain()


@pytest.fixture(scope="module")
def multiple_states(chain):
    """Two states, with interfaces around each and an outer interface that joins them."""
    paths.InterfaceSet._reset()  # OPS takes collective variables of one name, in one process, for the same
    A, B = chain.states
    from_b = paths.FunctionCV("sites from B", lambda snapshot: 6.0 - snapshot.coordinates[0, 0])
    interfaces = [paths.VolumeInterfaceSet(cv, -0.5, [0.5, 1.5]) for cv in (chain.site, from_b)]
    outer = paths.MSOuterTISInterface.from_lambdas({interface: 2.5 for interface in interfaces})
    return paths.MSTISNetwork([(A, interfaces[0]), (B, interfaces[1])], ms_outers=outer)


def said(function, text):
    """Warnings with a text that a call draws."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(warning.message) for warning in caught if text in str(warning.message)]


# ---- moves of a TIS network -----------------------------------------------------------------------------------------


def test_a_scheme_of_shooting_moves_alone_for_a_tis_network(chain, multiple_states):
    scheme = chain.scheme(chain.learner(seed=1), multiple_states)
    (message,) = said(scheme.move_decision_tree, "makes shooting moves")
    assert "replica exchange, path reversal, minus moves" in message
    named = ["NearestNeighborRepExStrategy", "PathReversalStrategy", "MinusMoveStrategy"]
    assert all(f"paths.strategies.{name}()" in message for name in named)


def test_the_advice_works(chain, multiple_states):
    strategies = paths.strategies
    scheme = chain.scheme(chain.learner(seed=1), multiple_states)
    scheme.append([strategies.NearestNeighborRepExStrategy(), strategies.PathReversalStrategy()])
    (message,) = said(scheme.move_decision_tree, "makes shooting moves")
    assert "minus moves" in message and "reversal" not in message.split("Append")[0]
    scheme = chain.scheme(chain.learner(seed=1), multiple_states)
    scheme.append(
        [
            strategies.NearestNeighborRepExStrategy(),
            strategies.PathReversalStrategy(),
            strategies.MinusMoveStrategy(engine=chain.engine),
        ]
    )
    assert said(scheme.move_decision_tree, "makes shooting moves") == []
    assert {"shooting", "repex", "pathreversal", "minus"} <= set(scheme.movers)


def test_one_ensemble_wants_no_other_moves(chain):
    for all_to_all in (False, True):
        scheme = chain.scheme(chain.learner(seed=1), chain.network(all_to_all))
        assert said(scheme.move_decision_tree, "makes shooting moves") == []


# ---- the selector of a group of OPS's -------------------------------------------------------------------------------


def default_scheme(chain, network, selector, with_outer):
    scheme = paths.DefaultScheme(network, engine=chain.engine)
    strategy = paths.strategies.OneWayShootingStrategy
    scheme.append(strategy(selector=selector, engine=chain.engine))
    if with_outer:
        scheme.append(
            strategy(
                selector=selector,
                ensembles=[ensemble],
                group="ms_outer_shooting",
                engine=chain.engine,
            )
            for ensemble in network.special_ensembles["ms_outer"]
        )
    return scheme


@pytest.mark.parametrize("with_outer", [False, True])
def test_the_outer_interface_keeps_the_selector_of_ops(chain, multiple_states, with_outer):
    learner = chain.learner(seed=1)
    scheme = default_scheme(chain, multiple_states, CommittorSelector(learner), with_outer)
    root = scheme.move_decision_tree()
    (selector,) = {type(mover.selector) for mover in scheme.movers["ms_outer_shooting"][0].movers}
    assert selector is (CommittorSelector if with_outer else paths.UniformSelector)
    messages = said(lambda: warn_of_unguided_shooting(list(submovers(root))), "are picked by UniformSelector")
    assert len(messages) == (not with_outer)
    if messages:
        assert 'group="ms_outer_shooting"' in messages[0]


def test_uniform_selection_everywhere_is_meant(chain):
    scheme = chain.scheme(chain.learner(seed=1), selector=paths.UniformSelector())
    sampler, _ = simulation(scheme, chain.initial(), TrainingHook(scheme.learner))
    assert said(lambda: sampler.run(1), "are picked by") == []
    with_exchange = chain.scheme(chain.learner(seed=1), selector=paths.UniformSelector(), exchange_temperatures=[])
    root = with_exchange.move_decision_tree()
    assert said(lambda: warn_of_unguided_shooting(list(submovers(root))), "are picked by") == []


# ---- periodic angles ------------------------------------------------------------------------------------------------


def angle_states(cv):
    left = paths.PeriodicCVDefinedVolume(cv, -1.0, 1.0, -3.14, 3.14).named("A")
    right = paths.PeriodicCVDefinedVolume(cv, 2.0, 3.0, -3.14, 3.14).named("B")
    return left, right


def test_a_raw_angle_among_the_descriptors(chain):
    angle = paths.FunctionCV("phi", lambda snapshot: snapshot.coordinates[0, 0])
    left, right = angle_states(angle)
    for states in ([left, right], [left & chain.states[0], right], [chain.states[0], ~left & right]):
        for descriptors in (angle, [chain.site, angle]):
            (message,) = said(lambda: CommittorLearner(descriptors, states), "periodic in a state")  # noqa: B023
            assert message.startswith("collective variable 'phi'") and "sine and cosine" in message


def test_what_is_no_raw_angle(chain):
    angle = paths.FunctionCV("phi", lambda snapshot: snapshot.coordinates[0, 0])
    states = list(angle_states(angle))
    for descriptors, of_states in [(chain.site, states), (site_descriptors, states), (chain.site, chain.states)]:
        assert said(lambda: CommittorLearner(descriptors, of_states), "periodic in a state") == []  # noqa: B023


# ---- paths of fixed length ------------------------------------------------------------------------------------------


def test_a_network_of_fixed_length_in_a_scheme_of_ops(chain):
    """As the README says: only CommittorShootingScheme does not take one."""
    network = paths.FixedLengthTPSNetwork(*chain.states, length=7)
    learner = chain.learner(seed=1)
    scheme = paths.OneWayShootingMoveScheme(network, selector=CommittorSelector(learner), engine=chain.engine)
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(12)
    assert all(len(step.active[0].trajectory) == 7 for step in steps)
    assert 0 < len(learner.training_set) <= 12
