"""Movers and selectors sample the exact path ensemble.

On a discrete chain the distribution of the paths is known by linear algebra: a mover is right or wrong, not
nearly right. Each claim has a control, a mover that makes the mistake the claim is about and that the same
comparison must find out.
"""

import itertools
from dataclasses import replace

import numpy as np
import openpathsampling as paths
import pytest
import torch
from exact_support import (
    AGREES,
    N_BATCHES,
    ExactChain,
    SiteSelector,
    WithoutRatio,
    assert_exact,
    assert_wrong,
    birth_death_chain,
    sample_paths,
    site_indices,
    z_scores,
)
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd import (
    CommittorDensity,
    CommittorLearner,
    CommittorModel,
    CommittorSelector,
    CommittorShootingScheme,
    OneWayShooting,
    ShootingMover,
    TrainingHook,
)
from ops_aimmd.committor.selection import ModelVersion

N_STEPS = 4000

SITE_WEIGHTS = [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]
"""Of the sites of the chain as shooting points: uneven, so that no two mistakes cancel."""

INTERFACE = 3
"""First site beyond the interface."""


@pytest.fixture(scope="module")
def chain():
    """Six sites, A and B at the ends; asymmetric, and with stays so that lengths are odd and even."""
    return birth_death_chain([1.0, 2.0, 3.0, 2.0, 1.5], stays=[0.0, 0.5, 0.2, 0.8, 0.3, 0.0])


@pytest.fixture(scope="module")
def star():
    """States 0, 1 and 2, each behind a site of its own (3, 4, 5), around the common site 6; 3 and 4 are neighbours."""
    links = {(0, 3): 1.0, (1, 4): 0.7, (2, 5): 1.3, (3, 6): 1.5, (4, 6): 1.0, (5, 6): 2.0, (3, 4): 0.5, (6, 6): 0.4}
    conductances = np.zeros((7, 7))
    for (i, j), link in links.items():
        conductances[i, j] = conductances[j, i] = link
    return ExactChain(conductances, [0, 1, 2])


# ---- ensembles ------------------------------------------------------------------------------------------------------


def one_directional(chain):
    return paths.TPSNetwork(chain.states[0], chain.states[1]).sampling_ensembles[0]


def all_to_all(chain):
    return paths.TPSNetwork.from_states_all_to_all(chain.states).sampling_ensembles[0]


def interface(chain):
    return paths.TISEnsemble(chain.states[0], chain.states[1], chain.before(INTERFACE))


def exact_interface(chain):
    return chain.exact([(0, 0), (0, 1)], crossing=range(INTERFACE, chain.n_sites))


# ---- movers ---------------------------------------------------------------------------------------------------------


def two_way(chain, ensemble, selector, mover_class=ShootingMover, max_length=None):
    modifier = paths.NoModification(as_copy=True)
    return mover_class(ensemble, selector, chain.states, modifier, chain.engine, "both", max_length)


def one_way(chain, ensemble, selector, mover_class=ShootingMover, max_length=None):
    return paths.RandomChoiceMover(
        [
            mover_class(ensemble, selector, chain.states, None, chain.engine, legs, max_length)
            for legs in ("forward", "backward")
        ]
    )


def packaged_one_way(chain, ensemble, selector):
    return OneWayShooting(ensemble, selector, chain.states, chain.engine)


def ops_two_way(chain, ensemble, selector):
    return paths.TwoWayShootingMover(ensemble, selector, paths.NoModification(as_copy=True), chain.engine)


def ops_one_way(chain, ensemble, selector):
    return paths.OneWayShootingMover(ensemble, selector, chain.engine)


MOVERS = {"two-way": two_way, "one-way": one_way}


class SiteSelectorWithoutRatio(WithoutRatio, SiteSelector):
    """Wrong on purpose."""


# ---- transition paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [two_way, one_way, packaged_one_way])
def test_transition_paths(chain, move):
    ensemble, start = one_directional(chain), range(6)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    sampled = sample_paths(mover, chain.sample_set(ensemble, start), N_STEPS, seed=1)
    assert_exact(sampled, chain.exact([(0, 1)]))


