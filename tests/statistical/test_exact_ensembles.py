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
from exact_support import (
    AGREES,
    N_EQUILIBRATION,
    N_STEPS,
    CommittorSelectorWithoutRatio,
    ExactChain,
    ModelOfSites,
    SiteSelector,
    WithoutRatio,
    assert_exact,
    assert_wrong,
    asymmetric_chain,
    chain_that_stays,
    one_directional,
    sample_paths,
    site_indices,
    site_of,
    z_scores,
)
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd import CommittorLearner, CommittorSelector, CommittorShootingScheme, TrainingHook
from ops_aimmd.committor import CommittorDensity
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.sampling import OneWayShooting, ShootingMover

SITE_WEIGHTS = [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]
"""Of the sites of the chain as shooting points: uneven, so that no two mistakes cancel."""

INTERFACE = 3
"""First site beyond the interface."""


@pytest.fixture(params=[N_STEPS, pytest.param(8 * N_STEPS, marks=pytest.mark.slow)])
def n_steps(request):
    return request.param


@pytest.fixture(scope="module")
def chain():
    return asymmetric_chain()


@pytest.fixture(scope="module")
def sticky_chain():
    return chain_that_stays()


@pytest.fixture(scope="module")
def star():
    """States 0, 1 and 2, each behind a site of its own (3, 4, 5), around the common site 6; 3 and 4 are neighbours."""
    links = {(0, 3): 1.0, (1, 4): 0.7, (2, 5): 1.3, (3, 6): 1.5, (4, 6): 1.0, (5, 6): 2.0, (3, 4): 0.5, (6, 6): 0.4}
    conductances = np.zeros((7, 7))
    for (i, j), link in links.items():
        conductances[i, j] = conductances[j, i] = link
    return ExactChain(conductances, [0, 1, 2])


# ---- the comparison itself ------------------------------------------------------------------------------------------


def test_standard_errors_are_those_of_correlated_series():
    """For a Gaussian series with a correlation time of ten steps the deviations have the standard deviation one."""
    rng = np.random.default_rng(0)
    n_series, decay = 400, np.exp(-1 / 5)  # integrated correlation time (1 + decay) / (1 - decay) = 10 steps
    series = np.empty((N_STEPS, n_series))
    series[0] = rng.normal(size=n_series)
    for step in range(1, N_STEPS):
        series[step] = decay * series[step - 1] + np.sqrt(1 - decay**2) * rng.normal(size=n_series)
    spread = z_scores(series, np.zeros(n_series)).std()
    assert abs(spread - 1) < 4 / np.sqrt(2 * n_series)

    naive = series.mean(axis=0) / (series.std(axis=0) / np.sqrt(N_STEPS))
    assert naive.std() > 2  # control: as if the steps were independent


# ---- ensembles ------------------------------------------------------------------------------------------------------


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


def one_way(chain, ensemble, selector, mover_class=None, max_length=None):
    if mover_class is None:
        return OneWayShooting(ensemble, selector, chain.states, chain.engine, max_length)
    legs = ("forward", "backward")
    return paths.RandomChoiceMover(
        [mover_class(ensemble, selector, chain.states, None, chain.engine, leg, max_length) for leg in legs]
    )


def ops_two_way(chain, ensemble, selector):
    return paths.TwoWayShootingMover(ensemble, selector, paths.NoModification(as_copy=True), chain.engine)


def ops_one_way(chain, ensemble, selector):
    return paths.OneWayShootingMover(ensemble, selector, chain.engine)


class WrongMover(ShootingMover):
    """A shooting mover that is wrong on purpose: `mistake` gives a factor by which its acceptance is off."""

    def __call__(self, input_sample):
        (trial,), details = super().__call__(input_sample)
        trial.bias *= self.mistake(input_sample.trajectory, trial, details)
        return [trial], details

    def orientations(self, path):
        """In how many of its two orientations a path of an interface ensemble is in it: A->A in both, A->B in one."""
        return 1 + (site_of(path[0]) == site_of(path[-1]))


