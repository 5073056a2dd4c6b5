"""Beside replica exchange, path reversal and minus moves, in the interface ensembles of OPS's default scheme."""

import numpy as np
import openpathsampling as paths
import pytest
from sampling_support import Chain, simulation

from ops_aimmd import CommittorSelector, CommittorShootingScheme, TrainingHook
from ops_aimmd.sampling import CommittorShootingStrategy, ShootingMover
from ops_aimmd.shooting.states import state_index


@pytest.fixture(scope="module")
def chain():
    return Chain()


@pytest.fixture(scope="module")
def network(chain):
    A, B = chain.states
    paths.InterfaceSet._reset()  # OPS takes collective variables of one name, in one process, for the same
    interfaces = paths.VolumeInterfaceSet(chain.site, -0.5, [0.5, 1.5, 2.5])
    return paths.MISTISNetwork([(A, interfaces, B)])


def default_scheme(chain, network, learner, kind):
    selector = CommittorSelector(learner)
    scheme = paths.DefaultScheme(network, engine=chain.engine)
    if kind == "stock":
        scheme.append(paths.strategies.OneWayShootingStrategy(selector=selector, engine=chain.engine))
    else:
        modifier = paths.NoModification(as_copy=True) if kind == "two-way" else None
        scheme.append(CommittorShootingStrategy(selector, chain.states, kind, modifier=modifier, engine=chain.engine))
    return scheme


@pytest.mark.parametrize("kind", ["two-way", "one-way", "stock"])
def test_the_hook_survives_every_move_of_the_default_scheme(chain, network, kind):
    learner = chain.learner(seed=1)
    scheme = default_scheme(chain, network, learner, kind)
    minus_path = chain.path([0, 1, 0, 1, 0])
    sampler, steps = simulation(scheme, [chain.initial(), minus_path], TrainingHook(learner))
    sampler.run(150)
    movers = {type(step.change.canonical.mover).__name__ for step in steps}
    assert {"PathReversalMover", "ReplicaExchangeMover", "MinusMover"} <= movers
    own = [
        step
        for step in steps
        if isinstance(step.change.canonical.mover, (ShootingMover, paths.ForwardShootMover, paths.BackwardShootMover))
    ]
    assert learner.training_set.steps.tolist() == [step.mccycle for step in own]
    assert learner.training_set.chains.tolist() == [step.change.canonical.trials[0].replica for step in own]
    assert set(learner.training_set.chains) >= {0, 1, 2}  # and the fourth, as minus moves exchange replicas
    assert learner.version.number > 3
    for step in steps:
        step.active.sanity_check()


def test_a_move_without_a_shot_may_be_the_first(chain, network):
    """OPS's default scheme begins with a minus move in some runs, before the learner has seen any descriptors."""
    learner = chain.learner(seed=1)
    scheme = default_scheme(chain, network, learner, "two-way")
    hook = TrainingHook(learner)
    sampler, steps = simulation(scheme, [chain.initial(), chain.path([0, 1, 0, 1, 0])], hook)
    scheme.move_decision_tree()
    hook.before_simulation(sampler)
    assert not learner.has_seen_paths
    groups = [name for name in ("minus", "repex", "pathreversal") if name in scheme.movers]
    assert groups == ["minus", "repex", "pathreversal"]
    for number, mover in enumerate((scheme.movers[name][0] for name in groups), start=1):
        change = mover.move(sampler.sample_set)
        active = sampler.sample_set.apply_samples(change.results)
        step = paths.MCStep(sampler, number, sampler.sample_set, active, change)
        hook.after_step(sampler, number, (number - 1, 3), None, step, None)
        sampler.sample_set, sampler.step = active, number
    sampler.run(40)
    assert len(learner.training_set) > 0


def test_only_transition_paths_enter_the_density(chain, network):
    learner = chain.learner(seed=1)
    scheme = CommittorShootingScheme(network, learner, engine=chain.engine, modifier=paths.NoModification(as_copy=True))
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(80)
    expected, others = {}, 0
    initial = sampler.root[0].trajectory
    for step in steps:
        for sample in step.active:
            path = sample.trajectory
            ends = {state_index(path[0], chain.states), state_index(path[-1], chain.states)}
            if path is not initial and ends == {0, 1}:
                expected[path.__uuid__] = expected.get(path.__uuid__, 0) + 1
            others += ends == {0}
    counted = {int(name): path.count for name, path in learner.transition_path_frames._paths.items()}
    assert counted == expected
    assert others > 0  # paths A->A were there


def test_scheme_for_a_tis_network_shoots_in_every_ensemble(chain, network):
    learner = chain.learner(np.zeros(7))
    scheme = CommittorShootingScheme(network, learner, engine=chain.engine, modifier=paths.NoModification(as_copy=True))
    scheme.move_decision_tree()
    assert {mover.ensemble for mover in scheme.movers["shooting"]} == set(network.sampling_ensembles)
    assert scheme.movers["shooting"][0].selector.pairs is None