@pytest.mark.parametrize("move", [two_way, one_way])
def test_control_without_the_ratio_of_selection_probabilities(chain, move):
    ensemble = one_directional(chain)
    mover = move(chain, ensemble, SiteSelectorWithoutRatio(SITE_WEIGHTS))
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=1)
    assert_wrong(sampled, chain.exact([(0, 1)]))


# ---- reversal -------------------------------------------------------------------------------------------------------


def test_a_path_from_b_to_a_is_accepted_reversed(chain):
    """Every second accepted trial of an A->B ensemble ran from B to A: the weight of a path is that of its reverse."""
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    outcomes = []
    sample_paths(
        mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=2,
        observe=lambda change: change.accepted and outcomes.append(tuple(change.canonical.details.leg_outcomes)),
    )
    assert set(outcomes) == {(0, 1), (1, 0)}
    n_reversed = outcomes.count((1, 0))
    assert abs(n_reversed - len(outcomes) / 2) < AGREES * np.sqrt(len(outcomes)) / 2


class ShootingFrameNotMirrored(ShootingMover):
    """Wrong on purpose: looks for the shooting frame of a reversed path where it was before."""

    def _orient(self, trial, index):
        oriented, _, orientations = super()._orient(trial, index)
        return oriented, index, orientations


def test_control_shooting_frame_of_a_reversed_path_not_mirrored(chain):
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, SiteSelector([0.0, 1.0, 0.1, 0.1, 4.0, 0.0]), ShootingFrameNotMirrored)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=2)
    assert_wrong(sampled, chain.exact([(0, 1)]))


# ---- interface ensembles: A->A and A->B mixed -----------------------------------------------------------------------


@pytest.mark.parametrize("with_path_reversal", [False, True])
@pytest.mark.parametrize("move", [two_way, one_way])
def test_interface_ensemble(chain, move, with_path_reversal):
    ensemble = interface(chain)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    if with_path_reversal:
        mover = paths.RandomChoiceMover([mover, paths.PathReversalMover(ensemble)], weights=[3, 1])
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=3)
    assert_exact(sampled, exact_interface(chain))


class OrientationsLeftOut(ShootingMover):
    """Wrong on purpose: m = 1 for every path, also for A->A, which is valid in both orientations."""

    def _orient(self, trial, index):
        oriented, oriented_index, orientations = super()._orient(trial, index)
        return oriented, oriented_index, min(orientations, 1)

    def _orientations(self, path):
        return 1


class OrientationsOfUnreversedPaths(ShootingMover):
    """Wrong on purpose: a one-way move reverses no path, so the number of orientations does not belong there."""

    def _acceptance_bias(self, old, *args):
        trial = args[1]
        return super()._acceptance_bias(old, *args) * self._orientations(trial) / self._orientations(old)


@pytest.mark.parametrize("move, wrong", [(two_way, OrientationsLeftOut), (one_way, OrientationsOfUnreversedPaths)])
def test_control_wrong_number_of_orientations(chain, move, wrong):
    ensemble = interface(chain)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS), wrong)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=3)
    assert_wrong(sampled, exact_interface(chain))


# ---- length limit ---------------------------------------------------------------------------------------------------

MAX_LENGTH = 15
"""About the mean length without a limit."""


@pytest.mark.parametrize("move", [two_way, one_way])
def test_length_limit(chain, move):
    ensemble = one_directional(chain)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS), max_length=MAX_LENGTH)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=4)
    assert max(map(len, sampled)) == MAX_LENGTH
    assert_exact(sampled, chain.exact([(0, 1)], max_length=MAX_LENGTH))


class LimitPerLeg(ShootingMover):
    """Wrong on purpose: each leg may be half a path long, so that long paths come from few shooting points."""

    def _run_leg(self, start, direction):
        leg = super()._run_leg(start, direction)
        too_long = len(leg.trajectory) > (MAX_LENGTH + 1) // 2
        return replace(leg, failure="max_length") if too_long else leg


def test_control_limit_per_leg(chain):
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, SiteSelector(SITE_WEIGHTS), LimitPerLeg, max_length=MAX_LENGTH)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=4)
    assert_wrong(sampled, chain.exact([(0, 1)], max_length=MAX_LENGTH))


# ---- three states ---------------------------------------------------------------------------------------------------