class SiteSelectorWithoutRatio(WithoutRatio, SiteSelector):
    pass


# ---- transition paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [two_way, one_way])
def test_transition_paths(chain, move, n_steps):
    ensemble, start = one_directional(chain), range(6)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    sampled = sample_paths(mover, chain.sample_set(ensemble, start), n_steps, seed=1)
    assert_exact(sampled, chain.exact([(0, 1)]))


@pytest.mark.parametrize("move", [two_way, one_way])
def test_control_without_the_ratio_of_selection_probabilities(chain, move):
    ensemble = one_directional(chain)
    mover = move(chain, ensemble, SiteSelectorWithoutRatio(SITE_WEIGHTS))
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=1)
    assert_wrong(sampled, chain.exact([(0, 1)]))


# ---- reversal -------------------------------------------------------------------------------------------------------


def test_a_path_from_b_to_a_is_accepted_reversed(chain, n_steps):
    """Every second accepted trial of an A->B ensemble ran from B to A: the weight of a path is that of its reverse."""
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    outcomes = []
    sample_paths(
        mover,
        chain.sample_set(ensemble, range(6)),
        n_steps,
        seed=2,
        observe=lambda change: change.accepted and outcomes.append(tuple(change.canonical.details.leg_outcomes)),
    )
    assert set(outcomes) == {(0, 1), (1, 0)}
    n_reversed = outcomes.count((1, 0))
    assert abs(n_reversed - len(outcomes) / 2) < AGREES * np.sqrt(len(outcomes)) / 2


class RatioLeftOutOfReversedPaths(WrongMover):
    """Accepts a path that ran from B to A without asking how it could be shot from."""

    def mistake(self, old, trial, details):
        return 1.0 / trial.bias if details["leg_outcomes"] == [1, 0] and trial.bias > 0 else 1.0


def test_control_ratio_left_out_of_reversed_paths(chain):
    ensemble = one_directional(chain)
    mover = two_way(chain, ensemble, SiteSelector(SITE_WEIGHTS), RatioLeftOutOfReversedPaths)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=2)
    assert_wrong(sampled, chain.exact([(0, 1)]))


# ---- interface ensembles: A->A and A->B mixed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "move, with_path_reversal",
    [
        (two_way, False),
        pytest.param(two_way, True, marks=pytest.mark.slow),
        (one_way, False),
        pytest.param(one_way, True, marks=pytest.mark.slow),
    ],
)
def test_interface_ensemble(chain, move, with_path_reversal, n_steps):
    ensemble = interface(chain)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS))
    if with_path_reversal:
        mover = paths.RandomChoiceMover([mover, paths.PathReversalMover(ensemble)], weights=[0.75, 0.25])
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), n_steps, seed=3)
    assert_exact(sampled, exact_interface(chain))


class OrientationsLeftOut(WrongMover):
    """Takes m = 1 for every path, also for A->A, which is valid in both orientations."""

    def mistake(self, old, trial, details):
        return self.orientations(old) / self.orientations(trial.trajectory) if trial.bias > 0 else 1.0


class OrientationsOfOneWayPaths(WrongMover):
    """A one-way move reverses no path, so the number of orientations does not belong in its acceptance."""

    def mistake(self, old, trial, details):
        return self.orientations(trial.trajectory) / self.orientations(old)


@pytest.mark.parametrize("move, wrong", [(two_way, OrientationsLeftOut), (one_way, OrientationsOfOneWayPaths)])
def test_control_wrong_number_of_orientations(chain, move, wrong):
    ensemble = interface(chain)
    mover = move(chain, ensemble, SiteSelector(SITE_WEIGHTS), wrong)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), 2 * N_STEPS, seed=3)
    assert_wrong(sampled, exact_interface(chain))


# ---- length limit ---------------------------------------------------------------------------------------------------

MAX_LENGTH = 15
STICKY_WEIGHTS = [0.0, 1.0, 10.0, 0.0]


