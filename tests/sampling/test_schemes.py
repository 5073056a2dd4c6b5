"""The move scheme: what it is made from, and the mistakes that it tells."""

import openpathsampling as paths
import pytest
from sampling_support import Chain, simulation, site_of

from ops_aimmd import BoltzmannVelocities, CommittorSelector, CommittorShootingScheme, TrainingHook
from ops_aimmd.sampling import CommittorShootingStrategy, OneWayShooting, ShootingMover
from ops_aimmd.systems import toy


@pytest.fixture
def chain():
    return Chain()


def shooters(scheme):
    scheme.move_decision_tree()
    return scheme.movers["shooting"]


def test_defaults():
    system = toy.wolfe_quapp()
    learner = Chain().learner()
    learner.states = system.states
    (mover,) = shooters(CommittorShootingScheme(system.network(), learner, engine=system.engine))
    assert isinstance(mover, ShootingMover) and mover.legs == "both"
    assert isinstance(mover.selector, CommittorSelector) and mover.selector.learner is learner
    assert isinstance(mover.modifier, BoltzmannVelocities) and mover.modifier.engine is system.engine
    assert mover.length_limit == system.engine.options["n_frames_max"]
    assert mover.states == system.states


def test_one_way(chain):
    (mover,) = shooters(chain.scheme(chain.learner(), shooting="one-way"))
    assert isinstance(mover, OneWayShooting)


def test_the_network_alone_is_enough(chain):
    """OPS makes schemes so when it loads them; without a learner the selection is uniform."""
    scheme = CommittorShootingScheme(chain.network())
    assert scheme.learner is None
    scheme = chain.scheme()
    (mover,) = shooters(scheme)
    assert isinstance(mover.selector, paths.UniformSelector)
    assert [state.name for state in mover.states] == ["A", "B"]
    sampler, steps = simulation(scheme, chain.initial())
    sampler.run(3)
    assert len(steps) == 3


def test_the_order_of_states_is_that_of_the_learner(chain):
    learner = Chain.learner(chain)
    learner.states = chain.states[::-1]
    (mover,) = shooters(chain.scheme(learner))
    assert [state.name for state in mover.states] == ["B", "A"]


def test_a_fixed_length_network_is_refused(chain):
    network = paths.FixedLengthTPSNetwork(*chain.states, length=10)
    with pytest.raises(ValueError, match="flexible path length"):
        chain.scheme(chain.learner(), network)


@pytest.mark.parametrize("n_states", [1, 3])
def test_other_states_than_those_of_the_network_are_refused(chain, n_states):
    learner = chain.learner()
    learner.states = [*chain.states, chain.volume(3).named("C")][:n_states]
    with pytest.raises(ValueError, match=r"learner knows the states \['A'.* network \['A', 'B'\]"):
        chain.scheme(learner)


def test_equal_looking_volumes_are_no_equal_states(chain):
    """They could change apart; legs, weights and ensembles must ask the same object."""
    learner = Chain().learner()
    with pytest.raises(ValueError, match="same volume objects"):
        chain.scheme(learner)


def test_no_engine(chain):
    scheme = CommittorShootingScheme(chain.network(), chain.learner())
    with pytest.raises(ValueError, match="needs an engine"):
        scheme.move_decision_tree()


def test_default_engine_of_ops(chain, monkeypatch):
    monkeypatch.setattr(paths.EngineMover, "default_engine", chain.engine)
    (mover,) = shooters(CommittorShootingScheme(chain.network(), chain.learner()))
    assert mover.engine is chain.engine


def test_bad_name_of_the_shooting(chain):
    with pytest.raises(ValueError, match="shooting must be one of .*two-way.*got 'both'"):
        chain.scheme(chain.learner(), shooting="both")


def test_modifier_with_one_way_shooting(chain):
    with pytest.raises(ValueError, match="leave out the modifier"):
        chain.scheme(chain.learner(), shooting="one-way", modifier=paths.NoModification())


@pytest.mark.parametrize("sites", [[0, 1, 2, 1, 0], [1, 2, 3], [0]])
def test_a_trajectory_that_is_no_transition_path_is_refused(chain, sites):
    with pytest.raises(ValueError, match="no path for 1 ensemble.*frames, which visit"):
        chain.scheme(chain.learner()).initial_conditions_from_trajectories(chain.path(sites))


def test_a_longer_trajectory_that_holds_a_transition_path(chain):
    trajectory = chain.path([2, 1, 0, 1, 2, 3, 4, 5, 6, 5])
    conditions = chain.scheme(chain.learner()).initial_conditions_from_trajectories(trajectory)
    assert len(conditions[0].trajectory) == 7


def test_an_initial_path_from_b_to_a_is_turned_round(chain):
    conditions = chain.scheme(chain.learner()).initial_conditions_from_trajectories(chain.initial().reversed)
    assert [site_of(conditions[0].trajectory[i]) for i in (0, -1)] == [0, 6]


def test_strategy_beside_other_movers(chain):
    """Path reversal in an all-to-all network; what is no shot is passed over."""
    learner = chain.learner(seed=1)
    scheme = paths.MoveScheme(chain.network(all_to_all=True))
    scheme.append(
        CommittorShootingStrategy(
            CommittorSelector(learner), chain.states, modifier=paths.NoModification(as_copy=True), engine=chain.engine
        )
    )
    scheme.append(paths.strategies.PathReversalStrategy())
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(40)
    n_shots = sum(isinstance(step.change.canonical.mover, ShootingMover) for step in steps)
    assert 0 < n_shots < 40
    assert len(learner.training_set) == n_shots