ALL_PAIRS = list(itertools.permutations(range(3), 2))
STAR_WEIGHTS = [0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 3.0]


@pytest.mark.parametrize("move", [two_way, one_way])
def test_three_states_with_all_pairs(star, move):
    ensemble = all_to_all(star)
    mover = move(star, ensemble, SiteSelector(STAR_WEIGHTS))
    sampled = sample_paths(mover, star.sample_set(ensemble, [0, 3, 6, 4, 1]), N_STEPS, seed=5)
    assert_exact(sampled, star.exact(ALL_PAIRS))


@pytest.mark.parametrize("move", [two_way, one_way])
def test_control_three_states_without_the_ratio(star, move):
    ensemble = all_to_all(star)
    mover = move(star, ensemble, SiteSelectorWithoutRatio(STAR_WEIGHTS))
    sampled = sample_paths(mover, star.sample_set(ensemble, [0, 3, 6, 4, 1]), N_STEPS, seed=5)
    assert_wrong(sampled, star.exact(ALL_PAIRS))


# ---- committor selector ---------------------------------------------------------------------------------------------


class LogitsOfSites(torch.nn.Module):
    """A network that gives each site logits from a table."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", torch.tensor(table, dtype=torch.float32))

    def forward(self, x):
        return self.table[x[:, 0].round().long()]


def model_version(number, logits, density_sites=()):
    """A model version with given logits, (n_sites,) or (n_sites, n_states), and the density of given frames."""
    logits = np.asarray(logits, dtype=float)
    logits = logits[:, None] if logits.ndim == 1 else logits
    model = CommittorModel(LogitsOfSites(logits), n_descriptors=1, n_states=max(logits.shape[1], 2))
    density = None
    if len(density_sites):
        log_committor = model.log_committor(np.array(density_sites, dtype=float)[:, None])
        density = CommittorDensity.from_frames(log_committor, np.ones(len(density_sites)), uniform_weight=1.0)
    return ModelVersion(number, model.frozen_copy(), density)


def learner_with(chain, version):
    learner = CommittorLearner(lambda path: site_indices(path)[:, None], chain.states, model=version.model)
    learner._version = version
    return learner


LEFT = [0.0, 0.0, 3.0, 4.0, 5.0, 0.0]
RIGHT = [0.0, -5.0, -4.0, -3.0, 0.0, 0.0]
"""Log-odds of wrong models, which take the first and the last site between the states for the transition state."""


@pytest.mark.parametrize("move", [two_way, one_way, ops_two_way, ops_one_way])
def test_committor_selector_with_a_wrong_model(chain, move):
    ensemble = one_directional(chain)
    selector = CommittorSelector(learner_with(chain, model_version(7, RIGHT, [1, 1, 2, 3, 4, 4, 4, 4])))
    mover = move(chain, ensemble, selector)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=6)
    assert_exact(sampled, chain.exact([(0, 1)]))


def test_control_committor_selector_without_the_ratio(chain):
    class Wrong(WithoutRatio, CommittorSelector):
        pass

    ensemble = one_directional(chain)
    selector = Wrong(learner_with(chain, model_version(7, RIGHT, [1, 1, 2, 3, 4, 4, 4, 4])))
    mover = two_way(chain, ensemble, selector)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=6)
    assert_wrong(sampled, chain.exact([(0, 1)]))


@pytest.mark.parametrize("move", [two_way, ops_one_way])
def test_committor_selector_in_an_interface_ensemble(chain, move):
    ensemble = interface(chain)
    selector = CommittorSelector(learner_with(chain, model_version(0, LEFT)))
    mover = move(chain, ensemble, selector)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=7)
    assert_exact(sampled, exact_interface(chain))


def test_committor_selector_of_three_states(star):
    logits = np.random.default_rng(8).normal(0.0, 2.0, (7, 3))
    version = model_version(0, logits, [3, 3, 4, 5, 6, 6, 6])
    network = paths.TPSNetwork.from_states_all_to_all(star.states)
    scheme = CommittorShootingScheme(
        network, learner_with(star, version), star.engine, modifier=paths.NoModification(as_copy=True)
    )
    start = star.sample_set(network.sampling_ensembles[0], [0, 3, 6, 4, 1])
    sampled = sample_paths(scheme.move_decision_tree(), start, N_STEPS, seed=8)
    assert_exact(sampled, star.exact(ALL_PAIRS))


# ---- model versions that change -------------------------------------------------------------------------------------

VERSIONS = (model_version(1, LEFT, [1, 2, 3, 4]), model_version(2, RIGHT, [1, 1, 1, 2, 3, 4]))


class Alternating:
    """Publishes another model version before each step of a mover."""

    def __init__(self, mover, learner):
        self.mover = mover
        self.learner = learner
        self._versions = itertools.cycle(VERSIONS)

    def move(self, sample_set):
        self.learner._version = next(self._versions)
        return self.mover.move(sample_set)


def test_each_step_is_exact_whatever_version_it_uses(chain):
    """Versions that change for ever, by the count of the steps: every step keeps the ensemble, so all do."""
    ensemble, learner = one_directional(chain), learner_with(chain, VERSIONS[0])
    mover = Alternating(two_way(chain, ensemble, CommittorSelector(learner)), learner)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=9)
    assert_exact(sampled, chain.exact([(0, 1)]))


class VersionChangesAfterThePick(CommittorSelector):
    """Wrong on purpose: picks with one model version and accepts with another."""

    def pick(self, trajectory):
        index = super().pick(trajectory)
        self.learner._version = VERSIONS[self.learner.version.number % 2]
        return index


class NewVersionForTheNewPath(CommittorSelector):
    """Wrong on purpose: weighs the new path with a newer model version than the old path."""

    def probability_ratio(self, snapshot, old_trajectory, new_trajectory, new_snapshot=None):
        old = self.probability(snapshot, old_trajectory)
        self.learner._version = VERSIONS[self.learner.version.number % 2]
        return self.probability(new_snapshot, new_trajectory) / old


class DensityOfTheOldPath(CommittorSelector):
    """Wrong on purpose: takes the density from the current path alone and uses it for the new path too."""

    def pick(self, trajectory):
        version = self.learner.version
        frames = self.learner.path_frames(trajectory)
        log_committor = version.model.log_committor(frames.descriptors[frames.selectable])
        density = CommittorDensity.from_frames(log_committor, np.ones(len(log_committor)), uniform_weight=0.1)
        self.learner._version = replace(version, density=density)
        return super().pick(trajectory)


@pytest.mark.parametrize("wrong", [VersionChangesAfterThePick, NewVersionForTheNewPath, DensityOfTheOldPath])
def test_control_another_version_within_a_step(chain, wrong):
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, wrong(learner_with(chain, VERSIONS[0])))
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=9)
    assert_wrong(sampled, chain.exact([(0, 1)]))


class Recorder(PathSimulatorHook):
    """Keeps the sites of the path of each step of a simulation."""

    implemented_for = ["after_step"]

    def __init__(self):
        super().__init__()
        self.sampled = []

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        (sample,) = results.active
        self.sampled.append(site_indices(sample.trajectory))
        sample.parent = None  # OPS's samples remember all their ancestors


def sample_adaptively(chain, shooting, selector_class, tmp_path):
    """Path sampling as users run it: a model that learns and trains less and less often."""
    learner = CommittorLearner(lambda path: site_indices(path)[:, None].astype(float), chain.states, seed=10)
    modifier = paths.NoModification(as_copy=True) if shooting == "two-way" else None
    scheme = CommittorShootingScheme(
        paths.TPSNetwork(*chain.states), learner, chain.engine, shooting, selector_class(learner), modifier
    )
    start = scheme.initial_conditions_from_trajectories([chain.engine.trajectory(range(6))])
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    recorder = Recorder()
    sampler.attach_hook(TrainingHook(learner))
    sampler.attach_hook(recorder)
    with open(tmp_path / "progress", "w") as sampler.output_stream:
        sampler.run(N_STEPS)
    return recorder.sampled[len(recorder.sampled) % N_BATCHES:], learner


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_a_model_that_learns_while_it_samples(chain, shooting, tmp_path):
    sampled, learner = sample_adaptively(chain, shooting, CommittorSelector, tmp_path)
    assert learner.version.number > 10
    assert_exact(sampled, chain.exact([(0, 1)]))