@pytest.mark.parametrize("move", [two_way, one_way])
def test_length_limit(sticky_chain, move, n_steps):
    ensemble = one_directional(sticky_chain)
    mover = move(sticky_chain, ensemble, SiteSelector(STICKY_WEIGHTS), max_length=MAX_LENGTH)
    sampled = sample_paths(mover, sticky_chain.sample_set(ensemble, range(4)), n_steps, seed=4)
    assert max(map(len, sampled)) == MAX_LENGTH
    assert_exact(sampled, sticky_chain.exact([(0, 1)], max_length=MAX_LENGTH))


class LimitPerLeg(WrongMover):
    """Each leg may be half a path long, so that the long paths come from few shooting points."""

    def mistake(self, old, trial, details):
        return float(max(details["leg_lengths"]) <= (MAX_LENGTH + 1) // 2)


def test_control_limit_per_leg(sticky_chain):
    ensemble = one_directional(sticky_chain)
    mover = two_way(sticky_chain, ensemble, SiteSelector(STICKY_WEIGHTS), LimitPerLeg, max_length=MAX_LENGTH)
    sampled = sample_paths(mover, sticky_chain.sample_set(ensemble, range(4)), N_STEPS, seed=4)
    assert_wrong(sampled, sticky_chain.exact([(0, 1)], max_length=MAX_LENGTH))


# ---- three states ---------------------------------------------------------------------------------------------------

ALL_PAIRS = list(itertools.permutations(range(3), 2))
STAR_WEIGHTS = [0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 3.0]


@pytest.mark.parametrize("move", [two_way, one_way])
def test_three_states_with_all_pairs(star, move, n_steps):
    ensemble = all_to_all(star)
    mover = move(star, ensemble, SiteSelector(STAR_WEIGHTS))
    sampled = sample_paths(mover, star.sample_set(ensemble, [0, 3, 6, 4, 1]), n_steps, seed=5)
    assert_exact(sampled, star.exact(ALL_PAIRS))


def test_control_three_states_without_the_ratio(star):
    ensemble = all_to_all(star)
    mover = two_way(star, ensemble, SiteSelectorWithoutRatio(STAR_WEIGHTS))
    sampled = sample_paths(mover, star.sample_set(ensemble, [0, 3, 6, 4, 1]), N_STEPS, seed=5)
    assert_wrong(sampled, star.exact(ALL_PAIRS))


# ---- committor selector ---------------------------------------------------------------------------------------------


def model_version(number, logits, density_sites=()):
    """A model version with given logits, (n_sites,) or (n_sites, n_states), and the density of given frames."""
    model = ModelOfSites(logits)
    density = None
    if len(density_sites):
        log_committor = model.log_committor(np.array(density_sites, dtype=float)[:, None])
        density = CommittorDensity.from_frames(log_committor, np.ones(len(density_sites)), uniform_weight=1.0)
    return ModelVersion(number, model.frozen_copy(), density)


def learner_with(chain, version):
    learner = CommittorLearner(lambda path: site_indices(path)[:, None], chain.states, model=version.model)
    publish(learner, version)
    return learner


def publish(learner, version):
    learner.publish(replace(learner.learned, version=version))


WRONG_MODEL = [0.0, -5.0, -4.0, -3.0, 0.0, 0.0]
"""Log-odds of a model that takes the last site before B for the transition state."""


@pytest.mark.parametrize("move", [two_way, pytest.param(ops_two_way, marks=pytest.mark.slow), ops_one_way])
def test_committor_selector_with_a_wrong_model(chain, move, n_steps):
    ensemble = one_directional(chain)
    selector = CommittorSelector(learner_with(chain, model_version(7, WRONG_MODEL, [1, 1, 2, 3, 4, 4, 4, 4])))
    mover = move(chain, ensemble, selector)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), n_steps, seed=6)
    assert_exact(sampled, chain.exact([(0, 1)]))


def test_control_committor_selector_without_the_ratio(chain):
    ensemble = one_directional(chain)
    version = model_version(7, WRONG_MODEL, [1, 1, 2, 3, 4, 4, 4, 4])
    mover = two_way(chain, ensemble, CommittorSelectorWithoutRatio(learner_with(chain, version)))
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), N_STEPS, seed=6)
    assert_wrong(sampled, chain.exact([(0, 1)]))


@pytest.mark.parametrize("move", [pytest.param(two_way, marks=pytest.mark.slow), ops_one_way])
def test_committor_selector_in_an_interface_ensemble(chain, move, n_steps):
    ensemble = interface(chain)
    selector = CommittorSelector(learner_with(chain, model_version(0, WRONG_MODEL)))
    mover = move(chain, ensemble, selector)
    sampled = sample_paths(mover, chain.sample_set(ensemble, range(6)), n_steps, seed=7)
    assert_exact(sampled, exact_interface(chain))


def test_committor_selector_of_three_states(star, n_steps):
    logits = np.random.default_rng(8).normal(0.0, 2.0, (7, 3))
    version = model_version(0, logits, [3, 3, 4, 5, 6, 6, 6])
    network = paths.TPSNetwork.from_states_all_to_all(star.states)
    scheme = CommittorShootingScheme(
        network, learner_with(star, version), star.engine, modifier=paths.NoModification(as_copy=True)
    )
    start = star.sample_set(network.sampling_ensembles[0], [0, 3, 6, 4, 1])
    sampled = sample_paths(scheme.move_decision_tree(), start, n_steps, seed=8)
    assert_exact(sampled, star.exact(ALL_PAIRS))


# ---- model versions that change -------------------------------------------------------------------------------------

VERSIONS = tuple(
    model_version(number, np.log([1.0, *weights, 1.0])) for number, weights in ((1, (0.1, 9.0)), (2, (1.3, 4.6)))
)
"""Two models of the sticky chain; with the weight `np.exp` the sites between the states get the weights given here."""


class Alternating:
    """Publishes another model version before each step of a mover."""

    def __init__(self, mover, learner):
        self.mover = mover
        self.learner = learner
        self._versions = itertools.cycle(VERSIONS)

    def move(self, sample_set):
        publish(self.learner, next(self._versions))
        return self.mover.move(sample_set)


def test_each_step_is_exact_whatever_version_it_uses(sticky_chain, n_steps):
    """Versions that change for ever, by the count of the steps: every step keeps the ensemble, so all do."""
    ensemble, learner = one_directional(sticky_chain), learner_with(sticky_chain, VERSIONS[0])
    mover = Alternating(two_way(sticky_chain, ensemble, CommittorSelector(learner, weight=np.exp)), learner)
    sampled = sample_paths(mover, sticky_chain.sample_set(ensemble, range(4)), n_steps, seed=9)
    assert_exact(sampled, sticky_chain.exact([(0, 1)]))


OPPOSITE = model_version(3, np.log([1.0, 9.0, 0.1, 1.0]))
"""Wants the sites that the first of these does not want, so that a one-way move, too, shows which of them accepts."""


class PublishedWhileTheLegsRun(CommittorSelector):
    """A new version is published between the pick and the acceptance, as by other chains of the same learner."""

    def choose(self, trajectory):
        publish(self.learner, VERSIONS[0])
        pick = super().choose(trajectory)
        publish(self.learner, OPPOSITE)
        return pick


class VersionChangesAfterThePick(PublishedWhileTheLegsRun):
    """Picks with one model version and accepts with the current one."""

    def choose(self, trajectory):
        return replace(super().choose(trajectory), weights=self.path_weights(trajectory))


@pytest.mark.parametrize("move", [two_way, ops_one_way, pytest.param(ops_two_way, marks=pytest.mark.slow)])
def test_a_version_published_while_the_legs_run_waits_for_the_next_step(sticky_chain, move, n_steps):
    """The moves of this package carry what they picked with; those of OPS do not, and the selector keeps it for them."""
    ensemble = one_directional(sticky_chain)
    selector = PublishedWhileTheLegsRun(learner_with(sticky_chain, VERSIONS[0]), weight=np.exp)
    mover = move(sticky_chain, ensemble, selector)
    sampled = sample_paths(mover, sticky_chain.sample_set(ensemble, range(4)), n_steps, seed=9)
    assert_exact(sampled, sticky_chain.exact([(0, 1)]))


class NewerVersionForTheNewPath(CommittorSelector):
    """Weighs the new path with a newer model version than the old path."""

    def choose(self, trajectory):
        publish(self.learner, VERSIONS[0])
        return super().choose(trajectory)

    def ratio(self, pick, new_trajectory, new_index):
        old = pick.weights.log_probability(pick.index)
        return np.exp(self.path_weights(new_trajectory, VERSIONS[1]).log_probability(new_index) - old)


class DensityOfTheOldPath(CommittorSelector):
    """Takes the density from the current path alone and uses it for the new path too."""

    def choose(self, trajectory):
        frames = self.learner.path_frames(trajectory)
        log_committor = self.learner.model.log_committor(frames.descriptors[frames.selectable])
        density = CommittorDensity.from_frames(log_committor, np.ones(len(log_committor)), uniform_weight=0.1)
        publish(self.learner, replace(self.learner.version, density=density))
        return super().choose(trajectory)


@pytest.mark.parametrize(
    "wrong, weights, move",
    [
        (VersionChangesAfterThePick, (1.3, 4.6), two_way),
        (VersionChangesAfterThePick, (1.3, 4.6), ops_one_way),
        (NewerVersionForTheNewPath, (1.3, 4.6), two_way),
        (DensityOfTheOldPath, (1.0, 0.5), two_way),
    ],
)
def test_control_another_version_within_a_step(sticky_chain, wrong, weights, move):
    ensemble = one_directional(sticky_chain)
    version = model_version(3, np.log([1.0, *weights, 1.0]))
    selector = wrong(learner_with(sticky_chain, version), weight=np.exp)
    mover = move(sticky_chain, ensemble, selector)
    sampled = sample_paths(mover, sticky_chain.sample_set(ensemble, range(4)), N_STEPS, seed=9)
    assert_wrong(sampled, sticky_chain.exact([(0, 1)]))


QUICK_FITS = {"max_epochs": 10, "auxiliary_weights": (0.0, 0.0), "relevance": None}
"""The trainings are many, and what they learn is not the claim."""


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


def sample_adaptively(chain, shooting, selector_class, n_steps, tmp_path):
    """Path sampling as users run it: a model that learns, and trains less and less often."""
    learner = CommittorLearner(lambda path: site_indices(path)[:, None], chain.states, seed=1, fit_options=QUICK_FITS)
    network = paths.TPSNetwork(*chain.states)
    modifier = paths.NoModification(as_copy=True) if shooting == "two-way" else None
    scheme = CommittorShootingScheme(
        network, learner, chain.engine, shooting=shooting, selector=selector_class(learner), modifier=modifier
    )
    start = scheme.initial_conditions_from_trajectories([chain.engine.trajectory(range(chain.n_sites))])
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    recorder = Recorder()
    sampler.attach_hook(TrainingHook(learner))
    sampler.attach_hook(recorder)
    with open(tmp_path / "progress", "w") as sampler.output_stream:
        sampler.run(N_EQUILIBRATION + n_steps)
    return recorder.sampled[N_EQUILIBRATION:], learner


@pytest.mark.parametrize("shooting", ["two-way", pytest.param("one-way", marks=pytest.mark.slow)])
def test_a_model_that_learns_while_it_samples(chain, shooting, tmp_path, n_steps):
    sampled, learner = sample_adaptively(chain, shooting, CommittorSelector, n_steps, tmp_path)
    assert learner.version.number > 10
    assert_exact(sampled, chain.exact([(0, 1)]))


def test_control_a_model_that_learns_without_the_ratio(chain, tmp_path):
    sampled, _ = sample_adaptively(chain, "two-way", CommittorSelectorWithoutRatio, N_STEPS // 2, tmp_path)
    assert_wrong(sampled, chain.exact([(0, 1)]))
